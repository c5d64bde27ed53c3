#include <signal.h>
#include <sys/xattr.h>

#include "fusefs_test.h"

enum { SMALL = 1, SMALL_ODD = 3, LARGE = 2, LARGE_ODD = 5, LARGE_SIZE = 3 * 1024 * 1024 + 77, SMALL_SIZE = 7001 };

static struct fusefs_place place;
static struct owner *owner;
static struct flip_fs *fs;

static struct flip_fs_stat stat_now(void)
{
	struct flip_fs_stat st;

	flip_fs_stat(fs, &st);
	return st;
}

static int setup(void **state)
{
	struct flip_fs_opts o = { .ops = &owner_ops, .n_threads = 3, .session_fd = -1 };
	struct err err = { 0 };

	(void)state;
	make_place(&place);
	owner = owner_new(place.store);
	owner_start(owner);
	assert_int_equal(owner_add(owner, SMALL, SMALL_SIZE, true), 0);
	assert_int_equal(owner_add(owner, SMALL_ODD, SMALL_SIZE, true), 0);
	assert_int_equal(owner_add(owner, LARGE, LARGE_SIZE, true), 0);
	assert_int_equal(owner_add(owner, LARGE_ODD, LARGE_SIZE, true), 0);
	o.arg = owner;
	o.mountpoint = place.mountpoint;
	if (flip_fs_start(&o, &fs, &err) < 0)
		fail_msg("%s", err_text(&err));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	flip_fs_pause(fs, true);
	owner_stop(owner);
	flip_fs_stop(fs, true);
	assert_int_equal(atomic_load(&owner->shared->n_opened), atomic_load(&owner->shared->n_closed));
	owner_free(owner);
	remove_place(&place);
	return 0;
}

static void set_arriving(uint64_t id)
{
	atomic_store(&owner->shared->complete[id], false);
}

static void complete_large_files_are_read_without_the_daemon(void **state)
{
	int fd = open_object(&place, LARGE), second = open_object(&place, LARGE);

	(void)state;
	assert_true(fd >= 0 && second >= 0);
	if (!stat_now().passthrough)
		skip();
	assert_int_equal(check_range(fd, LARGE, 0, LARGE_SIZE), 0);
	assert_int_equal(check_range(second, LARGE, 12345, 100000), 0);
	assert_int_equal(stat_now().n_reads, 0);
	assert_int_equal(stat_now().n_opens_passthrough, 2);
	(void)close(fd);
	(void)close(second);
}

static bool kernel_has_uring(void)
{
	int fd = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
	char c = 'N';
	bool has = fd >= 0 && read(fd, &c, 1) == 1 && c == 'Y';

	if (fd >= 0)
		(void)close(fd);
	return has;
}

static void io_uring_is_had_or_refused_and_told(void **state)
{
	struct flip_fs_opts o = { .ops = &owner_ops, .arg = owner, .session_fd = -1, .io_uring = FLIP_URING_ON };
	struct flip_fs *second = NULL;
	char dir[128];
	int r;

	(void)state;
	assert_true(kernel_has_uring() || !stat_now().io_uring);
	(void)snprintf(dir, sizeof(dir), "%s/second", place.dir);
	assert_int_equal(mkdir(dir, 0755), 0);
	o.mountpoint = dir;
	r = flip_fs_start(&o, &second, NULL);
	if (r == 0) {
		struct flip_fs_stat st;

		flip_fs_stat(second, &st);
		assert_true(st.io_uring && kernel_has_uring());
		flip_fs_stop(second, true);
	} else {
		assert_int_equal(r, -EOPNOTSUPP);
		assert_null(second);
	}
}

static void small_files_stay_in_the_page_cache_over_opens(void **state)
{
	uint64_t n;

	(void)state;
	for (int i = 0; i < 3; i++) {
		int fd = open_object(&place, SMALL);

		assert_true(fd >= 0);
		assert_int_equal(check_range(fd, SMALL, 0, SMALL_SIZE), 0);
		(void)close(fd);
		if (i == 0)
			n = stat_now().n_reads;
	}
	assert_true(n > 0);
	assert_int_equal(stat_now().n_reads, n);
	assert_int_equal(stat_now().n_opens_passthrough, 0);
	assert_int_equal(atomic_load(&owner->shared->n_reads), 0); /* complete: not the owner's matter */
}

