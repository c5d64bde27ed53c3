/* ocai QUESTION: the router's choice is said on standard error, then its assistant answers. Options may stand before a
 * subcommand too: "ocai --print cmd ...". */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "front.h"
#include "sys/sys.h"

enum { SAMPLE_S = 2, FACTS_WIDTH = 100 };

const struct opt ask_opts[] = { { "print", 'p', OPT_FLAG, offsetof(struct ag_settings, print), NULL,
	                          "print the answer alone, and no menu", NULL },
	                        { "json", 0, OPT_FLAG, offsetof(struct ag_settings, json), NULL,
	                          "commands: print one JSON object", NULL },
	                        FRONT_BACKEND_OPTS,
	                        { 0 } };

/* Facts first, measured by code; the model only puts them into words. They come in the place of standard input. */
static int add_facts(struct front *f, struct err *err)
{
	const struct ag_sys_options options = { .seconds = SAMPLE_S };
	const struct ag_sys_style style = { .chinese = f->io.chinese, .ascii = true, .width = FACTS_WIDTH };
	CLEANUP(base_buf_done) struct base_buf facts = BASE_BUF_INIT(8 << 20);
	json_t *document = NULL;
	size_t keep;
	int r = ag_sys_collect(AG_SYS_HOST | AG_SYS_SERVICES | AG_SYS_STORAGE | AG_SYS_PERF, &options, &document, err);

	if (r < 0)
		return r;
	/* Findings are enough: a small model drowns in tables. */
	if (json_array_size(json_object_get(document, "findings"))) {
		const json_t *finding;
		size_t i;

		json_array_foreach(json_object_get(document, "findings"), i, finding)(void)
		        base_buf_printf(&facts, "- [%s] %s\n", json_string_value(json_object_get(finding, "severity")),
		                        json_string_value(json_object_get(finding, f->io.chinese ? "zh" : "en")));
	} else {
		r = ag_sys_render(document, &style, &facts);
	}
	json_decref(document);
	if (r < 0 || base_buf_error(&facts))
		return err_set(err, -ENOMEM, "the facts are too many");
	if (!f->s.quiet)
		(void)fprintf(f->io.look.is_terminal ? f->io.out : f->io.err, "%s\n", base_buf_text(&facts));
	for (keep = facts.len < AG_MAX_INPUT ? facts.len : AG_MAX_INPUT;
	     keep && ((unsigned char)facts.data[keep] & 0xc0) == 0x80;)
		keep--;
	base_buf_reset(&f->input);
	f->has_input = true;
	return base_buf_append(&f->input, base_buf_text(&facts), keep);
}

static int run_assistant(struct front *f, const struct ag_assistant *a)
{
	struct err err = { 0 };
	int r = strcmp(a->name, "sys") == 0 && !f->has_input ? add_facts(f, &err) : 0;

	if (r < 0)
		return front_end(f, r, &err);
	return a->output == AG_OUTPUT_COMMAND ? front_cmd(f) : front_answer(f, a);
}

int cmd_ask(int argc, char **argv)
{
	const struct ag_assistant *a = NULL;
	struct front f;
	int code, skip;

	if (argc < 2 && isatty(STDIN_FILENO)) {
		opt_help(&ocai_program, NULL, stdout);
		return 0;
	}
	if (front_begin(&f, "ask", argc, argv, &code))
		return code;
	if (f.n_words)
		a = ag_assistant_find(argv[0]);
	if (a && f.n_words == 1 && strcmp(a->name, "chat") == 0)
		return front_chat(&f);
	skip = a && f.n_words > 1;
	if (front_read_question(&f, argv + skip, f.n_words - skip, &code))
		return code;
	if (skip)
		return run_assistant(&f, a);
	a = ag_route(base_buf_text(&f.question), f.has_input || f.s.files.n);
	if (!f.s.quiet && !f.s.print && !f.s.json)
		(void)fprintf(stderr, "[%s: %s]\n", a->name, f.io.chinese ? a->about_zh : a->about_en);
	return run_assistant(&f, a);
}
