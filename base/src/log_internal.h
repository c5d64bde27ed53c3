/* Shared by log.c and log_journal.c. */
#ifndef BASE_LOG_INTERNAL_H
#define BASE_LOG_INTERNAL_H

#include <stdbool.h>

#include "base/log.h"

#define BASE_LOG_JOURNAL_SOCKET "/run/systemd/journal/socket"

/* Control characters become '?'. */
void base_log_hide_control_characters(char *line);
/* syslog's number of a level: 3, 4, 6, 7. */
int base_log_priority(enum base_log_level level);
/* Whether stderr is the stream that systemd says leads to its journal (JOURNAL_STREAM). */
bool base_log_stderr_is_journal(void);
/* One entry by the journal's protocol: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, TID and the fields (NULL: none). Fields
 * with other names than the header allows, and what does not fit, are left out. 0, or a negative errno when nobody
 * took it. */
int base_log_journal_send(const char *socket_path, enum base_log_level level, const char *line,
                          const struct base_log_field *fields);

#endif
