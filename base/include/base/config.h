/* Layered INI configuration behind an option table.
 *
 * Later wins: built-in, /usr/lib/<product>/<prog>.conf, /etc/<product>/<prog>.conf, drop-ins
 * <prog>.conf.d/NN-name.conf of both places sorted by file name (same name: /etc hides /usr/lib),
 * environment, command line (the caller's business: parse options after loading). Unknown key: warned
 * with file and line. Bad value: error with file and line. */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

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
};

struct base_config; /* owns strings and remembers where each value came from */

struct base_config_paths {
	const char *product;  /* "ocai" */
	const char *program;  /* "engine" -> engine.conf */
	const char *root;     /* prefix for tests; NULL for "" */
	bool user;            /* also $XDG_CONFIG_HOME/<product>/ */
};

int base_config_load(const struct base_config_paths *paths, const struct base_config_key *keys, void *dest,
		     struct base_config **ret_config, struct err *err);
void base_config_free(struct base_config *config);
/* --show-config: every key, its merged value and its source. */
void base_config_show(const struct base_config *config, const void *dest, FILE *out);

#endif
