/* Layers: a folder each in layers/, named by the digest of the blob, and a row. The folder is filled under another name
 * and moved; it holds a row.json with what is in the row, for the day when the database is lost. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "store/store_internal.h"

enum { ROW_JSON_MAX = 4 << 20 };

static const char columns[] = "digest, diff_id, blob_size, kind, ref, media_type, annotations, last_used";

void flip_layer_row_done(struct flip_layer_row *r)
{
	free(r->ref);
	free(r->media_type);
	free(r->annotations);
	r->ref = r->media_type = r->annotations = NULL;
}

const char *flip_layer_hex(const char *digest)
{
	const char *hex = digest + 7;

	if (strncmp(digest, "sha256:", 7) != 0 || strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64)
		return NULL;
	return hex;
}

/* ---- Rows ----------------------------------------------------------------------------------------------------- */

static int check_row(const struct flip_layer_row *row, struct err *err)
{
	if (!memchr(row->digest, 0, sizeof(row->digest)) || !flip_layer_hex(row->digest))
		return err_set(err, -EINVAL, "layer \"%.71s\": not a sha256 digest", row->digest);
	if (!memchr(row->diff_id, 0, sizeof(row->diff_id)) || (*row->diff_id && !flip_layer_hex(row->diff_id)))
		return err_set(err, -EINVAL, "layer %s: diff id \"%.71s\" is no digest", row->digest, row->diff_id);
	if (row->blob_size > INT64_MAX || (row->kind != FLIP_LAYER_LAZY && row->kind != FLIP_LAYER_UNPACKED))
		return err_set(err, -EINVAL, "layer %s: a size of %" PRIu64 ", kind %d", row->digest, row->blob_size,
		               (int)row->kind);
	return 0;
}

static int insert_row(struct flip_store *s, const struct flip_layer_row *row, uint64_t epoch, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s,
	                        "INSERT OR REPLACE INTO layer(digest, diff_id, blob_size, kind, ref, media_type,"
	                        " annotations, last_used, epoch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
	                        &stmt, err);

	if (r < 0)
		return r;
	flip_db_bind_text(stmt, 1, row->digest);
	flip_db_bind_text(stmt, 2, row->diff_id);
	(void)sqlite3_bind_int64(stmt, 3, (int64_t)row->blob_size);
	(void)sqlite3_bind_int(stmt, 4, (int)row->kind);
	flip_db_bind_text(stmt, 5, row->ref);
	flip_db_bind_text(stmt, 6, row->media_type);
	flip_db_bind_text(stmt, 7, row->annotations);
	(void)sqlite3_bind_int64(stmt, 8, row->last_used ? row->last_used : flip_store_now_s());
	(void)sqlite3_bind_int64(stmt, 9, (int64_t)epoch);
	return flip_db_step(s, stmt, err);
}

static int read_row(struct flip_store *s, sqlite3_stmt *stmt, struct flip_layer_row *ret_row, struct err *err)
{
	const char *digest = (const char *)sqlite3_column_text(stmt, 0);
	const char *diff_id = (const char *)sqlite3_column_text(stmt, 1);
	struct flip_layer_row row = { .blob_size = (uint64_t)sqlite3_column_int64(stmt, 2),
		                      .kind = sqlite3_column_int(stmt, 3) == FLIP_LAYER_UNPACKED ? FLIP_LAYER_UNPACKED
		                                                                                 : FLIP_LAYER_LAZY,
		                      .last_used = sqlite3_column_int64(stmt, 7) };
	int r = 0;

	if (!digest || !flip_layer_hex(digest) || !diff_id || strlen(diff_id) >= sizeof(row.diff_id))
		return err_set(err, -EBADMSG, "%s: table layer: a row without a digest", s->db_path);
	(void)snprintf(row.digest, sizeof(row.digest), "%s", digest);
	(void)snprintf(row.diff_id, sizeof(row.diff_id), "%s", diff_id);
	row.ref = flip_db_text(stmt, 4, &r);
	row.media_type = flip_db_text(stmt, 5, &r);
	row.annotations = flip_db_text(stmt, 6, &r);
	if (r < 0) {
		flip_layer_row_done(&row);
		return err_set(err, r, "out of memory");
	}
	*ret_row = row;
	return 0;
}

static int layer_dir(struct flip_store *s, const char *digest, char *ret_dir, size_t dir_size, struct err *err)
{
	int n = snprintf(ret_dir, dir_size, "%s/layers/%s", s->dir, flip_layer_hex(digest));

	return n < 0 || (size_t)n >= dir_size ? err_set(err, -ENAMETOOLONG, "%s: too long", s->dir) : 0;
}

/* ---- row.json ------------------------------------------------------------------------------------------------- */

