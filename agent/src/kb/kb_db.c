/* The database: opening, its tables, moving a damaged one aside.
 *
 *   source   what the user added                     file   one document of a source, with what tells a change
 *   passage  a piece of a document, line and title   passage_fts  FTS5 over passages (external content: by triggers)
 *   vector   float16 numbers of a passage, by model
 *
 * user_version is the version of these tables: a newer one is refused, never touched. Damage is found by SQLite itself
 * (SQLITE_CORRUPT, SQLITE_NOTADB), at opening or later; the knowledge base can be built again from its sources, so the
 * file is put aside for a look and a new one begun. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "kb/kb_internal.h"

enum { SCHEMA_VERSION = 1, BUSY_TIMEOUT_MS = 5000 };

static const char schema[] =
        "CREATE TABLE source(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, updated INTEGER NOT NULL DEFAULT 0);"
        "CREATE TABLE file(id INTEGER PRIMARY KEY, source_id INTEGER NOT NULL REFERENCES source(id) ON DELETE CASCADE,"
        " path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 BLOB NOT NULL,"
        " n_bytes INTEGER NOT NULL, UNIQUE(source_id, path));"
        "CREATE TABLE passage(id INTEGER PRIMARY KEY, file_id INTEGER NOT NULL REFERENCES file(id) ON DELETE CASCADE,"
        " line INTEGER NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL);"
        "CREATE INDEX passage_file ON passage(file_id);"
        "CREATE TABLE vector(passage_id INTEGER PRIMARY KEY REFERENCES passage(id) ON DELETE CASCADE,"
        " model TEXT NOT NULL, halves BLOB NOT NULL);"
        "CREATE VIRTUAL TABLE passage_fts USING fts5(title, text, content='passage', content_rowid='id', "
        "tokenize='ocai');"
        "CREATE TRIGGER passage_insert AFTER INSERT ON passage BEGIN"
        " INSERT INTO passage_fts(rowid, title, text) VALUES (new.id, new.title, new.text); END;"
        "CREATE TRIGGER passage_delete AFTER DELETE ON passage BEGIN"
        " INSERT INTO passage_fts(passage_fts, rowid, title, text) VALUES ('delete', old.id, old.title, old.text); "
        "END;";

void ag_kb_notice(struct ag_kb *kb, const char *fmt, ...)
{
	char line[4096 + 256];
	va_list ap;

	if (!kb->on_notice)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (char *p = line; *p; p++) {
		if ((unsigned char)*p < 32 || *p == 127) /* a file's name may hold anything */
			*p = '?';
	}
	kb->on_notice(kb->on_notice_arg, line);
}

bool ag_kb_is_cancelled(const struct ag_kb *kb)
{
	return kb->cancel && *kb->cancel;
}

static bool is_damage(int code)
{
	return (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;
}

/* PATH.damaged-TIME, with the journals that belong to it. The new name is appended to out. */
static int move_aside(const char *path, struct base_buf *out)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
	time_t now = time(NULL);
	char stamp[32];
	struct tm tm;
	int r = 0;

	(void)gmtime_r(&now, &tm);
	(void)strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
	if (base_buf_printf(out, "%s.damaged-%s", path, stamp) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		CLEANUP(base_buf_done) struct base_buf from = BASE_BUF_INIT(8192), to = BASE_BUF_INIT(8192);

		if (base_buf_printf(&from, "%s%s", path, suffixes[i]) < 0 ||
		    base_buf_printf(&to, "%s%s", base_buf_text(out), suffixes[i]) < 0)
			return -ENOMEM;
		if (rename(base_buf_text(&from), base_buf_text(&to)) < 0 && i == 0)
			r = -errno;
	}
	return r;
}

