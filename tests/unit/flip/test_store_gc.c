/* What gc takes and leaves, what fsck finds, who may open a store. */
#include <sys/mount.h>
#include <sched.h>

#include "store_test.h"

enum { N = 10, SIZE = 50000 };

struct set { /* N contents, put */
	uint8_t digests[N][32];
	uint8_t *data[N];
};

static void put_set(struct home *h, struct set *set)
{
	bool was_there;

	for (size_t i = 0; i < N; i++) {
		set->data[i] = content(100 + i, SIZE, set->digests[i]);
		assert_int_equal(flip_store_put(h->store, set->digests[i], set->data[i], SIZE, &was_there, NULL), 0);
	}
}

static void free_set(struct set *set)
{
	for (size_t i = 0; i < N; i++)
		free(set->data[i]);
}

static size_t n_there(struct home *h, const struct set *set)
{
	size_t n = 0;

	for (size_t i = 0; i < N; i++)
		n += flip_store_has(h->store, set->digests[i], NULL);
	return n;
}

static void use_layer(struct home *h, char digit)
{
	struct flip_snapshot sn = { .kind = FLIP_SNAPSHOT_COMMITTED };
	char name[8];

	(void)snprintf(name, sizeof(name), "sn-%c", digit);
	sn.name = name;
	sn.layer = (char *)layer_digest(digit);
	assert_int_equal(flip_store_snapshot_add(h->store, &sn, NULL), 0);
}

static void used_at(const struct home *h, const uint8_t digest[32], time_t when)
{
	struct timespec times[2] = { { .tv_sec = when }, { .tv_nsec = UTIME_OMIT } };

	assert_int_equal(utimensat(AT_FDCWD, object_path(h, "objects", digest), times, 0), 0);
}

