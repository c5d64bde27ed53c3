/* tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json as GGUF keys, so
 * that other programs can use the file; and, under a key of our own, tokenizer.json itself: GGUF's form of a
 * vocabulary leaves out normalizers and pre-tokenizers that have no name there. See docs/formats/gguf-keys.md.
 *
 * Two kinds exist: byte-level BPE ("gpt2", merges) and SentencePiece-style BPE ("llama", scores; a merge's
 * rank becomes the negated score of what it makes, which asks for the same merges in the same order). */
#include "quantize/quantize_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"

enum token_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

enum { MAX_TOKENIZER = 256 << 20, MAX_SMALL = 16 << 20, MAX_TOKENS = 1 << 24 };

struct vocab {
	struct qz_plan *plan;
	const char *folder;
	const json_t *config;
	json_t *tokenizer, *tokenizer_config, *generation;
	struct base_buf raw; /* tokenizer.json */
	const json_t *model, *vocab, *added;
	bool bytes; /* byte-level */
	uint32_t n;
	const char **texts;
	size_t *lens;
	int32_t *types;
	float *scores;
	struct err *err;
};

static void vocab_done(struct vocab *v)
{
	json_decref(v->tokenizer);
	json_decref(v->tokenizer_config);
	json_decref(v->generation);
	base_buf_done(&v->raw);
	free(v->texts);
	free(v->lens);
	free(v->types);
	free(v->scores);
}

/* Reads FOLDER/name; 0 when there is none, 1 when read. */
static int read_optional(struct vocab *v, const char *name, size_t max, struct base_buf *buf)
{
	struct err inner = { 0 };
	char path[4096];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", v->folder, name) >= (int)sizeof(path))
		return err_set(v->err, -ENAMETOOLONG, "%s: path too long", v->folder);
	base_buf_init(buf, max);
	r = base_read_file(path, buf, &inner);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? err_set(v->err, r, "%s", inner.msg) : 1;
}

static int read_json(struct vocab *v, const char *name, json_t **ret)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(MAX_SMALL);
	int r = read_optional(v, name, MAX_SMALL, &buf);

	if (r <= 0)
		return r;
	r = base_json_parse(name, base_buf_text(&buf), buf.len, ret, v->err);
	if (r == 0 && !json_is_object(*ret))
		r = err_set(v->err, -EBADMSG, "%s: expected an object", name);
	return r;
}

/* ---- Tokens ------------------------------------------------------------------------------------------- */

static int bad(struct vocab *v, const char *what)
{
	return err_set(v->err, -EBADMSG, "tokenizer.json: %s", what);
}

/* ByteLevel anywhere in a pre-tokenizer or decoder, possibly inside a Sequence. */
static bool has_type(const json_t *node, const char *type, int depth)
{
	static const char *const lists[] = { "pretokenizers", "decoders" };
	const json_t *item;
	size_t i;

	if (!json_is_object(node) || depth > 4)
		return false;
	if (json_is_string(json_object_get(node, "type")) &&
	    strcmp(json_string_value(json_object_get(node, "type")), type) == 0)
		return true;
	for (size_t l = 0; l < 2; l++) {
		json_array_foreach(json_object_get(node, lists[l]), i, item)
		{
			if (has_type(item, type, depth + 1))
				return true;
		}
	}
	return false;
}

static int put_token(struct vocab *v, const json_t *id, const char *text, size_t len, enum token_type type)
{
	json_int_t i = json_integer_value(id);

	if (!json_is_integer(id) || i < 0 || i >= v->n)
		return bad(v, "a token's id is out of range");
	v->texts[i] = text;
	v->lens[i] = len;
	v->types[i] = (int32_t)type;
	return 0;
}

static bool is_byte_token(const char *text)
{
	return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>';
}

