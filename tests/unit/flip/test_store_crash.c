/* The machine goes down: played by another boot id in the records, and by taking away what was not synced. And the disk
 * is full: a small file system of its own. */
#include <sched.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include "store_test.h"

enum { SIZE = 40 * 4096 + 7 };

static uint8_t digests[6][32];
static uint8_t *data[6];

static void make_contents(void)
{
	for (size_t i = 0; i < 6; i++)
		data[i] = content(i, SIZE, digests[i]);
}

static void free_contents(void)
{
	for (size_t i = 0; i < 6; i++)
		free(data[i]);
}

/* What a machine's user may see the next morning. */
static void another_boot(struct home *h)
{
	char command[1000], path[200];
	sqlite3 *db;

	(void)snprintf(path, sizeof(path), "%s/store.db", h->path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "UPDATE meta SET value = zeroblob(16) WHERE key = 'boot'", NULL, NULL, NULL),
	                 SQLITE_OK);
	assert_int_equal(sqlite3_changes(db), 1);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	/* Maps: 16 bytes at 64, docs/formats/node-store.md. */
	(void)snprintf(command, sizeof(command),
	               "find %s/partial -name '*.map' | while read f; do"
	               " dd if=/dev/zero of=$f bs=16 seek=4 count=1 conv=notrunc 2>/dev/null; done",
	               h->path);
	assert_int_equal(system(command), 0);
}

static void zeros_instead(const char *path, off_t offset, size_t size)
{
	uint8_t *zeros = calloc(1, size);
	int fd;

	assert_int_equal(chmod(path, 0644), 0);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, zeros, size, offset), size);
	assert_int_equal(close(fd), 0);
	free(zeros);
}

static void keep_mtime(const char *path, const struct stat *st)
{
	struct timespec times[2] = { st->st_atim, st->st_mtim };

	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* As a kill: nothing is closed or synced. The store's functions run in a process of their own. */
static void in_child(struct home *h, void (*fn)(struct flip_store *s))
{
	static const struct flip_store_opts opts = { .min_free_bytes = 1 };
	struct flip_store *s;
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (flip_store_open(h->path, &opts, &s, NULL) < 0)
			_exit(2);
		fn(s);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define MUST(x)                   \
	do {                      \
		if ((x) != 0)     \
			_exit(3); \
	} while (0)

static void before_the_night(struct flip_store *s)
{
	struct flip_snapshot sn = { .kind = FLIP_SNAPSHOT_ACTIVE, .name = "sn" };
	struct flip_object *o;
	bool was_there;

	MUST(flip_store_put(s, digests[0], data[0], SIZE, &was_there, NULL));
	MUST(try_add_layer(s, '1', FLIP_LAYER_LAZY, 0, digests, 3));
	MUST(flip_object_open(s, digests[3], SIZE, &o, NULL));
	MUST(flip_object_write(o, data[3], 4 * 4096, 0, true, NULL));
	MUST(flip_store_sync(s, NULL));
	MUST(flip_object_write(o, data[3] + 8 * 4096, 4 * 4096, 8 * 4096, true, NULL));
	MUST(flip_store_put(s, digests[1], data[1], SIZE, &was_there, NULL));
	MUST(flip_store_put(s, digests[2], data[2], SIZE, &was_there, NULL));
	MUST(flip_object_open(s, digests[4], SIZE, &o, NULL));
	MUST(flip_object_write(o, data[4], SIZE - 1, 0, true, NULL));
	MUST(try_add_layer(s, '2', FLIP_LAYER_LAZY, 0, digests, 3));
	MUST(flip_store_snapshot_add(s, &sn, NULL));
}

static void what_was_not_synced_is_not_believed(void **state)
{
	struct flip_layer_row row = { 0 };
	struct flip_snapshot sn = { 0 };
	struct flip_fsck_result result;
	struct home *h = *state;
	struct flip_object *o;
	struct stat st;

	make_contents();
	in_child(h, before_the_night);
	/* The night: the blocks of one object, and those of the partial ones, were never written. */
	another_boot(h);
	assert_int_equal(stat(object_path(h, "objects", digests[1]), &st), 0);
	zeros_instead(object_path(h, "objects", digests[1]), 4096, 8192);
	keep_mtime(object_path(h, "objects", digests[1]), &st);
	zeros_instead(object_path(h, "partial", digests[3]), 8 * 4096, 4 * 4096);
	zeros_instead(object_path(h, "partial", digests[4]), 0, SIZE);

	home_open(h, NULL);
	assert_true(flip_store_has(h->store, digests[0], NULL));
	assert_false(flip_store_has(h->store, digests[1], NULL)); /* hashed again, wrong */
	assert_true(flip_store_has(h->store, digests[2], NULL));  /* hashed again, right */
	assert_int_equal(flip_object_open(h->store, digests[3], SIZE, &o, NULL), 0);
	assert_true(flip_object_has(o, 0, 4 * 4096)); /* covered by the sync */
	assert_false(flip_object_has(o, 8 * 4096, 1));
	flip_object_unref(o);
	assert_int_equal(flip_object_open(h->store, digests[4], SIZE, &o, NULL), 0);
	assert_false(flip_object_has(o, 0, 1));
	flip_object_unref(o);
	assert_int_equal(flip_store_layer_get(h->store, layer_digest('1'), &row, NULL, 0, NULL), 0);
	flip_layer_row_done(&row);
	assert_int_equal(flip_store_layer_get(h->store, layer_digest('2'), &row, NULL, 0, NULL), -ENOENT);
	assert_int_equal(flip_store_snapshot_get(h->store, "sn", &sn, NULL), 0);
	flip_snapshot_done(&sn);
	assert_int_equal(flip_store_fsck(h->store, false, NULL, NULL, &result, NULL), 0);
	assert_int_equal(result.n_bad + result.n_leftover, 0);
	free_contents();
}

/* Blocks that were durable stay so over several nights, and go on being collected. */
static void a_partial_object_survives_nights(void **state)
{
	struct home *h = *state;
	struct flip_object *o;

	make_contents();
	for (size_t i = 0; i < 40; i++) {
		home_open(h, NULL);
		assert_int_equal(flip_object_open(h->store, digests[0], SIZE, &o, NULL), 0);
		assert_true(flip_object_has(o, 0, i * 4096) || i == 0);
		assert_false(flip_object_has(o, i * 4096, 4096));
		assert_int_equal(flip_object_write(o, data[0] + i * 4096, 4096, i * 4096, true, NULL), 0);
		flip_object_unref(o);
		home_close(h); /* syncs */
		another_boot(h);
	}
	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digests[0], SIZE, &o, NULL), 0);
	assert_int_equal(flip_object_write(o, data[0] + 40 * 4096, 7, 40 * 4096, true, NULL), 0);
	assert_true(flip_object_is_complete(o));
	flip_object_unref(o);
	assert_true(file_is(object_path(h, "objects", digests[0]), data[0], SIZE));
	free_contents();
}

