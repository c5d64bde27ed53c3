/* Entries for systemd's journal by its native protocol: one datagram of NAME=value lines to a socket in /run. The form
 * for values with newlines is not needed: they are hidden as everywhere in the log.
 * https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datagram_internal.h"
#include "log_internal.h"

enum { MAX_ENTRY = 8192 }; /* far below what makes the journal want a file instead of a datagram */

int base_log_priority(enum base_log_level level)
{
	static const int priorities[] = { 3, 4, 6, 7 };

	return priorities[level];
}

bool base_log_stderr_is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	/* A program that gave its stderr another place left the variable as it was. */
	return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
	       st.st_dev == (dev_t)dev && st.st_ino == (ino_t)ino;
}

struct entry {
	char text[MAX_ENTRY];
	size_t len;
};

static void add(struct entry *e, const char *name, const char *value)
{
	size_t n_name = strlen(name), n_value = strlen(value);

	if (n_name + n_value + 3 > sizeof(e->text) - e->len)
		return;
	(void)snprintf(e->text + e->len, sizeof(e->text) - e->len, "%s=%s", name, value);
	base_log_hide_control_characters(e->text + e->len);
	e->len += n_name + n_value + 1;
	e->text[e->len++] = '\n';
}

/* The journal drops fields with other names, and those that begin with '_' are its own. */
static bool is_field_name(const char *name)
{
	size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

	return name[len] == '\0' && len > 0 && len <= 64 && name[0] >= 'A' && name[0] <= 'Z';
}

int base_log_journal_send(const char *socket_path, enum base_log_level level, const char *line,
                          const struct base_log_field *fields)
{
	struct entry e = { .len = 0 };
	char number[16];

	add(&e, "MESSAGE", line);
	(void)snprintf(number, sizeof(number), "%d", base_log_priority(level));
	add(&e, "PRIORITY", number);
	add(&e, "SYSLOG_IDENTIFIER", program_invocation_short_name);
	(void)snprintf(number, sizeof(number), "%d", (int)gettid());
	add(&e, "TID", number);
	for (const struct base_log_field *f = fields; f && f->name; f++) {
		if (f->value && is_field_name(f->name))
			add(&e, f->name, f->value);
	}
	return base_datagram_send(socket_path, e.text, e.len);
}
