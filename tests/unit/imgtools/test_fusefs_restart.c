/* The file system's process is killed and another goes on. It runs as a child; what it counts is in shared memory. */
#include <signal.h>
#include <sys/xattr.h>

#include "fusefs_test.h"

enum { FILES = 12, LARGE_SIZE = 1024 * 1024 + 333, SMALL_SIZE = 9001, N_READERS = 4, N_KILLS = 20 };

struct shared {
	struct flip_fs_stat stat;
	atomic_bool is_up, stop, unmount;
	atomic_int open_delay_ms;
	atomic_bool readers_stop;
	atomic_ulong n_rounds;
	char message[ERR_MSG_SIZE];
};

static struct fusefs_place place;
static struct owner *owner;
static struct shared *shared;
static char socket_path[128];
static pid_t daemon_pid;

static uint64_t size_of(uint64_t id)
{
	return id % 3 ? LARGE_SIZE : SMALL_SIZE;
}

/* An open that takes its time, so that a kill finds it under way. */
static int slow_open(void *arg, uint64_t id, void **ret_handle, int *ret_fd)
{
	int r = owner_open(arg, id, ret_handle, ret_fd);

	(void)usleep((useconds_t)atomic_load(&shared->open_delay_ms) * 1000);
	return r;
}

static void run_daemon(void)
{
	struct flip_fs_ops ops = owner_ops;
	struct flip_fs_opts o = { .ops = &ops, .arg = owner, .mountpoint = place.mountpoint, .n_threads = 3 };
	struct err err = { 0 };
	struct flip_fs *fs;
	int fd = -1, r;

	ops.object_open = slow_open;
	owner_start(owner);
	o.state_path = place.state;
	r = flip_holder_get(socket_path, &fd, &err);
	o.session_fd = r == 0 ? fd : -1;
	if (r == 0 || r == -ENOENT)
		r = flip_fs_start(&o, &fs, &err);
	if (r == 0 && o.session_fd < 0)
		r = flip_holder_put(socket_path, flip_fs_fd(fs), &err);
	if (r < 0) {
		(void)snprintf(shared->message, sizeof(shared->message), "%s", err_text(&err));
		_exit(1);
	}
	if (fd >= 0)
		(void)close(fd);
	atomic_store(&shared->is_up, true);
	while (!atomic_load(&shared->stop)) {
		flip_fs_stat(fs, &shared->stat);
		(void)usleep(1000);
	}
	flip_fs_pause(fs, atomic_load(&shared->unmount));
	owner_stop(owner);
	if (atomic_load(&shared->unmount))
		(void)flip_holder_end(socket_path, NULL);
	flip_fs_stop(fs, atomic_load(&shared->unmount));
	_exit(0);
}

static void start_daemon(void)
{
	int status;

	atomic_store(&shared->is_up, false);
	atomic_store(&shared->stop, false);
	daemon_pid = fork();
	if (daemon_pid == 0)
		run_daemon();
	while (!atomic_load(&shared->is_up)) {
		if (waitpid(daemon_pid, &status, WNOHANG) == daemon_pid)
			fail_msg("the file system did not start: %s", shared->message);
		(void)usleep(1000);
	}
}

static void kill_daemon(void)
{
	int status;

	assert_int_equal(kill(daemon_pid, SIGKILL), 0);
	assert_int_equal(waitpid(daemon_pid, &status, 0), daemon_pid);
}

