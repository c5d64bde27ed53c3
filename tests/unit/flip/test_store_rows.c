/* Rows of the store: layers, snapshots, notes; what is left of them when the database is lost. */
#include "store_test.h"

static const char digest_a[] = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
static const char digest_b[] = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

static void write_text(const char *dir, const char *name, const char *text)
{
	char path[400];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	(void)fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void add_layer(struct home *h, const char *digest, enum flip_layer_kind kind, const char *index)
{
	struct flip_layer_row row = { .blob_size = 1234, .kind = kind, .ref = "host/name:tag", .last_used = 1000 };
	char dir[256];

	(void)snprintf(row.digest, sizeof(row.digest), "%s", digest);
	row.annotations = "{\"a\":\"b\"}";
	assert_int_equal(flip_store_layer_begin(h->store, digest, dir, sizeof(dir), NULL), 0);
	write_text(dir, "index", index);
	assert_int_equal(flip_store_layer_commit(h->store, dir, &row, NULL), 0);
}

static void check_layer(struct home *h)
{
	struct flip_layer_row row;
	char dir[256], path[300];

	assert_int_equal(flip_store_layer_get(h->store, digest_a, &row, dir, sizeof(dir), NULL), 0);
	assert_string_equal(row.digest, digest_a);
	assert_string_equal(row.diff_id, "");
	assert_int_equal(row.blob_size, 1234);
	assert_string_equal(row.ref, "host/name:tag");
	assert_null(row.media_type);
	assert_string_equal(row.annotations, "{\"a\":\"b\"}");
	(void)snprintf(path, sizeof(path), "%s/index", dir);
	assert_true(file_is(path, "one", 3) || file_is(path, "two", 3));
	flip_layer_row_done(&row);
}

static int count_layer(const struct flip_layer_row *row, void *arg)
{
	assert_string_equal(row->digest, digest_a);
	++*(int *)arg;
	return 7;
}

static void a_layer_is_there_when_it_is_committed(void **state)
{
	struct home *h = *state;
	struct flip_layer_row row = { 0 };
	char dir[256];
	int n = 0;

	home_open(h, NULL);
	assert_int_equal(flip_store_layer_get(h->store, digest_a, &row, dir, sizeof(dir), NULL), -ENOENT);
	assert_int_equal(flip_store_layer_begin(h->store, digest_a, dir, sizeof(dir), NULL), 0);
	assert_int_equal(flip_store_layer_get(h->store, digest_a, &row, NULL, 0, NULL), -ENOENT);
	flip_store_layer_abort(h->store, dir);
	assert_int_equal(access(dir, F_OK), -1);

	add_layer(h, digest_a, FLIP_LAYER_LAZY, "one");
	add_layer(h, digest_a, FLIP_LAYER_LAZY, "two"); /* again: the new folder takes the place of the old */
	check_layer(h);
	assert_int_equal(flip_store_layers(h->store, count_layer, &n, NULL), 7);
	assert_int_equal(n, 1);
	assert_int_equal(flip_store_layer_touch(h->store, digest_a, "other/name:tag", NULL), 0);
	assert_int_equal(flip_store_layer_touch(h->store, digest_b, NULL, NULL), -ENOENT);
	assert_int_equal(flip_store_layer_get(h->store, digest_a, &row, NULL, 0, NULL), 0);
	assert_string_equal(row.ref, "other/name:tag");
	assert_true(row.last_used > 1000);
	flip_layer_row_done(&row);
	assert_int_equal(flip_store_layer_begin(h->store, "sha256:../../etc", dir, sizeof(dir), NULL), -EINVAL);
	assert_int_equal(flip_store_layer_commit(h->store, "/tmp", &(struct flip_layer_row){ .digest = "x" }, NULL),
	                 -EINVAL);
}

static struct flip_label labels[] = { { "one", "1" }, { "containerd.io/two", "zwei" } };

static void add_snapshot(struct home *h, enum flip_snapshot_kind kind, const char *name, const char *parent, int expect)
{
	struct flip_snapshot sn = { .kind = kind, .name = (char *)name, .parent = (char *)parent, .labels = labels };
	struct err err = { 0 };

	sn.n_labels = 2;
	sn.layer = kind == FLIP_SNAPSHOT_COMMITTED ? (char *)digest_a : NULL;
	assert_int_equal(flip_store_snapshot_add(h->store, &sn, &err), expect);
	assert_int_equal(err.code, expect);
	assert_int_equal(sn.id > 0, expect == 0);
}

static uint64_t check_snapshot(struct home *h, const char *name, const char *parent, enum flip_snapshot_kind kind,
                               size_t n_labels)
{
	struct flip_snapshot sn = { 0 };
	char path[200];
	uint64_t id;

	assert_int_equal(flip_store_snapshot_get(h->store, name, &sn, NULL), 0);
	assert_string_equal(sn.name, name);
	assert_true(parent ? strcmp(sn.parent, parent) == 0 : !sn.parent);
	assert_int_equal(sn.kind, kind);
	assert_int_equal(sn.n_labels, n_labels);
	assert_true(sn.created_ns > 0 && sn.updated_ns >= sn.created_ns);
	if (n_labels == 2) { /* sorted */
		assert_string_equal(sn.labels[0].name, "containerd.io/two");
		assert_string_equal(sn.labels[1].value, "1");
	}
	id = sn.id;
	(void)snprintf(path, sizeof(path), "%s/snapshots/%llu", h->path, (unsigned long long)id);
	assert_int_equal(access(path, F_OK), 0);
	flip_snapshot_done(&sn);
	return id;
}

static void snapshots_live_as_containerd_wants_them(void **state)
{
	struct home *h = *state;
	uint64_t id;

	home_open(h, NULL);
	add_snapshot(h, FLIP_SNAPSHOT_COMMITTED, "base", NULL, 0);
	add_snapshot(h, FLIP_SNAPSHOT_COMMITTED, "base", NULL, -EEXIST);
	add_snapshot(h, FLIP_SNAPSHOT_ACTIVE, "key", "nothing", -ENOENT);
	add_snapshot(h, FLIP_SNAPSHOT_ACTIVE, "key", "base", 0);
	add_snapshot(h, FLIP_SNAPSHOT_VIEW, "view", "key", -ENOENT); /* not committed */
	check_snapshot(h, "key", "base", FLIP_SNAPSHOT_ACTIVE, 2);
	assert_int_equal(flip_store_snapshot_commit(h->store, "key", "base", NULL, 0, 1, 2, NULL), -EEXIST);
	assert_int_equal(flip_store_snapshot_commit(h->store, "none", "top", NULL, 0, 1, 2, NULL), -ENOENT);
	id = check_snapshot(h, "key", "base", FLIP_SNAPSHOT_ACTIVE, 2);
	assert_int_equal(flip_store_snapshot_commit(h->store, "key", "top", labels, 1, 1, 2, NULL), 0);
	assert_int_equal(check_snapshot(h, "top", "base", FLIP_SNAPSHOT_COMMITTED, 1), id);
	assert_int_equal(flip_store_snapshot_commit(h->store, "top", "more", NULL, 0, 1, 2, NULL), -EINVAL);
	assert_int_equal(flip_store_snapshot_update(h->store, "top", labels, 2, NULL), 0);
	check_snapshot(h, "top", "base", FLIP_SNAPSHOT_COMMITTED, 2);
	assert_int_equal(flip_store_snapshot_update(h->store, "none", labels, 2, NULL), -ENOENT);
	assert_int_equal(flip_store_snapshot_remove(h->store, "base", NULL), -EBUSY);
	assert_int_equal(flip_store_snapshot_remove(h->store, "top", NULL), 0);
	assert_int_equal(flip_store_snapshot_remove(h->store, "top", NULL), -ENOENT);
	home_close(h);

	home_open(h, NULL);
	check_snapshot(h, "base", NULL, FLIP_SNAPSHOT_COMMITTED, 2);
	add_snapshot(h, FLIP_SNAPSHOT_ACTIVE, "key", "base", 0);
	assert_true(check_snapshot(h, "key", "base", FLIP_SNAPSHOT_ACTIVE, 2) > id); /* never used again */
}

static void a_removed_snapshot_takes_its_folder_along(void **state)
{
	struct home *h = *state;
	char dir[200], command[800];
	uint64_t id;

	home_open(h, NULL);
	add_snapshot(h, FLIP_SNAPSHOT_ACTIVE, "key", NULL, 0);
	id = check_snapshot(h, "key", NULL, FLIP_SNAPSHOT_ACTIVE, 2);
	(void)snprintf(dir, sizeof(dir), "%s/snapshots/%llu", h->path, (unsigned long long)id);
	(void)snprintf(command, sizeof(command), "mkdir -p %s/fs/a/b && ln -s /etc %s/fs/a/l && touch %s/fs/a/b/c", dir,
	               dir, dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(flip_store_snapshot_remove(h->store, "key", NULL), 0);
	assert_int_equal(access(dir, F_OK), -1);
	assert_int_equal(access("/etc/passwd", F_OK), 0);
	(void)snprintf(command, sizeof(command), "test -z \"$(ls -A %s/tmp)\"", h->path);
	assert_int_equal(system(command), 0);
}

static void notes_are_kept(void **state)
{
	struct home *h = *state;
	size_t size = 0;
	void *data = NULL;

	home_open(h, NULL);
	assert_int_equal(flip_store_note_get(h->store, "prefetch", "a", &data, &size, NULL), -ENOENT);
	assert_int_equal(flip_store_note_set(h->store, "prefetch", "a", "one\0two", 7, NULL), 0);
	assert_int_equal(flip_store_note_set(h->store, "prefetch", "empty", NULL, 0, NULL), 0);
	home_close(h);
	home_open(h, NULL);
	assert_int_equal(flip_store_note_get(h->store, "prefetch", "a", &data, &size, NULL), 0);
	assert_int_equal(size, 7);
	assert_memory_equal(data, "one\0two", 7);
	free(data);
	assert_int_equal(flip_store_note_get(h->store, "prefetch", "empty", &data, &size, NULL), 0);
	assert_int_equal(size, 0);
	free(data);
}

/* The file overwritten, cut, removed: the rows come back from the folders. */
static void a_damaged_database_is_made_again(void **state)
{
	static const char *const damages[] = {
		"head -c 5000 /dev/urandom | dd of=%s conv=notrunc 2>/dev/null", "echo no database >%s", "rm -f %s",
		"dd if=/dev/urandom of=%s bs=1k seek=5 count=20 conv=notrunc 2>/dev/null"
	};
	struct home *h = *state;
	char db[120], command[300];
	uint64_t last_id = 0;

	(void)snprintf(db, sizeof(db), "%s/store.db", h->path);
	home_open(h, NULL);
	add_layer(h, digest_a, FLIP_LAYER_LAZY, "one");
	add_snapshot(h, FLIP_SNAPSHOT_COMMITTED, "base", NULL, 0);
	add_snapshot(h, FLIP_SNAPSHOT_ACTIVE, "key", "base", 0);
	assert_int_equal(flip_store_snapshot_commit(h->store, "key", "top", labels, 1, 5, 6, NULL), 0);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		uint64_t id;

		home_close(h);
		(void)snprintf(command, sizeof(command), damages[i], db);
		assert_int_equal(system(command), 0);
		home_open(h, NULL);
		check_layer(h);
		check_snapshot(h, "base", NULL, FLIP_SNAPSHOT_COMMITTED, 2);
		check_snapshot(h, "top", "base", FLIP_SNAPSHOT_COMMITTED, 1);
		add_snapshot(h, FLIP_SNAPSHOT_ACTIVE, "new", "top", 0);
		id = check_snapshot(h, "new", "top", FLIP_SNAPSHOT_ACTIVE, 2);
		assert_true(id > last_id);
		last_id = id;
		assert_int_equal(flip_store_snapshot_remove(h->store, "new", NULL), 0);
	}
}

int main(void)
{
#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, home_setup, home_teardown)
	const struct CMUnitTest tests[] = {
		ON_STORE(a_layer_is_there_when_it_is_committed),     ON_STORE(snapshots_live_as_containerd_wants_them),
		ON_STORE(a_removed_snapshot_takes_its_folder_along), ON_STORE(notes_are_kept),
		ON_STORE(a_damaged_database_is_made_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
