/* What a layer costs whose metadata is an EROFS image and whose contents are objects in a data-only layer, against the
 * same tree unpacked on the same file system, both under overlayfs with an upper directory as a container has it.
 * Beside it the third way: a tree of hard links to the objects.
 *
 * 20,000 files of 7.7 kB on average. One JSON object a line: value is in files a second, peer the unpacked tree's,
 * ratio of the two, links that of the hard links to the unpacked tree; same_pages is the image against the hard links,
 * which read the very same pages of memory: where two copies of a file happen to lie makes some 10 % of difference,
 * this has none of it. The cpu_ ones are the same of the processor time that a file takes, which other work on the
 * machine disturbs less. Medians of rounds in which two sides take turns. "cold" walks begin with the kernel's inodes
 * and names dropped (its pages stay).
 *
 *   BENCH_DIR=DIR [/var/tmp]   BENCH_ROUNDS=N [9]   BENCH_FILES=N [20000] */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "erofs/erofs.h"
#include "tree/tree.h"

enum { MAX_ROUNDS = 99, MAX_THREADS = 4, FILES_IN_DIR = 50, MEAN_SIZE = 7700, PATH_BYTES = 512 };
enum side { UNPACKED, LAYER, LINKS, N_SIDES };
enum job { READ_1, READ_4, WALK_WARM, WALK_COLD, N_JOBS };

static const char *const side_names[] = { "unpacked", "erofs", "links" };
static const char *const job_names[] = { "open and read, 1 thread, warm", "open and read, 4 threads, warm",
	                                 "list and stat, warm", "list and stat, cold" };

static char work[256];
static size_t n_files = 20000, n_rounds = 9;
static char (*names)[64]; /* below the root of each side */

static void die(const char *what)
{
	(void)fprintf(stderr, "bench flip_meta: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* "<work>/<rest>", in one of eight buffers that take turns. */
static const char *at(const char *fmt, ...)
{
	static char paths[8][PATH_BYTES];
	static unsigned turn;
	char *path = paths[turn++ % 8];
	size_t len = (size_t)snprintf(path, PATH_BYTES, "%s/", work);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(path + len, PATH_BYTES - len, fmt, ap);
	va_end(ap);
	return path;
}

/* ---- The three trees -------------------------------------------------------------------------------------- */

static void make_dir(const char *path)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		die(path);
}

static void write_file(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) < 0)
		die(path);
}

static size_t fill(size_t i, char *data)
{
	uint64_t seed = i * 0x9e3779b97f4a7c15u + 1;
	size_t size = 200 + (seed >> 40) % (2 * (MEAN_SIZE - 200));

	for (size_t k = 0; k < size; k += 8) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		memcpy(data + k, &seed, 8);
	}
	return size;
}

static void add_one(struct img_tree *t, size_t i, uint8_t digest[BASE_SHA256_SIZE])
{
	static char data[2 * MEAN_SIZE + 8];
	struct img_node n = { .mode = 0644, .package = -1, .layer = -1, .mtime_s = 1700000000 + (int64_t)i };
	char hex[BASE_SHA256_HEX_SIZE], path[80];
	struct img_node *added;

	n.size = fill(i, data);
	if (base_sha256_bytes(data, n.size, digest) < 0)
		die("SHA-256");
	base_sha256_hex(digest, hex);
	make_dir(at("objects/%.2s", hex));
	write_file(at("objects/%.2s/%s", hex, hex + 2), data, n.size);
	if (i % FILES_IN_DIR == 0) {
		make_dir(at("unpacked/%.*s", (int)(strrchr(names[i], '/') - names[i]), names[i]));
		make_dir(at("links/%.*s", (int)(strrchr(names[i], '/') - names[i]), names[i]));
	}
	write_file(at("unpacked/%s", names[i]), data, n.size);
	if (link(at("objects/%.2s/%s", hex, hex + 2), at("links/%s", names[i])) < 0)
		die("link");
	(void)snprintf(path, sizeof(path), "/%s", names[i]);
	n.path = path;
	if (img_tree_add(t, &n, &added, NULL) < 0)
		die("tree");
	added->user = digest;
}

