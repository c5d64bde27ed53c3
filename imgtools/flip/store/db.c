/* store.db: SQLite with a write-ahead log. One connection, used under db_lock.
 *
 *   meta      small facts: the durable epoch, the boot id, whether the store was closed, counters
 *   layer     what is in layers/       snapshot, label   what containerd knows       note   small named facts
 *
 * Nothing is written here for an object: what is known of it lies in its name and inode. A damaged file is moved aside
 * and made again out of the row.json that every folder of a layer and of a snapshot holds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store/store_internal.h"

enum { SCHEMA_VERSION = 1, BUSY_TIMEOUT_MS = 5000 };

static const char schema[] =
        "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
        "CREATE TABLE layer(digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL, blob_size INTEGER NOT NULL,"
        " kind INTEGER NOT NULL, ref TEXT, media_type TEXT, annotations TEXT, last_used INTEGER NOT NULL,"
        " epoch INTEGER NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE snapshot(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, parent TEXT,"
        " kind INTEGER NOT NULL, layer TEXT, created INTEGER NOT NULL, updated INTEGER NOT NULL,"
        " size INTEGER NOT NULL, inodes INTEGER NOT NULL);"
        "CREATE INDEX snapshot_parent ON snapshot(parent);"
        "CREATE TABLE label(snapshot INTEGER NOT NULL REFERENCES snapshot(id) ON DELETE CASCADE, name TEXT NOT NULL,"
        " value TEXT NOT NULL, PRIMARY KEY(snapshot, name)) WITHOUT ROWID;"
        "CREATE TABLE note(kind TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY(kind, name))"
        " WITHOUT ROWID;";

static bool is_damage(int code)
{
	return (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;
}

int flip_db_error(struct flip_store *s, const char *doing, struct err *err)
{
	int code = s->db ? sqlite3_extended_errcode(s->db) : SQLITE_NOMEM;

	if (is_damage(code))
		return err_set(err, -EUCLEAN, "%s is damaged (%s); it is made again when the store is opened",
		               s->db_path, sqlite3_errmsg(s->db));
	switch (code & 0xff) {
	case SQLITE_FULL:
		return err_set(err, -ENOSPC, "%s: %s: no space left", s->db_path, doing);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, -EBUSY, "%s: another program is writing to it", s->db_path);
	case SQLITE_READONLY:
		return err_set(err, -EROFS, "%s: may not be written", s->db_path);
	case SQLITE_NOMEM:
		return err_set(err, -ENOMEM, "%s: out of memory", s->db_path);
	case SQLITE_CONSTRAINT:
		return err_set(err, -EEXIST, "%s: %s: %s", s->db_path, doing, sqlite3_errmsg(s->db));
	default:
		return err_set(err, -EIO, "%s: %s: %s", s->db_path, doing, sqlite3_errmsg(s->db));
	}
}

static int db_exec(struct flip_store *s, const char *sql, struct err *err)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : flip_db_error(s, "writing", err);
}

int flip_db_prepare(struct flip_store *s, const char *sql, sqlite3_stmt **ret_stmt, struct err *err)
{
	return sqlite3_prepare_v2(s->db, sql, -1, ret_stmt, NULL) == SQLITE_OK ? 0 : flip_db_error(s, "reading", err);
}

void flip_db_finalizep(sqlite3_stmt **stmt)
{
	(void)sqlite3_finalize(*stmt);
}

int flip_db_step(struct flip_store *s, sqlite3_stmt *stmt, struct err *err)
{
	switch (sqlite3_step(stmt)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return flip_db_error(s, "reading or writing", err);
	}
}

/* durable: on the disk when the commit returns. What containerd was told must be; the rest may be lost with the
 * machine, and then is as if it had not been done. */