static void put_unsynced(struct flip_store *s)
{
	bool was_there;

	MUST(flip_store_put(s, digests[0], data[0], SIZE, &was_there, NULL));
}

/* A database that is lost in the same night: nothing is known to be durable. */
static void without_a_database_everything_is_hashed_again(void **state)
{
	struct home *h = *state;
	struct stat st;
	char path[120];
	bool was_there;

	make_contents();
	home_open(h, NULL);
	assert_int_equal(flip_store_put(h->store, digests[1], data[1], SIZE, &was_there, NULL), 0);
	home_close(h);
	in_child(h, put_unsynced);
	assert_int_equal(stat(object_path(h, "objects", digests[1]), &st), 0);
	zeros_instead(object_path(h, "objects", digests[1]), 4096, 1);
	keep_mtime(object_path(h, "objects", digests[1]), &st);
	(void)snprintf(path, sizeof(path), "%s/store.db", h->path);
	assert_int_equal(unlink(path), 0);
	home_open(h, NULL);
	assert_true(flip_store_has(h->store, digests[0], NULL));
	assert_false(flip_store_has(h->store, digests[1], NULL));
	free_contents();
}

/* ---- A full disk ---------------------------------------------------------------------------------------------- */

enum { N_BIG = 64, BIG = 400000 };

struct full_case {
	uint8_t digests[N_BIG][32];
	uint8_t *data[N_BIG];
	bool is_put[N_BIG];
};

static void fill(struct home *h, struct full_case *c, bool may_evict)
{
	struct err err = { 0 };
	size_t n_full = 0;
	bool was_there;

	for (size_t i = 0; i < N_BIG; i++) {
		int r = flip_store_put(h->store, c->digests[i], c->data[i], BIG, &was_there, &err);

		c->is_put[i] = r == 0;
		if (r < 0) {
			assert_int_equal(r, -ENOSPC);
			assert_non_null(strstr(err_text(&err), "no space left"));
			assert_false(flip_store_has(h->store, c->digests[i], NULL));
			n_full++;
		}
	}
	assert_true(may_evict ? n_full == 0 : n_full > 0);
}

