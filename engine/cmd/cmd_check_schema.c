/* ocai-engine check-schema: whether structured output would let a text through, token by token. Reads no weights. */
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"

enum { MAX_FILE = 16 << 20 };

struct check_schema {
	const char *tokenizer, *schema, *regex, *ebnf, *tags, *instance;
	bool json;
};

const struct opt cmd_check_schema_opts[] = {
	{ "tokenizer", 't', OPT_STR, offsetof(struct check_schema, tokenizer), "PATH",
	  "Hugging Face folder or GGUF file [the embedded model]", NULL },
	{ "schema", 's', OPT_STR, offsetof(struct check_schema, schema), "FILE", "JSON Schema", NULL },
	{ "regex", 0, OPT_STR, offsetof(struct check_schema, regex), "FILE", "regular expression, instead of a schema",
	  NULL },
	{ "ebnf", 0, OPT_STR, offsetof(struct check_schema, ebnf), "FILE", "grammar, instead of a schema", NULL },
	{ "structural-tag", 0, OPT_STR, offsetof(struct check_schema, tags), "FILE",
	  "structural tag (JSON), instead of a schema", NULL },
	{ "instance", 'i', OPT_STR, offsetof(struct check_schema, instance), "FILE",
	  "the text to be checked [standard input]", NULL },
	{ "json", 'j', OPT_FLAG, offsetof(struct check_schema, json), NULL, "machine-readable output", NULL },
	{ 0 }
};

/* One of the files; usage errors are -EINVAL with nothing opened. */
static int pick_grammar(const struct check_schema *o, const char **ret_file, enum eng_grammar_kind *ret_kind,
                        struct err *err)
{
	const struct {
		const char *file;
		enum eng_grammar_kind kind;
	} given[] = { { o->schema, ENG_GRAMMAR_JSON_SCHEMA },
		      { o->regex, ENG_GRAMMAR_REGEX },
		      { o->ebnf, ENG_GRAMMAR_EBNF },
		      { o->tags, ENG_GRAMMAR_STRUCTURAL_TAG } };
	int n = 0;

	for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
		if (!given[i].file)
			continue;
		*ret_file = given[i].file;
		*ret_kind = given[i].kind;
		n++;
	}
	if (n != 1)
		return err_set(err, -EINVAL, "one of --schema, --regex, --ebnf and --structural-tag is needed");
	return 0;
}

static int read_instance(const struct check_schema *o, struct base_buf *out, struct err *err)
{
	CLEANUP(freep) char *text = NULL;
	size_t len = 0;
	int r;

	if (o->instance && strcmp(o->instance, "-") != 0)
		return base_read_file(o->instance, out, err);
	r = read_text(0, NULL, &text, &len, err);
	return r < 0 ? r : base_buf_append(out, text, len);
}

/* White space around a JSON text, and the last end of line of any, are the file's and not the value's. */
static void trim(struct base_buf *text, bool is_json)
{
	while (text->len > 0 && strchr(is_json ? " \t\r\n" : "\n", text->data[text->len - 1]) &&
	       text->data[text->len - 1]) {
		text->data[--text->len] = '\0';
		if (!is_json)
			break;
	}
}

static void print_verdict(const struct check_schema *o, const struct eng_grammar_verdict *v, size_t n_tokens)
{
	CLEANUP(base_buf_done) struct base_buf expected = BASE_BUF_INIT(4096);

	if (!o->json && v->accepted) {
		(void)printf("accepted: %zu tokens\n", n_tokens);
		return;
	}
	if (!o->json) {
		(void)printf("refused at %s %zu, byte %zu; expected: %s\n",
		             v->token == n_tokens ? "the end, token" : "token", v->token, v->offset, v->expected);
		return;
	}
	(void)base_json_append_string(&expected, v->expected, strlen(v->expected));
	(void)printf("{\"accepted\":%s,\"tokens\":%zu", v->accepted ? "true" : "false", n_tokens);
	if (!v->accepted)
		(void)printf(",\"token\":%zu,\"offset\":%zu,\"expected\":%s,\"allowed_tokens\":%u", v->token, v->offset,
		             base_buf_text(&expected), v->n_allowed);
	(void)printf(",\"mask_us_avg\":%.2f,\"mask_us_max\":%.2f}\n",
	             n_tokens ? (double)v->mask_ns / 1e3 / (double)n_tokens : 0.0, (double)v->max_mask_ns / 1e3);
}

static int check(const struct check_schema *o, struct eng_engine *e, const struct base_buf *grammar,
                 enum eng_grammar_kind kind, const struct base_buf *instance, struct eng_grammar_verdict *ret,
                 struct err *err)
{
	CLEANUP(freep) int32_t *ids = NULL;
	struct eng_grammar *g = NULL;
	size_t n = 0;
	int r;

	r = eng_grammar_compile(e, kind, base_buf_text(grammar), grammar->len, &g, err);
	if (r == 0)
		r = eng_tokenize(e, base_buf_text(instance), instance->len, false, false, &ids, &n, err);
	if (r == 0)
		r = eng_grammar_check(e, g, ids, n, ret, err);
	if (r == 0)
		print_verdict(o, ret, n);
	eng_grammar_unref(g);
	return r;
}

/* What cannot be checked (files, a schema that is not supported) is wrong input, not a refusal. */
static int failed(const struct err *err)
{
	(void)command_failed(err);
	return 2;
}

int cmd_check_schema(int argc, char **argv)
{
	CLEANUP(base_buf_done) struct base_buf grammar = BASE_BUF_INIT(MAX_FILE), instance = BASE_BUF_INIT(MAX_FILE);
	struct check_schema o = { 0 };
	struct eng_options options = { .text_only = true };
	struct eng_grammar_verdict verdict = { 0 };
	struct eng_engine *engine = NULL;
	enum eng_grammar_kind kind = ENG_GRAMMAR_JSON_SCHEMA;
	const char *file = NULL;
	struct err err = { 0 };
	int r, n_args = 0, exit_code = 0;

	if (command_parse(argc, argv, &o, &n_args, &exit_code) != OPT_RUN)
		return exit_code;
	if (n_args > 0)
		(void)err_set(&err, -EINVAL, "unexpected argument '%s'", argv[0]);
	if (n_args > 0 || pick_grammar(&o, &file, &kind, &err) < 0)
		return command_usage("check-schema", &err);
	options.model_path = o.tokenizer;
	if ((r = base_read_file(file, &grammar, &err)) == 0 && (r = read_instance(&o, &instance, &err)) == 0)
		r = eng_engine_open(&options, &engine, &err);
	trim(&instance, kind == ENG_GRAMMAR_JSON_SCHEMA);
	if (kind == ENG_GRAMMAR_REGEX)
		trim(&grammar, false);
	if (r == 0)
		r = check(&o, engine, &grammar, kind, &instance, &verdict, &err);
	eng_engine_close(engine);
	if (r < 0)
		return failed(&err);
	return verdict.accepted ? 0 : 1;
}
