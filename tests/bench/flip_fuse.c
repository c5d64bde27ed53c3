/* The FUSE file system of flip against the file system below it and against plain FUSE: a server that answers each read
 * from a buffer and has the kernel forget a file's pages at each open, as most do.
 *
 *   flip_fuse [FOLDER]     works in FOLDER (on ext4 or xfs; default $TMPDIR or /var/tmp), needs root
 *
 * Everything is warm: what is measured is the way of a request, not the disk. Small files: open, read, close of each,
 * in a shuffled order, by 1 and by 4 threads; the large one: read in pieces of 128 KiB, and a byte of each page by
 * mmap. The best of 7, the sides in turn: other work on the machine only takes away. One JSON line per figure; "limit"
 * is the file system below, "peer" is plain FUSE. FUSE over io_uring is measured where the kernel's parameter
 * fuse.enable_uring is on. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "fusefs/fuse_wire.h"
#include "fusefs/fusefs.h"

enum { N_SMALL = 6000, LARGE_SIZE = 256 << 20, REPETITIONS = 7, MEAN_SIZE = 7700, BLOCK = 128 * 1024 };

static char folder[256], store[300];
static uint64_t sizes[N_SMALL + 2]; /* ids 1..N_SMALL are small, N_SMALL + 1 is the large one */

static void name_of(uint64_t id, char name[80])
{
	/* A digest that says its id: sorted into 256 folders as real ones are. */
	(void)snprintf(name, 80, "%02llx/%062llx", (unsigned long long)id % 256, (unsigned long long)id);
}

static uint64_t id_of(const uint8_t digest[32])
{
	uint64_t id = 0;

	for (int i = 24; i < 32; i++)
		id = id << 8 | digest[i];
	return id <= N_SMALL + 1 && digest[0] == id % 256 ? id : 0;
}

static int open_stored(uint64_t id)
{
	char path[400], name[80];

	name_of(id, name);
	(void)snprintf(path, sizeof(path), "%s/%s", store, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* ---- The owner: everything is complete -------------------------------------------------------------------- */

static uint64_t owner_find(void *arg, const uint8_t digest[32], uint64_t *ret_size)
{
	uint64_t id = id_of(digest);

	(void)arg;
	*ret_size = sizes[id];
	return id;
}

static int owner_size(void *arg, uint64_t id, uint64_t *ret_size)
{
	(void)arg;
	*ret_size = sizes[id];
	return 0;
}

static int owner_open(void *arg, uint64_t id, void **ret_handle, int *ret_fd)
{
	int fd = open_stored(id);

	(void)arg;
	*ret_handle = (void *)(intptr_t)fd;
	*ret_fd = fd;
	return fd < 0 ? -errno : 0;
}

static void owner_close(void *arg, void *handle)
{
	(void)arg;
	(void)close((int)(intptr_t)handle);
}

static void owner_read(void *arg, void *handle, uint64_t offset, size_t size, struct flip_fs_read *read)
{
	(void)arg;
	flip_fs_reply_fd(read, (int)(intptr_t)handle, offset, size);
}

static const struct flip_fs_ops owner_ops = {
	.object_find = owner_find,
	.object_size = owner_size,
	.object_open = owner_open,
	.object_close = owner_close,
	.object_read = owner_read,
};

/* ---- Plain FUSE ------------------------------------------------------------------------------------------- */

enum { PLAIN_DIR = 1000000 };

static void plain_attr(uint64_t node, struct stat *st)
{
	*st = (struct stat){ .st_ino = node, .st_mode = S_IFDIR | 0755, .st_nlink = 2 };
	if (node >= 2 && node < PLAIN_DIR) {
		st->st_mode = S_IFREG | 0444;
		st->st_size = (off_t)sizes[node - 1];
	}
}

static void plain_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .attr_timeout = 3600, .entry_timeout = 3600 };

	if (parent == 1)
		e.ino = PLAIN_DIR + strtoull(name, NULL, 16);
	else
		e.ino = strtoull(name + 46, NULL, 16) + 1;
	plain_attr(e.ino, &e.attr);
	(void)fuse_reply_entry(req, &e);
}

