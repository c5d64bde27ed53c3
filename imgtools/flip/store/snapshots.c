/* What containerd knows of snapshots. A change is on the disk when its function returns:
 * containerd remembers what it was told. Each snapshot has a folder, made with its row and removed after it, with a
 * row.json from which the row can be made again. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "store/store_internal.h"

enum {
	ROW_JSON_MAX = 4 << 20,
	MAX_LABELS = 1 << 16,
};

static const char columns[] = "id, name, parent, kind, layer, created, updated, size, inodes";

void flip_snapshot_done(struct flip_snapshot *s)
{
	for (size_t i = 0; i < s->n_labels; i++) {
		free(s->labels[i].name);
		free(s->labels[i].value);
	}
	free(s->labels);
	free(s->name);
	free(s->parent);
	free(s->layer);
	*s = (struct flip_snapshot){ 0 };
}

/* ---- Reading (under db_lock) ---------------------------------------------------------------------------------- */

static int read_labels(struct flip_store *s, struct flip_snapshot *snapshot, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s, "SELECT name, value FROM label WHERE snapshot = ? ORDER BY name", &stmt, err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(stmt, 1, (int64_t)snapshot->id);
	while ((r = flip_db_step(s, stmt, err)) == 1) {
		struct flip_label *labels = realloc(snapshot->labels, (snapshot->n_labels + 1) * sizeof(*labels));

		if (!labels)
			return err_set(err, -ENOMEM, "out of memory");
		snapshot->labels = labels;
		r = 0;
		labels[snapshot->n_labels].name = flip_db_text(stmt, 0, &r);
		labels[snapshot->n_labels].value = flip_db_text(stmt, 1, &r);
		snapshot->n_labels++;
		if (r < 0)
			return err_set(err, r, "out of memory");
	}
	return r;
}

static int read_row(struct flip_store *s, sqlite3_stmt *stmt, struct flip_snapshot *ret_snapshot, struct err *err)
{
	struct flip_snapshot row = { .id = (uint64_t)sqlite3_column_int64(stmt, 0),
		                     .kind = (enum flip_snapshot_kind)sqlite3_column_int(stmt, 3),
		                     .created_ns = sqlite3_column_int64(stmt, 5),
		                     .updated_ns = sqlite3_column_int64(stmt, 6),
		                     .size = (uint64_t)sqlite3_column_int64(stmt, 7),
		                     .inodes = (uint64_t)sqlite3_column_int64(stmt, 8) };
	int r = 0;

	row.name = flip_db_text(stmt, 1, &r);
	row.parent = flip_db_text(stmt, 2, &r);
	row.layer = flip_db_text(stmt, 4, &r);
	if (r < 0)
		(void)err_set(err, r, "out of memory");
	else
		r = read_labels(s, &row, err);
	if (r < 0) {
		flip_snapshot_done(&row);
		return r;
	}
	*ret_snapshot = row;
	return 0;
}

/* -ENOENT when there is none. */
static int find(struct flip_store *s, const char *name, struct flip_snapshot *ret_snapshot, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	char sql[256];
	int r;

	(void)snprintf(sql, sizeof(sql), "SELECT %s FROM snapshot WHERE name = ?", columns);
	r = flip_db_prepare(s, sql, &stmt, err);
	if (r < 0)
		return r;
	flip_db_bind_text(stmt, 1, name);
	r = flip_db_step(s, stmt, err);
	if (r <= 0)
		return r < 0 ? r : err_set(err, -ENOENT, "snapshot %s: does not exist", name);
	return read_row(s, stmt, ret_snapshot, err);
}

