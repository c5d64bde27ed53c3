/* The session with the kernel: mounted anew, or gone on with on a descriptor that another process used before.
 *
 * The kernel sends INIT once in a mount's life. Who comes later gives libfuse the INIT that the first process saved,
 * with a number that the kernel does not wait for; the answer goes nowhere and libfuse has the same settings. Then
 * the kernel is asked to send again what had been taken and not answered.
 *
 * The requests are read here, by a few threads that all use the one descriptor. A clone of it per thread
 * (FUSE_DEV_IOC_CLONE) would end what its thread had taken when the process dies. */
#include "fusefs/fusefs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/threadpool.h"

_Thread_local uint64_t request_unique;

static const char uring_parameter[] = "/sys/module/fuse/parameters/enable_uring";

enum {
	DEFAULT_READAHEAD = 128 * 1024,
	DEFAULT_PASSTHROUGH_MIN = 64 * 1024,
	MAX_BACKGROUND = 256, /* requests of readahead under way at once; the kernel's 12 starve four readers */
	MAX_THREADS = 64,
};

/* ---- What is settled with the kernel ---------------------------------------------------------------------- */

static bool want(struct fuse_conn_info *conn, uint64_t capability, bool on)
{
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	if (!on)
		fuse_unset_feature_flag(conn, capability);
	return on && fuse_set_feature_flag(conn, capability);
#else
	if (!on || !(conn->capable & capability)) {
		conn->want &= (unsigned)~capability;
		return false;
	}
	conn->want |= (unsigned)capability;
	return true;
#endif
}

void fs_init_connection(struct flip_fs *fs, struct fuse_conn_info *conn)
{
	conn->max_write = FS_MAX_READ; /* nothing is written: it is what bounds a read, too */
	conn->max_readahead = fs->max_readahead;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
	(void)want(conn, FUSE_CAP_AUTO_INVAL_DATA, false);
	(void)want(conn, FUSE_CAP_PARALLEL_DIROPS, true);
	(void)want(conn, FUSE_CAP_CACHE_SYMLINKS, true);
	(void)want(conn, FUSE_CAP_ASYNC_READ, true);
	(void)want(conn, FUSE_CAP_SPLICE_WRITE, true);
	(void)want(conn, FUSE_CAP_SPLICE_MOVE, true);
#if FLIP_HAS_PASSTHROUGH
	/* Depth 0: overlayfs may lie on top (with 1 it is one too many), and the store on an ordinary file system. */
	conn->max_backing_stack_depth = 0;
	fs->passthrough = want(conn, FUSE_CAP_PASSTHROUGH, fs->passthrough_min != UINT64_MAX);
#endif
#if FLIP_HAS_URING
	fs->io_uring = want(conn, FUSE_CAP_OVER_IO_URING, fs->want_uring);
#endif
	fs->has_init = true;
}

static bool uring_is_enabled(void)
{
	CLEANUP(close_fdp) int fd = open(uring_parameter, O_RDONLY | O_CLOEXEC);
	char c = 0;

	return fd >= 0 && read(fd, &c, 1) == 1 && (c == 'Y' || c == '1');
}

/* What a dead process had taken from a ring nobody gets back: the kernel's resend looks at what was read from the
 * descriptor only. Tried out on Linux 6.18: a next process can register its rings and is asked again, but readers that
 * waited at the kill wait for ever. So a session that is to be handed over stays without rings unless they are asked
 * for, and such a one is refused by the next process. */
static int choose_uring(struct flip_fs *fs, const struct flip_fs_opts *o, struct err *err)
{
	bool can = FLIP_HAS_URING && uring_is_enabled();

	if (o->io_uring == FLIP_URING_ON && !can)
		return err_set(err, -EOPNOTSUPP, "FUSE over io_uring: %s",
		               FLIP_HAS_URING ? "the kernel's parameter fuse.enable_uring is off"
		                              : "libfuse is older than 3.18");
	fs->want_uring = can && (o->io_uring == FLIP_URING_ON || (o->io_uring == FLIP_URING_AUTO && !o->state_path));
	return 0;
}

/* ---- Mount ------------------------------------------------------------------------------------------------ */

static int mount_anew(struct flip_fs *fs, struct err *err)
{
	char options[128];

	fs->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fs->fd < 0)
		return err_set(err, -errno, "/dev/fuse: %s", strerror(errno));
	(void)snprintf(options, sizeof(options),
	               "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fs->fd);
	if (mount("flip", fs->mountpoint, "fuse.flip", MS_RDONLY | MS_NOATIME, options) < 0)
		return err_set(err, -errno, "mount %s: %s", fs->mountpoint, strerror(errno));
	fs->is_mounted = true;
	return 0;
}

