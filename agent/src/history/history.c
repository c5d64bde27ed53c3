/* History in SQLite.
 *
 *   session   id, kind, model, title, begun, changed
 *   message   id, session, role, text, at            PRAGMA user_version: the format's number
 *
 * Search is LIKE over all messages: it finds Chinese without a word breaker, and a person's history is small. A file
 * that is no database, or has other tables, or fails SQLite's quick check (run while it is small enough for that to be
 * quick), is renamed to history.db.damaged-TIME together with its log. */
#include "history/history.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"

enum {
	FORMAT = 1,
	BUSY_MS = 3000,
	MAX_CHECKED_BYTES = 16 << 20, /* beyond it the check would be felt at every start */
	MAX_TITLE_BYTES = 120,
	PATH_BYTES = 4096,
};

struct ag_history {
	sqlite3 *db;
	char path[PATH_BYTES];
};

static const char schema[] =
        "BEGIN IMMEDIATE;"
        "CREATE TABLE IF NOT EXISTS session(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, model TEXT "
        "NOT NULL, title TEXT NOT NULL, begun INTEGER NOT NULL, changed INTEGER NOT NULL);"
        "CREATE TABLE IF NOT EXISTS message(id INTEGER PRIMARY KEY, session INTEGER NOT NULL "
        "REFERENCES session(id) ON DELETE CASCADE, role TEXT NOT NULL, text TEXT NOT NULL, at "
        "INTEGER NOT NULL);"
        "CREATE INDEX IF NOT EXISTS message_of_session ON message(session, id);"
        "PRAGMA user_version = 1;"
        "COMMIT;";

/* ---- Opening ----------------------------------------------------------------------------------------------- */

static int sql_errno(int code)
{
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
		return -EROFS;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	default:
		return -EIO;
	}
}

static int fail(struct ag_history *h, struct err *err)
{
	int r = sql_errno(sqlite3_extended_errcode(h->db));

	return err_set(err, r ? r : -EIO, "%s: %s", h->path, sqlite3_errmsg(h->db));
}