static void layers_and_objects_that_nothing_needs_go(void **state)
{
	struct home *h = *state;
	struct flip_gc_result result;
	struct flip_store_stat stat;
	struct flip_object *o;
	struct set set;

	home_open(h, NULL);
	put_set(h, &set);
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_LAZY, 1000, set.digests, 3), 0);
	assert_int_equal(try_add_layer(h->store, '2', FLIP_LAYER_LAZY, 1000, set.digests + 3, 3), 0);
	use_layer(h, '1');
	assert_int_equal(flip_object_open(h->store, set.digests[9], SIZE, &o, NULL), 0);

	/* Young ones stay: who put them may be about to name them. */
	assert_int_equal(flip_store_gc(h->store, 100, false, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(result.n_layers, 1);
	assert_int_equal(result.n_objects, 0);
	assert_int_equal(flip_store_gc(h->store, 0, true, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(result.n_objects, 6);
	assert_int_equal(n_there(h, &set), N);
	assert_int_equal(flip_store_gc(h->store, 0, false, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(result.n_objects, 6);
	assert_int_equal(result.n_bytes, 6 * SIZE);
	assert_int_equal(n_there(h, &set), 4);
	assert_true(flip_store_has(h->store, set.digests[9], NULL)); /* open */
	assert_int_equal(flip_store_stat(h->store, &stat, NULL), 0);
	assert_int_equal(stat.n_objects, 4);
	assert_int_equal(stat.object_bytes, 4 * SIZE);
	assert_int_equal(stat.n_layers, 1);
	assert_int_equal(stat.n_snapshots, 1);
	flip_object_unref(o);
	free_set(&set);
}

static void what_is_put_for_a_layer_that_is_begun_stays(void **state)
{
	struct home *h = *state;
	struct flip_gc_result result;
	struct set set;
	char dir[256];

	home_open(h, NULL);
	assert_int_equal(flip_store_layer_begin(h->store, layer_digest('1'), dir, sizeof(dir), NULL), 0);
	put_set(h, &set);
	assert_int_equal(flip_store_gc(h->store, 0, false, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(n_there(h, &set), N);
	flip_store_layer_abort(h->store, dir);
	assert_int_equal(flip_store_gc(h->store, 0, false, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(n_there(h, &set), 0);
	free_set(&set);
}

static void over_the_budget_the_least_recently_used_go(void **state)
{
	struct flip_store_opts opts = { .min_free_bytes = 1, .budget_bytes = 7 * SIZE };
	struct home *h = *state;
	struct flip_gc_result result;
	struct flip_object *o;
	struct set set;

	home_open(h, NULL);
	put_set(h, &set);
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_LAZY, 0, set.digests, 8), 0);
	assert_int_equal(try_add_layer(h->store, '2', FLIP_LAYER_UNPACKED, 0, set.digests + 7, 3), 0);
	for (size_t i = 0; i < N; i++)
		used_at(h, set.digests[i], (time_t)(1000 + 10 * i));
	used_at(h, set.digests[0], 5000);
	home_close(h);

	home_open(h, &opts);
	assert_int_equal(flip_object_open(h->store, set.digests[1], SIZE, &o, NULL), 0);
	assert_int_equal(flip_store_gc(h->store, 1000, false, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(result.n_objects, 3);
	assert_int_equal(n_there(h, &set), 7);
	assert_true(flip_store_has(h->store, set.digests[0], NULL));
	assert_true(flip_store_has(h->store, set.digests[1], NULL)); /* open */
	for (size_t i = 2; i < 5; i++)
		assert_false(flip_store_has(h->store, set.digests[i], NULL));
	flip_object_unref(o);
	home_close(h);

	opts.budget_bytes = 1; /* of unpacked layers nothing goes: their blobs cannot be asked for a part */
	home_open(h, &opts);
	assert_int_equal(flip_store_gc(h->store, 1000, false, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(n_there(h, &set), 3);
	free_set(&set);
}

static void partial_objects_go_when_no_layer_names_them(void **state)
{
	struct home *h = *state;
	struct flip_gc_result result;
	struct flip_store_stat stat;
	struct flip_object *o;
	struct set set;

	home_open(h, NULL);
	for (size_t i = 0; i < N; i++) {
		set.data[i] = content(i, SIZE, set.digests[i]);
		assert_int_equal(flip_object_open(h->store, set.digests[i], SIZE, &o, NULL), 0);
		assert_int_equal(flip_object_write(o, set.data[i], 8192, 0, true, NULL), 0);
		if (i > 0)
			flip_object_unref(o);
	}
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_LAZY, 0, set.digests + 5, 5), 0);
	assert_int_equal(flip_store_stat(h->store, &stat, NULL), 0);
	assert_int_equal(stat.n_partials, N);
	assert_true(stat.partial_bytes >= N * 8192 && stat.partial_bytes < N * SIZE);
	sleep(1); /* times of change are those of the kernel's last tick: older than now for sure */
	assert_int_equal(flip_store_gc(h->store, 0, false, NULL, NULL, &result, NULL), 0); /* blind */
	assert_int_equal(result.n_partials, 0);
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_LAZY, 0, set.digests + 5, 5), 0);
	use_layer(h, '1');
	assert_int_equal(flip_store_gc(h->store, 0, false, walk_index, NULL, &result, NULL), 0);
	assert_int_equal(result.n_partials, 4);
	assert_int_equal(flip_object_open(h->store, set.digests[0], SIZE, &o, NULL), 0);
	assert_true(flip_object_has(o, 0, 8192));
	flip_object_unref(o);
	flip_object_unref(o);
	assert_int_equal(flip_object_open(h->store, set.digests[1], SIZE, &o, NULL), 0);
	assert_false(flip_object_has(o, 0, 1));
	flip_object_unref(o);
	free_set(&set);
}

static void a_layer_with_a_broken_index_keeps_all_objects(void **state)
{
	struct home *h = *state;
	struct flip_gc_result result;
	struct err err = { 0 };
	char path[300];
	struct set set;

	home_open(h, NULL);
	put_set(h, &set);
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_LAZY, 0, set.digests, 8), 0);
	use_layer(h, '1');
	(void)snprintf(path, sizeof(path), "%s/layers/%s/index", h->path, layer_digest('1') + 7);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(flip_store_gc(h->store, 0, false, walk_index, NULL, &result, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "sha256:1111"));
	assert_int_equal(n_there(h, &set), N);
	free_set(&set);
}

/* ---- fsck ----------------------------------------------------------------------------------------------------- */

static char report_text[8192];

static void note_line(void *arg, const char *line)
{
	size_t len = strlen(report_text);

	(void)snprintf(report_text + len, sizeof(report_text) - len, "%s\n", line);
}

static struct flip_fsck_result fsck(struct home *h, bool dry_run)
{
	struct flip_fsck_result result;
	struct err err = { 0 };

	report_text[0] = 0;
	if (flip_store_fsck(h->store, dry_run, note_line, NULL, &result, &err) < 0)
		fail_msg("%s", err_text(&err));
	return result;
}

static void spoil(const char *path)
{
	int fd;

	assert_int_equal(chmod(path, 0644), 0);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "x", 1, 20000), 1);
	assert_int_equal(close(fd), 0);
}

static void wrong_objects_are_found_and_moved_away(void **state)
{
	struct home *h = *state;
	struct flip_fsck_result result;
	struct flip_object *o, *again;
	struct set set;
	bool was_there;

	home_open(h, NULL);
	put_set(h, &set);
	result = fsck(h, false);
	assert_int_equal(result.n_checked, N);
	assert_int_equal(result.n_bad + result.n_leftover, 0);
	assert_int_equal(flip_object_open(h->store, set.digests[3], SIZE, &o, NULL), 0);
	spoil(object_path(h, "objects", set.digests[3]));
	result = fsck(h, true);
	assert_int_equal(result.n_bad, 1);
	assert_non_null(strstr(report_text, "another digest"));
	assert_true(flip_store_has(h->store, set.digests[3], NULL));
	result = fsck(h, false);
	assert_int_equal(result.n_bad, 1);
	assert_false(flip_store_has(h->store, set.digests[3], NULL));
	/* Held by one, asked for again by another: made anew. */
	assert_int_equal(flip_object_open(h->store, set.digests[3], SIZE, &again, NULL), 0);
	assert_ptr_not_equal(again, o);
	assert_false(flip_object_is_complete(again));
	flip_object_unref(again);
	assert_int_equal(flip_store_put(h->store, set.digests[3], set.data[3], SIZE, &was_there, NULL), 0);
	assert_false(was_there);
	flip_object_unref(o);
	result = fsck(h, false);
	assert_int_equal(result.n_checked, N);
	assert_int_equal(result.n_bad + result.n_leftover, 0);
	free_set(&set);
}

static void what_belongs_to_nothing_is_found(void **state)
{
	struct home *h = *state;
	struct flip_fsck_result result;
	char command[1500];

	home_open(h, NULL);
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_LAZY, 0, NULL, 0), 0);
	use_layer(h, '1');
	use_layer(h, '2'); /* a layer that is not there: 1 bad row */
	(void)snprintf(command, sizeof(command),
	               "cd %s; echo >objects/ab/name; echo >objects/cd/.put-07; echo >partial/ef/%062d.map;"
	               "echo >partial/ef/%062d; mkdir layers/x snapshots/77 tmp/old; echo >snapshots/77/f;"
	               "rm -r layers/1*; rm -r snapshots/1",
	               h->path, 1, 2);
	assert_int_equal(system(command), 0);
	result = fsck(h, true);
	assert_int_equal(result.n_leftover, 7);
	/* The layer of sn-1 is missed from its row only when that is gone. */
	assert_int_equal(result.n_bad, 3);
	assert_non_null(strstr(report_text, "snapshots/1 is missing"));
	(void)fsck(h, false);
	result = fsck(h, false);
	assert_int_equal(result.n_leftover, 0);
	assert_int_equal(result.n_bad, 2); /* two snapshots whose layers are missing: for the node to pull again */
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

static void one_process_has_it_and_others_may_look(void **state)
{
	struct flip_store_opts look = { .read_only = true };
	struct flip_store *other = NULL;
	struct flip_fsck_result result;
	struct flip_store_stat stat;
	struct home *h = *state;
	struct err err = { 0 };
	struct set set;
	bool was_there;
	int status;
	pid_t pid;

	assert_int_equal(flip_store_open(h->path, &look, &other, &err), -ENOENT);
	home_open(h, NULL);
	put_set(h, &set);
	assert_int_equal(flip_store_open(h->path, NULL, &other, &err), -EBUSY);
	assert_non_null(strstr(err_text(&err), "another process"));
	assert_null(other);
	pid = fork();
	if (pid == 0)
		_exit(flip_store_open(h->path, NULL, &other, NULL) == -EBUSY ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);

	assert_int_equal(flip_store_open(h->path, &look, &other, NULL), 0);
	assert_true(flip_store_has(other, set.digests[0], NULL));
	assert_int_equal(flip_store_put(other, set.digests[0], "x", 1, &was_there, NULL), -EROFS);
	assert_int_equal(flip_store_stat(other, &stat, NULL), 0);
	assert_int_equal(stat.n_objects, N);
	assert_int_equal(flip_store_fsck(other, false, NULL, NULL, &result, NULL), -EROFS);
	assert_int_equal(flip_store_fsck(other, true, NULL, NULL, &result, NULL), 0);
	assert_int_equal(result.n_checked, N);
	assert_int_equal(result.n_bad + result.n_leftover, 0);
	assert_int_equal(flip_store_gc(other, 0, false, walk_index, NULL, NULL, NULL), -EROFS);
	flip_store_close(other);
	home_close(h);
	assert_int_equal(flip_store_open(h->path, &look, &other, NULL), 0); /* without a log beside the database */
	flip_store_close(other);
	free_set(&set);
}

static void overlayfs_is_refused(void **state)
{
	struct home *h = *state;
	struct flip_store *s = NULL;
	struct err err = { 0 };
	char options[300];
	int r;

	if (geteuid() != 0)
		skip();
	(void)snprintf(options, sizeof(options), "mkdir %s/l %s/u %s/w %s/m", h->dir, h->dir, h->dir, h->dir);
	assert_int_equal(system(options), 0);
	(void)snprintf(options, sizeof(options), "lowerdir=%s/l,upperdir=%s/u,workdir=%s/w", h->dir, h->dir, h->dir);
	(void)snprintf(h->path, sizeof(h->path), "%s/m", h->dir);
	if (mount("overlay", h->path, "overlay", 0, options) < 0) {
		print_message("overlayfs cannot be mounted here\n");
		skip();
	}
	r = flip_store_open(h->path, NULL, &s, &err);
	assert_int_equal(umount2(h->path, MNT_DETACH), 0);
	assert_int_equal(r, -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "overlayfs"));
}

int main(void)
{
#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, home_setup, home_teardown)
	const struct CMUnitTest tests[] = {
		ON_STORE(layers_and_objects_that_nothing_needs_go),
		ON_STORE(what_is_put_for_a_layer_that_is_begun_stays),
		ON_STORE(over_the_budget_the_least_recently_used_go),
		ON_STORE(partial_objects_go_when_no_layer_names_them),
		ON_STORE(a_layer_with_a_broken_index_keeps_all_objects),
		ON_STORE(wrong_objects_are_found_and_moved_away),
		ON_STORE(what_belongs_to_nothing_is_found),
		ON_STORE(one_process_has_it_and_others_may_look),
		ON_STORE(overlayfs_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
