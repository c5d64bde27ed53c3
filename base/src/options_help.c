/* --help: the option column is as wide as the widest option that is not extravagant, the text is wrapped to 80
 * columns (bytes: help texts are ASCII). */
#include "options_internal.h"

#include <string.h>

#include "base/buf.h"

enum { LINE_WIDTH = 80, MAX_LEFT = 32 };

static int left_width_of(const char *left, int width)
{
	int n = (int)strlen(left) + 2; /* two spaces before the text */

	return n > MAX_LEFT || n < width ? width : n;
}

/* Prints `text` from column `width` on; the cursor stands at column `at`. */
static void print_wrapped(FILE *out, const char *text, int at, int width)
{
	bool line_is_empty = true;

	if (at > width - 2 && at > 0) {
		(void)fputc('\n', out);
		at = 0;
	}
	(void)fprintf(out, "%*s", width - at, "");
	at = width;
	while (*text) {
		int word = (int)strcspn(text, " ");

		if (!line_is_empty && at + 1 + word > LINE_WIDTH) {
			(void)fprintf(out, "\n%*s", width, "");
			at = width;
			line_is_empty = true;
		}
		at += fprintf(out, "%s%.*s", line_is_empty ? "" : " ", word, text);
		line_is_empty = false;
		text += word;
		text += strspn(text, " ");
	}
	(void)fputc('\n', out);
}

/* "  -m, --model=FILE" */
static void option_left(const struct opt *o, char *text, size_t size)
{
	char shortname[8] = "    ";

	if (o->short_name)
		(void)snprintf(shortname, sizeof(shortname), "-%c, ", o->short_name);
	(void)snprintf(text, size, "  %s--%s%s%s", shortname, o->name, o->type == OPT_FLAG ? "" : "=",
	               o->type == OPT_FLAG ? ""
	               : o->metavar        ? o->metavar
	                                   : "VALUE");
}

static void print_option(FILE *out, const struct opt *o, int width)
{
	struct base_buf text = BASE_BUF_INIT(4096);
	const char *pos = NULL, *piece, *comma = "";
	char left[128];
	size_t len;

	option_left(o, left, sizeof(left));
	(void)base_buf_puts(&text, o->help ? o->help : "");
	if (o->type == OPT_CHOICE && o->choices) {
		(void)base_buf_puts(&text, " (");
		for (; base_option_next_choice(o->choices, &pos, &piece, &len); comma = ", ")
			(void)base_buf_printf(&text, "%s%.*s", comma, (int)len, piece);
		(void)base_buf_puts(&text, ")");
	}
	(void)fputs(left, out);
	print_wrapped(out, base_buf_text(&text), (int)strlen(left), width);
	base_buf_done(&text);
}

static void print_options(FILE *out, const struct opt *opts)
{
	static const struct opt common[] = {
		{ "help", 'h', OPT_FLAG, 0, NULL, "show this help and exit", NULL },
		{ "version", 0, OPT_FLAG, 0, NULL, "show the version and exit", NULL },
	};
	bool h_is_taken = false;
	int width = 0;
	char left[128];

	for (int i = 0; i < 2; i++) {
		option_left(&common[i], left, sizeof(left));
		width = left_width_of(left, width);
	}
	for (const struct opt *o = opts; o && o->name; o++) {
		option_left(o, left, sizeof(left));
		width = left_width_of(left, width);
		h_is_taken = h_is_taken || o->short_name == 'h';
	}
	(void)fputs("\nOptions:\n", out);
	for (const struct opt *o = opts; o && o->name; o++)
		print_option(out, o, width);
	for (int i = 0; i < 2; i++) {
		struct opt o = common[i];

		if (h_is_taken)
			o.short_name = 0;
		print_option(out, &o, width);
	}
}

static void command_help(const struct opt_program *prog, const struct opt_command *cmd, FILE *out)
{
	(void)fprintf(out, "Usage: %s%s%s %s\n", prog->name, cmd->name ? " " : "", cmd->name ? cmd->name : "",
	              cmd->synopsis ? cmd->synopsis : "[OPTION]...");
	if (cmd->summary || prog->summary)
		print_wrapped(out, cmd->summary ? cmd->summary : prog->summary, 0, 0);
	print_options(out, cmd->opts);
}

void opt_help(const struct opt_program *prog, const struct opt_command *cmd, FILE *out)
{
	int width = 0;
	char left[128];

	if (!cmd && !prog->commands->name)
		cmd = prog->commands;
	if (cmd) {
		command_help(prog, cmd, out);
		return;
	}
	(void)fprintf(out, "Usage: %s COMMAND [OPTION]...\n", prog->name);
	if (prog->summary)
		print_wrapped(out, prog->summary, 0, 0);
	(void)fputs("\nCommands:\n", out);
	for (const struct opt_command *c = prog->commands; !base_option_is_last_command(c); c++) {
		(void)snprintf(left, sizeof(left), "  %s", c->name);
		width = left_width_of(left, width);
	}
	for (const struct opt_command *c = prog->commands; !base_option_is_last_command(c); c++) {
		int at = fprintf(out, "  %s", c->name);

		print_wrapped(out, c->summary ? c->summary : "", at, width);
	}
	if (prog->default_command)
		(void)fprintf(out, "\nWithout a command: %s.\n", prog->default_command);
	(void)fprintf(out, "\n'%s COMMAND --help' shows the options of one command.\n", prog->name);
}