int flip_store_snapshot_get(struct flip_store *s, const char *name, struct flip_snapshot *ret_snapshot, struct err *err)
{
	int r;

	pthread_mutex_lock(&s->db_lock);
	r = find(s, name, ret_snapshot, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

int flip_store_snapshots(struct flip_store *s, int (*fn)(const struct flip_snapshot *snapshot, void *arg), void *arg,
                         struct err *err)
{
	struct flip_snapshot *items = NULL;
	sqlite3_stmt *stmt = NULL;
	size_t n = 0;
	char sql[256];
	int r;

	(void)snprintf(sql, sizeof(sql), "SELECT %s FROM snapshot ORDER BY id", columns);
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_prepare(s, sql, &stmt, err);
	while (r == 0 && (r = flip_db_step(s, stmt, err)) == 1) {
		struct flip_snapshot *more = realloc(items, (n + 1) * sizeof(*items));

		if (!more) {
			r = err_set(err, -ENOMEM, "out of memory");
			break;
		}
		items = more;
		r = read_row(s, stmt, &items[n], err);
		n += r == 0;
	}
	(void)sqlite3_finalize(stmt);
	pthread_mutex_unlock(&s->db_lock);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = fn(&items[i], arg);
	for (size_t i = 0; i < n; i++)
		flip_snapshot_done(&items[i]);
	free(items);
	return r;
}

/* ---- row.json ------------------------------------------------------------------------------------------------- */

static json_t *to_json(const struct flip_snapshot *row)
{
	json_t *labels = json_object(), *json;

	for (size_t i = 0; i < row->n_labels; i++)
		(void)json_object_set_new(labels, row->labels[i].name, json_string(row->labels[i].value));
	json = json_pack("{s:i, s:I, s:s, s:s*, s:i, s:s*, s:o, s:I, s:I, s:I, s:I}", "version", 1, "id",
	                 (json_int_t)row->id, "name", row->name, "parent", row->parent, "kind", (int)row->kind, "layer",
	                 row->layer, "labels", labels, "created_ns", (json_int_t)row->created_ns, "updated_ns",
	                 (json_int_t)row->updated_ns, "size", (json_int_t)row->size, "inodes", (json_int_t)row->inodes);
	return json;
}

/* Needed only when the database is lost: what is not text there (a label may hold any bytes) is lost with it. */
static void write_row_json(struct flip_store *s, const struct flip_snapshot *row)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(ROW_JSON_MAX);
	json_t *json = to_json(row);
	char name[64];

	(void)snprintf(name, sizeof(name), "%" PRIu64 "/row.json", row->id);
	if (json && base_json_append(&buf, json) == 0)
		(void)flip_store_write_small(s, s->snapshots_fd, name, buf.data, buf.len);
	json_decref(json);
}

static int from_json(const json_t *json, struct flip_snapshot *row)
{
	const char *name, *parent = NULL, *layer = NULL, *key;
	int64_t id = 0, kind = 0, size = 0, inodes = 0;
	json_t *labels = NULL, *value;

	if (base_json_get_string(json, "", "name", &name, NULL) < 0 ||
	    base_json_opt_string(json, "", "parent", &parent, NULL) < 0 ||
	    base_json_opt_string(json, "", "layer", &layer, NULL) < 0 ||
	    base_json_opt_object(json, "", "labels", &labels, NULL) < 0 ||
	    base_json_opt_i64(json, "", "id", &id, NULL) < 0 || base_json_opt_i64(json, "", "kind", &kind, NULL) < 0 ||
	    base_json_opt_i64(json, "", "size", &size, NULL) < 0 ||
	    base_json_opt_i64(json, "", "inodes", &inodes, NULL) < 0 ||
	    base_json_opt_i64(json, "", "created_ns", &row->created_ns, NULL) < 0 ||
	    base_json_opt_i64(json, "", "updated_ns", &row->updated_ns, NULL) < 0)
		return -EBADMSG;
	if (id <= 0 || kind < FLIP_SNAPSHOT_VIEW || kind > FLIP_SNAPSHOT_COMMITTED || size < 0 || inodes < 0)
		return -EBADMSG;
	row->id = (uint64_t)id;
	row->kind = (enum flip_snapshot_kind)kind;
	row->size = (uint64_t)size;
	row->inodes = (uint64_t)inodes;
	row->name = strdup(name);
	row->parent = parent ? strdup(parent) : NULL;
	row->layer = layer ? strdup(layer) : NULL;
	row->labels = calloc(json_object_size(labels) + 1, sizeof(struct flip_label));
	if (!row->name || (parent && !row->parent) || (layer && !row->layer) || !row->labels)
		return -ENOMEM;
	json_object_foreach(labels, key, value)
	{
		struct flip_label *l = &row->labels[row->n_labels++];

		l->name = strdup(key);
		l->value = strdup(json_is_string(value) ? json_string_value(value) : "");
		if (!l->name || !l->value)
			return -ENOMEM;
	}
	return 0;
}

/* ---- Writing (under db_lock, in a transaction) ----------------------------------------------------------------- */

static int set_labels(struct flip_store *s, uint64_t id, const struct flip_label *labels, size_t n, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *clear = NULL;
	CLEANUP(flip_db_finalizep) sqlite3_stmt *add = NULL;
	int r = n > MAX_LABELS ? err_set(err, -EINVAL, "%zu labels", n) : 0;

	if (r == 0)
		r = flip_db_prepare(s, "DELETE FROM label WHERE snapshot = ?", &clear, err);
	if (r == 0)
		r = flip_db_prepare(s, "INSERT OR REPLACE INTO label(snapshot, name, value) VALUES (?, ?, ?)", &add,
		                    err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(clear, 1, (int64_t)id);
	r = flip_db_step(s, clear, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		(void)sqlite3_reset(add);
		(void)sqlite3_bind_int64(add, 1, (int64_t)id);
		flip_db_bind_text(add, 2, labels[i].name);
		flip_db_bind_text(add, 3, labels[i].value ? labels[i].value : "");
		r = flip_db_step(s, add, err);
	}
	return r;
}

/* id 0: the next one. */
static int insert(struct flip_store *s, const struct flip_snapshot *row, uint64_t *ret_id, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s,
	                        "INSERT INTO snapshot(id, name, parent, kind, layer, created, updated, size, inodes)"
	                        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
	                        &stmt, err);

	if (r < 0)
		return r;
	if (row->id)
		(void)sqlite3_bind_int64(stmt, 1, (int64_t)row->id);
	flip_db_bind_text(stmt, 2, row->name);
	flip_db_bind_text(stmt, 3, row->parent && *row->parent ? row->parent : NULL);
	(void)sqlite3_bind_int(stmt, 4, (int)row->kind);
	flip_db_bind_text(stmt, 5, row->layer);
	(void)sqlite3_bind_int64(stmt, 6, row->created_ns);
	(void)sqlite3_bind_int64(stmt, 7, row->updated_ns);
	(void)sqlite3_bind_int64(stmt, 8, (int64_t)row->size);
	(void)sqlite3_bind_int64(stmt, 9, (int64_t)row->inodes);
	r = flip_db_step(s, stmt, err);
	if (r < 0)
		return r;
	*ret_id = (uint64_t)sqlite3_last_insert_rowid(s->db);
	return set_labels(s, *ret_id, row->labels, row->n_labels, err);
}

static int check_new(struct flip_store *s, const struct flip_snapshot *row, struct err *err)
{
	struct flip_snapshot other = { 0 };
	int r;

	if (!row->name || !*row->name || row->kind < FLIP_SNAPSHOT_VIEW || row->kind > FLIP_SNAPSHOT_COMMITTED ||
	    row->size > INT64_MAX || row->inodes > INT64_MAX)
		return err_set(err, -EINVAL, "a snapshot without a name or kind");
	r = find(s, row->name, &other, NULL);
	flip_snapshot_done(&other);
	if (r != -ENOENT)
		return r == 0 ? err_set(err, -EEXIST, "snapshot %s: exists", row->name)
		              : flip_db_error(s, "reading", err);
	if (!row->parent || !*row->parent)
		return 0;
	r = find(s, row->parent, &other, err);
	if (r == 0 && other.kind != FLIP_SNAPSHOT_COMMITTED)
		r = err_set(err, -ENOENT, "snapshot %s: its parent %s is not committed", row->name, row->parent);
	flip_snapshot_done(&other);
	return r;
}

int flip_store_snapshot_add(struct flip_store *s, struct flip_snapshot *snapshot, struct err *err)
{
	struct flip_snapshot row = *snapshot;
	char folder[32];
	int r;

	row.id = 0;
	row.created_ns = row.created_ns ? row.created_ns : base_wall_ns();
	row.updated_ns = row.updated_ns ? row.updated_ns : row.created_ns;
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, true, err);
	if (r == 0)
		r = check_new(s, &row, err);
	if (r == 0)
		r = insert(s, &row, &row.id, err);
	if (r == 0) {
		(void)snprintf(folder, sizeof(folder), "%" PRIu64, row.id);
		if (mkdirat(s->snapshots_fd, folder, 0700) < 0 && errno != EEXIST)
			r = flip_store_full(s, -errno, "making a folder", err);
		else
			write_row_json(s, &row);
	}
	r = flip_db_end(s, r, err);
	if (r < 0 && row.id)
		(void)flip_store_discard(s, s->snapshots_fd, folder);
	pthread_mutex_unlock(&s->db_lock);
	if (r < 0)
		return r;
	snapshot->id = row.id;
	snapshot->created_ns = row.created_ns;
	snapshot->updated_ns = row.updated_ns;
	return 0;
}