/* Highest id + 1 of the file, at least config.json's vocab_size (the rest is padding). */
static int count_tokens(struct vocab *v)
{
	json_int_t max = -1;
	const json_t *item;
	const char *key;
	uint32_t n = 0;
	size_t i;
	int r;

	json_object_foreach((json_t *)v->vocab, key, item) max =
	        json_integer_value(item) > max ? json_integer_value(item) : max;
	json_array_foreach(v->added, i, item)
	{
		const json_t *id = json_object_get(item, "id");

		max = json_integer_value(id) > max ? json_integer_value(id) : max;
	}
	r = base_json_opt_u32(v->config, "config.json", "vocab_size", &n, v->err);
	if (r < 0)
		return r;
	if (max >= MAX_TOKENS || n > MAX_TOKENS)
		return bad(v, "a token's id is out of range");
	v->n = max + 1 > n ? (uint32_t)(max + 1) : n;
	v->texts = (const char **)calloc(v->n + 1, sizeof(*v->texts));
	v->lens = calloc(v->n + 1, sizeof(*v->lens));
	v->types = calloc(v->n + 1, sizeof(*v->types));
	v->scores = calloc(v->n + 1, sizeof(*v->scores));
	return v->texts && v->lens && v->types && v->scores ? 0 : err_set(v->err, -ENOMEM, "out of memory");
}

static int fill_padding(struct vocab *v)
{
	for (uint32_t i = 0; i < v->n; i++) {
		char pad[32];
		int len;

		if (v->texts[i])
			continue;
		len = snprintf(pad, sizeof(pad), "[PAD%u]", i);
		v->texts[i] = eng_arena_copy(&v->plan->arena, pad, (size_t)len);
		if (!v->texts[i])
			return err_set(v->err, -ENOMEM, "out of memory");
		v->lens[i] = (size_t)len;
		v->types[i] = UNUSED;
	}
	return 0;
}

static int collect_tokens(struct vocab *v)
{
	const char *unk = json_string_value(json_object_get(v->model, "unk_token")), *key;
	const json_t *item;
	size_t i;
	int r;

	r = count_tokens(v);
	if (r < 0)
		return r;
	json_object_foreach((json_t *)v->vocab, key, item)
	{
		enum token_type type = !v->bytes && is_byte_token(key)             ? BYTE
		                       : !v->bytes && unk && strcmp(key, unk) == 0 ? UNKNOWN
		                                                                   : NORMAL;

		r = put_token(v, item, key, strlen(key), type);
		if (r < 0)
			return r;
	}
	json_array_foreach(v->added, i, item)
	{
		const json_t *content = json_object_get(item, "content"), *id = json_object_get(item, "id");
		const char *text = json_string_value(content);
		bool unknown = !v->bytes && text && unk && strcmp(text, unk) == 0;

		if (!text)
			return bad(v, "an added token has no content");
		r = put_token(v, id, text, json_string_length(content),
		              unknown                                          ? UNKNOWN
		              : json_is_true(json_object_get(item, "special")) ? CONTROL
		                                                               : USER_DEFINED);
		if (r < 0)
			return r;
	}
	return fill_padding(v);
}

/* ---- Merges ------------------------------------------------------------------------------------------- */

/* "a b", from either form that tokenizer.json has; in the arena. */
static const char *merge_text(struct vocab *v, const json_t *merge, size_t *ret_len)
{
	const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
	size_t na = json_string_length(a), nb = json_string_length(b);
	char *text;

	if (json_is_string(merge)) {
		*ret_len = json_string_length(merge);
		return json_string_value(merge);
	}
	if (!json_is_string(a) || !json_is_string(b))
		return NULL;
	text = eng_arena_alloc(&v->plan->arena, na + nb + 1);
	if (!text)
		return NULL;
	memcpy(text, json_string_value(a), na);
	text[na] = ' ';
	memcpy(text + na + 1, json_string_value(b), nb);
	*ret_len = na + nb + 1;
	return text;
}

/* The token that a merge makes gets the negated rank as its score. */
static int score_merge(struct vocab *v, const char *merge, size_t len, size_t rank)
{
	const char *space = memchr(merge + (len > 0), ' ', len > 0 ? len - 1 : 0);
	char joined[1024];
	const json_t *id;
	size_t left;

	if (!space || len >= sizeof(joined))
		return 0;
	left = (size_t)(space - merge);
	memcpy(joined, merge, left);
	memcpy(joined + left, space + 1, len - left - 1);
	joined[len - 1] = '\0';
	id = json_object_get(v->vocab, joined);
	if (json_is_integer(id) && v->scores[json_integer_value(id)] == 0.0f)
		v->scores[json_integer_value(id)] = -(float)(rank + 1);
	return 0;
}

