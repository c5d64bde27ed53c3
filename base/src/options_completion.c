/* Completion scripts for bash and zsh, and the plain list of names for the man-page check, from the same tables.
 * Values complete by what the table knows: choices by name, FILE, DIR and PATH metavars by file name. */
#include "options_internal.h"

#include <errno.h>
#include <string.h>

static bool takes_file(const struct opt *o)
{
	return o->metavar && (strstr(o->metavar, "FILE") || strstr(o->metavar, "PATH") || strstr(o->metavar, "SOCKET"));
}

static bool takes_dir(const struct opt *o)
{
	return o->metavar && strstr(o->metavar, "DIR");
}

static void choices_with(FILE *out, const char *choices, const char *separator)
{
	const char *pos = NULL, *piece, *between = "";
	size_t len;

	for (; base_option_next_choice(choices, &pos, &piece, &len); between = separator)
		(void)fprintf(out, "%s%.*s", between, (int)len, piece);
}

/* Shell function names may not hold a dash everywhere. */
static void function_name(FILE *out, const char *name)
{
	for (; *name; name++)
		(void)fputc(*name == '-' ? '_' : *name, out);
}

/* Every option that takes a value, as a case pattern: --model|-m) */
static void bash_value_cases(FILE *out, const struct opt *opts)
{
	for (const struct opt *o = opts; o && o->name; o++) {
		if (o->type == OPT_FLAG)
			continue;
		(void)fprintf(out, "\t\t--%s", o->name);
		if (o->short_name)
			(void)fprintf(out, "|-%c", o->short_name);
		(void)fputs(") ", out);
		if (o->type == OPT_CHOICE && o->choices) {
			(void)fputs("COMPREPLY=($(compgen -W '", out);
			choices_with(out, o->choices, " ");
			(void)fputs("' -- \"$cur\"))", out);
		} else if (takes_dir(o)) {
			(void)fputs("compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\"))", out);
		} else if (takes_file(o)) {
			(void)fputs("compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))", out);
		} else {
			(void)fputs(":", out);
		}
		(void)fputs("; return ;;\n", out);
	}
}

static void bash_option_words(FILE *out, const struct opt *opts)
{
	(void)fputs("--help --version", out);
	for (const struct opt *o = opts; o && o->name; o++)
		(void)fprintf(out, " --%s", o->name);
}

static void bash_completion(const struct opt_program *prog, FILE *out)
{
	const struct opt_command *c;

	(void)fprintf(out, "# bash completion for %s, made by '%s --completion=bash'\n_", prog->name, prog->name);
	function_name(out, prog->name);
	/* COMP_WORDS splits at '=': --name=value arrives as three words. */
	(void)fputs("()\n{\n"
	            "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}\n"
	            "\tCOMPREPLY=()\n"
	            "\tif [[ $cur == '=' ]]; then cur=\n"
	            "\telif [[ $prev == '=' && $COMP_CWORD -gt 2 ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}\n"
	            "\tfi\n",
	            out);
	if (prog->commands->name) {
		(void)fputs("\tif ((COMP_CWORD == 1)); then\n\t\tCOMPREPLY=($(compgen -W '--help --version", out);
		for (c = prog->commands; !base_option_is_last_command(c); c++)
			(void)fprintf(out, " %s", c->name);
		(void)fputs("' -- \"$cur\"))\n\t\treturn\n\tfi\n", out);
	}
	(void)fputs("\tcase $cmd in\n", out);
	for (c = prog->commands; !base_option_is_last_command(c); c++) {
		(void)fprintf(out, "\t%s)\n\t\tcase $prev in\n", c->name ? c->name : "*");
		bash_value_cases(out, c->opts);
		(void)fputs("\t\tesac\n\t\tif [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '", out);
		bash_option_words(out, c->opts);
		(void)fputs("' -- \"$cur\")); return; fi ;;\n", out);
	}
	(void)fputs("\tesac\n\tcompopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -F _", out);
	function_name(out, prog->name);
	(void)fprintf(out, " %s\n", prog->name);
}

/* Text inside '...[...]' of _arguments: the quote, the brackets, the colon and the backslash are special. */
static void zsh_text(FILE *out, const char *text)
{
	for (; text && *text; text++) {
		if (*text == '\'')
			(void)fputs("'\\''", out);
		else if (strchr("[]:\\", *text))
			(void)fprintf(out, "\\%c", *text);
		else
			(void)fputc(*text, out);
	}
}