int ag_kb_sql_error(struct ag_kb *kb, const char *doing, struct err *err)
{
	int code = sqlite3_extended_errcode(kb->db);
	CLEANUP(base_buf_done) struct base_buf aside = BASE_BUF_INIT(8192);

	if (is_damage(code)) {
		if (move_aside(kb->path, &aside) == 0)
			return err_set(err, -EUCLEAN,
			               "%s is damaged and was moved to %s; add the sources again with `ocai kb add`",
			               kb->path, base_buf_text(&aside));
		return err_set(err, -EUCLEAN, "%s is damaged (%s)", kb->path, sqlite3_errmsg(kb->db));
	}
	switch (code & 0xff) {
	case SQLITE_FULL:
		return err_set(err, -ENOSPC, "%s: %s: no space left", kb->path, doing);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, -EBUSY, "%s: another program is writing to it", kb->path);
	case SQLITE_READONLY:
		return err_set(err, -EROFS, "%s: may not be written", kb->path);
	case SQLITE_INTERRUPT:
		return err_set(err, -ECANCELED, "cancelled");
	case SQLITE_NOMEM:
		return err_set(err, -ENOMEM, "%s: out of memory", kb->path);
	default:
		return err_set(err, -EIO, "%s: %s: %s", kb->path, doing, sqlite3_errmsg(kb->db));
	}
}