int flip_db_begin(struct flip_store *s, bool durable, struct err *err)
{
	int r;

	if (s->opts.read_only)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	r = db_exec(s, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", err);
	return r < 0 ? r : db_exec(s, "BEGIN IMMEDIATE", err);
}

int flip_db_commit(struct flip_store *s, struct err *err)
{
	int r = db_exec(s, "COMMIT", err);

	if (r < 0)
		flip_db_rollback(s);
	return r;
}

int flip_db_end(struct flip_store *s, int r, struct err *err)
{
	if (r == 0)
		return flip_db_commit(s, err);
	flip_db_rollback(s);
	return r;
}

void flip_db_rollback(struct flip_store *s)
{
	if (s->db && !sqlite3_get_autocommit(s->db))
		(void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

void flip_db_bind_text(sqlite3_stmt *stmt, int i, const char *text)
{
	(void)sqlite3_bind_text(stmt, i, text, -1,
	                        SQLITE_TRANSIENT); /* a failure shows as NULL, which columns refuse */
}

char *flip_db_text(sqlite3_stmt *stmt, int column, int *oom)
{
	const char *text = (const char *)sqlite3_column_text(stmt, column);
	char *copy;

	if (!text)
		return NULL;
	copy = strdup(text);
	if (!copy)
		*oom = -ENOMEM;
	return copy;
}

/* ---- Meta ----------------------------------------------------------------------------------------------------- */

int flip_db_meta_get(struct flip_store *s, const char *key, int64_t *ret_number, void *ret_blob, size_t blob_size,
                     struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s, "SELECT value FROM meta WHERE key = ?", &stmt, err);

	if (r < 0)
		return r;
	flip_db_bind_text(stmt, 1, key);
	r = flip_db_step(s, stmt, err);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	if (ret_number)
		*ret_number = sqlite3_column_int64(stmt, 0);
	if (ret_blob) {
		if ((size_t)sqlite3_column_bytes(stmt, 0) != blob_size)
			return -ENOENT;
		memcpy(ret_blob, sqlite3_column_blob(stmt, 0), blob_size);
	}
	return 0;
}

static int meta_set(struct flip_store *s, const char *key, int64_t number, const void *data, size_t size,
                    struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s, "INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)", &stmt, err);

	if (r < 0)
		return r;
	flip_db_bind_text(stmt, 1, key);
	if (data)
		(void)sqlite3_bind_blob(stmt, 2, data, (int)size, SQLITE_TRANSIENT);
	else
		(void)sqlite3_bind_int64(stmt, 2, number);
	return flip_db_step(s, stmt, err);
}

int flip_db_meta_set_int(struct flip_store *s, const char *key, int64_t number, struct err *err)
{
	return meta_set(s, key, number, NULL, 0, err);
}

int flip_db_meta_set_blob(struct flip_store *s, const char *key, const void *data, size_t size, struct err *err)
{
	return meta_set(s, key, 0, data, size, err);
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

static int user_version(struct flip_store *s, int *ret_version, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s, "PRAGMA user_version", &stmt, err);

	if (r < 0)
		return r;
	r = flip_db_step(s, stmt, err);
	if (r == 1)
		*ret_version = sqlite3_column_int(stmt, 0);
	return r < 0 ? r : 0;
}

/* Rows are few: the whole file is looked through. */
static int check(struct flip_store *s, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s, "PRAGMA quick_check(1)", &stmt, err);
	const char *word;

	if (r < 0)
		return r;
	r = flip_db_step(s, stmt, err);
	if (r < 0)
		return r;
	word = r == 1 ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
	if (!word || strcmp(word, "ok") != 0)
		return err_set(err, -EUCLEAN, "%s is damaged (%s)", s->db_path, word ? word : "no answer");
	return 0;
}

static int make_tables(struct flip_store *s, struct err *err)
{
	char version[64];
	int r = flip_db_begin(s, true, err);

	if (r < 0)
		return r;
	(void)snprintf(version, sizeof(version), "PRAGMA user_version=%d", SCHEMA_VERSION);
	r = db_exec(s, schema, err);
	if (r == 0)
		r = db_exec(s, version, err);
	if (r == 0)
		r = flip_layers_rebuild(s, err);
	if (r == 0)
		r = flip_snapshots_rebuild(s, err);
	if (r == 0)
		return flip_db_commit(s, err);
	flip_db_rollback(s);
	return r;
}

