/* Layered INI configuration behind an option table.
 *
 * Later wins: built-in, /usr/lib/<product>/<prog>.conf, /etc/<product>/<prog>.conf, drop-ins
 * <prog>.conf.d/NN-name.conf of both places sorted by file name (same name: /etc hides /usr/lib),
 * environment, command line (the caller's business: parse options after loading). The user's own file and
 * drop-ins ($XDG_CONFIG_HOME/<product>/) come after the system's. Unknown key: warned with file and line. Bad
 * value: error with file and line. Missing files are fine. An environment variable that is set but empty counts
 * as unset. A list is separated by commas, and replaces the list of an earlier layer. */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"
#include "base/options.h"

/* One configuration key; `section.key`, the environment variable that overrides it (or NULL), and the
 * same typed destination as an option. String values are owned by the config object. */
struct base_config_key {
	const char *section;
	const char *key; /* NULL ends the table */
	const char *env;
	enum opt_type type;
	size_t offset;
	const char *help;
	const char *choices; /* OPT_CHOICE: "auto,cpu,cuda" */
};

struct base_config; /* owns strings and remembers where each value came from */

struct base_config_paths {
	const char *product; /* "ocai" */
	const char *program; /* "engine" -> engine.conf */
	const char *root;    /* prefix for tests; NULL for "" */
	bool user;           /* also $XDG_CONFIG_HOME/<product>/ */
};

/* Fills *dest, which holds the built-in values. On failure *dest must not be used. The arrays of OPT_LIST fields
 * (which start out empty) are the caller's, opt_list_done(); all strings live as long as the config object. */
int base_config_load(const struct base_config_paths *paths, const struct base_config_key *keys, void *dest,
                     struct base_config **ret_config, struct err *err);
void base_config_free(struct base_config *config);
/* --show-config: every key, its merged value and its source. */
void base_config_show(const struct base_config *config, const void *dest, FILE *out);

#endif
