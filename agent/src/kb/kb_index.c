/* Indexing: bringing a source's rows up to date with its files.
 *
 * A file is unchanged when size and time are; when only the time differs its SHA-256 decides. A changed file's rows go
 * and come in one transaction with those of some other files, so that whatever interrupts leaves whole files. Files
 * that a completed walk has not met are removed last. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "kb/kb_internal.h"
#include "tools/tools.h"

enum { FILES_PER_COMMIT = 64 };

struct indexer {
	struct ag_kb *kb;
	struct ag_kb_counts *counts;
	struct err *err;
	int64_t source_id;
	uint64_t total_bytes;
	unsigned n_pending; /* files in the open transaction */
	bool full;          /* the ceiling of all text was told */
	sqlite3_stmt *find, *touch, *drop, *add_file, *add_passage, *mark;
};

/* One row found by path. */
struct known {
	int64_t id, size, mtime_ns, n_bytes;
	uint8_t sha256[BASE_SHA256_SIZE];
	bool exists;
};

static int prepare_all(struct indexer *ix)
{
	static const char *const sql[] = {
		"SELECT id, size, mtime_ns, n_bytes, sha256 FROM file WHERE source_id = ?1 AND path = ?2",
		"UPDATE file SET size = ?2, mtime_ns = ?3 WHERE id = ?1",
		"DELETE FROM file WHERE id = ?1",
		"INSERT INTO file(source_id, path, size, mtime_ns, sha256, n_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
		"INSERT INTO passage(file_id, line, title, text) VALUES (?1, ?2, ?3, ?4)",
		"INSERT OR IGNORE INTO met(id) VALUES (?1)",
	};
	sqlite3_stmt **stmts[] = { &ix->find, &ix->touch, &ix->drop, &ix->add_file, &ix->add_passage, &ix->mark };
	int r = ag_kb_exec(ix->kb, "CREATE TEMP TABLE IF NOT EXISTS met(id INTEGER PRIMARY KEY); DELETE FROM met;",
	                   ix->err);

	for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]) && r == 0; i++)
		r = ag_kb_prepare(ix->kb, sql[i], stmts[i], ix->err);
	return r;
}

static void finalize_all(struct indexer *ix)
{
	(void)sqlite3_finalize(ix->find);
	(void)sqlite3_finalize(ix->touch);
	(void)sqlite3_finalize(ix->drop);
	(void)sqlite3_finalize(ix->add_file);
	(void)sqlite3_finalize(ix->add_passage);
	(void)sqlite3_finalize(ix->mark);
}

static int query_u64(struct ag_kb *kb, const char *sql, uint64_t *ret, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	int r = ag_kb_prepare(kb, sql, &stmt, err);

	if (r < 0)
		return r;
	if (sqlite3_step(stmt) != SQLITE_ROW)
		return ag_kb_sql_error(kb, "reading", err);
	*ret = (uint64_t)sqlite3_column_int64(stmt, 0);
	return 0;
}

static int find_file(struct indexer *ix, const char *path, struct known *k)
{
	int code, r = 0;

	*k = (struct known){ 0 };
	(void)sqlite3_bind_int64(ix->find, 1, ix->source_id);
	(void)sqlite3_bind_text(ix->find, 2, path, -1, SQLITE_STATIC);
	code = sqlite3_step(ix->find);
	if (code == SQLITE_ROW) {
		k->exists = true;
		k->id = sqlite3_column_int64(ix->find, 0);
		k->size = sqlite3_column_int64(ix->find, 1);
		k->mtime_ns = sqlite3_column_int64(ix->find, 2);
		k->n_bytes = sqlite3_column_int64(ix->find, 3);
		if (sqlite3_column_bytes(ix->find, 4) == BASE_SHA256_SIZE)
			memcpy(k->sha256, sqlite3_column_blob(ix->find, 4), BASE_SHA256_SIZE);
	} else if (code != SQLITE_DONE) {
		r = ag_kb_sql_error(ix->kb, "reading", ix->err);
	}
	(void)sqlite3_reset(ix->find);
	return r;
}

static int mark_met(struct indexer *ix, int64_t id)
{
	(void)sqlite3_bind_int64(ix->mark, 1, id);
	return ag_kb_step_done(ix->kb, ix->mark, ix->err);
}

static void skip(struct indexer *ix, const char *path, const char *why)
{
	ix->counts->n_skipped++;
	if (why)
		ag_kb_notice(ix->kb, "skipped %s: %s", path, why);
}

struct passages {
	struct indexer *ix;
	int64_t file_id;
	const char *title;
	uint64_t n_bytes;
};