/* After a change: the row as it is now, for its folder. */
static void renew_json(struct flip_store *s, const char *name)
{
	struct flip_snapshot row = { 0 };

	if (find(s, name, &row, NULL) == 0)
		write_row_json(s, &row);
	flip_snapshot_done(&row);
}

static int update_committed(struct flip_store *s, uint64_t id, const char *name, uint64_t size, uint64_t inodes,
                            struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(
	        s, "UPDATE snapshot SET name = ?, kind = ?, updated = ?, size = ?, inodes = ? WHERE id = ?", &stmt,
	        err);

	if (r < 0)
		return r;
	flip_db_bind_text(stmt, 1, name);
	(void)sqlite3_bind_int(stmt, 2, FLIP_SNAPSHOT_COMMITTED);
	(void)sqlite3_bind_int64(stmt, 3, base_wall_ns());
	(void)sqlite3_bind_int64(stmt, 4, (int64_t)size);
	(void)sqlite3_bind_int64(stmt, 5, (int64_t)inodes);
	(void)sqlite3_bind_int64(stmt, 6, (int64_t)id);
	return flip_db_step(s, stmt, err);
}

int flip_store_snapshot_commit(struct flip_store *s, const char *key, const char *name, const struct flip_label *labels,
                               size_t n_labels, uint64_t size, uint64_t inodes, struct err *err)
{
	struct flip_snapshot row = { 0 }, other = { 0 };
	int r;

	if (!*name || size > INT64_MAX || inodes > INT64_MAX)
		return err_set(err, -EINVAL, "snapshot %s: committed without a name, or too large", key);
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, true, err);
	if (r == 0)
		r = find(s, key, &row, err);
	if (r == 0 && row.kind != FLIP_SNAPSHOT_ACTIVE)
		r = err_set(err, -EINVAL, "snapshot %s: not an active one", key);
	if (r == 0 && strcmp(key, name) != 0 && find(s, name, &other, NULL) == 0)
		r = err_set(err, -EEXIST, "snapshot %s: exists", name);
	if (r == 0)
		r = update_committed(s, row.id, name, size, inodes, err);
	if (r == 0)
		r = set_labels(s, row.id, labels, n_labels, err);
	r = flip_db_end(s, r, err);
	if (r == 0)
		renew_json(s, name);
	pthread_mutex_unlock(&s->db_lock);
	flip_snapshot_done(&row);
	flip_snapshot_done(&other);
	return r;
}

