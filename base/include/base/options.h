/* One table per program or subcommand drives parsing, --help, shell completion and the check that the
 * man page is complete. GNU style: --name=value, --name value, -x value, -xvalue, bundled flags, `--`. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum opt_type {
	OPT_FLAG,   /* bool; --no-NAME clears it */
	OPT_STR,    /* const char *, borrowed from argv */
	OPT_UINT,   /* uint32_t */
	OPT_U64,    /* uint64_t */
	OPT_SIZE,   /* uint64_t bytes; K, M, G, T suffixes of 1024 */
	OPT_DOUBLE, /* double */
	OPT_CHOICE, /* const char *, one of `choices`, comma separated */
	OPT_LIST,   /* struct opt_list, the option may be repeated */
};

struct opt_list {
	const char **items; /* borrowed strings; the array is freed by opt_list_done() */
	size_t n;
};

struct opt {
	const char *name; /* long name without dashes; NULL ends the table */
	char short_name;  /* 0 for none */
	enum opt_type type;
	size_t offset;       /* of the field in the destination struct */
	const char *metavar; /* "FILE"; NULL for flags */
	const char *help;    /* one line; the default in square brackets */
	const char *choices; /* OPT_CHOICE: "auto,cpu,cuda" */
};

struct opt_command {
	const char *name;     /* subcommand, or NULL when the program has none */
	const char *synopsis; /* "[OPTION]... PROMPT"; what completes: "add WHAT... | list", "[host|users]..." */
	const char *summary;  /* one line */
	const struct opt *opts;
	int (*run)(int argc, char **argv); /* argv[0] is the subcommand's name */
};

struct opt_program {
	const char *name;
	const char *summary;
	const struct opt_command *commands; /* ended by an entry with neither name nor run */
	const char *default_command;        /* run when argv names none; NULL: print the help */
};

enum opt_result { OPT_RUN = 0, OPT_EXIT_OK = 1 /* --help or --version was printed */ };

/* Fills *dest from argv. Positional arguments are moved to argv[0..*ret_n_args). Returns OPT_RUN,
 * OPT_EXIT_OK, or -EINVAL with err naming the bad option. */
int opt_parse(const struct opt_program *prog, const struct opt_command *cmd, int argc, char **argv, void *dest,
              int *ret_n_args, struct err *err);

/* A program's main: picks the subcommand, prints help, version (--version), and turns wrong usage
 * into exit code 2 with "Try 'prog --help' for more information.". Hidden: --completion=bash|zsh and
 * --option-names (one per line, for the man-page check). Flushes and checks stdout before exit 0. */
int opt_main(const struct opt_program *prog, int argc, char **argv);

/* Prints "prog: message" and the hint on stderr; returns 2. */
int opt_usage_error(const struct opt_program *prog, const struct opt_command *cmd, const struct err *err);
/* Prints "prog: message" on stderr; returns 1. */
int opt_failed(const struct opt_program *prog, const struct err *err);

const struct opt_command *opt_find_command(const struct opt_program *prog, const char *name); /* NULL: no such */
/* What a subcommand begins with: opt_parse() by the options of argv[0], its name. -1 when it shall go on, else the exit
 * code: help was printed, or wrong usage told. */
int opt_begin(const struct opt_program *prog, int argc, char **argv, void *dest, int *ret_n_args);

void opt_help(const struct opt_program *prog, const struct opt_command *cmd, FILE *out);
void opt_list_done(struct opt_list *list);

#endif