static void stop_daemon(bool unmount)
{
	int status;

	atomic_store(&shared->unmount, unmount);
	atomic_store(&shared->stop, true);
	assert_int_equal(waitpid(daemon_pid, &status, 0), daemon_pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int setup(void **state)
{
	(void)state;
	make_place(&place);
	(void)snprintf(socket_path, sizeof(socket_path), "%s/holder", place.dir);
	owner = owner_new(place.store);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (uint64_t id = 1; id <= FILES; id++)
		assert_int_equal(owner_add(owner, id, size_of(id), id % 4 != 0), 0);
	start_daemon();
	return 0;
}

static int teardown(void **state)
{
	int fd;

	(void)state;
	stop_daemon(true);
	assert_int_equal(flip_holder_get(socket_path, &fd, NULL), -ENOENT);
	assert_int_equal(access(place.state, F_OK), -1); /* the state went with the mount */
	(void)munmap(shared, sizeof(*shared));
	owner_free(owner);
	remove_place(&place);
	return 0;
}

static void open_files_go_on(void **state)
{
	int passed = open_object(&place, 1), cached = open_object(&place, 4), small = open_object(&place, 3), again,
	    fresh;
	uint8_t *mapped[2];

	(void)state;
	assert_true(passed >= 0 && cached >= 0 && small >= 0);
	mapped[0] = mmap(NULL, LARGE_SIZE, PROT_READ, MAP_SHARED, passed, 0);
	mapped[1] = mmap(NULL, LARGE_SIZE, PROT_READ, MAP_SHARED, cached, 0);
	assert_int_equal(mapped[0][5], owner_byte(1, 5));
	kill_daemon();
	atomic_store(&owner->shared->complete[4], true); /* while nobody looked */
	start_daemon();
	assert_int_equal(check_range(passed, 1, 0, LARGE_SIZE), 0);
	assert_int_equal(check_range(cached, 4, 0, LARGE_SIZE), 0);
	assert_int_equal(check_range(small, 3, 0, SMALL_SIZE), 0);
	for (size_t i = 0; i < LARGE_SIZE; i += 1021) {
		assert_int_equal(mapped[0][i], owner_byte(1, i));
		assert_int_equal(mapped[1][i], owner_byte(4, i));
	}
	for (int i = 0; i < 2; i++) { /* the same inodes: in the way they are open */
		again = open_object(&place, i ? 4 : 1);
		assert_true(again >= 0);
		assert_int_equal(check_range(again, i ? 4 : 1, 100, 70000), 0);
		(void)close(again);
	}
	fresh = open_object(&place, 2);
	assert_true(fresh >= 0);
	assert_int_equal(check_range(fresh, 2, 0, LARGE_SIZE), 0);
	(void)munmap(mapped[0], LARGE_SIZE);
	(void)munmap(mapped[1], LARGE_SIZE);
	(void)close(passed);
	(void)close(cached);
	(void)close(small);
	(void)close(fresh);
}

static void a_passthrough_file_keeps_its_backing_over_many_restarts(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		int first = open_object(&place, 1), second;

		kill_daemon();
		start_daemon();
		second = open_object(&place, 1);
		assert_true(first >= 0 && second >= 0);
		(void)close(first);
		kill_daemon(); /* perhaps with the release under way */
		start_daemon();
		first = open_object(&place, 1);
		assert_true(first >= 0);
		assert_int_equal(check_range(second, 1, 0, LARGE_SIZE), 0);
		assert_int_equal(check_range(first, 1, 0, LARGE_SIZE), 0);
		(void)close(first);
		(void)close(second);
	}
}

/* Reads what is missing, in a child, while the file system is killed or stopped. */
static pid_t read_in_child(uint64_t id)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open_object(&place, id);

		_exit(fd < 0 ? 1 : check_range(fd, id, 0, size_of(id)) == 0 ? 0 : 2);
	}
	return pid;
}