static void plain_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	plain_attr(node, &st);
	(void)fuse_reply_attr(req, &st, 3600);
}

static void plain_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	int fd = open_stored(node - 1);

	fi->fh = (uint64_t)fd;
	if (fd < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_open(req, fi);
}

static void plain_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char *data = malloc(size);
	ssize_t n = pread((int)fi->fh, data, size, offset);

	(void)node;
	if (n < 0)
		(void)fuse_reply_err(req, errno);
	else
		(void)fuse_reply_buf(req, data, (size_t)n);
	free(data);
}

static void plain_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	(void)node;
	(void)close((int)fi->fh);
	(void)fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops plain_ops = {
	.lookup = plain_lookup,
	.getattr = plain_getattr,
	.open = plain_open,
	.read = plain_read,
	.release = plain_release,
};

static void *serve_plain(void *session)
{
	char *mem = malloc((1 << 20) + 4096);
	struct fuse_buf buf = { .mem = mem };

	while (!fuse_session_exited(session) && fuse_session_receive_buf(session, &buf) > 0)
		fuse_session_process_buf(session, &buf);
	free(mem);
	return NULL;
}

static void run_plain(const char *mountpoint, int ready)
{
	char *argv[] = { "plain", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *session = fuse_session_new(&args, &plain_ops, sizeof(plain_ops), NULL);
	char options[128], path[32];
	pthread_t t[4];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	(void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd);
	(void)snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	if (!session || mount("plain", mountpoint, "fuse.plain", MS_RDONLY, options) != 0 ||
	    fuse_session_mount(session, path) != 0)
		_exit(1);
	(void)!write(ready, "", 1);
	for (int i = 0; i < 4; i++)
		(void)pthread_create(&t[i], NULL, serve_plain, session);
	for (int i = 0; i < 4; i++)
		(void)pthread_join(t[i], NULL);
	_exit(0);
}

/* ---- Servers, each in a process of its own ---------------------------------------------------------------- */

struct side {
	const char *name;
	bool is_fuse, is_plain;
	uint64_t passthrough_min;
	enum flip_io_uring uring;
	char root[300];
	pid_t pid;
	double small[2][REPETITIONS], seq[REPETITIONS], mapped[REPETITIONS];
};

static void run_ours(const struct side *s, int ready)
{
	struct flip_fs_opts o = { .ops = &owner_ops,
		                  .mountpoint = s->root,
		                  .n_threads = 4,
		                  .passthrough_min = s->passthrough_min,
		                  .io_uring = s->uring,
		                  .session_fd = -1 };
	struct err err = { 0 };
	struct flip_fs *fs;

	if (flip_fs_start(&o, &fs, &err) < 0) {
		(void)fprintf(stderr, "%s: %s\n", s->name, err_text(&err));
		_exit(1);
	}
	(void)!write(ready, "", 1);
	for (;;)
		(void)pause();
}

static bool start_side(struct side *s)
{
	int ready[2];
	char c;
	bool ok;

	if (!s->is_fuse) {
		(void)snprintf(s->root, sizeof(s->root), "%s", store);
		return true;
	}
	(void)snprintf(s->root, sizeof(s->root), "%s/mnt-%s", folder, s->name);
	if (mkdir(s->root, 0755) != 0 || pipe2(ready, O_CLOEXEC) != 0)
		return false;
	s->pid = fork();
	if (s->pid == 0 && s->is_plain)
		run_plain(s->root, ready[1]);
	if (s->pid == 0)
		run_ours(s, ready[1]);
	(void)close(ready[1]);
	ok = read(ready[0], &c, 1) == 1;
	(void)close(ready[0]);
	if (ok && !s->is_plain)
		(void)snprintf(s->root, sizeof(s->root), "%s/mnt-%s/objects", folder, s->name);
	return ok;
}

static void stop_side(struct side *s)
{
	if (s->pid <= 0)
		return;
	(void)kill(s->pid, SIGKILL);
	(void)waitpid(s->pid, NULL, 0);
}

/* ---- Readers ---------------------------------------------------------------------------------------------- */

static int order[N_SMALL];

struct reader {
	pthread_t thread;
	const char *root;
	int first, step;
	bool failed;
};

static void *read_small(void *arg)
{
	struct reader *r = arg;
	char path[400], name[80], *data = malloc(1 << 20);

	for (int i = r->first; i < N_SMALL; i += r->step) {
		ssize_t n, sum = 0;
		int fd;

		name_of((uint64_t)order[i], name);
		(void)snprintf(path, sizeof(path), "%s/%s", r->root, name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		while ((n = read(fd, data, 1 << 20)) > 0)
			sum += n;
		(void)close(fd);
		if (fd < 0 || sum != (ssize_t)sizes[order[i]])
			r->failed = true;
	}
	free(data);
	return NULL;
}

/* Files a second. */
static double small_files(const char *root, int n_threads)
{
	struct reader r[8];
	double begin = base_now_s();

	for (int i = 0; i < n_threads; i++) {
		r[i] = (struct reader){ .root = root, .first = i, .step = n_threads };
		(void)pthread_create(&r[i].thread, NULL, read_small, &r[i]);
	}
	for (int i = 0; i < n_threads; i++) {
		(void)pthread_join(r[i].thread, NULL);
		if (r[i].failed) {
			(void)fprintf(stderr, "%s: a file is not what it should be\n", root);
			exit(1);
		}
	}
	return N_SMALL / (base_now_s() - begin);
}

static int open_large(const char *root)
{
	char path[400], name[80];

	name_of(N_SMALL + 1, name);
	(void)snprintf(path, sizeof(path), "%s/%s", root, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* MB a second. */
static double sequential(const char *root)
{
	int fd = open_large(root);
	char *data = malloc(BLOCK);
	double begin = base_now_s();
	ssize_t n, sum = 0;

	while ((n = read(fd, data, BLOCK)) > 0)
		sum += n;
	(void)close(fd);
	free(data);
	return sum == LARGE_SIZE ? sum / 1e6 / (base_now_s() - begin) : 0;
}

static double mapped(const char *root)
{
	int fd = open_large(root);
	double begin = base_now_s();
	volatile uint8_t sum = 0;
	uint8_t *data = mmap(NULL, LARGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

	if (data == MAP_FAILED)
		return 0;
	for (size_t i = 0; i < LARGE_SIZE; i += 4096)
		sum += data[i];
	(void)munmap(data, LARGE_SIZE);
	(void)close(fd);
	return LARGE_SIZE / 1e6 / (base_now_s() - begin);
}

static void measure(struct side *s, int i)
{
	s->small[0][i] = small_files(s->root, 1);
	s->small[1][i] = small_files(s->root, 4);
	s->seq[i] = sequential(s->root);
	s->mapped[i] = mapped(s->root);
}

/* ---- Results ---------------------------------------------------------------------------------------------- */

static double best(const double *v)
{
	double max = 0;

	for (int i = 0; i < REPETITIONS; i++)
		max = v[i] > max ? v[i] : max;
	return max;
}

static void print_case(struct side *s, struct side *below, struct side *plain, const char *what, const char *unit,
                       size_t field)
{
	double value = best((double *)((char *)s + field)), limit = best((double *)((char *)below + field)),
	       peer = best((double *)((char *)plain + field));

	printf("{\"bench\":\"flip_fuse\",\"case\":\"%s %s\",\"value\":%.4g,\"unit\":\"%s\",\"limit\":%.4g,"
	       "\"share\":%.3f,\"peer\":%.4g,\"ratio\":%.2f}\n",
	       s->name, what, value, unit, limit, value / limit, peer, value / peer);
}

static void print_side(struct side *s, struct side *below, struct side *plain)
{
	print_case(s, below, plain, "small files, 1 thread", "files/s", offsetof(struct side, small[0]));
	print_case(s, below, plain, "small files, 4 threads", "files/s", offsetof(struct side, small[1]));
	print_case(s, below, plain, "large file, sequential", "MB/s", offsetof(struct side, seq));
	print_case(s, below, plain, "large file, mapped", "MB/s", offsetof(struct side, mapped));
}

static bool make_file(uint64_t id, const char *data)
{
	char path[400], name[80];
	uint64_t done = 0;
	int fd;

	name_of(id, name);
	(void)snprintf(path, sizeof(path), "%s/%.2s", store, name);
	(void)mkdir(path, 0755);
	(void)snprintf(path, sizeof(path), "%s/%s", store, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	while (fd >= 0 && done < sizes[id]) {
		uint64_t left = sizes[id] - done;
		ssize_t n = write(fd, data, left < 1 << 20 ? left : 1 << 20);

		if (n <= 0)
			break;
		done += (uint64_t)n;
	}
	if (fd >= 0)
		(void)close(fd);
	return fd >= 0 && done == sizes[id];
}

static bool make_files(void)
{
	char *data = malloc(1 << 20);
	bool ok = data && mkdir(store, 0755) == 0;

	srand(1);
	for (size_t i = 0; data && i < 1 << 20; i++)
		data[i] = (char)rand();
	for (uint64_t id = 1; ok && id <= N_SMALL + 1; id++) {
		sizes[id] = id > N_SMALL ? LARGE_SIZE : 200 + (uint64_t)rand() % (2 * (MEAN_SIZE - 200));
		ok = make_file(id, data);
	}
	for (int i = 0; i < N_SMALL; i++) {
		int j = rand() % (i + 1);

		order[i] = order[j];
		order[j] = i + 1;
	}
	free(data);
	return ok;
}

static void clean_up(struct side *sides, size_t n)
{
	char command[300];

	for (size_t i = 0; i < n; i++) {
		char *at = strstr(sides[i].root, "/objects");

		stop_side(&sides[i]);
		if (at && sides[i].is_fuse)
			*at = 0;
		if (sides[i].is_fuse)
			(void)umount2(sides[i].root, MNT_DETACH);
	}
	(void)snprintf(command, sizeof(command), "rm -rf --one-file-system %s", folder);
	(void)!system(command);
}

int main(int argc, char **argv)
{
	struct side sides[] = {
		{ .name = "below" },
		{ .name = "plain", .is_fuse = true, .is_plain = true },
		{ .name = "cached", .is_fuse = true, .passthrough_min = UINT64_MAX, .uring = FLIP_URING_OFF },
		{ .name = "default", .is_fuse = true, .uring = FLIP_URING_OFF },
		{ .name = "passthrough", .is_fuse = true, .passthrough_min = 1, .uring = FLIP_URING_OFF },
		{ .name = "default io_uring", .is_fuse = true, .uring = FLIP_URING_ON },
	};
	size_t n = sizeof(sides) / sizeof(sides[0]);
	const char *base = argc > 1 ? argv[1] : getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp";
	int uring = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
	char c = 'N';

	if (geteuid() != 0 || access("/dev/fuse", R_OK) != 0 || unshare(CLONE_NEWNS) != 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		(void)fprintf(stderr, "flip_fuse: skipped: needs root and /dev/fuse\n");
		return 0;
	}
	if (uring < 0 || read(uring, &c, 1) != 1 || c != 'Y')
		n--;
	(void)snprintf(folder, sizeof(folder), "%s/bench-flip-fuse-XXXXXX", base);
	if (!mkdtemp(folder))
		return 1;
	(void)snprintf(store, sizeof(store), "%s/store", folder);
	if (!make_files()) {
		(void)fprintf(stderr, "%s: %s\n", folder, strerror(errno));
		clean_up(sides, n);
		return 1;
	}
	for (size_t k = 0; k < n; k++) {
		if (!start_side(&sides[k])) {
			(void)fprintf(stderr, "%s did not start\n", sides[k].name);
			clean_up(sides, n);
			return 1;
		}
		measure(&sides[k], 0); /* warm */
	}
	for (int i = 0; i < REPETITIONS; i++)
		for (size_t k = 0; k < n; k++)
			measure(&sides[k], i);
	for (size_t k = 0; k < n; k++)
		print_side(&sides[k], &sides[0], &sides[1]);
	clean_up(sides, n);
	return 0;
}
