/* For tests/integration/engine_grammar.py: reads lines {"kind", "grammar", "instances": [...]} on standard input and
 * prints for each {"error"} or {"accepted": [...]}, by masks over the tokenizer given as argument: every prefix of an
 * instance is taken token by token as its tokenizer cuts it, and byte by byte, which must agree. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "engine.h"
#include "grammar/grammar.h"

static enum eng_grammar_kind kind_of(const char *name)
{
	if (strcmp(name, "regex") == 0)
		return ENG_GRAMMAR_REGEX;
	return strcmp(name, "ebnf") == 0 ? ENG_GRAMMAR_EBNF : ENG_GRAMMAR_JSON_SCHEMA;
}

/* By bytes alone. */
static bool accepts_bytes(struct eng_grammar *g, const char *text, size_t len)
{
	struct eng_matcher *m = NULL;
	bool ok =
	        eng_matcher_new(g, &m) == 0 && eng_matcher_accept_bytes(m, text, len) == len && eng_matcher_can_end(m);

	eng_matcher_free(m);
	return ok;
}

static int check_instance(struct eng_engine *e, struct eng_grammar *g, const json_t *instance, struct base_buf *out)
{
	const char *text = json_string_value(instance);
	size_t len = json_string_length(instance), n = 0;
	struct eng_grammar_verdict v = { 0 };
	struct err err = { 0 };
	int32_t *ids = NULL;
	bool by_bytes;

	if (eng_tokenize(e, text, len, false, false, &ids, &n, &err) < 0 ||
	    eng_grammar_check(e, g, ids, n, &v, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		return 1;
	}
	free(ids);
	by_bytes = accepts_bytes(g, text, len);
	if (by_bytes != v.accepted) {
		(void)fprintf(stderr, "tokens say %d, bytes say %d: %s\n", v.accepted, by_bytes, text);
		return 1;
	}
	(void)base_buf_puts(out, v.accepted ? "true," : "false,");
	return 0;
}

static int check_line(struct eng_engine *e, const char *line, size_t len)
{
	struct base_buf out = BASE_BUF_INIT(16 << 20);
	struct eng_grammar *g = NULL;
	json_t *job = NULL, *grammar, *v;
	struct err err = { 0 };
	size_t i;
	int r = 0;

	if (base_json_parse("line", line, len, &job, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		return 1;
	}
	grammar = json_object_get(job, "grammar");
	if (eng_grammar_compile(e, kind_of(json_string_value(json_object_get(job, "kind"))), json_string_value(grammar),
	                        json_string_length(grammar), &g, &err) < 0) {
		(void)base_buf_puts(&out, "{\"error\":");
		(void)base_json_append_string(&out, err_text(&err), strlen(err_text(&err)));
		(void)base_buf_puts(&out, "}");
	} else {
		(void)base_buf_puts(&out, "{\"accepted\":[");
		json_array_foreach(json_object_get(job, "instances"), i, v) r = r ? r : check_instance(e, g, v, &out);
		if (out.data[out.len - 1] == ',')
			out.len--;
		(void)base_buf_puts(&out, "]}");
	}
	(void)puts(base_buf_text(&out));
	(void)fflush(stdout);
	eng_grammar_unref(g);
	json_decref(job);
	base_buf_done(&out);
	return r;
}

int main(int argc, char **argv)
{
	struct eng_options options = { .model_path = argc > 1 ? argv[1] : NULL, .text_only = true };
	struct eng_engine *e = NULL;
	struct err err = { 0 };
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int r = 0;

	if (eng_engine_open(&options, &e, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		return 1;
	}
	while (r == 0 && (n = getline(&line, &cap, stdin)) > 0)
		r = check_line(e, line, (size_t)n);
	free(line);
	eng_engine_close(e);
	return r;
}
