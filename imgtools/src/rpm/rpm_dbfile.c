/* The file of a package database that librpm has filled: rewritten small, and the same for the same packages. What rpm
 * needs of it is described in rpm_dbwrite.c. */
#include <errno.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>

#include "rpm_internal.h"

/* Runs one statement made of a format of sqlite3_mprintf. */
static int sql(sqlite3 *db, const char *format, ...)
{
	va_list args;
	char *text;
	int rc;

	va_start(args, format);
	text = sqlite3_vmprintf(format, args);
	va_end(args);
	rc = text ? sqlite3_exec(db, text, NULL, NULL, NULL) : SQLITE_NOMEM;
	sqlite3_free(text);
	return rc;
}

/* A number that a database carries in its header: what rpm knows its own databases by. */
static int copy_pragma(sqlite3 *from, sqlite3 *to, const char *name)
{
	sqlite3_stmt *row = NULL;
	char *text = sqlite3_mprintf("PRAGMA %s", name);
	int rc = text ? sqlite3_prepare_v2(from, text, -1, &row, NULL) : SQLITE_NOMEM;

	if (rc == SQLITE_OK && sqlite3_step(row) == SQLITE_ROW)
		rc = sql(to, "PRAGMA %s = %d", name, sqlite3_column_int(row, 0));
	(void)sqlite3_finalize(row);
	sqlite3_free(text);
	return rc;
}

/* What is there of each file's folder, for the statements that copy the indexes. */
static int name_files(sqlite3 *db, const struct img_rpmdb_rows *files)
{
	sqlite3_stmt *row = NULL;
	int rc = sql(db, "CREATE TEMP TABLE files (hnum, idx, folder, there, PRIMARY KEY (hnum, idx)) WITHOUT ROWID;"
	                 "CREATE INDEX temp.by_folder ON files (hnum, folder, there)");

	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(db, "INSERT INTO temp.files VALUES (?, ?, ?, ?)", -1, &row, NULL);
	for (size_t i = 0; rc == SQLITE_OK && i < files->n; i++) {
		const struct img_rpmdb_row *f = &files->v[i];
		const size_t len = (size_t)(strrchr(f->path, '/') + 1 - f->path);

		(void)sqlite3_bind_int64(row, 1, f->package);
		(void)sqlite3_bind_int64(row, 2, f->file);
		(void)sqlite3_bind_text64(row, 3, f->path, len, SQLITE_STATIC, SQLITE_UTF8);
		(void)sqlite3_bind_int64(row, 4, f->is_there);
		rc = sqlite3_step(row) == SQLITE_DONE ? SQLITE_OK : SQLITE_ERROR;
		(void)sqlite3_reset(row);
	}
	(void)sqlite3_finalize(row);
	return rc;
}

/* The tables with their rows, in the order that librpm made them, without indexes and constraints. The texts of the
 * statements stand in the database, so they are as short as they can be. */
static int copy_tables(sqlite3 *db)
{
	static const char is_there[] =
	        "WHERE NOT EXISTS (SELECT 1 FROM temp.files f WHERE f.hnum = b.hnum AND f.idx = b.idx AND NOT f.there)";
	static const char has_files[] =
	        "WHERE NOT EXISTS (SELECT 1 FROM temp.files f WHERE f.hnum = b.hnum AND f.folder = b.key) "
	        "OR EXISTS (SELECT 1 FROM temp.files f WHERE f.hnum = b.hnum AND f.folder = b.key AND f.there)";
	sqlite3_stmt *tables = NULL;
	int rc;

	rc = sql(db, "CREATE TABLE Packages(hnum INTEGER PRIMARY KEY,blob BLOB NOT NULL);"
	             "INSERT INTO main.Packages SELECT hnum, blob FROM old.Packages ORDER BY hnum");
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(
		        db,
		        "SELECT name FROM old.sqlite_master WHERE type = 'table' AND name <> 'Packages' "
		        "AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid",
		        -1, &tables, NULL);
	while (rc == SQLITE_OK && sqlite3_step(tables) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(tables, 0);

		rc = sql(db,
		         "CREATE TABLE main.'%q'(key,hnum,idx);"
		         "INSERT INTO main.'%q' SELECT key, hnum, idx FROM old.'%q' b %s ORDER BY rowid",
		         name, name, name,
		         strcmp(name, "Basenames") == 0  ? is_there
		         : strcmp(name, "Dirnames") == 0 ? has_files
		                                         : "");
	}
	(void)sqlite3_finalize(tables);
	return rc;
}

/* Headers of our own: a new database of small pages. */
int img_rpmdb_rebuild_small(const char *from, const char *to, const struct img_rpmdb_rows *files, struct err *err)
{
	sqlite3 *db = NULL, *old = NULL;
	int rc, r = 0;

	rc = sqlite3_open_v2(from, &old, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	/* What is in the write-ahead log has to be in the file before another connection looks. */
	if (rc == SQLITE_OK)
		rc = sql(old, "PRAGMA journal_mode = DELETE");
	if (rc == SQLITE_OK)
		rc = sqlite3_open_v2(to, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_OK)
		rc = sql(db, "PRAGMA page_size = 512; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
	if (rc == SQLITE_OK)
		rc = copy_pragma(old, db, "application_id");
	if (rc == SQLITE_OK)
		rc = copy_pragma(old, db, "user_version");
	if (rc == SQLITE_OK)
		rc = sql(db, "ATTACH %Q AS old; BEGIN", from);
	if (rc == SQLITE_OK)
		rc = name_files(db, files);
	if (rc == SQLITE_OK)
		rc = copy_tables(db);
	if (rc == SQLITE_OK)
		rc = sql(db, "COMMIT; DETACH old");
	if (rc != SQLITE_OK)
		r = err_set(err, -EIO, "%s: %s", from, db ? sqlite3_errmsg(db) : "cannot be opened");
	(void)sqlite3_close(db);
	(void)sqlite3_close(old);
	return r;
}

/* Signed headers: as librpm made it, but for free pages and statistics. */
int img_rpmdb_vacuum(const char *from, const char *to, struct err *err)
{
	sqlite3 *db = NULL;
	int rc, r = 0;

	rc = sqlite3_open_v2(from, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_OK)
		rc = sql(db, "PRAGMA journal_mode = DELETE");
	if (rc == SQLITE_OK) /* fails where no statistics were made */
		(void)sql(db, "DELETE FROM sqlite_stat1");
	if (rc == SQLITE_OK)
		rc = sql(db, "PRAGMA page_size = 1024; VACUUM; VACUUM INTO %Q", to);
	if (rc != SQLITE_OK)
		r = err_set(err, -EIO, "%s: %s", from, db ? sqlite3_errmsg(db) : "cannot be opened");
	(void)sqlite3_close(db);
	return r;
}
