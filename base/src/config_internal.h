/* The parts of the configuration loader that meet outside bytes, for the loader itself and its fuzz target. */
#ifndef BASE_CONFIG_INTERNAL_H
#define BASE_CONFIG_INTERNAL_H

#include "base/config.h"

/* An empty configuration over a table; the table is borrowed. */
int base_config_new(const struct base_config_key *keys, struct base_config **ret_config);

/* Applies the text of one file to *dest. `path` is for messages and for --show-config. */
int base_config_parse(struct base_config *config, const char *path, const char *text, size_t len, void *dest,
                      struct err *err);

#endif