static int write_row_json(struct flip_store *s, int dir_fd, const struct flip_layer_row *row, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(ROW_JSON_MAX);
	json_t *json = json_pack("{s:i, s:s, s:s, s:I, s:i, s:s*, s:s*, s:s*, s:I}", "version", 1, "digest",
	                         row->digest, "diff_id", row->diff_id, "blob_size", (json_int_t)row->blob_size, "kind",
	                         (int)row->kind, "ref", row->ref, "media_type", row->media_type, "annotations",
	                         row->annotations, "last_used", (json_int_t)row->last_used);
	int r = json ? base_json_append(&buf, json) : -EINVAL;

	json_decref(json);
	if (r < 0)
		return err_set(err, r, "layer %s: its row is not text", row->digest);
	r = flip_store_write_small(s, dir_fd, "row.json", buf.data, buf.len);
	return r < 0 ? flip_store_full(s, r, "writing row.json", err) : 0;
}

static int copy_text(const json_t *json, const char *key, char **ret_text)
{
	const char *text = NULL;

	if (base_json_opt_string(json, "row.json", key, &text, NULL) < 0)
		return -EBADMSG;
	*ret_text = text ? strdup(text) : NULL;
	return text && !*ret_text ? -ENOMEM : 0;
}

static int read_row_json(struct flip_store *s, const char *hex, struct flip_layer_row *ret_row, struct err *err)
{
	struct flip_layer_row row = { 0 };
	const char *digest, *diff_id = "";
	int64_t blob_size = 0, kind = 0;
	json_t *json = NULL;
	char path[PATH_MAX];
	int r;

	(void)snprintf(path, sizeof(path), "%s/layers/%s/row.json", s->dir, hex);
	r = base_json_read_file(path, ROW_JSON_MAX, &json, err);
	if (r < 0)
		return r;
	r = base_json_get_string(json, path, "digest", &digest, err);
	if (r == 0 && (!flip_layer_hex(digest) || strcmp(flip_layer_hex(digest), hex) != 0))
		r = err_set(err, -EBADMSG, "%s: of another layer", path);
	if (r == 0 && (base_json_opt_string(json, path, "diff_id", &diff_id, err) < 0 ||
	               base_json_opt_i64(json, path, "blob_size", &blob_size, err) < 0 ||
	               base_json_opt_i64(json, path, "kind", &kind, err) < 0 ||
	               base_json_opt_i64(json, path, "last_used", &row.last_used, err) < 0 ||
	               strlen(diff_id) >= sizeof(row.diff_id) || blob_size < 0 || (kind != 0 && kind != 1)))
		r = -EBADMSG;
	if (r == 0) {
		(void)snprintf(row.digest, sizeof(row.digest), "%s", digest);
		(void)snprintf(row.diff_id, sizeof(row.diff_id), "%s", diff_id);
		row.blob_size = (uint64_t)blob_size;
		row.kind = (enum flip_layer_kind)kind;
		if (copy_text(json, "ref", &row.ref) < 0 || copy_text(json, "media_type", &row.media_type) < 0 ||
		    copy_text(json, "annotations", &row.annotations) < 0)
			r = -EBADMSG;
	}
	json_decref(json);
	if (r == 0)
		r = check_row(&row, err);
	if (r < 0) {
		flip_layer_row_done(&row);
		return r;
	}
	*ret_row = row;
	return 0;
}

struct rebuild {
	struct flip_store *store;
	struct err *err;
};

static int rebuild_layer(void *arg, const char *hex)
{
	struct rebuild *re = arg;
	struct flip_layer_row row;
	int r = read_row_json(re->store, hex, &row, NULL);

	if (r == -ENOMEM)
		return err_set(re->err, r, "out of memory");
	if (r < 0) /* not whole: pulled again when it is needed; fsck finds the folder */
		return 0;
	r = insert_row(re->store, &row, 0, re->err);
	flip_layer_row_done(&row);
	return r;
}

int flip_layers_rebuild(struct flip_store *s, struct err *err)
{
	struct rebuild re = { s, err };
	int r = flip_store_each(s->layers_fd, ".", rebuild_layer, &re);

	return r < 0 ? err_prefix(err, r, "%s/layers: ", s->dir) : 0;
}

/* ---- Begin, commit -------------------------------------------------------------------------------------------- */

static void begun_add(struct flip_store *s)
{
	pthread_mutex_lock(&s->db_lock);
	if (s->begun.n++ == 0)
		s->begun.since_s = flip_store_now_s();
	pthread_mutex_unlock(&s->db_lock);
}

static void begun_end(struct flip_store *s)
{
	pthread_mutex_lock(&s->db_lock);
	if (s->begun.n > 0)
		s->begun.n--;
	pthread_mutex_unlock(&s->db_lock);
}