static void waiting_reads_are_asked_again(bool kill_it)
{
	unsigned long n = atomic_load(&owner->shared->n_reads);
	int status;
	pid_t pid;

	atomic_store(&owner->shared->delay_ms, -1);
	pid = read_in_child(kill_it ? 4 : 8);
	while (atomic_load(&owner->shared->n_reads) == n)
		(void)usleep(1000);
	if (kill_it)
		kill_daemon();
	else
		stop_daemon(false);
	atomic_store(&owner->shared->delay_ms, 0);
	start_daemon();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void reads_that_wait_are_answered_by_the_next_process(void **state)
{
	(void)state;
	waiting_reads_are_asked_again(true);
}

static void a_process_that_stops_leaves_its_reads_to_the_next(void **state)
{
	(void)state;
	waiting_reads_are_asked_again(false);
}

static void an_open_under_way_is_done_by_the_next_process(void **state)
{
	unsigned long n = atomic_load(&owner->shared->n_opened);
	int status;
	pid_t pid;

	(void)state;
	atomic_store(&shared->open_delay_ms, 300);
	pid = read_in_child(2);
	while (atomic_load(&owner->shared->n_opened) == n)
		(void)usleep(1000);
	kill_daemon();
	atomic_store(&shared->open_delay_ms, 0);
	start_daemon();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* ---- Killed under load ------------------------------------------------------------------------------------ */

static int read_mapped(int fd, uint64_t id)
{
	uint64_t size = size_of(id);
	uint8_t *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	int r = data == MAP_FAILED ? -errno : 0;

	for (uint64_t i = 0; r == 0 && i < size; i += 4093)
		if (data[i] != owner_byte(id, i))
			r = -EBADMSG;
	if (data != MAP_FAILED)
		(void)munmap(data, size);
	return r;
}

static int read_for_ever(unsigned seed)
{
	int kept[4] = { -1, -1, -1, -1 };
	uint64_t kept_id[4] = { 0 };

	while (!atomic_load(&shared->readers_stop)) {
		uint64_t id = 1 + (uint64_t)rand_r(&seed) % FILES, at = (uint64_t)rand_r(&seed) % (size_of(id) - 1000);
		int k = rand_r(&seed) % 4, fd = open_object(&place, id), r;

		if (fd < 0)
			return 10;
		r = rand_r(&seed) % 3 ? check_range(fd, id, at, 1000) : read_mapped(fd, id);
		if (r == 0 && kept[k] >= 0)
			r = check_range(kept[k], kept_id[k], 0, 4096);
		if (r < 0)
			return r == -EBADMSG ? 12 : 11;
		if (kept[k] >= 0)
			(void)close(kept[k]);
		kept[k] = fd;
		kept_id[k] = id;
		/* Pages are read again, not found. */
		if (rand_r(&seed) % 8 == 0)
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		atomic_fetch_add(&shared->n_rounds, 1);
	}
	return 0;
}

static void nobody_notices_kills_under_load(void **state)
{
	pid_t readers[N_READERS];
	unsigned seed = 1;

	(void)state;
	atomic_store(&shared->readers_stop, false);
	atomic_store(&owner->shared->delay_ms, 2);
	for (unsigned i = 0; i < N_READERS; i++) {
		readers[i] = fork();
		if (readers[i] == 0)
			_exit(read_for_ever(i));
	}
	for (int i = 0; i < N_KILLS; i++) {
		unsigned long n = atomic_load(&shared->n_rounds);

		for (int k = 0; k < 60000 && atomic_load(&shared->n_rounds) < n + 20; k++)
			(void)usleep(1000);
		assert_true(atomic_load(&shared->n_rounds) >= n + 20); /* they go on */
		(void)usleep((useconds_t)(rand_r(&seed) % 20000));
		kill_daemon();
		for (uint64_t id = 4; id <= FILES; id += 4)
			atomic_store(&owner->shared->complete[id], rand_r(&seed) % 2);
		start_daemon();
	}
	atomic_store(&shared->readers_stop, true);
	for (int i = 0; i < N_READERS; i++) {
		int status;

		assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

static void a_second_process_is_refused(void **state)
{
	struct flip_fs_opts o = { .ops = &owner_ops, .arg = owner, .mountpoint = place.mountpoint };
	struct flip_fs *fs = NULL;
	int fd = -1;

	(void)state;
	assert_int_equal(flip_holder_get(socket_path, &fd, NULL), 0);
	o.session_fd = fd;
	o.state_path = place.state;
	assert_int_equal(flip_fs_start(&o, &fs, NULL), -EBUSY);
	assert_null(fs);
	(void)close(fd);
}

int main(int argc, char **argv)
{
#define FS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		FS_TEST(open_files_go_on),
		FS_TEST(a_passthrough_file_keeps_its_backing_over_many_restarts),
		FS_TEST(reads_that_wait_are_answered_by_the_next_process),
		FS_TEST(a_process_that_stops_leaves_its_reads_to_the_next),
		FS_TEST(an_open_under_way_is_done_by_the_next_process),
		FS_TEST(nobody_notices_kills_under_load),
		FS_TEST(a_second_process_is_refused),
	};
	int r = flip_holder_run(argc, argv);

	if (r >= 0)
		return r;
	if (!fusefs_can()) {
		puts("skipped: needs root, /dev/fuse and a mount namespace");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