int ag_kb_exec(struct ag_kb *kb, const char *sql, struct err *err)
{
	return sqlite3_exec(kb->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : ag_kb_sql_error(kb, "writing", err);
}

int ag_kb_prepare(struct ag_kb *kb, const char *sql, sqlite3_stmt **ret_stmt, struct err *err)
{
	return sqlite3_prepare_v2(kb->db, sql, -1, ret_stmt, NULL) == SQLITE_OK ? 0
	                                                                        : ag_kb_sql_error(kb, "reading", err);
}

int ag_kb_step_done(struct ag_kb *kb, sqlite3_stmt *stmt, struct err *err)
{
	int code = sqlite3_step(stmt);
	int r = code == SQLITE_DONE || code == SQLITE_ROW ? 0 : ag_kb_sql_error(kb, "writing", err);

	(void)sqlite3_reset(stmt);
	return r;
}

void ag_kb_finalizep(sqlite3_stmt **stmt)
{
	(void)sqlite3_finalize(*stmt);
}

/* ---- Opening ---------------------------------------------------------------------------------------- */

static int default_path(struct base_buf *out, struct err *err)
{
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	int r;

	if (data && data[0] == '/')
		r = base_buf_printf(out, "%s/ocai/kb.sqlite", data);
	else if (home && home[0] == '/')
		r = base_buf_printf(out, "%s/.local/share/ocai/kb.sqlite", home);
	else
		return err_set(err, -ENOENT, "neither XDG_DATA_HOME nor HOME says where the knowledge base is");
	return r < 0 ? err_set(err, r, "the path of the knowledge base is too long") : 0;
}

static int user_version(sqlite3 *db, int *ret_version)
{
	sqlite3_stmt *stmt = NULL;
	int code = sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &stmt, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(stmt);
	if (code == SQLITE_ROW) {
		*ret_version = sqlite3_column_int(stmt, 0);
		code = SQLITE_OK;
	}
	(void)sqlite3_finalize(stmt);
	return code;
}

static int set_up(struct ag_kb *kb, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	int version = 0, r;

	(void)sqlite3_extended_result_codes(kb->db, 1);
	(void)sqlite3_busy_timeout(kb->db, BUSY_TIMEOUT_MS);
	(void)sqlite3_db_config(kb->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	if (ag_kb_fts_register(kb->db) != SQLITE_OK)
		return err_set(err, -ENOTSUP, "this SQLite has no FTS5");
	if (user_version(kb->db, &version) != SQLITE_OK)
		return ag_kb_sql_error(kb, "reading", err);
	if (version > SCHEMA_VERSION)
		return err_set(err, -EPROTO, "%s was written by a newer ocai (version %d, known is %d)", kb->path,
		               version, SCHEMA_VERSION);
	r = ag_kb_exec(kb, "PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON; PRAGMA synchronous = NORMAL;",
	               err);
	if (r == 0 && version == 0) {
		r = ag_kb_exec(kb, "PRAGMA journal_mode = WAL; BEGIN IMMEDIATE;", err);
		/* Another process may have been faster. */
		if (r == 0 && user_version(kb->db, &version) == SQLITE_OK && version == 0)
			r = ag_kb_exec(kb, schema, err);
		if (r == 0)
			r = ag_kb_exec(kb, "PRAGMA user_version = 1; COMMIT;", err);
	}
	/* Touches the tables that everything needs, so that damage shows here. */
	if (r == 0)
		r = ag_kb_prepare(kb,
		                  "SELECT (SELECT count(*) FROM source), (SELECT max(id) FROM passage),"
		                  " (SELECT rowid FROM passage_fts WHERE passage_fts MATCH 'ocai' LIMIT 1)",
		                  &stmt, err);
	return r < 0 ? r : ag_kb_step_done(kb, stmt, err);
}

static int open_once(struct ag_kb *kb, bool must_exist, struct err *err)
{
	int flags = SQLITE_OPEN_READWRITE | (must_exist ? 0 : SQLITE_OPEN_CREATE);
	mode_t old = umask(0077); /* the journals too are for this user alone */
	int r = 0;

	if (sqlite3_open_v2(kb->path, &kb->db, flags, NULL) != SQLITE_OK)
		r = kb->db ? err_set(err, -EIO, "%s: %s", kb->path, sqlite3_errmsg(kb->db))
		           : err_set(err, -ENOMEM, "%s: out of memory", kb->path);
	else
		r = set_up(kb, err);
	(void)umask(old);
	return r;
}

static int open_database(struct ag_kb *kb, bool must_exist, struct err *err)
{
	struct err first = { 0 };
	struct stat st;
	int r;

	if (must_exist && stat(kb->path, &st) < 0)
		return err_set(err, -errno, "%s: %s", kb->path,
		               errno == ENOENT ? "there is no knowledge base yet; begin with `ocai kb add`"
		                               : strerror(errno));
	r = must_exist ? 0 : base_make_parents(kb->path, 0700, err);
	if (r < 0)
		return r;
	r = open_once(kb, must_exist, &first);
	if (r == -EUCLEAN && stat(kb->path, &st) < 0) { /* it was moved aside: begin anew */
		ag_kb_notice(kb, "%s", err_text(&first));
		(void)sqlite3_close_v2(kb->db);
		kb->db = NULL;
		first = (struct err){ 0 };
		r = open_once(kb, false, &first);
	}
	return r < 0 ? err_set(err, r, "%s", err_text(&first)) : 0;
}

int ag_kb_open(const struct ag_kb_options *options, struct ag_kb **ret_kb, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf path = BASE_BUF_INIT(4096);
	struct ag_kb *kb = calloc(1, sizeof(*kb));
	int r;

	if (!kb)
		return err_set(err, -ENOMEM, "out of memory");
	kb->max_file_bytes = options->max_file_bytes ? options->max_file_bytes : 4u << 20;
	kb->max_total_bytes = options->max_total_bytes ? options->max_total_bytes : 512u << 20;
	kb->cancel = options->cancel;
	kb->on_notice = options->on_notice;
	kb->on_notice_arg = options->on_notice_arg;
	r = options->path ? base_buf_puts(&path, options->path) : default_path(&path, err);
	if (r == 0 && !(kb->path = strdup(base_buf_text(&path))))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = open_database(kb, options->must_exist, err);
	if (r == 0 && options->embedder && options->embedder->url && *options->embedder->url)
		r = ag_kb_embed_new(options->embedder, &kb->embed, err);
	if (r < 0) {
		ag_kb_close(kb);
		return r;
	}
	*ret_kb = kb;
	return 0;
}

void ag_kb_close(struct ag_kb *kb)
{
	if (!kb)
		return;
	(void)sqlite3_close_v2(kb->db);
	ag_kb_embed_free(kb->embed);
	free(kb->path);
	free(kb);
}