static const uint8_t *digest_of(const struct img_node *n, void *arg)
{
	(void)arg;
	return n->user;
}

/* Out of the page cache, so that both copies come back by the same way, that of a read. */
static void forget(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die(path);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	(void)close(fd);
}

static void make_trees(void)
{
	uint8_t *digests = calloc(n_files, BASE_SHA256_SIZE);
	struct img_tree *t = img_tree_new();
	struct err err = { 0 };
	struct stat st;
	double begin;

	names = calloc(n_files, sizeof(*names));
	if (!digests || !t || !names)
		die("memory");
	for (size_t i = 0; i < n_files; i++) {
		(void)snprintf(names[i], sizeof(*names), "package-%zu/module_%zu.py", i / FILES_IN_DIR, i);
		add_one(t, i, digests + i * BASE_SHA256_SIZE);
	}
	sync();
	for (size_t i = 0; i < n_files; i++) {
		forget(at("unpacked/%s", names[i]));
		forget(at("links/%s", names[i]));
	}
	begin = base_now_s();
	if (flip_erofs_write(t, digest_of, NULL, at("image"), &err) < 0 || stat(at("image"), &st) < 0)
		die(err_text(&err));
	(void)printf("{\"bench\": \"flip_meta\", \"case\": \"image written\", \"value\": %.1f, \"unit\": \"ms\", "
	             "\"files\": %zu, \"bytes\": %zu, \"bytes_per_file\": %.1f}\n",
	             (base_now_s() - begin) * 1e3, n_files, (size_t)st.st_size, (double)st.st_size / (double)n_files);
	img_tree_free(t);
	free(digests);
}

static void mount_side(enum side side)
{
	const char *name = side_names[side], *rest = "";
	char options[4 * PATH_BYTES];
	struct flip_kernel k;
	struct err err = { 0 };

	make_dir(at("up-%s", name));
	make_dir(at("work-%s", name));
	make_dir(at("m-%s", name));
	if (side == LAYER) {
		flip_kernel_probe(work, &k);
		if (flip_erofs_mount(at("image"), at("erofs"), &k, &err) < 0)
			die(err_text(&err));
		rest = "::objects,metacopy=on,redirect_dir=on";
	}
	(void)snprintf(options, sizeof(options), "lowerdir=%s%s,upperdir=up-%s,workdir=work-%s", name, rest, name,
	               name);
	if (mount("overlay", at("m-%s", name), "overlay", 0, options) < 0)
		die(options);
}

/* ---- Jobs ------------------------------------------------------------------------------------------------- */

struct reader {
	pthread_t thread;
	int root_fd;
	size_t begin, end;
};

static void *read_some(void *arg)
{
	static __thread char buf[65536];
	struct reader *r = arg;

	for (size_t i = r->begin; i < r->end; i++) {
		int fd = openat(r->root_fd, names[i], O_RDONLY | O_CLOEXEC);

		if (fd < 0 || read(fd, buf, sizeof(buf)) <= 0)
			die(names[i]);
		(void)close(fd);
	}
	return NULL;
}

static void read_all(int root_fd, size_t n_threads)
{
	struct reader r[MAX_THREADS];

	for (size_t i = 0; i < n_threads; i++) {
		r[i] = (struct reader){ .root_fd = root_fd,
			                .begin = n_files * i / n_threads,
			                .end = n_files * (i + 1) / n_threads };
		if (pthread_create(&r[i].thread, NULL, read_some, &r[i]) != 0)
			die("thread");
	}
	for (size_t i = 0; i < n_threads; i++)
		(void)pthread_join(r[i].thread, NULL);
}

static size_t walk(int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *de;
	struct stat st;
	size_t n = 0;

	while (dir && (de = readdir(dir))) {
		if (de->d_name[0] == '.')
			continue;
		if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			die(de->d_name);
		n++;
		if (S_ISDIR(st.st_mode))
			n += walk(openat(fd, de->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	}
	(void)closedir(dir);
	return n;
}

static void drop_inodes(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "2", 1) != 1)
		die("drop_caches");
	(void)close(fd);
}

/* What one run took, by the clock and of the processors. */
struct cost {
	double wall, cpu;
};