int flip_store_layer_begin(struct flip_store *s, const char *digest, char *ret_dir, size_t dir_size, struct err *err)
{
	char name[64];
	int n;

	if (s->opts.read_only)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	if (!flip_layer_hex(digest))
		return err_set(err, -EINVAL, "layer \"%.71s\": not a sha256 digest", digest);
	flip_store_tmp_name(s, name);
	n = snprintf(ret_dir, dir_size, "%s/tmp/%s", s->dir, name);
	if (n < 0 || (size_t)n >= dir_size)
		return err_set(err, -ENAMETOOLONG, "%s: too long", s->dir);
	if (mkdirat(s->tmp_fd, name, 0700) < 0)
		return flip_store_full(s, -errno, "making a folder", err);
	begun_add(s);
	return 0;
}

/* The name in tmp/ of what _begin gave out, NULL for anything else. */
static const char *begun_name(struct flip_store *s, const char *dir)
{
	const char *name = strrchr(dir, '/');
	size_t len = strlen(s->dir);

	if (!name || (size_t)(name - dir) != len + 4 || strncmp(dir, s->dir, len) != 0 ||
	    strncmp(dir + len, "/tmp/", 5) != 0 || strncmp(name + 1, s->instance, strlen(s->instance)) != 0)
		return NULL;
	return name + 1;
}

void flip_store_layer_abort(struct flip_store *s, const char *begun_dir)
{
	const char *name = begun_name(s, begun_dir);

	if (!name)
		return;
	(void)flip_store_remove_tree(s->tmp_fd, name); /* what stays in tmp/ goes at the next opening */
	begun_end(s);
}