/* $XDG_DATA_HOME/ocai, every missing folder of it made, the last one ours alone. */
static int make_dir(const char *given, char *dir, size_t size, struct err *err)
{
	const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	struct stat st;
	int n, r;

	if (given)
		n = snprintf(dir, size, "%s", given);
	else if (xdg && *xdg == '/')
		n = snprintf(dir, size, "%s/ocai", xdg);
	else if (home && *home == '/')
		n = snprintf(dir, size, "%s/.local/share/ocai", home);
	else
		return err_set(err, -ENOENT, "neither XDG_DATA_HOME nor HOME is set");
	if (n < 0 || (size_t)n >= size)
		return err_set(err, -ENAMETOOLONG, "the folder's name is too long");
	r = base_make_folders(dir, 0700, err);
	if (r < 0)
		return r;
	if (stat(dir, &st) < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (st.st_uid != geteuid())
		return err_set(err, -EPERM, "%s: belongs to user %u, not to you", dir, (unsigned)st.st_uid);
	if ((st.st_mode & 077) && chmod(dir, 0700) < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	return 0;
}

static int exec_sql(struct ag_history *h, const char *sql, struct err *err)
{
	return sqlite3_exec(h->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(h, err);
}

/* The first column of the first row. */
static int query_text(struct ag_history *h, const char *sql, char *out, size_t size, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(h->db, sql, -1, &st, NULL) != SQLITE_OK)
		return fail(h, err);
	if (sqlite3_step(st) == SQLITE_ROW)
		(void)snprintf(out, size, "%s", (const char *)sqlite3_column_text(st, 0));
	else
		r = fail(h, err);
	(void)sqlite3_finalize(st);
	return r;
}

static int check_format(struct ag_history *h, struct err *err)
{
	char text[64] = "";
	struct stat st;
	int r = query_text(h, "PRAGMA user_version", text, sizeof(text), err);

	if (r < 0)
		return r;
	if (strtol(text, NULL, 10) > FORMAT)
		return err_set(err, -ENOTSUP, "%s: written by a newer ocai (format %s)", h->path, text);
	if (stat(h->path, &st) < 0 || st.st_size > MAX_CHECKED_BYTES)
		return 0;
	r = query_text(h, "PRAGMA quick_check(1)", text, sizeof(text), err);
	if (r == 0 && strcmp(text, "ok") != 0)
		r = err_set(err, -EBADMSG, "%s: %s", h->path, text);
	return r;
}

/* Makes what is missing. A database that has other tables by these names is another program's: as good as damaged. */
static int make_tables(struct ag_history *h, struct err *err)
{
	static const char *const needed[] = {
		schema,
		"SELECT id, kind, model, title, begun, changed FROM session LIMIT 0",
		"SELECT id, session, role, text, at FROM message LIMIT 0",
	};
	int r = 0;

	for (size_t i = 0; i < sizeof(needed) / sizeof(*needed) && r == 0; i++)
		r = exec_sql(h, needed[i], err);
	if (r < 0 && sqlite3_errcode(h->db) == SQLITE_ERROR)
		r = err_set(err, -EBADMSG, "%s: not a history: %s", h->path, sqlite3_errmsg(h->db));
	return r;
}

static int open_db(struct ag_history *h, struct err *err)
{
	/* Made here rather than by SQLite, so that it never exists with a wider mode. */
	int fd = open(h->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), r;

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", h->path, strerror(errno));
	if (fchmod(fd, 0600) < 0) {
		r = err_set(err, -errno, "%s: %s", h->path, strerror(errno));
		(void)close(fd);
		return r;
	}
	(void)close(fd);
	if (sqlite3_open_v2(h->path, &h->db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		return h->db ? fail(h, err) : err_set(err, -ENOMEM, "%s: out of memory", h->path);
	(void)sqlite3_busy_timeout(h->db, BUSY_MS);
	r = check_format(h, err);
	if (r == 0)
		r = exec_sql(h, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON",
		             err);
	return r < 0 ? r : make_tables(h, err);
}

static void close_db(struct ag_history *h)
{
	(void)sqlite3_close(h->db);
	h->db = NULL;
}

/* Renames what is damaged; its log with it, which is of no use to a new file. */
static int move_aside(struct ag_history *h, const struct err *why, struct base_buf *note, struct err *err)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	long long when = (long long)time(NULL);
	char from[PATH_BYTES + 8], to[PATH_BYTES + 64];

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		(void)snprintf(from, sizeof(from), "%s%s", h->path, suffixes[i]);
		(void)snprintf(to, sizeof(to), "%s.damaged-%lld%s", h->path, when, suffixes[i]);
		if (rename(from, to) < 0 && errno != ENOENT)
			return err_set(err, -errno, "%s: %s", from, strerror(errno));
	}
	if (note)
		(void)base_buf_printf(
		        note, "the history was damaged (%s); it was kept as %s.damaged-%lld and a new one begun",
		        err_text(why), h->path, when);
	return 0;
}

int ag_history_open(const char *dir, struct ag_history **ret_history, struct base_buf *note, struct err *err)
{
	struct ag_history *h = calloc(1, sizeof(*h));
	char folder[PATH_BYTES - 64];
	struct err why = { 0 };
	int r;

	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	r = make_dir(dir, folder, sizeof(folder), err);
	if (r == 0) {
		(void)snprintf(h->path, sizeof(h->path), "%s/history.db", folder);
		r = open_db(h, &why);
		if (r == -EBADMSG) {
			close_db(h);
			r = move_aside(h, &why, note, err);
			if (r == 0)
				r = open_db(h, err);
		} else if (r < 0) {
			(void)err_set(err, r, "%s", err_text(&why));
		}
	}
	if (r < 0) {
		ag_history_close(h);
		return r;
	}
	*ret_history = h;
	return 0;
}

void ag_history_close(struct ag_history *h)
{
	if (!h)
		return;
	close_db(h);
	free(h);
}

/* ---- Writing ------------------------------------------------------------------------------------------------ */

static void finalizep(sqlite3_stmt **st)
{
	(void)sqlite3_finalize(*st);
}

static int prepare(struct ag_history *h, const char *sql, sqlite3_stmt **ret_st, struct err *err)
{
	return sqlite3_prepare_v2(h->db, sql, -1, ret_st, NULL) == SQLITE_OK ? 0 : fail(h, err);
}

/* Cut at a character's start, on one line. */
static size_t title_len(const char *title)
{
	size_t n = strcspn(title, "\r\n");

	if (n > MAX_TITLE_BYTES) {
		n = MAX_TITLE_BYTES;
		while (n && ((unsigned char)title[n] & 0xc0) == 0x80)
			n--;
	}
	return n;
}

int ag_history_begin(struct ag_history *h, const char *kind, const char *model, const char *title, int64_t *ret_id,
                     struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare(h, "INSERT INTO session(kind, model, title, begun, changed) VALUES(?1, ?2, ?3, ?4, ?4)", &st,
	                err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_text(st, 1, kind, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(st, 2, model, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(st, 3, title, (int)title_len(title), SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 4, (sqlite3_int64)time(NULL));
	if (sqlite3_step(st) != SQLITE_DONE)
		return fail(h, err);
	*ret_id = sqlite3_last_insert_rowid(h->db);
	return 0;
}

static int touch(struct ag_history *h, int64_t session, struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare(h, "UPDATE session SET changed = ?2 WHERE id = ?1", &st, err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(st, 1, session);
	(void)sqlite3_bind_int64(st, 2, (sqlite3_int64)time(NULL));
	return sqlite3_step(st) == SQLITE_DONE ? 0 : fail(h, err);
}

int ag_history_add(struct ag_history *h, int64_t session, const char *role, const char *text, size_t len,
                   struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare(h, "INSERT INTO message(session, role, text, at) VALUES(?, ?, ?, ?)", &st, err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(st, 1, session);
	(void)sqlite3_bind_text(st, 2, role, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text64(st, 3, text, len, SQLITE_STATIC, SQLITE_UTF8);
	(void)sqlite3_bind_int64(st, 4, (sqlite3_int64)time(NULL));
	return sqlite3_step(st) == SQLITE_DONE ? touch(h, session, err) : fail(h, err);
}

static int remove_with(struct ag_history *h, const char *sql, int64_t session, struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare(h, sql, &st, err);

	if (r < 0)
		return r;
	if (sqlite3_bind_parameter_count(st))
		(void)sqlite3_bind_int64(st, 1, session);
	return sqlite3_step(st) == SQLITE_DONE ? sqlite3_changes(h->db) : fail(h, err);
}

static int no_session(int64_t session, struct err *err)
{
	return err_set(err, -ENOENT, "there is no session %lld", (long long)session);
}

int ag_history_remove(struct ag_history *h, int64_t session, struct err *err)
{
	int r = remove_with(h, "DELETE FROM session WHERE id = ?", session, err);

	return r < 0 ? r : r == 0 ? no_session(session, err) : 0;
}

int ag_history_remove_all(struct ag_history *h, struct err *err)
{
	int r = remove_with(h, "DELETE FROM session", 0, err);

	/* What was deleted shall not be found in free pages or in the log either. */
	return r < 0 ? r : exec_sql(h, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)", err);
}

/* ---- Reading ------------------------------------------------------------------------------------------------- */

static const char *column(sqlite3_stmt *st, int i)
{
	const char *text = (const char *)sqlite3_column_text(st, i);

	return text ? text : "";
}

#define SESSION_COLUMNS                                                                                            \
	"SELECT id, kind, model, title, begun, changed, (SELECT count(*) FROM message WHERE session = s.id) FROM " \
	"session s "

static int each_session(struct ag_history *h, sqlite3_stmt *st, ag_history_session_fn fn, void *arg, struct err *err)
{
	int code, r = 0, n = 0;

	while ((code = sqlite3_step(st)) == SQLITE_ROW && r >= 0) {
		const struct ag_history_session s = { .id = sqlite3_column_int64(st, 0),
			                              .kind = column(st, 1),
			                              .model = column(st, 2),
			                              .title = column(st, 3),
			                              .begun = sqlite3_column_int64(st, 4),
			                              .changed = sqlite3_column_int64(st, 5),
			                              .n_messages = sqlite3_column_int64(st, 6) };

		r = fn(arg, &s);
		n++;
	}
	if (r < 0)
		return r;
	return code == SQLITE_DONE ? n : fail(h, err);
}

int ag_history_list(struct ag_history *h, size_t limit, ag_history_session_fn fn, void *arg, struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare(h, SESSION_COLUMNS "ORDER BY changed DESC, id DESC LIMIT ?", &st, err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(st, 1, limit ? (sqlite3_int64)limit : -1);
	r = each_session(h, st, fn, arg, err);
	return r < 0 ? r : 0;
}

static int each_message(struct ag_history *h, sqlite3_stmt *st, ag_history_message_fn fn, void *arg, struct err *err)
{
	int code, r = 0;

	while ((code = sqlite3_step(st)) == SQLITE_ROW) {
		const struct ag_history_message m = { .id = sqlite3_column_int64(st, 0),
			                              .session = sqlite3_column_int64(st, 1),
			                              .role = column(st, 2),
			                              .text = column(st, 3),
			                              .when = sqlite3_column_int64(st, 4) };

		r = fn(arg, &m);
		if (r < 0)
			return r;
	}
	return code == SQLITE_DONE ? 0 : fail(h, err);
}

static int one_session(struct ag_history *h, int64_t session, ag_history_session_fn fn, void *arg, struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare(h, SESSION_COLUMNS "WHERE id = ?", &st, err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(st, 1, session);
	r = each_session(h, st, fn, arg, err);
	return r < 0 ? r : r == 0 ? no_session(session, err) : 0;
}

static int nothing(void *arg, const struct ag_history_session *session)
{
	return 0;
}

int ag_history_show(struct ag_history *h, int64_t session, ag_history_message_fn fn, void *arg, struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = one_session(h, session, nothing, NULL, err);

	if (r == 0)
		r = prepare(h, "SELECT id, session, role, text, at FROM message WHERE session = ? ORDER BY id", &st,
		            err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(st, 1, session);
	return each_message(h, st, fn, arg, err);
}

int ag_history_search(struct ag_history *h, const char *words, size_t limit, ag_history_message_fn fn, void *arg,
                      struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf pattern = BASE_BUF_INIT(64 << 10);
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare(h,
	                "SELECT id, session, role, text, at FROM message WHERE text LIKE ?1 ESCAPE '\\' "
	                "ORDER BY id DESC LIMIT ?2",
	                &st, err);

	if (r < 0)
		return r;
	(void)base_buf_putc(&pattern, '%');
	for (const char *p = words; *p; p++) {
		if (strchr("%_\\", *p))
			(void)base_buf_putc(&pattern, '\\');
		(void)base_buf_putc(&pattern, *p);
	}
	(void)base_buf_putc(&pattern, '%');
	if (base_buf_error(&pattern))
		return err_set(err, base_buf_error(&pattern), "the words to search for are too long");
	(void)sqlite3_bind_text(st, 1, base_buf_text(&pattern), (int)pattern.len, SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 2, limit ? (sqlite3_int64)limit : -1);
	return each_message(h, st, fn, arg, err);
}

int ag_history_last(struct ag_history *h, const char *kind, int64_t *ret_id, struct err *err)
{
	CLEANUP(finalizep) sqlite3_stmt *st = NULL;
	int code, r = prepare(h, "SELECT id FROM session WHERE kind = ? ORDER BY changed DESC, id DESC LIMIT 1", &st,
	                      err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_text(st, 1, kind, -1, SQLITE_STATIC);
	code = sqlite3_step(st);
	if (code == SQLITE_DONE)
		return err_set(err, -ENOENT, "the history has no %s yet", kind);
	if (code != SQLITE_ROW)
		return fail(h, err);
	*ret_id = sqlite3_column_int64(st, 0);
	return 0;
}

static int export_session(void *arg, const struct ag_history_session *s)
{
	*(json_t **)arg = json_pack("{s:I, s:s, s:s, s:s, s:I, s:[]}", "id", (json_int_t)s->id, "kind", s->kind,
	                            "model", s->model, "title", s->title, "begun", (json_int_t)s->begun, "messages");
	return *(json_t **)arg ? 0 : -EBADMSG;
}

static int export_message(void *arg, const struct ag_history_message *m)
{
	json_t *json = json_pack("{s:s, s:I, s:s}", "role", m->role, "when", (json_int_t)m->when, "content", m->text);

	return json_array_append_new(json_object_get(arg, "messages"), json) == 0 ? 0 : -EBADMSG;
}

int ag_history_export(struct ag_history *h, int64_t session, json_t **ret_json, struct err *err)
{
	json_t *json = NULL;
	int r = one_session(h, session, export_session, &json, err);

	if (r == 0)
		r = ag_history_show(h, session, export_message, json, err);
	if (r == -EBADMSG && (!err || !err->code))
		(void)err_set(err, r, "session %lld: not valid UTF-8 text", (long long)session);
	if (r < 0) {
		json_decref(json);
		return r;
	}
	*ret_json = json;
	return 0;
}