static int write_merges(struct vocab *v)
{
	const json_t *merges = json_object_get(v->model, "merges"), *item;
	size_t n = json_array_size(merges), i;
	CLEANUP(freep) const char **texts = (const char **)calloc(n + 1, sizeof(*texts));
	CLEANUP(freep) size_t *lens = calloc(n + 1, sizeof(*lens));

	if (!texts || !lens)
		return err_set(v->err, -ENOMEM, "out of memory");
	json_array_foreach(merges, i, item)
	{
		texts[i] = merge_text(v, item, &lens[i]);
		if (!texts[i])
			return bad(v, "merges: expected pairs of strings");
		if (!v->bytes)
			(void)score_merge(v, texts[i], lens[i], i);
	}
	if (v->bytes)
		return eng_gguf_add_strings(v->plan->writer, "tokenizer.ggml.merges", texts, lens, n);
	return eng_gguf_add_f32s(v->plan->writer, "tokenizer.ggml.scores", v->scores, v->n);
}

/* ---- The names of pre-tokenizers ------------------------------------------------------------------------ */

static const struct {
	const char *name, *regex; /* of the first Split */
} pre_tokenizers[] = {
	{ "llama-bpe",
	  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
	  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
	{ "qwen2", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
	           "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
	{ "deepseek-v3", "\\p{N}{1,3}" },
	{ "gpt-4o",
	  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|"
	  "'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|"
	  "'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
};

static const char *first_regex(const json_t *pre)
{
	const json_t *list = json_object_get(pre, "pretokenizers"), *first;

	first = json_is_array(list) ? json_array_get(list, 0) : pre;
	return json_string_value(json_object_get(json_object_get(first, "pattern"), "Regex"));
}

static const char *pre_name(struct vocab *v)
{
	const json_t *pre = json_object_get(v->tokenizer, "pre_tokenizer");
	const char *regex = first_regex(pre);

	if (!v->bytes)
		return "default";
	if (!regex && json_is_true(json_object_get(pre, "use_regex")))
		return "gpt-2";
	for (size_t i = 0; regex && i < sizeof(pre_tokenizers) / sizeof(pre_tokenizers[0]); i++) {
		if (strcmp(regex, pre_tokenizers[i].regex) == 0)
			return pre_tokenizers[i].name;
	}
	qz_note(v->plan, "the pre-tokenizer has no name in GGUF: written as 'default', other programs may split text "
	                 "differently");
	return "default";
}

/* ---- Special tokens --------------------------------------------------------------------------------------- */

/* The id of a token by its text, among the added ones first; -1. */
static json_int_t find_id(const struct vocab *v, const char *text)
{
	const json_t *item, *id;
	size_t i;

	json_array_foreach(v->added, i, item)
	{
		const char *content = json_string_value(json_object_get(item, "content"));

		if (content && strcmp(content, text) == 0)
			return json_integer_value(json_object_get(item, "id"));
	}
	id = json_object_get(v->vocab, text);
	return json_is_integer(id) ? json_integer_value(id) : -1;
}

/* tokenizer_config.json names the token ("bos_token": text, or an object with content); else config.json has
 * its number. */
static json_int_t special_id(const struct vocab *v, const char *kind)
{
	char key[64];
	const json_t *value;
	const char *text;

	(void)snprintf(key, sizeof(key), "%s_token", kind);
	value = json_object_get(v->tokenizer_config, key);
	text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
	if (text && find_id(v, text) >= 0)
		return find_id(v, text);
	(void)snprintf(key, sizeof(key), "%s_token_id", kind);
	value = json_object_get(v->config, key);
	if (json_is_array(value))
		value = json_array_get(value, 0);
	return json_is_integer(value) ? json_integer_value(value) : -1;
}

static int write_special(struct vocab *v)
{
	static const struct {
		const char *kind, *key;
	} specials[] = {
		{ "bos", "tokenizer.ggml.bos_token_id" },
		{ "eos", "tokenizer.ggml.eos_token_id" },
		{ "unk", "tokenizer.ggml.unknown_token_id" },
		{ "pad", "tokenizer.ggml.padding_token_id" },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(specials) / sizeof(specials[0]); i++) {
		json_int_t id = special_id(v, specials[i].kind);

		if (id >= 0 && id < v->n)
			r = eng_gguf_add_u32(v->plan->writer, specials[i].key, (uint32_t)id);
	}
	return r;
}

/* Whether the post-processor of a single text puts a special token at that end. */
static bool adds_special(const json_t *post, bool at_end, int depth)
{
	const json_t *single = json_object_get(post, "single"), *list = json_object_get(post, "processors"), *item;
	size_t n = json_array_size(single), i;

	if (depth > 4)
		return false;
	json_array_foreach(list, i, item)
	{
		if (adds_special(item, at_end, depth + 1))
			return true;
	}
	return n > 0 && json_object_get(json_array_get(single, at_end ? n - 1 : 0), "SpecialToken") != NULL;
}

static bool puts_space_first(const struct vocab *v)
{
	const json_t *normalizer = json_object_get(v->tokenizer, "normalizer"), *item;
	const json_t *pre = json_object_get(v->tokenizer, "pre_tokenizer");
	const char *scheme = json_string_value(json_object_get(pre, "prepend_scheme"));
	size_t i;

	json_array_foreach(json_object_get(normalizer, "normalizers"), i, item)
	{
		if (json_object_get(item, "prepend"))
			return true;
	}
	return json_object_get(normalizer, "prepend") || (scheme && strcmp(scheme, "never") != 0);
}

static int write_flags(struct vocab *v)
{
	const json_t *post = json_object_get(v->tokenizer, "post_processor");
	struct eng_gguf_writer *w = v->plan->writer;
	int r;

	r = eng_gguf_add_bool(w, "tokenizer.ggml.add_bos_token", adds_special(post, false, 0));
	r = r == 0 ? eng_gguf_add_bool(w, "tokenizer.ggml.add_eos_token", adds_special(post, true, 0)) : r;
	if (r == 0 && !v->bytes)
		r = eng_gguf_add_bool(w, "tokenizer.ggml.add_space_prefix", puts_space_first(v));
	return r;
}

/* ---- The tokenizer as a whole ------------------------------------------------------------------------------ */

static int read_tokenizer(struct vocab *v)
{
	const char *type;
	int r;

	r = base_json_parse("tokenizer.json", base_buf_text(&v->raw), v->raw.len, &v->tokenizer, v->err);
	if (r < 0)
		return r;
	v->model = json_object_get(v->tokenizer, "model");
	v->vocab = json_object_get(v->model, "vocab");
	v->added = json_object_get(v->tokenizer, "added_tokens");
	type = json_string_value(json_object_get(v->model, "type"));
	if (type && strcmp(type, "BPE") != 0)
		return err_set(v->err, -ENOTSUP, "tokenizer.json: a vocabulary of type %s cannot be written", type);
	if (!json_is_object(v->vocab))
		return bad(v, "model.vocab: expected an object");
	v->bytes = has_type(json_object_get(v->tokenizer, "pre_tokenizer"), "ByteLevel", 0) ||
	           has_type(json_object_get(v->tokenizer, "decoder"), "ByteLevel", 0);
	return collect_tokens(v);
}

static int write_tokenizer(struct vocab *v)
{
	struct eng_gguf_writer *w = v->plan->writer;
	const char *model = v->bytes ? "gpt2" : "llama", *pre = pre_name(v);
	int r;

	r = eng_gguf_add_string(w, "tokenizer.ggml.model", model, strlen(model));
	r = r == 0 ? eng_gguf_add_string(w, "tokenizer.ggml.pre", pre, strlen(pre)) : r;
	r = r == 0 ? eng_gguf_add_strings(w, "tokenizer.ggml.tokens", v->texts, v->lens, v->n) : r;
	r = r == 0 ? eng_gguf_add_i32s(w, "tokenizer.ggml.token_type", v->types, v->n) : r;
	r = r == 0 ? write_merges(v) : r;
	r = r == 0 ? write_special(v) : r;
	r = r == 0 ? write_flags(v) : r;
	return r == 0 ? eng_gguf_add_string(w, "ocai.tokenizer_json", v->raw.data, v->raw.len) : r;
}

/* ---- Template and sampling defaults ------------------------------------------------------------------------- */

/* tokenizer_config.json has one text, or a list of named ones of which "default" counts. */
static const char *configured_template(const struct vocab *v)
{
	const json_t *value = json_object_get(v->tokenizer_config, "chat_template"), *item;
	size_t i;

	json_array_foreach(value, i, item)
	{
		const char *name = json_string_value(json_object_get(item, "name"));

		if (name && strcmp(name, "default") == 0)
			return json_string_value(json_object_get(item, "template"));
	}
	return json_string_value(value);
}

static int write_template(struct vocab *v)
{
	CLEANUP(base_buf_done) struct base_buf file = BASE_BUF_INIT(MAX_SMALL);
	const char *text;
	int r = read_optional(v, "chat_template.jinja", MAX_SMALL, &file);

	if (r < 0)
		return r;
	text = r > 0 ? base_buf_text(&file) : configured_template(v);
	return text ? eng_gguf_add_string(v->plan->writer, "tokenizer.chat_template", text, strlen(text)) : 0;
}

static int write_sampling(struct vocab *v)
{
	static const struct {
		const char *from, *to;
	} floats[] = {
		{ "temperature", "general.sampling.temp" },
		{ "top_p", "general.sampling.top_p" },
		{ "min_p", "general.sampling.min_p" },
		{ "repetition_penalty", "general.sampling.penalty_repeat" },
	};
	struct eng_gguf_writer *w = v->plan->writer;
	const json_t *value, *item;
	int r = 0;
	size_t i;

	for (i = 0; r == 0 && i < sizeof(floats) / sizeof(floats[0]); i++) {
		value = json_object_get(v->generation, floats[i].from);
		if (json_is_number(value))
			r = eng_gguf_add_f32(w, floats[i].to, (float)json_number_value(value));
	}
	value = json_object_get(v->generation, "top_k");
	if (r == 0 && json_is_integer(value) && json_integer_value(value) > 0)
		r = eng_gguf_add_u32(w, "general.sampling.top_k", (uint32_t)json_integer_value(value));
	value = json_object_get(v->generation, "eos_token_id");
	if (r == 0 && json_is_array(value)) {
		int32_t ids[64];
		uint64_t n = 0;

		json_array_foreach(value, i, item)
		{
			if (n < 64 && json_is_integer(item))
				ids[n++] = (int32_t)json_integer_value(item);
		}
		r = eng_gguf_add_i32s(w, "ocai.generation.eos_token_ids", ids, n);
		if (r == 0 && n > 1 && ids[1] >= 0) /* other programs know one more that ends a turn */
			r = eng_gguf_add_u32(w, "tokenizer.ggml.eot_token_id",
			                     (uint32_t)(ids[0] == special_id(v, "eos") ? ids[1] : ids[0]));
	}
	return r;
}

int qz_write_vocab(struct qz_plan *plan, const char *folder, const json_t *config, struct err *err)
{
	CLEANUP(vocab_done) struct vocab v = { .plan = plan, .folder = folder, .config = config, .err = err };
	int r, has_tokenizer;

	has_tokenizer = read_optional(&v, "tokenizer.json", MAX_TOKENIZER, &v.raw);
	r = has_tokenizer < 0 ? has_tokenizer : read_json(&v, "tokenizer_config.json", &v.tokenizer_config);
	r = r < 0 ? r : read_json(&v, "generation_config.json", &v.generation);
	if (r < 0)
		return r;
	if (!has_tokenizer) {
		qz_note(plan, "%s has no tokenizer.json: written without a vocabulary", folder);
		r = eng_gguf_add_string(plan->writer, "tokenizer.ggml.model", "none", 4);
	} else {
		r = read_tokenizer(&v);
		r = r == 0 ? write_tokenizer(&v) : r;
	}
	r = r == 0 ? write_template(&v) : r;
	r = r == 0 ? write_sampling(&v) : r;
	if (r < 0 && err && !err->code)
		return err_set(err, r, "%s: writing the vocabulary: %s", folder, strerror(-r));
	return r;
}
