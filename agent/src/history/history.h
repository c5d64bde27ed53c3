/* What was asked and answered, per user, so that it can be found, read again and gone on with.
 *
 * One SQLite database (WAL), $XDG_DATA_HOME/ocai/history.db, the folder 0700, the file 0600. Two programs may write at
 * the same time. A database that SQLite calls corrupt is moved aside, never deleted, and a new one is begun; the move
 * is told through the note. Not being able to keep history is no reason not to answer: every caller may go on
 * without. One handle, one thread. */
#ifndef AG_HISTORY_H
#define AG_HISTORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct ag_history;

struct ag_history_session {
	int64_t id, begun, changed; /* seconds since 1970 */
	int64_t n_messages;
	const char *kind;  /* "chat", "cmd", "code" ... */
	const char *model; /* borrowed for the call, like the rest */
	const char *title; /* the first question, cut */
};

struct ag_history_message {
	int64_t session, id, when;
	const char *role, *text; /* "user", "assistant", or a word of the program's own: "ran" */
};

/* Negative stops the walk and is returned. */
typedef int (*ag_history_session_fn)(void *arg, const struct ag_history_session *session);
typedef int (*ag_history_message_fn)(void *arg, const struct ag_history_message *message);

/* dir: NULL for $XDG_DATA_HOME/ocai, else ~/.local/share/ocai. note: a sentence is appended when a corrupt database
 * was moved aside; may be NULL. */
int ag_history_open(const char *dir, struct ag_history **ret_history, struct base_buf *note, struct err *err);
void ag_history_close(struct ag_history *h);

int ag_history_begin(struct ag_history *h, const char *kind, const char *model, const char *title, int64_t *ret_id,
                     struct err *err);
int ag_history_add(struct ag_history *h, int64_t session, const char *role, const char *text, size_t len,
                   struct err *err);
/* Newest first; limit 0: all. */
int ag_history_list(struct ag_history *h, size_t limit, ag_history_session_fn fn, void *arg, struct err *err);
/* The messages of a session in order; -ENOENT when there is none of that number. */
int ag_history_show(struct ag_history *h, int64_t session, ag_history_message_fn fn, void *arg, struct err *err);
/* Messages that hold the words, in any script, newest first. */
int ag_history_search(struct ag_history *h, const char *words, size_t limit, ag_history_message_fn fn, void *arg,
                      struct err *err);
/* -ENOENT when there is no such session. */
int ag_history_remove(struct ag_history *h, int64_t session, struct err *err);
int ag_history_remove_all(struct ag_history *h, struct err *err);
/* The newest session of this kind: -ENOENT when there is none. */
int ag_history_last(struct ag_history *h, const char *kind, int64_t *ret_id, struct err *err);
/* {"id":, "kind":, "model":, "title":, "begun":, "messages":[{"role":, "when":, "content":}]}: the caller's. */
int ag_history_export(struct ag_history *h, int64_t session, json_t **ret_json, struct err *err);

#endif