static int add_passage(void *arg, uint32_t line, const char *heading, const char *text, size_t len)
{
	struct passages *p = arg;
	CLEANUP(base_buf_done) struct base_buf title = BASE_BUF_INIT(2048);
	sqlite3_stmt *stmt = p->ix->add_passage;

	if (base_buf_puts(&title, p->title) < 0 ||
	    (*heading && strcmp(heading, p->title) != 0 && base_buf_printf(&title, " > %s", heading) < 0))
		return err_set(p->ix->err, -ENOMEM, "out of memory");
	p->n_bytes += len;
	(void)sqlite3_bind_int64(stmt, 1, p->file_id);
	(void)sqlite3_bind_int64(stmt, 2, line);
	(void)sqlite3_bind_text(stmt, 3, base_buf_text(&title), -1, SQLITE_TRANSIENT);
	(void)sqlite3_bind_text64(stmt, 4, text, len, SQLITE_TRANSIENT, SQLITE_UTF8);
	return ag_kb_step_done(p->ix->kb, stmt, p->ix->err);
}

static int drop_file(struct indexer *ix, const struct known *k)
{
	if (!k->exists)
		return 0;
	ix->total_bytes -= (uint64_t)k->n_bytes < ix->total_bytes ? (uint64_t)k->n_bytes : ix->total_bytes;
	(void)sqlite3_bind_int64(ix->drop, 1, k->id);
	return ag_kb_step_done(ix->kb, ix->drop, ix->err);
}

