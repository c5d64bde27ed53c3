/* ocai-engine tokenize: what the model's tokenizer makes of a text, and back. Reads no weights. */
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"

struct tokenize {
	struct model_options m;
	bool ids, decode, no_special, add_special;
};

const struct opt cmd_tokenize_opts[] = {
	{ "model", 'm', OPT_STR, offsetof(struct tokenize, m.model), "PATH",
	  "Hugging Face folder or GGUF file [the embedded model]", NULL },
	{ "ids", 'i', OPT_FLAG, offsetof(struct tokenize, ids), NULL, "only the ids, on one line", NULL },
	{ "decode", 'd', OPT_FLAG, offsetof(struct tokenize, decode), NULL, "from ids to text", NULL },
	{ "add-special", 0, OPT_FLAG, offsetof(struct tokenize, add_special), NULL,
	  "add the tokens that begin and end a text", NULL },
	{ "no-parse-special", 0, OPT_FLAG, offsetof(struct tokenize, no_special), NULL,
	  "special tokens spelled in the text are ordinary text", NULL },
	{ 0 }
};

static int print_tokens(const struct tokenize *o, struct eng_engine *e, const char *text, size_t len, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf piece = BASE_BUF_INIT(1 << 20);
	CLEANUP(freep) int32_t *ids = NULL;
	size_t n = 0;
	int r;

	r = eng_tokenize(e, text, len, o->add_special, !o->no_special, &ids, &n, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n && o->ids; i++)
		(void)printf("%s%d", i ? " " : "", ids[i]);
	if (o->ids)
		(void)putchar('\n');
	for (size_t i = 0; i < n && !o->ids; i++) {
		CLEANUP(base_buf_done) struct base_buf quoted = BASE_BUF_INIT(8 << 20);

		base_buf_reset(&piece);
		(void)eng_token_bytes(e, ids[i], &piece);
		(void)base_json_append_string(&quoted, base_buf_text(&piece), piece.len);
		(void)printf("%d\t%s\n", ids[i], base_buf_text(&quoted));
	}
	return 0;
}

/* Numbers separated by spaces, commas, brackets. */
static int parse_ids(const char *text, int32_t **ret_ids, size_t *ret_n, struct err *err)
{
	size_t cap = strlen(text) / 2 + 1, n = 0;
	int32_t *ids = calloc(cap, sizeof(*ids));

	if (!ids)
		return err_set(err, -ENOMEM, "out of memory");
	for (const char *p = text + strspn(text, " \t\r\n,[]"); *p; p += strspn(p, " \t\r\n,[]")) {
		char *end;
		long id = strtol(p, &end, 10);

		if (end == p || id < 0 || id > INT32_MAX || n == cap) {
			free(ids);
			return err_set(err, -EINVAL, "'%.20s' is not a token id", p);
		}
		ids[n++] = (int32_t)id;
		p = end;
	}
	*ret_ids = ids;
	*ret_n = n;
	return 0;
}

static int print_text(struct eng_engine *e, const char *list, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(64 << 20);
	CLEANUP(freep) int32_t *ids = NULL;
	size_t n = 0;
	int r;

	r = parse_ids(list, &ids, &n, err);
	if (r == 0)
		r = eng_detokenize(e, ids, n, false, &text, err);
	if (r < 0)
		return r;
	(void)fwrite(base_buf_text(&text), 1, text.len, stdout);
	(void)putchar('\n');
	return 0;
}

int cmd_tokenize(int argc, char **argv)
{
	struct tokenize o = { 0 };
	CLEANUP(freep) char *text = NULL;
	struct eng_engine *engine = NULL;
	struct eng_options options = { .text_only = true };
	struct err err = { 0 };
	int r, n_args = 0, exit_code = 0;
	size_t len = 0;

	if (command_parse(argc, argv, &o, &n_args, &exit_code) != OPT_RUN)
		return exit_code;
	options.model_path = o.m.model;
	r = read_text(n_args, argv, &text, &len, &err);
	if (r == 0)
		r = eng_engine_open(&options, &engine, &err);
	if (r == 0)
		r = o.decode ? print_text(engine, text, &err) : print_tokens(&o, engine, text, len, &err);
	eng_engine_close(engine);
	return r < 0 ? command_failed(&err) : 0;
}