/* Under db_lock, in a transaction. A folder of this layer that is there is exchanged: it was made of the same blob. */
static int move_in(struct flip_store *s, const char *name, const char *hex, bool *ret_was_there, struct err *err)
{
	*ret_was_there = false;
	if (renameat2(s->tmp_fd, name, s->layers_fd, hex, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EEXIST && renameat2(s->tmp_fd, name, s->layers_fd, hex, RENAME_EXCHANGE) == 0) {
		*ret_was_there = true;
		return 0;
	}
	return err_set(err, -errno, "%s/layers/%s: %s", s->dir, hex, strerror(errno));
}

int flip_store_layer_commit(struct flip_store *s, const char *begun_dir, const struct flip_layer_row *row,
                            struct err *err)
{
	CLEANUP(close_fdp) int dir_fd = -1;
	const char *name = begun_name(s, begun_dir);
	bool was_there = false;
	int r = check_row(row, err);

	if (r < 0)
		return r;
	if (!name)
		return err_set(err, -EINVAL, "%s: not a folder that was begun here", begun_dir);
	dir_fd = openat(s->tmp_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir_fd < 0)
		return err_set(err, -errno, "%s: %s", begun_dir, strerror(errno));
	r = write_row_json(s, dir_fd, row, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, false, err);
	if (r == 0)
		r = insert_row(s, row, atomic_load(&s->epoch), err);
	if (r == 0)
		r = move_in(s, name, flip_layer_hex(row->digest), &was_there, err);
	r = flip_db_end(s, r, err);
	pthread_mutex_unlock(&s->db_lock);
	if (r < 0)
		return r;
	if (was_there)
		(void)flip_store_remove_tree(s->tmp_fd, name);
	begun_end(s);
	return 0;
}

/* ---- Questions and changes ------------------------------------------------------------------------------------ */

int flip_store_layer_get(struct flip_store *s, const char *digest, struct flip_layer_row *ret_row, char *ret_dir,
                         size_t dir_size, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	char sql[256];
	int r;

	if (!flip_layer_hex(digest))
		return err_set(err, -EINVAL, "layer \"%.71s\": not a sha256 digest", digest);
	if (ret_dir) {
		r = layer_dir(s, digest, ret_dir, dir_size, err);
		if (r < 0)
			return r;
	}
	(void)snprintf(sql, sizeof(sql), "SELECT %s FROM layer WHERE digest = ?", columns);
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_prepare(s, sql, &stmt, err);
	if (r == 0) {
		flip_db_bind_text(stmt, 1, digest);
		r = flip_db_step(s, stmt, err);
		if (r == 0)
			r = err_set(err, -ENOENT, "layer %s: not in the store", digest);
		else if (r == 1)
			r = ret_row ? read_row(s, stmt, ret_row, err) : 0;
	}
	(void)sqlite3_finalize(stmt);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

int flip_store_layer_touch(struct flip_store *s, const char *digest, const char *ref, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	int r;

	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, false, err);
	if (r == 0)
		r = flip_db_prepare(s, "UPDATE layer SET last_used = ?, ref = coalesce(?, ref) WHERE digest = ?", &stmt,
		                    err);
	if (r == 0) {
		(void)sqlite3_bind_int64(stmt, 1, flip_store_now_s());
		flip_db_bind_text(stmt, 2, ref && *ref ? ref : NULL);
		flip_db_bind_text(stmt, 3, digest);
		r = flip_db_step(s, stmt, err);
	}
	(void)sqlite3_finalize(stmt);
	if (r == 0 && sqlite3_changes(s->db) == 0)
		r = err_set(err, -ENOENT, "layer %s: not in the store", digest);
	r = flip_db_end(s, r, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

struct rows {
	struct flip_layer_row *items;
	size_t n;
};

/* Copied first, so that fn may ask the store whatever it likes. */
static int load_rows(struct flip_store *s, struct rows *rows, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	char sql[256];
	int r;

	(void)snprintf(sql, sizeof(sql), "SELECT %s FROM layer ORDER BY digest", columns);
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_prepare(s, sql, &stmt, err);
	while (r == 0 && (r = flip_db_step(s, stmt, err)) == 1) {
		struct flip_layer_row *items = realloc(rows->items, (rows->n + 1) * sizeof(*items));

		r = items ? 0 : err_set(err, -ENOMEM, "out of memory");
		if (r == 0) {
			rows->items = items;
			r = read_row(s, stmt, &items[rows->n], err);
		}
		if (r == 0)
			rows->n++;
		else
			break;
	}
	(void)sqlite3_finalize(stmt);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

int flip_store_layers(struct flip_store *s, int (*fn)(const struct flip_layer_row *row, void *arg), void *arg,
                      struct err *err)
{
	struct rows rows = { 0 };
	int r = load_rows(s, &rows, err);

	for (size_t i = 0; r == 0 && i < rows.n; i++)
		r = fn(&rows.items[i], arg);
	for (size_t i = 0; i < rows.n; i++)
		flip_layer_row_done(&rows.items[i]);
	free(rows.items);
	return r;
}

/* ---- Removing ------------------------------------------------------------------------------------------------- */

static int delete_row(struct flip_store *s, const char *digest, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s, "DELETE FROM layer WHERE digest = ?", &stmt, err);

	if (r < 0)
		return r;
	flip_db_bind_text(stmt, 1, digest);
	return flip_db_step(s, stmt, err);
}

int flip_layer_remove(struct flip_store *s, const char *digest, struct err *err)
{
	char tmp[64];
	int r;

	flip_store_tmp_name(s, tmp);
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, false, err);
	if (r == 0)
		r = delete_row(s, digest, err);
	r = flip_db_end(s, r, err);
	if (r == 0 && renameat(s->layers_fd, flip_layer_hex(digest), s->tmp_fd, tmp) < 0 && errno != ENOENT)
		r = err_set(err, -errno, "%s/layers/%s: %s", s->dir, flip_layer_hex(digest), strerror(errno));
	pthread_mutex_unlock(&s->db_lock);
	if (r == 0)
		(void)flip_store_remove_tree(s->tmp_fd, tmp);
	return r;
}

struct tidy {
	struct flip_store *store;
	struct err *err;
};

static int tidy_row(const struct flip_layer_row *row, void *arg)
{
	struct tidy *t = arg;

	if (faccessat(t->store->layers_fd, flip_layer_hex(row->digest), F_OK, 0) == 0 || errno != ENOENT)
		return 0;
	return flip_layer_remove(t->store, row->digest, t->err);
}

static int tidy_folder(void *arg, const char *hex)
{
	struct tidy *t = arg;
	char digest[80];
	int r;

	(void)snprintf(digest, sizeof(digest), "sha256:%.70s", hex);
	r = flip_layer_hex(digest) ? flip_store_layer_get(t->store, digest, NULL, NULL, 0, NULL) : -ENOENT;
	if (r == -ENOENT)
		(void)flip_store_discard(t->store, t->store->layers_fd, hex);
	return 0;
}

static int forget_after(struct flip_store *s, uint64_t durable_epoch, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	int r;

	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, false, err);
	if (r == 0)
		r = flip_db_prepare(s, "DELETE FROM layer WHERE epoch > ?", &stmt, err);
	if (r == 0) {
		(void)sqlite3_bind_int64(stmt, 1, (int64_t)durable_epoch);
		r = flip_db_step(s, stmt, err);
	}
	(void)sqlite3_finalize(stmt);
	r = flip_db_end(s, r, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

int flip_layers_tidy(struct flip_store *s, uint64_t durable_epoch, struct err *err)
{
	struct tidy t = { .store = s, .err = err };
	int r = durable_epoch < INT64_MAX ? forget_after(s, durable_epoch, err) : 0;

	if (r == 0)
		r = flip_store_layers(s, tidy_row, &t, err);
	if (r == 0)
		r = flip_store_each(s->layers_fd, ".", tidy_folder, &t);
	return r;
}
