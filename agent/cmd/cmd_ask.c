/* ocai QUESTION: the router's choice is said on standard error, then its assistant answers. Options may stand before a
 * subcommand too: "ocai --print cmd ...". */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "front.h"
#include "know/know.h"
#include "sys/sys.h"

enum { SAMPLE_S = 2, FACTS_WIDTH = 100, MIN_WORDS_OF_COMMAND = 3 };

/* Share of the question's words that the best passage must have for the documents to cover it. */
#define MIN_COVER 0.6
#define MIN_COVER_OF_COMMAND 0.7

const struct opt ask_opts[] = { { "print", 'p', OPT_FLAG, offsetof(struct ag_settings, print), NULL,
	                          "print the answer alone, and no menu", NULL },
	                        { "json", 0, OPT_FLAG, offsetof(struct ag_settings, json), NULL,
	                          "commands: print one JSON object", NULL },
	                        FRONT_BACKEND_OPTS,
	                        { 0 } };

/* ---- Facts of this machine ---- */

/* Findings are enough, and a small model drowns in tables; with none, all that was measured. */
static int facts_of(const json_t *document, const struct ag_sys_style *style, bool all_if_none, struct base_buf *out)
{
	const json_t *findings = json_object_get(document, "findings");
	json_t *only = NULL;
	int r;

	if (all_if_none && json_array_size(findings) == 0)
		return ag_sys_render(document, style, out);
	only = json_pack("{s:O}", "findings", findings);
	r = only ? ag_sys_render(only, style, out) : -ENOMEM;
	json_decref(only);
	if (r == 0 && json_array_size(findings) == 0)
		r = base_buf_puts(out, style->chinese
		                               ? "  `ocai sys perf` 采样更久,`ocai sys` 列出全部信息。\n"
		                               : "  `ocai sys perf` measures longer, `ocai sys` lists all facts.\n");
	return r;
}

/* Measured by code; the model only puts it into words. What it gets comes in the place of standard input; what the
 * person gets is in *shown. */
static int add_facts(struct front *f, struct base_buf *shown, struct err *err)
{
	const struct ag_sys_options options = { .seconds = SAMPLE_S };
	const struct ag_term_look *look = &f->io.look;
	const struct ag_sys_style plain = { .chinese = f->io.chinese, .ascii = true, .width = FACTS_WIDTH };
	const struct ag_sys_style style = { .chinese = f->io.chinese,
		                            .color = look->is_terminal && look->color,
		                            .ascii = look->is_terminal && !look->utf8,
		                            .width = look->is_terminal && look->columns ? look->columns : FACTS_WIDTH };
	CLEANUP(base_buf_done) struct base_buf facts = BASE_BUF_INIT(8 << 20);
	json_t *document = NULL;
	size_t keep;
	int r;

	if (!f->s.quiet && look->is_terminal)
		(void)fprintf(stderr, f->io.chinese ? "测量 %d 秒……\n" : "measuring for %d seconds ...\n", SAMPLE_S);
	r = ag_sys_collect(AG_SYS_HOST | AG_SYS_SERVICES | AG_SYS_STORAGE | AG_SYS_PERF, &options, &document, err);
	if (r < 0)
		return r;
	r = facts_of(document, &plain, true, &facts);
	if (r == 0)
		r = facts_of(document, &style, false, shown);
	json_decref(document);
	if (r < 0)
		return err_set(err, r, "the facts are too many");
	for (keep = facts.len < AG_MAX_INPUT ? facts.len : AG_MAX_INPUT;
	     keep < facts.len && keep && ((unsigned char)facts.data[keep] & 0xc0) == 0x80;)
		keep--;
	base_buf_reset(&f->input);
	f->has_input = true;
	return base_buf_append(&f->input, base_buf_text(&facts), keep);
}

/* The findings are shown whoever explains them: at a terminal before the answer, in a pipe beside it; and as the answer
 * itself where the model cannot put them into words. */
static int answer_with_facts(struct front *f, const struct ag_assistant *a)
{
	CLEANUP(base_buf_done) struct base_buf shown = BASE_BUF_INIT(8 << 20);
	bool is_alone = f->s.quiet || f->s.print, is_first = f->io.look.is_terminal && !is_alone;
	struct err err = { 0 };
	int r = add_facts(f, &shown, &err);

	if (r < 0)
		return front_end(f, r, &err);
	if (is_first)
		(void)fprintf(f->io.out, "%s\n", base_buf_text(&shown));
	(void)fflush(f->io.out);
	r = ag_answer(&f->s, a, &f->io, base_buf_text(&f->question), base_buf_text(&f->input), &err);
	if (r < 0 && r != -ECANCELED && !is_first)
		(void)fprintf(f->io.out, "%s", base_buf_text(&shown));
	else if (!is_first && !is_alone)
		(void)fprintf(f->io.err, "%s", base_buf_text(&shown));
	if (r == -ENOTSUP) {
		if (!f->s.quiet)
			(void)fprintf(f->io.err, "ocai: %s\n", err_text(&err));
		r = 0; /* the question was answered, by code */
	}
	return front_end(f, r, &err);
}

