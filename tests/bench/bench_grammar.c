/* Structured output: time per mask and per compilation over grammar_schemas.jsonl, whose lines hold a schema and an
 * instance, both written for this project. Where a line says "variants", the schema is also taken closed (every
 * property required, nothing else) and as the items of a list behind a $ref; 100 schemas and more in all. Each instance
 * is written compactly and indented; every one must be accepted.
 *
 *   bench_grammar                    over a made-up vocabulary of 150,000 tokens
 *   bench_grammar MODEL              over that of a model (folder or GGUF file)
 *
 * Times are of the processor, so that neighbours do not count. One mask per token, caches cold at the start of the
 * program and shared as a server shares them. One JSON line per figure. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "grammar/grammar.h"
#include "tokenizer/tokenizer.h"

enum { N_VOCAB = 150000, MAX_TIMES = 1 << 20, MAX_TOKEN = 24 };

struct vocabulary {
	struct grammar_vocab *vocab;
	uint8_t **tokens;
	uint32_t *lens, n;
	uint32_t *table, table_size; /* by bytes, for cutting texts */
};

struct times {
	double *us;
	size_t n, n_forced; /* n_forced: masks with one token, which no model need be asked for */
};

static double now_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void print_value(const char *what, const char *unit, double value, double limit)
{
	printf("{\"bench\":\"grammar\",\"case\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",", what, value, unit);
	if (limit > 0)
		printf("\"limit\":%.4g,\"share\":%.4g,", limit, value / limit);
	else
		printf("\"limit\":null,\"share\":null,");
	printf("\"peer\":null,\"ratio\":null}\n");
}

static void print_times(const char *what, struct times *t, double limit)
{
	char name[64];
	double sum = 0;

	qsort(t->us, t->n, sizeof(*t->us), compare);
	for (size_t i = 0; i < t->n; i++)
		sum += t->us[i];
	(void)snprintf(name, sizeof(name), "%s average", what);
	print_value(name, "us", sum / (double)t->n, limit);
	(void)snprintf(name, sizeof(name), "%s p50", what);
	print_value(name, "us", t->us[t->n / 2], 0);
	(void)snprintf(name, sizeof(name), "%s p99", what);
	print_value(name, "us", t->us[t->n * 99 / 100], 0);
	(void)snprintf(name, sizeof(name), "%s worst", what);
	print_value(name, "us", t->us[t->n - 1], 0);
}

/* ---- A vocabulary ---- */

static uint32_t hash(const uint8_t *p, uint32_t len)
{
	uint32_t h = 2166136261u;

	for (uint32_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 16777619u;
	return h;
}

static uint32_t slot(const struct vocabulary *v, const uint8_t *p, uint32_t len)
{
	uint32_t i = hash(p, len) & (v->table_size - 1);

	while (v->table[i] && (v->lens[v->table[i] - 1] != len || memcmp(v->tokens[v->table[i] - 1], p, len) != 0))
		i = (i + 1) & (v->table_size - 1);
	return i;
}

static void add(struct vocabulary *v, const void *p, size_t len)
{
	uint32_t i = slot(v, p, (uint32_t)len);

	if (v->table[i] || len == 0)
		return;
	v->tokens[v->n] = malloc(len);
	memcpy(v->tokens[v->n], p, len);
	v->lens[v->n] = (uint32_t)len;
	v->table[i] = ++v->n;
}

static void vocabulary_init(struct vocabulary *v, uint32_t max)
{
	memset(v, 0, sizeof(*v));
	v->table_size = 1;
	while (v->table_size < 4 * max)
		v->table_size *= 2;
	v->tokens = calloc(max, sizeof(uint8_t *));
	v->lens = calloc(max, sizeof(*v->lens));
	v->table = calloc(v->table_size, sizeof(*v->table));
	if (!v->tokens || !v->lens || !v->table)
		exit(1);
}

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (*seed >> 8) % n;
}

/* Of the make of large byte-level vocabularies: bytes, punctuation runs, indentations, numbers of one digit, words with
 * and without a blank in front, and two or three characters of Chinese, some of them cut. */
static void make_up(struct vocabulary *v)
{
	static const char *const punctuation[] = { "\"", ",", ":", "{", "}",  "[", "]", " ", "\n",
		                                   "'",  ".", "-", "/", "\\", "(", ")", ";" };
	static const char *const heads[] = { "b", "c", "d", "f", "g", "h", "l",  "m",  "n",
		                             "p", "r", "s", "t", "v", "w", "st", "tr", "" };
	static const char *const tails[] = { "a",  "e",  "i",  "o",   "u",  "an", "er",
		                             "in", "on", "al", "ing", "ed", "es", "or" };
	uint32_t seed = 7;
	char text[64];

	for (unsigned b = 0; b < 256; b++)
		add(v, &(uint8_t){ (uint8_t)b }, 1);
	while (v->n < 4000) {
		text[0] = '\0';
		for (uint32_t k = 0, n = 2 + random_below(&seed, 3); k < n; k++)
			(void)strncat(text, punctuation[random_below(&seed, 17)], 8);
		add(v, text, strlen(text));
	}
	for (int n = 1; n < 64; n++) {
		(void)snprintf(text, sizeof(text), "\n%*s", n, "");
		add(v, text, strlen(text));
		add(v, text + 1, strlen(text) - 1);
	}
	while (v->n < 30000) {
		uint8_t zh[9];
		uint32_t n = 2 + random_below(&seed, 2);

		for (uint32_t k = 0; k < n; k++) {
			uint32_t cp = 0x4e00 + random_below(&seed, 3000);

			zh[3 * k] = (uint8_t)(0xe0 | cp >> 12);
			zh[3 * k + 1] = (uint8_t)(0x80 | (cp >> 6 & 63));
			zh[3 * k + 2] = (uint8_t)(0x80 | (cp & 63));
		}
		add(v, zh, 3 * n - (random_below(&seed, 8) == 0));
	}
	while (v->n < N_VOCAB) {
		char *p = text;

		if (random_below(&seed, 2))
			*p++ = ' ';
		*p = '\0';
		for (uint32_t k = 0, n = 1 + random_below(&seed, 4); k < n; k++) {
			(void)strncat(text, heads[random_below(&seed, 18)], 8);
			(void)strncat(text, tails[random_below(&seed, 14)], 8);
		}
		if (random_below(&seed, 4) == 0 && *p >= 'a')
			*p = (char)(*p - 32);
		if (random_below(&seed, 60) == 0) /* words with a quote, as in code */
			(void)strncat(text, random_below(&seed, 2) ? "\"" : "\":", 4);
		add(v, text, strlen(text));
	}
	if (gr_grammar_vocab_from((const uint8_t *const *)v->tokens, v->lens, v->n, &v->vocab) < 0)
		exit(1);
}

static void load(struct vocabulary *v, const char *path)
{
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };
	char file[4096];

	(void)snprintf(file, sizeof(file), "%s/tokenizer.json", path);
	if (eng_tokenizer_open(file, &tok, &err) < 0 || gr_grammar_vocab_new(tok, &v->vocab, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		exit(1);
	}
	vocabulary_init(v, eng_tokenizer_n_vocab(tok) + 1);
	for (uint32_t i = 0; i < eng_tokenizer_n_vocab(tok); i++) {
		struct base_buf bytes = BASE_BUF_INIT(1 << 16);
		uint32_t n = v->n;

		if (!eng_tokenizer_is_special(tok, (int32_t)i))
			(void)eng_tokenizer_token_bytes(tok, (int32_t)i, &bytes);
		if (bytes.len > 0)
			add(v, bytes.data, bytes.len);
		if (v->n == n) { /* not in the table, but the number counts */
			v->tokens[v->n] = NULL;
			v->lens[v->n++] = 0;
		}
		base_buf_done(&bytes);
	}
	eng_tokenizer_free(tok);
}

/* ---- Measuring ---- */

/* The longest token first. */
static int32_t next_token(const struct vocabulary *v, const char *text, size_t len)
{
	for (uint32_t n = len < MAX_TOKEN ? (uint32_t)len : MAX_TOKEN; n > 0; n--) {
		uint32_t i = slot(v, (const uint8_t *)text, n);

		if (v->table[i])
			return (int32_t)v->table[i] - 1;
	}
	return -1;
}

static void run(const struct vocabulary *v, struct eng_grammar *g, const char *name, const char *text,
                struct times *masks)
{
	struct eng_matcher *m = NULL;
	size_t len = strlen(text), at = 0;

	if (eng_matcher_new(g, &m) < 0)
		exit(1);
	while (at < len) {
		int32_t id = next_token(v, text + at, len - at);
		double begin = now_us();
		uint32_t n = 0;
		const uint64_t *mask = eng_matcher_mask(m, &n);

		masks->n_forced += mask && n == 1 && !eng_matcher_can_end(m);
		if (masks->n < MAX_TIMES)
			masks->us[masks->n++] = now_us() - begin;
		if (getenv("VERBOSE") && masks->us[masks->n - 1] > 500)
			(void)fprintf(stderr, "%s: %.0f us at %zu: %.20s\n", name, masks->us[masks->n - 1], at,
			              text + at);
		if (!mask || id < 0 || !(mask[id / 64] >> (id % 64) & 1) || eng_matcher_accept(m, id) < 0) {
			(void)fprintf(stderr, "%s: refused at %zu of %s\n", name, at, text);
			exit(1);
		}
		at += v->lens[id];
	}
	if (!eng_matcher_can_end(m)) {
		(void)fprintf(stderr, "%s: cannot end: %s\n", name, text);
		exit(1);
	}
	eng_matcher_free(m);
}

static void measure(const struct vocabulary *v, const char *name, const json_t *schema, const json_t *instance,
                    struct times *compiles, struct times *masks)
{
	char *text = json_dumps(schema, JSON_COMPACT),
	     *compact = json_dumps(instance, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	char *indented =
	        json_dumps(instance, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15));
	struct eng_grammar *g = NULL;
	struct err err = { 0 };
	double begin = now_us();

	if (gr_grammar_compile(v->vocab, ENG_GRAMMAR_JSON_SCHEMA, text, strlen(text), &g, &err) < 0) {
		(void)fprintf(stderr, "%s: %s\n", name, err_text(&err));
		exit(1);
	}
	compiles->us[compiles->n++] = now_us() - begin;
	run(v, g, name, compact, masks);
	run(v, g, name, indented, masks);
	eng_grammar_unref(g);
	free(text);
	free(compact);
	free(indented);
}

/* ---- Variants ---- */

static void close_objects(json_t *schema)
{
	json_t *props = json_object_get(schema, "properties"), *required, *v;
	const char *key;
	void *tmp;
	size_t i;

	json_object_foreach_safe(schema, tmp, key, v) close_objects(v);
	json_array_foreach(schema, i, v) close_objects(v);
	if (!json_is_object(props) || !json_equal(json_object_get(schema, "type"), json_object_get(schema, "type")) ||
	    !json_is_string(json_object_get(schema, "type")))
		return;
	required = json_array();
	json_object_foreach(props, key, v)(void) json_array_append_new(required, json_string(key));
	(void)json_object_set_new(schema, "required", required);
	(void)json_object_set_new(schema, "additionalProperties", json_false());
}

static json_t *list_of(const json_t *schema)
{
	return json_pack("{s:{s:O},s:s,s:{s:{s:s,s:{s:s},s:i},s:{s:[ss]}},s:[s],s:b}", "$defs", "item", schema, "type",
	                 "object", "properties", "items", "type", "array", "items", "$ref", "#/$defs/item", "maxItems",
	                 50, "next", "type", "string", "null", "required", "items", "additionalProperties", 0);
}

static void measure_line(const struct vocabulary *v, const char *line, size_t len, struct times *compiles,
                         struct times *masks)
{
	json_t *all = NULL, *schema, *instance, *closed, *list, *two;
	struct err err = { 0 };
	const char *name;

	if (base_json_parse("grammar_schemas.jsonl", line, len, &all, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		exit(1);
	}
	name = json_string_value(json_object_get(all, "name"));
	schema = json_object_get(all, "schema");
	instance = json_object_get(all, "instance");
	measure(v, name, schema, instance, compiles, masks);
	if (json_is_true(json_object_get(all, "variants"))) {
		closed = json_deep_copy(schema);
		close_objects(closed);
		measure(v, name, closed, instance, compiles, masks);
		list = list_of(closed);
		two = json_pack("{s:[OO],s:n}", "items", instance, instance, "next");
		measure(v, name, list, two, compiles, masks);
		json_decref(closed);
		json_decref(list);
		json_decref(two);
	}
	json_decref(all);
}

int main(int argc, char **argv)
{
	const char *dir = getenv("TESTS_DIR");
	struct base_buf text = BASE_BUF_INIT(16 << 20);
	struct times compiles = { calloc(1000, sizeof(double)), 0, 0 },
	             masks = { calloc(MAX_TIMES, sizeof(double)), 0, 0 };
	struct vocabulary v;
	struct err err = { 0 };
	char path[4096];
	double begin;

	(void)snprintf(path, sizeof(path), "%s/bench/grammar_schemas.jsonl", dir ? dir : "tests");
	if (base_read_file(path, &text, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		return 1;
	}
	begin = now_us();
	if (argc > 1) {
		load(&v, argv[1]);
	} else {
		vocabulary_init(&v, N_VOCAB + 1);
		make_up(&v);
	}
	print_value("vocabulary prepared", "ms", (now_us() - begin) / 1e3, 0);
	for (const char *p = text.data, *end; (end = strchr(p, '\n')); p = end + 1)
		measure_line(&v, p, (size_t)(end - p), &compiles, &masks);
	print_value("schemas", "", (double)compiles.n, 0);
	print_value("tokens", "", (double)masks.n, 0);
	print_value("tokens without a choice", "share", (double)masks.n_forced / (double)masks.n, 0);
	print_times("compile", &compiles, 0);
	print_times("mask", &masks, 200);
	for (uint32_t i = 0; i < v.n; i++)
		free(v.tokens[i]);
	free(v.tokens);
	free(v.lens);
	free(v.table);
	gr_grammar_vocab_unref(v.vocab);
	free(compiles.us);
	free(masks.us);
	base_buf_done(&text);
	return 0;
}