int flip_store_snapshot_update(struct flip_store *s, const char *name, const struct flip_label *labels, size_t n_labels,
                               struct err *err)
{
	struct flip_snapshot row = { 0 };
	sqlite3_stmt *stmt = NULL;
	int r;

	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, true, err);
	if (r == 0)
		r = find(s, name, &row, err);
	if (r == 0)
		r = flip_db_prepare(s, "UPDATE snapshot SET updated = ? WHERE id = ?", &stmt, err);
	if (r == 0) {
		(void)sqlite3_bind_int64(stmt, 1, base_wall_ns());
		(void)sqlite3_bind_int64(stmt, 2, (int64_t)row.id);
		r = flip_db_step(s, stmt, err);
	}
	(void)sqlite3_finalize(stmt);
	if (r == 0)
		r = set_labels(s, row.id, labels, n_labels, err);
	r = flip_db_end(s, r, err);
	if (r == 0)
		renew_json(s, name);
	pthread_mutex_unlock(&s->db_lock);
	flip_snapshot_done(&row);
	return r;
}

static int has_children(struct flip_store *s, const char *name, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = flip_db_prepare(s, "SELECT name FROM snapshot WHERE parent = ? LIMIT 1", &stmt, err);

	if (r < 0)
		return r;
	flip_db_bind_text(stmt, 1, name);
	r = flip_db_step(s, stmt, err);
	if (r == 1)
		return err_set(err, -EBUSY, "snapshot %s: is the parent of %s", name,
		               (const char *)sqlite3_column_text(stmt, 0));
	return r;
}

static int delete_row(struct flip_store *s, uint64_t id, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	int r = set_labels(s, id, NULL, 0, err);

	if (r == 0)
		r = flip_db_prepare(s, "DELETE FROM snapshot WHERE id = ?", &stmt, err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(stmt, 1, (int64_t)id);
	return flip_db_step(s, stmt, err);
}

static int remove_once(struct flip_store *s, const char *name, struct err *err)
{
	struct flip_snapshot row = { 0 };
	char folder[32], tmp[64];
	int r;

	flip_store_tmp_name(s, tmp);
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, true, err);
	if (r == 0)
		r = find(s, name, &row, err);
	if (r == 0)
		r = has_children(s, name, err);
	if (r == 0)
		r = delete_row(s, row.id, err);
	r = flip_db_end(s, r, err);
	(void)snprintf(folder, sizeof(folder), "%" PRIu64, row.id);
	flip_snapshot_done(&row);
	/* Out of sight at once, removed without the lock; what is mounted there stays until the next opening. */
	if (r == 0)
		(void)renameat(s->snapshots_fd, folder, s->tmp_fd, tmp);
	pthread_mutex_unlock(&s->db_lock);
	if (r == 0)
		(void)flip_store_remove_tree(s->tmp_fd, tmp);
	return r;
}