static void check_full_case(struct home *h, const struct full_case *c, bool may_evict)
{
	struct flip_fsck_result result;
	size_t n = 0;

	for (size_t i = 0; i < N_BIG; i++) {
		bool is_there = flip_store_has(h->store, c->digests[i], NULL);

		assert_true(is_there == c->is_put[i] || may_evict);
		if (is_there)
			assert_true(file_is(object_path(h, "objects", c->digests[i]), c->data[i], BIG));
		n += is_there;
	}
	assert_true(n > 4 && n < N_BIG);
	assert_int_equal(flip_store_fsck(h->store, false, NULL, NULL, &result, NULL), 0);
	assert_int_equal(result.n_bad + result.n_leftover, 0);
}

/* Blocks of an object that does not fit: what is marked is right, the end is an error. */
static void write_until_full(struct home *h, const struct full_case *c)
{
	enum { HUGE_SIZE = 64 << 20 };
	uint8_t digest[32], *big = content(77, HUGE_SIZE, digest), back[4096];
	uint64_t offset = 0, missing, n_missing;
	struct err err = { 0 };
	struct flip_object *o;
	int r;

	(void)c;
	assert_int_equal(flip_object_open(h->store, digest, HUGE_SIZE, &o, NULL), 0);
	for (r = 0; r == 0 && offset < HUGE_SIZE; offset += 65536)
		r = flip_object_write(o, big + offset, 65536, offset, true, &err);
	assert_int_equal(r, -ENOSPC);
	offset -= 65536;
	assert_false(flip_object_has(o, offset, 65536));
	if (flip_object_next_missing(o, 0, &missing, &n_missing) == 1 && missing >= 4096) {
		assert_int_equal(pread(flip_object_fd(o), back, 4096, (off_t)missing - 4096), 4096);
		assert_memory_equal(back, big + missing - 4096, 4096);
	}
	flip_object_unref(o);
	free(big);
}

static void full_disk(struct home *h)
{
	struct flip_store_opts opts = { .min_free_bytes = 1 };
	struct full_case *c = calloc(1, sizeof(*c));

	for (size_t i = 0; i < N_BIG; i++)
		c->data[i] = content(1000 + i, BIG, c->digests[i]);
	home_open(h, &opts);
	fill(h, c, false);
	check_full_case(h, c, false);
	write_until_full(h, c);
	check_full_case(h, c, false);
	home_close(h);

	/* The same with leave to remove what can be fetched again. */
	opts.index_walk = walk_index;
	home_open(h, &opts);
	assert_int_equal(flip_store_gc(h->store, 0, false, walk_index, NULL, NULL, NULL), 0);
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_LAZY, 0, c->digests, N_BIG), 0);
	fill(h, c, true);
	check_full_case(h, c, true);
	home_close(h);
	for (size_t i = 0; i < N_BIG; i++)
		free(c->data[i]);
	free(c);
}

static bool own_mounts(void)
{
	return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void a_full_tmpfs_is_an_error_and_no_more(void **state)
{
	struct home *h = *state;

	if (!own_mounts() || mount("none", h->dir, "tmpfs", 0, "size=12m,mode=700") < 0) {
		print_message("needs root and mounts\n");
		skip();
	}
	full_disk(h);
	assert_int_equal(umount2(h->dir, MNT_DETACH), 0);
}

static void a_full_ext4_is_an_error_and_no_more(void **state)
{
	struct home *h = *state;
	char command[700], mountpoint[72];

	(void)snprintf(mountpoint, sizeof(mountpoint), "%.60s/mnt", h->dir);
	(void)snprintf(command, sizeof(command),
	               "PATH=$PATH:/sbin:/usr/sbin; truncate -s 24M %s/image && mkfs.ext4 -q -m 0 -N 2048 %s/image &&"
	               " mkdir %s && mount -o loop %s/image %s 2>/dev/null",
	               h->dir, h->dir, mountpoint, h->dir, mountpoint);
	if (!own_mounts() || system(command) != 0) {
		print_message("needs root, mkfs.ext4 and a loop device\n");
		skip();
	}
	(void)snprintf(h->path, sizeof(h->path), "%s/store", mountpoint);
	full_disk(h);
	assert_int_equal(umount2(mountpoint, MNT_DETACH), 0);
}

int main(void)
{
#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, home_setup, home_teardown)
	const struct CMUnitTest tests[] = {
		ON_STORE(what_was_not_synced_is_not_believed),           ON_STORE(a_partial_object_survives_nights),
		ON_STORE(without_a_database_everything_is_hashed_again), ON_STORE(a_full_tmpfs_is_an_error_and_no_more),
		ON_STORE(a_full_ext4_is_an_error_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
