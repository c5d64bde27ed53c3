/* Log lines. Libraries stay silent but for debug; a program's main installs the level.
 * A line is a sentence with its facts. Prompts, completions and file contents never above debug.
 *
 * Without a sink of the program's own, lines go to stderr. Where stderr is systemd's journal they go there by its own
 * protocol instead, with the level as PRIORITY and the facts that a caller named as fields. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>

#include "base/err.h"

enum base_log_level { BASE_LOG_ERROR, BASE_LOG_WARN, BASE_LOG_INFO, BASE_LOG_DEBUG };

/* Receives one finished line without a newline. Called from any thread, one at a time. */
typedef void (*base_log_sink)(void *arg, enum base_log_level level, const char *line);

/* A fact of a line under a name to search by: `journalctl OCAI_LAYER=sha256:...`. Names are capitals, digits and '_',
 * beginning with the product's; they and the values are borrowed for the call. A NULL value is left out. */
struct base_log_field {
	const char *name; /* NULL ends the array */
	const char *value;
};

/* NULL restores the default: the journal or stderr. */
void base_log_set_sink(base_log_sink sink, void *arg);
void base_log_set_level(enum base_log_level level); /* default BASE_LOG_INFO */
bool base_log_enabled(enum base_log_level level);
/* "error", "warn", "info", "debug"; -EINVAL names the word. */
int base_log_level_parse(const char *word, enum base_log_level *ret_level, struct err *err);

void base_log(enum base_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same with fields, which only the journal sees: the line says it all to whoever reads it elsewhere. */
void base_log_with(enum base_log_level level, const struct base_log_field *fields, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

#endif
