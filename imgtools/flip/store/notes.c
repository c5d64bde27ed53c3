/* Small named facts. Lost with the database, and nothing is lost with them but time. */
#include <errno.h>
#include <string.h>

#include "store/store_internal.h"

enum { NOTE_MAX = 64 << 20 };

int flip_store_note_set(struct flip_store *s, const char *kind, const char *name, const void *data, size_t size,
                        struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	int r;

	if (size > NOTE_MAX)
		return err_set(err, -EFBIG, "note %s %s: %zu bytes", kind, name, size);
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, false, err);
	if (r == 0)
		r = flip_db_prepare(s, "INSERT OR REPLACE INTO note(kind, name, data) VALUES (?, ?, ?)", &stmt, err);
	if (r == 0) {
		flip_db_bind_text(stmt, 1, kind);
		flip_db_bind_text(stmt, 2, name);
		(void)sqlite3_bind_blob(stmt, 3, size ? data : "", (int)size, SQLITE_STATIC);
		r = flip_db_step(s, stmt, err);
	}
	(void)sqlite3_finalize(stmt);
	r = flip_db_end(s, r, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

int flip_store_note_get(struct flip_store *s, const char *kind, const char *name, void **ret_data, size_t *ret_size,
                        struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	int r;

	pthread_mutex_lock(&s->db_lock);
	r = flip_db_prepare(s, "SELECT data FROM note WHERE kind = ? AND name = ?", &stmt, err);
	if (r == 0) {
		flip_db_bind_text(stmt, 1, kind);
		flip_db_bind_text(stmt, 2, name);
		r = flip_db_step(s, stmt, err);
		if (r == 0)
			r = err_set(err, -ENOENT, "note %s %s: not there", kind, name);
	}
	if (r == 1) {
		const void *data = sqlite3_column_blob(stmt, 0);
		size_t size = (size_t)sqlite3_column_bytes(stmt, 0);
		char *copy = malloc(size + 1); /* a 0 behind it, for text */

		r = copy ? 0 : err_set(err, -ENOMEM, "out of memory");
		if (copy) {
			if (size > 0)
				memcpy(copy, data, size);
			copy[size] = 0;
			*ret_data = copy;
			*ret_size = size;
		}
	}
	(void)sqlite3_finalize(stmt);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}