int flip_store_snapshot_remove(struct flip_store *s, const char *name, struct err *err)
{
	int r = remove_once(s, name, err);

	/* Removing must be possible when nothing else is. */
	if (r == -ENOSPC && flip_store_use_reserve(s)) {
		if (err)
			err->code = 0;
		r = remove_once(s, name, err);
	}
	return r;
}

/* ---- Rebuilding, tidying --------------------------------------------------------------------------------------- */

struct rebuild {
	struct flip_store *store;
	struct err *err;
	uint64_t max_id;
};

bool flip_snapshot_parse_id(const char *name, uint64_t *ret_id)
{
	char *tail;

	if (*name < '1' || *name > '9' || strlen(name) > 18)
		return false;
	*ret_id = strtoull(name, &tail, 10);
	return *tail == 0;
}

static int rebuild_snapshot(void *arg, const char *name)
{
	struct rebuild *re = arg;
	struct flip_snapshot row = { 0 };
	json_t *json = NULL;
	char path[PATH_MAX];
	uint64_t id;
	int r;

	if (!flip_snapshot_parse_id(name, &id))
		return 0;
	re->max_id = id > re->max_id ? id : re->max_id;
	(void)snprintf(path, sizeof(path), "%s/snapshots/%s/row.json", re->store->dir, name);
	if (base_json_read_file(path, ROW_JSON_MAX, &json, NULL) < 0)
		return 0;
	r = from_json(json, &row);
	if (r == 0 && row.id == id)
		r = insert(re->store, &row, &id, re->err);
	json_decref(json);
	flip_snapshot_done(&row);
	/* One that is not whole, or whose name another has, is left for fsck to tell of. */
	return r == -EBADMSG || r == -EEXIST ? 0 : r;
}

int flip_snapshots_rebuild(struct flip_store *s, struct err *err)
{
	CLEANUP(flip_db_finalizep) sqlite3_stmt *stmt = NULL;
	struct rebuild re = { .store = s, .err = err };
	int r = flip_store_each(s->snapshots_fd, ".", rebuild_snapshot, &re);

	if (r < 0)
		return err_prefix(err, r, "%s/snapshots: ", s->dir);
	/* The numbers of removed snapshots are not known any more: the clock is ahead of all of them. A store without
	 * folders is a new one. */
	if (re.max_id == 0)
		return 0;
	re.max_id = (uint64_t)base_wall_ns() / 1000000 > re.max_id ? (uint64_t)base_wall_ns() / 1000000 : re.max_id;
	r = flip_db_prepare(s,
	                    "INSERT OR REPLACE INTO sqlite_sequence(rowid, name, seq) VALUES"
	                    " ((SELECT rowid FROM sqlite_sequence WHERE name = 'snapshot'), 'snapshot', ?)",
	                    &stmt, err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_int64(stmt, 1, (int64_t)re.max_id);
	return flip_db_step(s, stmt, err);
}

bool flip_snapshot_has_row(struct flip_store *s, uint64_t id)
{
	sqlite3_stmt *stmt = NULL;
	int r;

	pthread_mutex_lock(&s->db_lock);
	r = flip_db_prepare(s, "SELECT 1 FROM snapshot WHERE id = ?", &stmt, NULL);
	if (r == 0) {
		(void)sqlite3_bind_int64(stmt, 1, (int64_t)id);
		r = flip_db_step(s, stmt, NULL);
	}
	(void)sqlite3_finalize(stmt);
	pthread_mutex_unlock(&s->db_lock);
	return r != 0; /* in doubt it has one */
}

static int tidy_folder(void *arg, const char *name)
{
	struct flip_store *s = arg;
	uint64_t id;

	if (flip_snapshot_parse_id(name, &id) && !flip_snapshot_has_row(s, id))
		(void)flip_store_discard(s, s->snapshots_fd, name);
	return 0;
}

int flip_snapshots_tidy(struct flip_store *s, struct err *err)
{
	int r = flip_store_each(s->snapshots_fd, ".", tidy_folder, s);

	return r < 0 ? err_set(err, r, "%s/snapshots: %s", s->dir, strerror(-r)) : 0;
}
