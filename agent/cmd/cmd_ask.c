/* ocai QUESTION: the router's choice is said on standard error, then its assistant answers. Options may stand before a
 * subcommand too: "ocai --print cmd ...". */
#include <string.h>
#include <unistd.h>

#include "front.h"

const struct opt ask_opts[] = { { "print", 'p', OPT_FLAG, offsetof(struct ag_settings, print), NULL,
	                          "print the answer alone, and no menu", NULL },
	                        { "json", 0, OPT_FLAG, offsetof(struct ag_settings, json), NULL,
	                          "commands: print one JSON object", NULL },
	                        FRONT_BACKEND_OPTS,
	                        { 0 } };

static int run_assistant(struct front *f, const struct ag_assistant *a)
{
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
