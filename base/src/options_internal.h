/* What the parser, the help, the completion and the configuration share about typed values. */
#ifndef BASE_OPTIONS_INTERNAL_H
#define BASE_OPTIONS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/options.h"

/* Converts `text` and stores it at `field`. `what` names the option or key in the error. OPT_STR, OPT_CHOICE and
 * OPT_LIST (one item, appended) borrow the text. OPT_FLAG wants true/false, yes/no, on/off or 1/0. */
int base_option_set(enum opt_type type, const char *choices, const char *what, const char *text, void *field,
                    struct err *err);

/* Steps through a comma-separated list: 1 and a piece (not NUL-terminated), or 0 at the end. Start with *pos = NULL. */
int base_option_next_choice(const char *choices, const char **pos, const char **ret_piece, size_t *ret_len);

bool base_option_is_last_command(const struct opt_command *cmd);

/* The completion script of a program for "bash" or "zsh"; -EINVAL for another shell. */
int base_option_completion(const struct opt_program *prog, const char *shell, FILE *out, struct err *err);

/* Every command and option name, one per line, of one command or (NULL) of all. */
void base_option_names(const struct opt_program *prog, const struct opt_command *cmd, FILE *out);

#endif