/* The whole file; missing is an empty one. */
static int copy_file(int from_dir, const char *name, int to_dir, struct err *err)
{
	CLEANUP(close_fdp) int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP(close_fdp) int to = -1;
	char buf[1 << 14];
	uint64_t at = 0;
	ssize_t n = 0;
	int r = 0;

	if (from < 0)
		return errno == ENOENT ? 0 : err_set(err, -errno, "%s: %s", name, strerror(errno));
	to = openat(to_dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (to < 0)
		return err_set(err, -errno, "a copy of %s: %s", name, strerror(errno));
	while (r == 0 && (n = pread(from, buf, sizeof(buf), (off_t)at)) > 0) {
		r = flip_store_write_at(to, buf, (size_t)n, at);
		at += (uint64_t)n;
	}
	if (n < 0)
		r = -errno;
	return r < 0 ? err_set(err, r, "copying %s: %s", name, strerror(-r)) : 0;
}

struct state { /* of the files; while it is the same, no checkpoint has moved pages between them */
	struct stat db;
	uint8_t log[32]; /* the header of the log, with its salts */
};

static void read_state(struct flip_store *s, struct state *ret_state)
{
	CLEANUP(close_fdp) int fd = openat(s->dir_fd, "store.db-wal", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	memset(ret_state, 0, sizeof(*ret_state));
	(void)fstatat(s->dir_fd, "store.db", &ret_state->db, AT_SYMLINK_NOFOLLOW);
	ret_state->db.st_atim = (struct timespec){ 0 };
	if (fd >= 0)
		(void)flip_store_read_at(fd, ret_state->log, sizeof(ret_state->log), 0);
}

/* For those who only look, the daemon or nobody being at work: a copy in a private folder, because SQLite would write
 * files beside the original, and the daemon keeps its lock. */
static int copy_away(struct flip_store *s, const char *dir, struct err *err)
{
	CLEANUP(close_fdp) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct state before, after;
	int r;

	if (dir_fd < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (faccessat(s->dir_fd, "store.db", F_OK, 0) < 0)
		return err_set(err, -errno, "%s: %s", s->db_path, strerror(errno));
	for (int i = 0; i < 10; i++) {
		read_state(s, &before);
		r = copy_file(s->dir_fd, "store.db", dir_fd, err);
		if (r == 0)
			r = copy_file(s->dir_fd, "store.db-wal", dir_fd, err);
		read_state(s, &after);
		if (r < 0 || memcmp(&before, &after, sizeof(before)) == 0)
			return r;
		(void)unlinkat(dir_fd, "store.db-wal", 0);
	}
	return err_set(err, -EBUSY, "%s: changes all the time", s->db_path);
}

static int connect_path(struct flip_store *s, const char *path, int flags, struct err *err)
{
	if (sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		return flip_db_error(s, "opening", err);
	(void)sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
	/* One process has it (its lock says so): the index of the log is in memory then, not in a mapped file, which
	 * would be a bus error on a full disk. */
	return db_exec(s,
	               "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON;"
	               " PRAGMA journal_size_limit=4194304",
	               err);
}

static int connect(struct flip_store *s, struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	char dir[256], path[300];
	int fd, r;

	if (!s->opts.read_only)
		return connect_path(s, s->db_path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
	(void)snprintf(dir, sizeof(dir), "%.200s/flip-store-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s/store.db", dir);
	r = copy_away(s, dir, err);
	if (r == 0)
		r = connect_path(s, path, SQLITE_OPEN_READWRITE, err);
	/* What is open stays so without a name. */
	fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)flip_store_remove_tree(fd, dir);
	close_fdp(&fd);
	return r;
}

static int open_once(struct flip_store *s, struct err *err)
{
	int version = 0, r = connect(s, err);

	if (r == 0)
		r = user_version(s, &version, err);
	if (r < 0)
		return r;
	if (version == 0 && !s->opts.read_only)
		return make_tables(s, err);
	if (version != SCHEMA_VERSION)
		return err_set(err, -ENOTSUP, "%s: its version is %d, this program knows %d", s->db_path, version,
		               SCHEMA_VERSION);
	return check(s, err);
}

static int move_aside(struct flip_store *s, struct err *err)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	time_t now = time(NULL);
	char stamp[32], from[64], to[64];
	struct tm tm;

	(void)gmtime_r(&now, &tm);
	(void)strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		(void)snprintf(from, sizeof(from), "store.db%s", suffixes[i]);
		(void)snprintf(to, sizeof(to), "store.db.damaged-%s%s", stamp, suffixes[i]);
		if (renameat(s->dir_fd, from, s->dir_fd, to) < 0 && errno != ENOENT)
			return err_set(err, -errno, "%s: moving it aside: %s", s->db_path, strerror(errno));
	}
	return 0;
}

int flip_db_open(struct flip_store *s, struct err *err)
{
	struct err first = { 0 };
	int r;

	if (!s->db_path && asprintf(&s->db_path, "%s/store.db", s->dir) < 0) {
		s->db_path = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	r = open_once(s, &first);
	if (r == -EUCLEAN && !s->opts.read_only) {
		flip_db_close(s);
		r = move_aside(s, &first);
		if (r == 0)
			r = open_once(s, &first);
	}
	return r < 0 ? err_set(err, r, "%s", err_text(&first)) : 0;
}

void flip_db_close(struct flip_store *s)
{
	if (s->db)
		(void)sqlite3_close_v2(s->db);
	s->db = NULL;
}