/* The mount's device number is the connection's; asking for it must not send a request, since nobody answers yet. */
static int find_connection(struct flip_fs *fs, struct err *err)
{
	struct statx st;

	if (statx(AT_FDCWD, fs->mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) < 0)
		return err_set(err, -errno, "%s: %s", fs->mountpoint, strerror(errno));
	fs->connection = makedev(st.stx_dev_major, st.stx_dev_minor);
	return 0;
}

/* The kernel takes more than its default of 128 KiB only here. */
static void set_readahead(const struct flip_fs *fs)
{
	char path[64], text[16];
	int fd, n;

	if (fs->max_readahead <= DEFAULT_READAHEAD)
		return;
	(void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(fs->connection),
	               minor(fs->connection));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = snprintf(text, sizeof(text), "%u", fs->max_readahead / 1024);
	if (write(fd, text, (size_t)n) < 0)
		base_log(BASE_LOG_DEBUG, "%s: %s", path, strerror(errno));
	(void)close(fd);
}

/* ---- libfuse ---------------------------------------------------------------------------------------------- */

static void log_line(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[256];
	int n = vsnprintf(line, sizeof(line), fmt, ap);

	(void)level;
	if (n > 0 && line[strlen(line) - 1] == '\n')
		line[strlen(line) - 1] = 0;
	base_log(BASE_LOG_DEBUG, "libfuse: %s", line);
}