/* ---- When the model does commands and nothing else ---- */

/* The passages themselves. 1 when there were some. */
static int show_passages(struct front *f)
{
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(4 << 20);
	struct ag_passages p;
	int r = ag_passages_find(base_buf_text(&f->question), &p, stderr, NULL);

	if (r == 0 && p.n && p.cover >= MIN_COVER &&
	    ag_term_sanitize(&clean, base_buf_text(&p.text), p.text.len, f->io.look.is_terminal && !f->io.look.utf8) ==
	            0) {
		(void)fprintf(f->io.out, "%s", base_buf_text(&clean));
		r = 1;
	}
	ag_passages_done(&p);
	return r > 0;
}

static bool catalogue_knows(const char *question)
{
	struct ag_know *know = NULL;
	struct ag_know_answer answer;
	bool knows;

	if (ag_know_open(NULL, &know, NULL) < 0)
		return false;
	knows = ag_know_decide(know, question, NULL, &answer) == 0 && answer.certainty == AG_KNOW_CERTAIN &&
	        answer.command[0];
	ag_know_close(know);
	return knows;
}

/* A question that was routed to an assistant which this model cannot be: the documents or the catalogue may have the
 * answer; else it is said what the model is for. */
static int fall_back(struct front *f, const struct ag_assistant *a, struct err *err)
{
	bool is_talk = a->output == AG_OUTPUT_MARKDOWN;

	if (is_talk && !f->has_input && show_passages(f)) {
		if (!f->s.quiet && !f->s.print)
			(void)fprintf(f->io.err, "ocai: %s\n", err_text(err));
		return front_end(f, 0, err);
	}
	if (is_talk && !f->has_input && catalogue_knows(base_buf_text(&f->question))) {
		if (!f->s.quiet && !f->s.print && !f->s.json)
			(void)fprintf(f->io.err, "[cmd: %s]\n", f->io.chinese ? "命令" : "one command");
		return front_cmd(f);
	}
	return front_end(f, -ENOTSUP, err);
}

/* ---- Whom it is for ---- */

static int run_assistant(struct front *f, const struct ag_assistant *a, bool is_routed)
{
	const char *input = f->has_input ? base_buf_text(&f->input) : NULL;
	struct err err = { 0 };
	int r;

	if (a->output == AG_OUTPUT_COMMAND) {
		f->s.command_assistant = a;
		return front_cmd(f);
	}
	front_open_asking(f);
	if (a->measures && !f->has_input)
		return answer_with_facts(f, a);
	r = ag_answer(&f->s, a, &f->io, base_buf_text(&f->question), input, &err);
	return r == -ENOTSUP && is_routed ? fall_back(f, a, &err) : front_end(f, r, &err);
}

/* A question to talk about is for the documents, where they cover it; so is one that looks like a command wanted, of
 * which the catalogue is not certain, where they cover it well: it may be about the ways of this place. What the manual
 * pages say of commands is no reason. */
static const struct ag_assistant *prefer_documents(const struct front *f, const struct ag_assistant *a)
{
	const char *question = base_buf_text(&f->question);
	bool is_chat = strcmp(a->name, "chat") == 0, is_cmd = strcmp(a->name, "cmd") == 0;
	const struct ag_assistant *kb = ag_settings_assistant(&f->s, "kb");
	struct ag_passages p;

	if (!(is_chat || is_cmd) || f->has_input || f->s.files.n)
		return a;
	if (ag_passages_find(question, &p, stderr, NULL) == 0 && p.n) {
		if (is_chat && p.cover >= MIN_COVER)
			a = kb;
		else if (is_cmd && p.cover >= MIN_COVER_OF_COMMAND && p.n_words >= MIN_WORDS_OF_COMMAND &&
		         !p.is_manual && !catalogue_knows(question))
			a = kb;
	}
	ag_passages_done(&p);
	return a;
}

static int route(struct front *f)
{
	const struct ag_assistant *a = ag_route(base_buf_text(&f->question), f->has_input || f->s.files.n);

	a = prefer_documents(f, ag_settings_assistant(&f->s, a->name));
	if (!f->s.quiet && !f->s.print && !f->s.json)
		(void)fprintf(stderr, "[%s: %s]\n", a->name, f->io.chinese ? a->about_zh : a->about_en);
	return run_assistant(f, a, true);
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
		a = ag_settings_assistant(&f.s, argv[0]);
	if (a && f.n_words == 1 && strcmp(a->name, "chat") == 0)
		return front_chat(&f);
	skip = a && f.n_words > 1;
	if (front_read_question(&f, argv + skip, f.n_words - skip, &code))
		return code;
	return skip ? run_assistant(&f, a, false) : route(&f);
}