static double cpu_time(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct cost run(enum side side, enum job job)
{
	int fd = open(at("m-%s", side_names[side]), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct cost begin;

	if (fd < 0)
		die(side_names[side]);
	if (job == WALK_COLD)
		drop_inodes();
	begin = (struct cost){ base_now_s(), cpu_time() };
	if (job == READ_1 || job == READ_4)
		read_all(fd, job == READ_1 ? 1 : MAX_THREADS);
	else
		(void)walk(dup(fd));
	begin = (struct cost){ base_now_s() - begin.wall, cpu_time() - begin.cpu };
	(void)close(fd);
	return begin;
}

static int compare_doubles(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double median(double *values)
{
	qsort(values, n_rounds, sizeof(*values), compare_doubles);
	return values[n_rounds / 2];
}

/* What the base costs relative to the other. */
struct ratio {
	double base_rate, rate, wall, cpu;
};

static struct ratio compare(enum side base, enum side other, enum job job)
{
	const enum side sides[] = { base, other };
	double wall[2][MAX_ROUNDS], cpu[2][MAX_ROUNDS], w[2], c[2];

	for (size_t i = 0; i < 2; i++) /* everything in the caches */
		(void)run(sides[i], job);
	for (size_t i = 0; i < n_rounds; i++) {
		for (size_t k = 0; k < 2; k++) {
			struct cost cost = run(sides[(i + k) % 2], job);

			wall[(i + k) % 2][i] = cost.wall;
			cpu[(i + k) % 2][i] = cost.cpu;
		}
	}
	for (size_t i = 0; i < 2; i++) {
		w[i] = median(wall[i]);
		c[i] = median(cpu[i]);
	}
	return (struct ratio){ (double)n_files / w[0], (double)n_files / w[1], w[0] / w[1], c[0] / c[1] };
}

static void measure(enum job job)
{
	struct ratio layer = compare(UNPACKED, LAYER, job), links = compare(UNPACKED, LINKS, job);
	struct ratio same = compare(LINKS, LAYER, job);

	(void)printf("{\"bench\": \"flip_meta\", \"case\": \"%s\", \"value\": %.0f, \"unit\": \"files/s\", \"limit\": "
	             "0.95, \"peer\": %.0f, \"ratio\": %.3f, \"links\": %.3f, \"same_pages\": %.3f, "
	             "\"cpu_ratio\": %.3f, \"cpu_links\": %.3f, \"cpu_same_pages\": %.3f}\n",
	             job_names[job], layer.rate, layer.base_rate, layer.wall, links.wall, same.wall, layer.cpu,
	             links.cpu, same.cpu);
	(void)fflush(stdout);
}

/* In a mount namespace of its own, so that nothing is left mounted. */
static int child(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("mount namespace");
	make_dir(at("objects"));
	make_dir(at("unpacked"));
	make_dir(at("links"));
	make_dir(at("erofs"));
	make_trees();
	if (chdir(work) < 0)
		die(work);
	for (int side = 0; side < N_SIDES; side++)
		mount_side((enum side)side);
	for (int job = 0; job < N_JOBS; job++)
		measure((enum job)job);
	return 0;
}

static size_t number(const char *name, size_t usual, size_t max)
{
	const char *text = getenv(name);
	size_t n = text ? strtoull(text, NULL, 10) : usual;

	return n < 1 ? 1 : n > max ? max : n;
}

int main(void)
{
	char command[300];
	int status = 1;
	pid_t pid;

	if (geteuid() != 0) {
		(void)fprintf(stderr, "bench flip_meta: not root\n");
		return 0;
	}
	n_files = number("BENCH_FILES", 20000, 1000000);
	n_rounds = number("BENCH_ROUNDS", 9, MAX_ROUNDS);
	(void)snprintf(work, sizeof(work), "%s/flip-meta-XXXXXX",
	               getenv("BENCH_DIR") ? getenv("BENCH_DIR") : "/var/tmp");
	if (!mkdtemp(work))
		die(work);
	pid = fork();
	if (pid == 0)
		exit(child());
	if (pid > 0)
		(void)waitpid(pid, &status, 0);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", work);
	return system(command) != 0 || status != 0;
}