static void zsh_option(FILE *out, const struct opt *o)
{
	bool flag = o->type == OPT_FLAG;

	for (int shortly = 0; shortly < (o->short_name ? 2 : 1); shortly++) {
		(void)fprintf(out, " \\\n\t\t\t'%s", o->type == OPT_LIST ? "*" : "");
		if (shortly)
			(void)fprintf(out, "-%c%s[", o->short_name, flag ? "" : "+");
		else
			(void)fprintf(out, "--%s%s[", o->name, flag ? "" : "=");
		zsh_text(out, o->help);
		(void)fputc(']', out);
		if (!flag) {
			(void)fputc(':', out);
			zsh_text(out, o->metavar ? o->metavar : "VALUE");
			(void)fputc(':', out);
		}
		if (o->type == OPT_CHOICE && o->choices) {
			(void)fputc('(', out);
			choices_with(out, o->choices, " ");
			(void)fputc(')', out);
		} else if (!flag && takes_dir(o)) {
			(void)fputs("_files -/", out);
		} else if (!flag && takes_file(o)) {
			(void)fputs("_files", out);
		}
		(void)fputc('\'', out);
	}
}

static void zsh_arguments(FILE *out, const struct opt *opts)
{
	(void)fputs("_arguments '--help[show help]' '--version[show the version]'", out);
	for (const struct opt *o = opts; o && o->name; o++)
		zsh_option(out, o);
	(void)fputs(" \\\n\t\t\t'*:argument:_files'\n", out);
}

static void zsh_completion(const struct opt_program *prog, FILE *out)
{
	const struct opt_command *c;

	(void)fprintf(out, "#compdef %s\n# made by '%s --completion=zsh'\n_", prog->name, prog->name);
	function_name(out, prog->name);
	(void)fputs("()\n{\n", out);
	if (!prog->commands->name) {
		(void)fputs("\t", out);
		zsh_arguments(out, prog->commands->opts);
	} else {
		(void)fputs("\tlocal -a commands=(", out);
		for (c = prog->commands; !base_option_is_last_command(c); c++) {
			(void)fprintf(out, "\n\t\t'%s:", c->name);
			zsh_text(out, c->summary);
			(void)fputc('\'', out);
		}
		(void)fputs(")\n\tif ((CURRENT == 2)); then _describe command commands; return; fi\n"
		            "\tlocal cmd=$words[2]\n\tshift words; ((CURRENT--))\n\tcase $cmd in\n",
		            out);
		for (c = prog->commands; !base_option_is_last_command(c); c++) {
			(void)fprintf(out, "\t%s)\n\t\t", c->name);
			zsh_arguments(out, c->opts);
			(void)fputs("\t\t;;\n", out);
		}
		(void)fputs("\tesac\n", out);
	}
	/* Autoloaded from $fpath the file is the function's body; sourced, it registers itself. */
	(void)fputs("}\nif [[ $funcstack[1] = _", out);
	function_name(out, prog->name);
	(void)fputs(" ]]; then _", out);
	function_name(out, prog->name);
	(void)fputs(" \"$@\"; else compdef _", out);
	function_name(out, prog->name);
	(void)fprintf(out, " %s; fi\n", prog->name);
}

int base_option_completion(const struct opt_program *prog, const char *shell, FILE *out, struct err *err)
{
	if (strcmp(shell, "bash") == 0)
		bash_completion(prog, out);
	else if (strcmp(shell, "zsh") == 0)
		zsh_completion(prog, out);
	else
		return err_set(err, -EINVAL, "--completion: '%s' is not one of bash,zsh", shell);
	return 0;
}

void base_option_names(const struct opt_program *prog, const struct opt_command *cmd, FILE *out)
{
	for (const struct opt_command *c = prog->commands; !base_option_is_last_command(c); c++) {
		if (cmd && c != cmd)
			continue;
		if (!cmd && c->name)
			(void)fprintf(out, "%s\n", c->name);
		for (const struct opt *o = c->opts; o && o->name; o++) {
			(void)fprintf(out, "--%s\n", o->name);
			if (o->short_name)
				(void)fprintf(out, "-%c\n", o->short_name);
		}
	}
}