static void attributes_and_names_are_those_of_the_owner(void **state)
{
	char path[300], missing[300];
	struct stat st;

	(void)state;
	owner_path(place.mountpoint, LARGE, path, sizeof(path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, LARGE_SIZE);
	assert_int_equal(st.st_mode, S_IFREG | 0444);
	owner_path(place.mountpoint, 9, missing, sizeof(missing));
	assert_int_equal(stat(missing, &st), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(owner_add(owner, 9, 100, true), 0); /* a layer that came later */
	assert_int_equal(stat(missing, &st), 0);
	assert_int_equal(st.st_size, 100);
	path[strlen(path) - 1] = 0;
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(open(missing, O_WRONLY | O_CLOEXEC), -1);
	assert_int_equal(errno, EROFS);
}

struct reader {
	pthread_t thread;
	uint64_t id, offset, size;
	int result;
};

static void *read_some(void *arg)
{
	struct reader *r = arg;
	int fd = open_object(&place, r->id);

	r->result = fd < 0 ? -errno : check_range(fd, r->id, r->offset, r->size);
	if (fd >= 0)
		(void)close(fd);
	return NULL;
}

static void read_at_once(uint64_t id, size_t n)
{
	struct reader r[16];

	for (size_t i = 0; i < n; i++) {
		r[i] = (struct reader){ .id = id, .offset = i * 70001, .size = 900000 };
		assert_int_equal(pthread_create(&r[i].thread, NULL, read_some, &r[i]), 0);
	}
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(pthread_join(r[i].thread, NULL), 0);
		assert_int_equal(r[i].result, 0);
	}
}

static void what_arrives_is_read_by_many_at_once(void **state)
{
	(void)state;
	set_arriving(LARGE);
	set_arriving(LARGE_ODD);
	read_at_once(LARGE, 8);
	atomic_store(&owner->shared->delay_ms, 5);
	read_at_once(LARGE_ODD, 16);
	assert_true(atomic_load(&owner->shared->n_reads) > 0);
	assert_int_equal(stat_now().n_opens_passthrough, 0);
}

static void a_failed_read_fails_alone(void **state)
{
	int fd;

	(void)state;
	set_arriving(LARGE);
	atomic_store(&owner->shared->n_fail[LARGE], -1);
	fd = open_object(&place, LARGE);
	assert_true(fd >= 0);
	assert_int_equal(check_range(fd, LARGE, 0, 4096), -EIO);
	assert_int_equal(check_range(fd, LARGE, 1 << 20, 4096), -EIO);
	atomic_store(&owner->shared->n_fail[LARGE], 0);
	assert_int_equal(check_range(fd, LARGE, 0, LARGE_SIZE), 0);
	assert_true(stat_now().n_errors > 0);
	(void)close(fd);
}

/* The kernel sends a release when it likes. */
static void wait_until_closed(void)
{
	for (int i = 0; i < 60000 && atomic_load(&owner->shared->n_opened) != atomic_load(&owner->shared->n_closed);
	     i++)
		(void)usleep(1000);
	assert_int_equal(atomic_load(&owner->shared->n_opened), atomic_load(&owner->shared->n_closed));
}

static void a_file_that_becomes_complete_stays_cached_until_it_is_closed(void **state)
{
	uint64_t n;
	int first, second, third;

	(void)state;
	set_arriving(LARGE);
	first = open_object(&place, LARGE);
	assert_int_equal(check_range(first, LARGE, 0, 4096), 0);
	atomic_store(&owner->shared->complete[LARGE], true);
	second = open_object(&place, LARGE);
	assert_true(first >= 0 && second >= 0);
	assert_int_equal(check_range(second, LARGE, 0, LARGE_SIZE), 0);
	assert_int_equal(stat_now().n_opens_passthrough, 0);
	(void)close(first);
	(void)close(second);
	if (!stat_now().passthrough)
		skip();
	wait_until_closed();
	n = stat_now().n_reads;
	third = open_object(&place, LARGE);
	assert_int_equal(check_range(third, LARGE, 0, LARGE_SIZE), 0);
	assert_int_equal(stat_now().n_opens_passthrough, 1);
	assert_int_equal(stat_now().n_reads, n);
	(void)close(third);
}

static void map_and_check(uint64_t id)
{
	int fd = open_object(&place, id);
	uint8_t *data = mmap(NULL, LARGE_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);

	assert_ptr_not_equal(data, MAP_FAILED);
	(void)close(fd);
	for (size_t i = 0; i < LARGE_SIZE; i += 511)
		assert_int_equal(data[i], owner_byte(id, i));
	(void)munmap(data, LARGE_SIZE);
}

static void mapped_files_are_right(void **state)
{
	(void)state;
	map_and_check(LARGE);
	set_arriving(LARGE_ODD);
	map_and_check(LARGE_ODD);
}

static void opens_and_closes_race_with_completion(void **state)
{
	(void)state;
	for (int i = 0; i < 40; i++) {
		struct reader r[6];

		atomic_store(&owner->shared->complete[LARGE], i % 2);
		for (size_t k = 0; k < 6; k++) {
			r[k] = (struct reader){ .id = LARGE, .offset = k * 1000, .size = 5000 };
			assert_int_equal(pthread_create(&r[k].thread, NULL, read_some, &r[k]), 0);
			if (k == 2)
				atomic_store(&owner->shared->complete[LARGE], !(i % 2));
		}
		for (size_t k = 0; k < 6; k++) {
			assert_int_equal(pthread_join(r[k].thread, NULL), 0);
			assert_int_equal(r[k].result, 0);
		}
	}
	wait_until_closed();
}

static void a_killed_reader_does_not_wait(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	set_arriving(LARGE);
	atomic_store(&owner->shared->delay_ms, -1);
	pid = fork();
	if (pid == 0) {
		char c[4096];

		_exit(pread(open_object(&place, LARGE), c, sizeof(c), 0) != sizeof(c));
	}
	while (atomic_load(&owner->shared->n_reads) == 0)
		(void)usleep(1000);
	(void)usleep(20000);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void other_signals_do_not_disturb_a_read(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	set_arriving(LARGE);
	atomic_store(&owner->shared->delay_ms, 100);
	pid = fork();
	if (pid == 0) {
		int fd = open_object(&place, LARGE);

		(void)signal(SIGUSR1, SIG_IGN);
		_exit(check_range(fd, LARGE, 0, 4096) != 0);
	}
	while (atomic_load(&owner->shared->n_reads) == 0)
		(void)usleep(1000);
	assert_int_equal(kill(pid, SIGUSR1), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void overlayfs_finds_contents_by_redirect(void **state)
{
	char meta[128], top[128], options[512], path[300];
	int fd;

	(void)state;
	(void)snprintf(meta, sizeof(meta), "%s/meta", place.dir);
	(void)snprintf(top, sizeof(top), "%s/top", place.dir);
	assert_int_equal(mkdir(meta, 0755) | mkdir(top, 0755), 0);
	set_arriving(LARGE_ODD);
	for (int i = 0; i < 2; i++) {
		char object[300];

		(void)snprintf(path, sizeof(path), "%s/f%d", meta, i);
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
		assert_int_equal(ftruncate(fd, LARGE_SIZE), 0);
		(void)close(fd);
		owner_path("", i ? LARGE : LARGE_ODD, object, sizeof(object));
		if (setxattr(path, "trusted.overlay.metacopy", "", 0, 0) != 0)
			skip();
		assert_int_equal(setxattr(path, "trusted.overlay.redirect", object + 8, strlen(object) - 8, 0), 0);
	}
	(void)snprintf(options, sizeof(options), "metacopy=on,redirect_dir=on,lowerdir=%s::%s/objects", meta,
	               place.mountpoint);
	if (mount("overlay", top, "overlay", MS_RDONLY, options) != 0)
		skip(); /* Linux before 6.5 */
	for (int i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/f%d", top, i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(check_range(fd, i ? LARGE : LARGE_ODD, 0, LARGE_SIZE), 0);
		(void)close(fd);
	}
	assert_true(!stat_now().passthrough || stat_now().n_opens_passthrough > 0);
	assert_int_equal(umount(top), 0);
}

int main(void)
{
#define FS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		FS_TEST(complete_large_files_are_read_without_the_daemon),
		FS_TEST(io_uring_is_had_or_refused_and_told),
		FS_TEST(small_files_stay_in_the_page_cache_over_opens),
		FS_TEST(attributes_and_names_are_those_of_the_owner),
		FS_TEST(what_arrives_is_read_by_many_at_once),
		FS_TEST(a_failed_read_fails_alone),
		FS_TEST(a_file_that_becomes_complete_stays_cached_until_it_is_closed),
		FS_TEST(mapped_files_are_right),
		FS_TEST(opens_and_closes_race_with_completion),
		FS_TEST(a_killed_reader_does_not_wait),
		FS_TEST(other_signals_do_not_disturb_a_read),
		FS_TEST(overlayfs_finds_contents_by_redirect),
	};

	if (!fusefs_can()) {
		puts("skipped: needs root, /dev/fuse and a mount namespace");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
