/* The log sink. Control characters, which only come in with names and texts from outside, are shown as '?': nobody
 * forges a second line, a field or a terminal escape. */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "log_internal.h"

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static base_log_sink the_sink; /* protected by sink_lock */
static void *the_sink_arg;     /* protected by sink_lock */
static _Atomic int the_level = BASE_LOG_INFO;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

/* A journal that does not take the datagram still reads stderr, where the prefix is the priority. */
static void default_sink(enum base_log_level level, const char *line, const struct base_log_field *fields)
{
	if (!base_log_stderr_is_journal())
		(void)fprintf(stderr, "%s: %s\n", level_names[level], line);
	else if (base_log_journal_send(BASE_LOG_JOURNAL_SOCKET, level, line, fields) < 0)
		(void)fprintf(stderr, "<%d>%s\n", base_log_priority(level), line);
}

void base_log_set_sink(base_log_sink sink, void *arg)
{
	pthread_mutex_lock(&sink_lock);
	the_sink = sink;
	the_sink_arg = arg;
	pthread_mutex_unlock(&sink_lock);
}

void base_log_set_level(enum base_log_level level)
{
	atomic_store(&the_level, (int)level);
}

bool base_log_enabled(enum base_log_level level)
{
	return (int)level <= atomic_load(&the_level);
}

int base_log_level_parse(const char *word, enum base_log_level *ret_level, struct err *err)
{
	for (int i = BASE_LOG_ERROR; i <= BASE_LOG_DEBUG; i++) {
		if (strcmp(word, level_names[i]) == 0) {
			*ret_level = (enum base_log_level)i;
			return 0;
		}
	}
	return err_set(err, -EINVAL, "log level '%s': expected error, warn, info or debug", word);
}

void base_log_hide_control_characters(char *line)
{
	for (; *line; line++) {
		if ((unsigned char)*line < 0x20 || *line == 0x7f)
			*line = '?';
	}
}

static void log_line(enum base_log_level level, const struct base_log_field *fields, const char *fmt, va_list ap)
{
	int saved_errno = errno; /* callers log between a failure and its report */
	char line[2048];

	if (!base_log_enabled(level))
		return;
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	base_log_hide_control_characters(line);
	pthread_mutex_lock(&sink_lock);
	if (the_sink)
		the_sink(the_sink_arg, level, line);
	else
		default_sink(level, line, fields);
	pthread_mutex_unlock(&sink_lock);
	errno = saved_errno;
}

void base_log(enum base_log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(level, NULL, fmt, ap);
	va_end(ap);
}

void base_log_with(enum base_log_level level, const struct base_log_field *fields, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(level, fields, fmt, ap);
	va_end(ap);
}
