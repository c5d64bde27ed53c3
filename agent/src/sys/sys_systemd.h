/* libsystemd, opened at run time: the functions this room calls, and nothing else. */
#ifndef AG_SYS_SYSTEMD_H
#define AG_SYS_SYSTEMD_H

#include <systemd/sd-bus.h>
#include <systemd/sd-journal.h>

#include "sys/sys_internal.h"

#define SYSTEMD_FUNCTIONS(X)               \
	X(sd_bus_open_system)              \
	X(sd_bus_flush_close_unref)        \
	X(sd_bus_call_method)              \
	X(sd_bus_get_property_string)      \
	X(sd_bus_get_property_trivial)     \
	X(sd_bus_set_method_call_timeout)  \
	X(sd_bus_error_free)               \
	X(sd_bus_message_unref)            \
	X(sd_bus_message_enter_container)  \
	X(sd_bus_message_exit_container)   \
	X(sd_bus_message_read)             \
	X(sd_journal_open)                 \
	X(sd_journal_open_directory)       \
	X(sd_journal_close)                \
	X(sd_journal_add_match)            \
	X(sd_journal_add_disjunction)      \
	X(sd_journal_seek_tail)            \
	X(sd_journal_previous)             \
	X(sd_journal_get_data)             \
	X(sd_journal_has_runtime_files)    \
	X(sd_journal_has_persistent_files) \
	X(sd_journal_get_realtime_usec)

struct systemd {
#define X(f) __typeof__(&f) f;
	SYSTEMD_FUNCTIONS(X)
#undef X
};

/* NULL when the library is not here or too different. */
const struct systemd *ag_sys_systemd(void);

/* This tree's journal: of the running system, or of the files under the root. */
int ag_sys_journal_open(const struct systemd *sd, const struct sys_ctx *ctx, sd_journal **ret);
/* The unit's newest lines, oldest first, appended. */
void ag_sys_journal_tail(const struct systemd *sd, const struct sys_ctx *ctx, const char *unit, unsigned n,
                         json_t *lines);

#endif