static int make_session(struct flip_fs *fs, struct err *err)
{
	/* Whatever waits for its content takes a place in its core's queue, so there are many: they cost address space.
	 */
	char *argv[] = { "flip", "-o", "io_uring,io_uring_q_depth=32", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(fs->want_uring ? 3 : 1, argv);
	char path[32];
	int fd;

	fuse_set_log_func(log_line);
	fs->session = fuse_session_new(&args, &fs_operations, sizeof(fs_operations), fs);
	fuse_opt_free_args(&args);
	if (!fs->session)
		return err_set(err, -ENOMEM, "libfuse makes no session");
	fd = fcntl(fs->fd, F_DUPFD_CLOEXEC, 3); /* libfuse closes its own */
	if (fd < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	(void)snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	if (fuse_session_mount(fs->session, path) < 0) {
		(void)close(fd);
		return err_set(err, -EIO, "libfuse does not take the session's descriptor");
	}
	return 0;
}

static void process(struct flip_fs *fs, void *mem, size_t size)
{
	struct fuse_buf buf = { .size = size, .mem = mem };

	fuse_session_process_buf(fs->session, &buf);
}

/* The next request; 0 when the mount is gone. */
static ssize_t next_request(struct flip_fs *fs, void *mem)
{
	for (;;) {
		ssize_t n = read(fs->fd, mem, FS_BUFFER);

		if (n >= (ssize_t)sizeof(struct wire_in))
			return n;
		if (n >= 0)
			return -EIO;
		if (errno == ENODEV)
			return 0;
		if (errno != EINTR && errno != ENOENT && errno != EAGAIN) /* ENOENT: taken back by its sender */
			return -errno;
	}
}

static int first_request(struct flip_fs *fs, void *mem, struct err *err)
{
	struct wire_init init = { 0 };
	ssize_t n = next_request(fs, mem);
	const struct wire_in *in = mem;
	uint32_t flags;

	if (n <= 0 || in->opcode != WIRE_OP_INIT || (size_t)n < sizeof(*in) + 16)
		return err_set(err, n < 0 ? (int)n : -EPROTO, "%s: the kernel does not begin with INIT",
		               fs->mountpoint);
	n -= (ssize_t)sizeof(*in);
	memcpy(&init, (uint8_t *)mem + sizeof(*in), (size_t)n < sizeof(init) ? (size_t)n : sizeof(init));
	process(fs, mem, (size_t)n + sizeof(*in));
	if (!fs->has_init)
		return err_set(err, -EPROTO, "libfuse and this kernel do not agree");
	fs->resend = ((uint64_t)init.flags2 << 32 | init.flags) & WIRE_HAS_RESEND;
	flags = (fs->passthrough ? STATE_PASSTHROUGH : 0) | (fs->io_uring ? STATE_URING : 0);
	slots_set_session(fs->slots, fs->connection, &init, flags);
	return 0;
}

/* Tells libfuse what the first process was told. */
static int repeat_init(struct flip_fs *fs, void *mem, struct err *err)
{
	struct wire_in in = { .len = sizeof(in) + sizeof(struct wire_init),
		              .opcode = WIRE_OP_INIT,
		              .unique = 1ull << 62 };
	struct wire_init init;
	uint32_t connection, flags;
	int r = slots_get_session(fs->slots, &connection, &init, &flags);

	if (r < 0)
		return err_set(err, r, "%s: nothing is known of the session", fs->mountpoint);
	if (connection != fs->connection)
		return err_set(err, -ESTALE, "%s: what is known is of another mount", fs->mountpoint);
	if (flags & STATE_URING)
		return err_set(err, -EOPNOTSUPP, "%s: a session over io_uring cannot be gone on with", fs->mountpoint);
	memcpy(mem, &in, sizeof(in));
	memcpy((uint8_t *)mem + sizeof(in), &init, sizeof(init));
	fs->want_uring = false;
	process(fs, mem, in.len);
	if (!fs->has_init)
		return err_set(err, -EPROTO, "libfuse and this kernel do not agree");
	fs->passthrough = fs->passthrough && (flags & STATE_PASSTHROUGH);
	fs->resend = ((uint64_t)init.flags2 << 32 | init.flags) & WIRE_HAS_RESEND;
	r = objects_restore(fs);
	return r < 0 ? err_set(err, r, "%s: %s", fs->mountpoint, strerror(-r)) : 0;
}

static int ask_again(struct flip_fs *fs, struct err *err)
{
	struct wire_out out = { .len = sizeof(out), .error = WIRE_NOTIFY_RESEND };

	if (!fs->resend || write(fs->fd, &out, sizeof(out)) == (ssize_t)sizeof(out))
		return 0;
	return err_set(err, -errno, "%s: asking again for what was not answered: %s", fs->mountpoint, strerror(errno));
}

/* ---- Threads ---------------------------------------------------------------------------------------------- */

static void *serve(void *arg)
{
	struct flip_fs *fs = arg;
	void *mem = NULL;
	int old;

	/* A page that has to be found while the kernel copies a request into it could cost the request when the process
	 * is killed just then. */
	if (posix_memalign(&mem, 4096, FS_BUFFER) != 0)
		return NULL;
	memset(mem, 0, 2 * 4096);
	pthread_cleanup_push(free, mem);
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	while (!atomic_load(&fs->stopping)) {
		const struct wire_in *in = mem;
		uint64_t fh;
		ssize_t n;

		(void)pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
		n = next_request(fs, mem);
		(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
		if (n <= 0)
			break;
		fs_see_counted(&fs->n);
		request_unique = in->unique & ~WIRE_UNIQUE_RESEND;
		/* An open that the dead process had done and not answered is done once more. */
		if (in->unique & WIRE_UNIQUE_RESEND && in->opcode == WIRE_OP_OPEN &&
		    slots_find_unique(fs->slots, request_unique, &fh))
			object_release(fs, fh);
		process(fs, mem, (size_t)n);
	}
	pthread_cleanup_pop(1);
	return NULL;
}

static int start_threads(struct flip_fs *fs, unsigned n, struct err *err)
{
	if (n == 0)
		n = base_cpu_count();
	n = n < 2 ? 2 : n > MAX_THREADS ? MAX_THREADS : n;
	fs->threads = calloc(n, sizeof(*fs->threads));
	if (!fs->threads)
		return -ENOMEM;
	for (; fs->n_threads < n; fs->n_threads++) {
		int r = pthread_create(&fs->threads[fs->n_threads], NULL, serve, fs);

		if (r != 0)
			return err_set(err, -r, "thread: %s", strerror(r));
	}
	return 0;
}

static void stop_threads(struct flip_fs *fs)
{
	atomic_store(&fs->stopping, true);
	for (unsigned i = 0; i < fs->n_threads; i++)
		(void)pthread_cancel(fs->threads[i]);
	for (unsigned i = 0; i < fs->n_threads; i++)
		(void)pthread_join(fs->threads[i], NULL);
	fs->n_threads = 0;
}

/* ---- Start and stop --------------------------------------------------------------------------------------- */

static struct flip_fs *fs_new(const struct flip_fs_opts *o)
{
	struct flip_fs *fs = calloc(1, sizeof(*fs));
	pthread_rwlockattr_t attr;

	if (!fs)
		return NULL;
	fs->ops = *o->ops;
	fs->arg = o->arg;
	fs->fd = -1;
	fs->max_readahead = o->max_readahead ? o->max_readahead : DEFAULT_READAHEAD;
	fs->passthrough_min = o->passthrough_min ? o->passthrough_min : DEFAULT_PASSTHROUGH_MIN;
	(void)pthread_rwlockattr_init(&attr);
	/* Requests come without end: a layer that goes must not wait for a pause. */
	(void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	(void)pthread_rwlock_init(&fs->layers_lock, &attr);
	(void)pthread_rwlockattr_destroy(&attr);
	(void)pthread_mutex_init(&fs->seen_lock, NULL);
	(void)pthread_mutex_init(&fs->reads_lock, NULL);
	(void)pthread_cond_init(&fs->reads_idle, NULL);
	fs->mountpoint = strdup(o->mountpoint);
	return fs;
}

static void fs_free(struct flip_fs *fs, bool unmount)
{
	struct seen_layer *seen;

	if (unmount && fs->is_mounted)
		(void)umount2(fs->mountpoint, MNT_FORCE), (void)umount2(fs->mountpoint, MNT_DETACH);
#if FLIP_HAS_URING
	/* An exited session's loop does nothing but end the rings' threads, and it is the only thing that does. */
	if (fs->session && fs->io_uring) {
		fuse_session_exit(fs->session);
		(void)fuse_session_loop_mt(fs->session, NULL);
	}
#endif
	if (fs->session)
		fuse_session_destroy(fs->session);
	objects_done(fs);
	reads_done(fs);
	slots_close(fs->slots, unmount);
	if (fs->fd >= 0)
		(void)close(fs->fd);
	while ((seen = fs->seen)) {
		fs->seen = seen->next;
		free(seen);
	}
	(void)pthread_rwlock_destroy(&fs->layers_lock);
	(void)pthread_mutex_destroy(&fs->seen_lock);
	(void)pthread_cond_destroy(&fs->reads_idle);
	(void)pthread_mutex_destroy(&fs->reads_lock);
	free(fs->threads);
	free(fs->mountpoint);
	free(fs);
}

/* A descriptor that came from elsewhere: of /dev/fuse, and of a connection that lives. /dev/null takes and gives
 * everything, too. */
static int take_session(struct flip_fs *fs, int session_fd, struct err *err)
{
	enum { FUSE_MAJOR = 10, FUSE_MINOR = 229 };
	struct pollfd p = { .fd = session_fd, .events = POLLIN };
	struct stat st;

	if (fstat(session_fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(FUSE_MAJOR, FUSE_MINOR))
		return err_set(err, -ENOTTY, "%s: the session's descriptor is none of /dev/fuse", fs->mountpoint);
	if (poll(&p, 1, 0) < 0 || p.revents & (POLLERR | POLLHUP | POLLNVAL))
		return err_set(err, -ENODEV, "%s: the session's descriptor is of no living mount", fs->mountpoint);
	fs->fd = fcntl(session_fd, F_DUPFD_CLOEXEC, 3);
	if (fs->fd < 0)
		return err_set(err, -errno, "the session's descriptor: %s", strerror(errno));
	return 0;
}

static int begin(struct flip_fs *fs, const struct flip_fs_opts *o, struct err *err)
{
	CLEANUP(freep) void *mem = malloc(FS_BUFFER);
	bool fresh = o->session_fd < 0;
	int r = fs->mountpoint && mem ? objects_init(fs) : -ENOMEM;

	if (r == 0)
		r = slots_open(o->state_path, fresh, &fs->slots, err);
	if (r == 0)
		r = choose_uring(fs, o, err);
	if (r == 0 && fresh)
		r = mount_anew(fs, err);
	if (r == 0 && !fresh)
		r = take_session(fs, o->session_fd, err);
	if (r == 0)
		r = find_connection(fs, err);
	if (r == 0)
		r = make_session(fs, err);
	if (r == 0)
		r = fresh ? first_request(fs, mem, err) : repeat_init(fs, mem, err);
	if (r == 0)
		r = start_threads(fs, o->n_threads, err);
	if (r == 0 && !fresh)
		r = ask_again(fs, err);
	return r;
}

int flip_fs_start(const struct flip_fs_opts *o, struct flip_fs **ret_fs, struct err *err)
{
	struct flip_fs *fs = fs_new(o);
	int r = fs ? begin(fs, o, err) : -ENOMEM;

	if (r < 0) {
		if (fs) {
			stop_threads(fs);
			reads_wait(fs);
			fs_free(fs, o->session_fd < 0);
		}
		return err_prefix(err, r, "FUSE: ");
	}
	fs->is_mounted = true;
	set_readahead(fs);
	*ret_fs = fs;
	return 0;
}

void flip_fs_pause(struct flip_fs *fs, bool unmount)
{
	atomic_store(&fs->keep_alive, !unmount);
	stop_threads(fs);
}

void flip_fs_stop(struct flip_fs *fs, bool unmount)
{
	if (!fs)
		return;
	flip_fs_pause(fs, unmount);
	reads_wait(fs);
	fs_free(fs, unmount);
}

int flip_fs_fd(const struct flip_fs *fs)
{
	return fs->fd;
}

void flip_fs_stat(struct flip_fs *fs, struct flip_fs_stat *ret_stat)
{
	*ret_stat = (struct flip_fs_stat){
		.passthrough = fs->passthrough,
		.io_uring = fs->io_uring,
		.resend = fs->resend,
		.n_lookups = atomic_load(&fs->n.lookups),
		.n_opens = atomic_load(&fs->n.opens),
		.n_opens_passthrough = atomic_load(&fs->n.passthrough),
		.n_reads = atomic_load(&fs->n.reads),
		.read_bytes = atomic_load(&fs->n.bytes),
		.n_errors = atomic_load(&fs->n.errors),
	};
}
