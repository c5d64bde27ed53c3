/* Completion scripts for bash and zsh, and the plain list of names for the man-page check, from the same tables.
 * Values complete by what the table knows: choices by name, FILE, DIR and PATH metavars by file name; the first
 * argument by the words of the synopsis. */
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
			(void)fputs("compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")", out);
		} else if (takes_file(o)) {
			(void)fputs("compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")", out);
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

/* What the first argument may be, by the synopsis: the words in small letters between bars, as in
 * "[OPTION]... add WHAT... | list" or "[OPTION]... [host|users]...". Steps like base_option_next_choice(). */
static int next_word(const char *synopsis, const char **pos, const char **ret_word, size_t *ret_len)
{
	static const char options[] = "[OPTION]...";
	const char *p = *pos;

	if (!p) {
		p = synopsis;
		if (strncmp(p, options, sizeof(options) - 1) == 0)
			p += sizeof(options) - 1;
		/* One alternative is none: a program's single argument is what the person says. */
		if (!strchr(p, '|'))
			return 0;
	}
	while (*p) {
		size_t len;

		p += strspn(p, " |[]");
		len = strspn(p, "abcdefghijklmnopqrstuvwxyz-");
		*ret_word = p;
		*ret_len = len;
		p += strcspn(p, "|");
		*pos = p;
		if (len)
			return 1;
	}
	*pos = p;
	return 0;
}

static bool has_words(const struct opt_command *c)
{
	const char *pos = NULL, *word;
	size_t len;

	return next_word(c->synopsis, &pos, &word, &len) != 0;
}

/* "[a|b]...": any number of them. */
static bool words_repeat(const struct opt_command *c)
{
	size_t len = strlen(c->synopsis);

	return len >= 4 && strcmp(c->synopsis + len - 4, "]...") == 0;
}

static void words_with(FILE *out, const char *synopsis, const char *separator)
{
	const char *pos = NULL, *word, *between = "";
	size_t len;

	for (; next_word(synopsis, &pos, &word, &len); between = separator)
		(void)fprintf(out, "%s%.*s", between, (int)len, word);
}

static const struct opt_command *default_command(const struct opt_program *prog)
{
	for (const struct opt_command *c = prog->commands; !base_option_is_last_command(c); c++) {
		if (c->name && prog->default_command && strcmp(c->name, prog->default_command) == 0)
			return c;
	}
	return NULL;
}

/* The body of one case. first: the place of the command's first argument. */
static void bash_command(FILE *out, const struct opt_command *c, const char *first)
{
	(void)fputs("\t\tcase $prev in\n", out);
	bash_value_cases(out, c->opts);
	(void)fputs("\t\tesac\n\t\tif [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '", out);
	bash_option_words(out, c->opts);
	(void)fputs("' -- \"$cur\")); return; fi\n", out);
	if (has_words(c)) {
		(void)fprintf(out, "\t\tif ((COMP_CWORD %s %s)); then COMPREPLY=($(compgen -W '",
		              words_repeat(c) ? ">=" : "==", first);
		words_with(out, c->synopsis, " ");
		(void)fputs("' -- \"$cur\")); return; fi\n", out);
	}
	(void)fputs("\t\t;;\n", out);
}

static void bash_completion(const struct opt_program *prog, FILE *out)
{
	const struct opt_command *c, *otherwise = default_command(prog);

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
		(void)fputs("\tif ((COMP_CWORD == 1)); then\n\t\tCOMPREPLY=($(compgen -W '", out);
		bash_option_words(out, otherwise ? otherwise->opts : NULL);
		for (c = prog->commands; !base_option_is_last_command(c); c++)
			(void)fprintf(out, " %s", c->name);
		(void)fputs("' -- \"$cur\"))\n\t\treturn\n\tfi\n", out);
	}
	(void)fputs("\tcase $cmd in\n", out);
	for (c = prog->commands; !base_option_is_last_command(c); c++) {
		(void)fprintf(out, "\t%s)\n", c->name ? c->name : "*");
		bash_command(out, c, c->name ? "2" : "1");
	}
	if (otherwise) {
		(void)fputs("\t*)\n", out);
		bash_command(out, otherwise, "1");
	}
	/* One line for one file: names may hold blanks. */
	(void)fputs("\tesac\n\tcompopt -o filenames\n\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n}\n"
	            "complete -F _",
	            out);
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

static void zsh_arguments(FILE *out, const struct opt_command *c)
{
	(void)fputs("_arguments '--help[show help]' '--version[show the version]'", out);
	for (const struct opt *o = c->opts; o && o->name; o++)
		zsh_option(out, o);
	if (has_words(c)) {
		(void)fprintf(out, " \\\n\t\t\t'%s:argument:(", words_repeat(c) ? "*" : "1");
		words_with(out, c->synopsis, " ");
		(void)fputs(")'", out);
	}
	(void)fputs(has_words(c) && words_repeat(c) ? "\n" : " \\\n\t\t\t'*:argument:_files'\n", out);
}

/* The first word is a command, or all of it belongs to the default one. */
static void zsh_commands(FILE *out, const struct opt_program *prog)
{
	const struct opt_command *c, *otherwise = default_command(prog);

	(void)fputs("\tlocal -a commands=(", out);
	for (c = prog->commands; !base_option_is_last_command(c); c++) {
		(void)fprintf(out, "\n\t\t'%s:", c->name);
		zsh_text(out, c->summary);
		(void)fputc('\'', out);
	}
	(void)fputs(")\n\tif ((CURRENT == 2)) && [[ $PREFIX != -* ]]; then _describe command commands; return; fi\n"
	            "\tcase $words[2] in\n",
	            out);
	for (c = prog->commands; !base_option_is_last_command(c); c++) {
		(void)fprintf(out, "\t%s)\n\t\tshift words; ((CURRENT--))\n\t\t", c->name);
		zsh_arguments(out, c);
		(void)fputs("\t\t;;\n", out);
	}
	(void)fputs("\t*)\n\t\t", out);
	if (otherwise)
		zsh_arguments(out, otherwise);
	else
		(void)fputs("_arguments '--help[show help]' '--version[show the version]'\n", out);
	(void)fputs("\t\t;;\n\tesac\n", out);
}

static void zsh_completion(const struct opt_program *prog, FILE *out)
{
	(void)fprintf(out, "#compdef %s\n# made by '%s --completion=zsh'\n_", prog->name, prog->name);
	function_name(out, prog->name);
	(void)fputs("()\n{\n", out);
	if (prog->commands->name) {
		zsh_commands(out, prog);
	} else {
		(void)fputs("\t", out);
		zsh_arguments(out, prog->commands);
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