static int insert_file(struct indexer *ix, const char *path, const struct stat *st, const uint8_t *sha256,
                       const struct ag_kb_doc *doc)
{
	const char *slash = strrchr(path, '/');
	struct passages p = { .ix = ix, .title = doc->title[0] ? doc->title : slash ? slash + 1 : path };
	sqlite3_stmt *stmt = ix->add_file;
	int r;

	(void)sqlite3_bind_int64(stmt, 1, ix->source_id);
	(void)sqlite3_bind_text(stmt, 2, path, -1, SQLITE_STATIC);
	(void)sqlite3_bind_int64(stmt, 3, st->st_size);
	(void)sqlite3_bind_int64(stmt, 4, (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec);
	(void)sqlite3_bind_blob(stmt, 5, sha256, BASE_SHA256_SIZE, SQLITE_STATIC);
	(void)sqlite3_bind_int64(stmt, 6, (int64_t)doc->text.len);
	r = ag_kb_step_done(ix->kb, stmt, ix->err);
	if (r < 0)
		return r;
	p.file_id = sqlite3_last_insert_rowid(ix->kb->db);
	r = ag_kb_split(doc, add_passage, &p);
	if (r == 0)
		r = mark_met(ix, p.file_id);
	ix->total_bytes += doc->text.len;
	return r;
}

static int commit(struct indexer *ix)
{
	int r = ix->n_pending ? ag_kb_exec(ix->kb, "COMMIT", ix->err) : 0;

	ix->n_pending = 0;
	return r;
}

/* In a transaction: the old rows go, the new ones come. */
static int replace_file(struct indexer *ix, const char *path, const struct stat *st, const struct known *k,
                        const uint8_t *sha256, const struct ag_kb_doc *doc)
{
	int r;

	if (ix->n_pending == 0 && (r = ag_kb_exec(ix->kb, "BEGIN IMMEDIATE", ix->err)) < 0)
		return r;
	ix->n_pending++;
	/* A file's rows are whole or absent, whatever happens between. */
	r = ag_kb_exec(ix->kb, "SAVEPOINT one_file", ix->err);
	if (r == 0)
		r = drop_file(ix, k);
	if (r == 0)
		r = insert_file(ix, path, st, sha256, doc);
	if (r < 0) {
		(void)sqlite3_exec(ix->kb->db, "ROLLBACK TO one_file; RELEASE one_file", NULL, NULL, NULL);
		return r;
	}
	r = ag_kb_exec(ix->kb, "RELEASE one_file", ix->err);
	ix->counts->n_new++;
	return r < 0 || ix->n_pending < FILES_PER_COMMIT ? r : commit(ix);
}

/* What has only a pointer to another page (".so man1/other.1"): the other is read for itself. */
static bool is_pointer_page(const struct base_buf *text)
{
	return text->len < 512 && text->len > 4 && memcmp(text->data, ".so ", 4) == 0;
}

static int read_and_replace(struct indexer *ix, const char *path, const struct stat *st, const struct known *k)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(ix->kb->max_file_bytes);
	CLEANUP(ag_kb_doc_done) struct ag_kb_doc doc;
	uint8_t sha256[BASE_SHA256_SIZE];
	struct err why = { 0 };
	int r = ag_kb_read_document(path, &text, &why);

	ag_kb_doc_init(&doc, ix->kb->max_file_bytes * 3 + 4096); /* a byte can become three: U+FFFD */
	if (r < 0) {
		const char *words = err_text(&why);
		size_t n = strlen(path);

		skip(ix, path, strncmp(words, path, n) == 0 && words[n] == ':' ? words + n + 2 : words);
		return r == -ENOMEM ? r : 0;
	}
	if (text.len == 0 || is_pointer_page(&text))
		return 0;
	if (ag_tools_is_secret_text(text.data, text.len)) {
		skip(ix, path, "it holds a private key");
		return 0;
	}
	if (base_sha256_bytes(text.data, text.len, sha256) < 0)
		return err_set(ix->err, -EIO, "SHA-256 is not available");
	if (k->exists && memcmp(sha256, k->sha256, sizeof(sha256)) == 0) {
		ix->counts->n_files++;
		ix->counts->n_unchanged++;
		(void)sqlite3_bind_int64(ix->touch, 1, k->id);
		(void)sqlite3_bind_int64(ix->touch, 2, st->st_size);
		(void)sqlite3_bind_int64(ix->touch, 3, (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec);
		r = ag_kb_step_done(ix->kb, ix->touch, ix->err);
		return r < 0 ? r : mark_met(ix, k->id);
	}
	r = ag_kb_extract(ag_kb_format_of(path), text.data, text.len, &doc);
	if (r == -EBADMSG) { /* binary: pictures and programs need no notice each */
		skip(ix, path, NULL);
		return 0;
	}
	if (r < 0) {
		skip(ix, path, r == -EFBIG ? "too large" : "out of memory");
		return r == -ENOMEM ? r : 0;
	}
	if (ix->total_bytes + doc.text.len > ix->kb->max_total_bytes) {
		skip(ix, path, ix->full ? NULL : "the knowledge base is full (max-total-size)");
		ix->full = true;
		return 0;
	}
	ix->counts->n_files++;
	return replace_file(ix, path, st, k, sha256, &doc);
}

static int on_file(void *arg, const char *path)
{
	struct indexer *ix = arg;
	struct known k;
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return 0; /* gone meanwhile */
	if ((uint64_t)st.st_size > ix->kb->max_file_bytes) {
		skip(ix, path, "larger than max-file-size");
		return 0;
	}
	r = find_file(ix, path, &k);
	if (r < 0)
		return r;
	if (k.exists && k.size == st.st_size &&
	    k.mtime_ns == (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec) {
		ix->counts->n_files++;
		ix->counts->n_unchanged++;
		return mark_met(ix, k.id);
	}
	return read_and_replace(ix, path, &st, &k);
}

static int remove_unmet(struct indexer *ix)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *done = NULL;
	int r = ag_kb_prepare(ix->kb, "DELETE FROM file WHERE source_id = ?1 AND id NOT IN (SELECT id FROM met)", &stmt,
	                      ix->err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(stmt, 1, ix->source_id);
	r = ag_kb_step_done(ix->kb, stmt, ix->err);
	if (r < 0)
		return r;
	ix->counts->n_removed += (uint64_t)sqlite3_changes(ix->kb->db);
	r = ag_kb_prepare(ix->kb, "UPDATE source SET updated = ?2 WHERE id = ?1", &done, ix->err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(done, 1, ix->source_id);
	(void)sqlite3_bind_int64(done, 2, (int64_t)time(NULL));
	return ag_kb_step_done(ix->kb, done, ix->err);
}

/* The source's row, made when it is not there. */
static int source_row(struct ag_kb *kb, const char *name, int64_t *ret_id, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *insert = NULL;
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *find = NULL;
	int r = ag_kb_prepare(kb, "INSERT OR IGNORE INTO source(name) VALUES (?1)", &insert, err);

	if (r == 0) {
		(void)sqlite3_bind_text(insert, 1, name, -1, SQLITE_STATIC);
		r = ag_kb_step_done(kb, insert, err);
	}
	if (r == 0)
		r = ag_kb_prepare(kb, "SELECT id FROM source WHERE name = ?1", &find, err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_text(find, 1, name, -1, SQLITE_STATIC);
	if (sqlite3_step(find) != SQLITE_ROW)
		return ag_kb_sql_error(kb, "reading", err);
	*ret_id = sqlite3_column_int64(find, 0);
	return 0;
}

static int index_source(struct ag_kb *kb, const char *name, struct ag_kb_counts *counts, struct err *err)
{
	struct indexer ix = { .kb = kb, .counts = counts, .err = err };
	int r = query_u64(kb, "SELECT coalesce(sum(n_bytes), 0) FROM file", &ix.total_bytes, err), flushed;

	if (r == 0)
		r = source_row(kb, name, &ix.source_id, err);
	if (r == 0)
		r = prepare_all(&ix);
	if (r == 0)
		r = ag_kb_scan(kb, name, &counts->n_skipped, on_file, &ix, err);
	/* What was finished is kept, also when the walk failed. */
	if (ix.n_pending) {
		struct err second = { 0 };

		ix.err = r < 0 ? &second : err;
		flushed = commit(&ix);
		if (flushed < 0)
			(void)sqlite3_exec(kb->db, "ROLLBACK", NULL, NULL, NULL);
		r = r < 0 ? r : flushed;
	}
	ix.err = err;
	if (r == 0)
		r = remove_unmet(&ix);
	finalize_all(&ix);
	if (r == -ENOMEM)
		return err_set(err, r, "out of memory");
	return r;
}

int ag_kb_add(struct ag_kb *kb, const char *what, struct ag_kb_counts *ret_counts, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf name = BASE_BUF_INIT(PATH_MAX);
	struct stat st;
	int r = ag_kb_source_name(what, &name, err);

	*ret_counts = (struct ag_kb_counts){ 0 };
	if (r < 0)
		return r;
	/* A path that is not there does not become a source. */
	if (name.data[0] == '/' && stat(name.data, &st) < 0)
		return err_set(err, -errno, "%s: %s", what, strerror(errno));
	r = index_source(kb, base_buf_text(&name), ret_counts, err);
	if (r == 0 && kb->embed)
		r = ag_kb_embed_missing(kb, &ret_counts->n_vectors, err);
	return r;
}

int ag_kb_update(struct ag_kb *kb, struct ag_kb_counts *ret_counts, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	int64_t last = 0;
	int r;

	*ret_counts = (struct ag_kb_counts){ 0 };
	r = ag_kb_prepare(kb, "SELECT id, name FROM source WHERE id > ?1 ORDER BY id LIMIT 1", &stmt, err);
	while (r == 0) {
		CLEANUP(freep) char *name = NULL;
		struct err why = { 0 };

		(void)sqlite3_bind_int64(stmt, 1, last);
		if (sqlite3_step(stmt) != SQLITE_ROW)
			break;
		last = sqlite3_column_int64(stmt, 0);
		name = strdup((const char *)sqlite3_column_text(stmt, 1));
		(void)sqlite3_reset(stmt);
		if (!name)
			return err_set(err, -ENOMEM, "out of memory");
		r = index_source(kb, name, ret_counts, &why);
		if (r == -ENOENT || r == -EACCES) { /* a disk that is not mounted now: its passages stay */
			ag_kb_notice(kb, "%s; its passages are kept (ocai kb rm forgets them)", err_text(&why));
			r = 0;
		} else if (r < 0) {
			(void)err_set(err, r, "%s", err_text(&why));
		}
	}
	if (r == 0 && kb->embed)
		r = ag_kb_embed_missing(kb, &ret_counts->n_vectors, err);
	return r;
}

int ag_kb_remove(struct ag_kb *kb, const char *what, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf name = BASE_BUF_INIT(PATH_MAX);
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	int r = ag_kb_source_name(what, &name, err);

	if (r == 0)
		r = ag_kb_prepare(kb, "DELETE FROM source WHERE name = ?1 OR name = ?2", &stmt, err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_text(stmt, 1, base_buf_text(&name), -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(stmt, 2, what, -1, SQLITE_STATIC);
	r = ag_kb_step_done(kb, stmt, err);
	if (r == 0 && sqlite3_changes(kb->db) == 0)
		return err_set(err, -ENOENT, "%s: no such source (see `ocai kb list`)", what);
	return r;
}

int ag_kb_each_source(struct ag_kb *kb, int (*fn)(void *arg, const struct ag_kb_source *source), void *arg,
                      struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	int r = ag_kb_prepare(
	        kb,
	        "SELECT s.name, s.updated, (SELECT count(*) FROM file f WHERE f.source_id = s.id),"
	        " (SELECT coalesce(sum(n_bytes), 0) FROM file f WHERE f.source_id = s.id),"
	        " (SELECT count(*) FROM passage p JOIN file f ON f.id = p.file_id WHERE f.source_id = s.id),"
	        " (SELECT count(*) FROM vector v JOIN passage p ON p.id = v.passage_id"
	        "  JOIN file f ON f.id = p.file_id WHERE f.source_id = s.id)"
	        " FROM source s ORDER BY s.id",
	        &stmt, err);
	int code = SQLITE_DONE;

	while (r == 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
		struct ag_kb_source source = {
			.name = (const char *)sqlite3_column_text(stmt, 0),
			.updated = sqlite3_column_int64(stmt, 1),
			.n_files = (uint64_t)sqlite3_column_int64(stmt, 2),
			.n_bytes = (uint64_t)sqlite3_column_int64(stmt, 3),
			.n_passages = (uint64_t)sqlite3_column_int64(stmt, 4),
			.n_vectors = (uint64_t)sqlite3_column_int64(stmt, 5),
		};

		r = fn(arg, &source);
	}
	return r == 0 && code != SQLITE_DONE ? ag_kb_sql_error(kb, "reading", err) : r;
}
