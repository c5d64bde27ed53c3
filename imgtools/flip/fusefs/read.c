/* Reads that this process answers. What is complete is read from its descriptor at once; the rest is the owner's, who
 * answers when the bytes are there, on whatever thread. Until then the request is held in a small structure; a read
 * whose process was killed is answered for it, and the owner's answer, when it comes, only frees the structure. */
#include "fusefs/fusefs_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	POOL_MAX = 256,          /* structures kept for the next reads */
	SPLICE_MIN = 256 * 1024, /* from here on pages are moved through a pipe rather than copied */
};

/* ---- A buffer per thread ---------------------------------------------------------------------------------- */

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
	(void)pthread_key_create(&buffer_key, free);
}

static void *thread_buffer(void)
{
	void *b;

	(void)pthread_once(&buffer_once, make_key);
	b = pthread_getspecific(buffer_key);
	if (!b && posix_memalign(&b, 4096, FS_MAX_READ) == 0)
		(void)pthread_setspecific(buffer_key, b);
	return b;
}

/* ---- Answers ---------------------------------------------------------------------------------------------- */

static void answer_error(struct flip_fs *fs, fuse_req_t req, int r)
{
	/* The next process is asked again; an error of ours would be the reader's. */
	if (atomic_load(&fs->keep_alive)) {
		fuse_reply_none(req);
		return;
	}
	fs_count(&fs->n.errors, 1);
	(void)fuse_reply_err(req, r < 0 && r > -4096 ? -r : EIO);
}

static void answer_data(struct flip_fs *fs, fuse_req_t req, const void *data, size_t size)
{
	fs_count(&fs->n.bytes, size);
	(void)fuse_reply_buf(req, data, size);
}

static void answer_splice(struct flip_fs *fs, fuse_req_t req, int fd, uint64_t offset, size_t size)
{
	struct fuse_bufvec b = FUSE_BUFVEC_INIT(size);

	b.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	b.buf[0].fd = fd;
	b.buf[0].pos = (off_t)offset;
	fs_count(&fs->n.bytes, size);
	(void)fuse_reply_data(req, &b, FUSE_BUF_SPLICE_MOVE);
}

static void answer_fd(struct flip_fs *fs, fuse_req_t req, int fd, uint64_t offset, size_t size)
{
	void *buffer;
	ssize_t n;

	if (size >= SPLICE_MIN && !fs->io_uring) {
		answer_splice(fs, req, fd, offset, size);
		return;
	}
	buffer = thread_buffer();
	if (!buffer || size > FS_MAX_READ) {
		answer_error(fs, req, -ENOMEM);
		return;
	}
	do
		n = pread(fd, buffer, size, (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		answer_error(fs, req, -errno);
	else
		answer_data(fs, req, buffer, (size_t)n);
}

/* ---- The owner's reads ------------------------------------------------------------------------------------ */

static struct flip_fs_read *read_get(struct flip_fs *fs)
{
	struct flip_fs_read *read;

	(void)pthread_mutex_lock(&fs->reads_lock);
	read = fs->read_pool;
	if (read) {
		fs->read_pool = read->next;
		fs->n_pool--;
	} else {
		read = malloc(sizeof(*read));
	}
	if (read)
		fs->n_reads_out++;
	(void)pthread_mutex_unlock(&fs->reads_lock);
	return read;
}

static void read_put(struct flip_fs_read *read)
{
	struct flip_fs *fs = read->fs;

	(void)pthread_mutex_lock(&fs->reads_lock);
	if (fs->n_pool < POOL_MAX) {
		read->next = fs->read_pool;
		fs->read_pool = read;
		fs->n_pool++;
	} else {
		free(read);
	}
	if (--fs->n_reads_out == 0)
		(void)pthread_cond_broadcast(&fs->reads_idle);
	(void)pthread_mutex_unlock(&fs->reads_lock);
}

void reads_wait(struct flip_fs *fs)
{
	(void)pthread_mutex_lock(&fs->reads_lock);
	while (fs->n_reads_out > 0)
		(void)pthread_cond_wait(&fs->reads_idle, &fs->reads_lock);
	(void)pthread_mutex_unlock(&fs->reads_lock);
}

void reads_done(struct flip_fs *fs)
{
	struct flip_fs_read *read;

	while ((read = fs->read_pool)) {
		fs->read_pool = read->next;
		free(read);
	}
}

/* Whether the thread that waits is being killed: other signals are handled after the read, as on any disk. The kernel
 * puts SIGKILL among the pending ones of each thread of a process that dies, whatever the signal was. */
static bool is_dying(pid_t tid)
{
	char path[64], line[256];
	unsigned long long pending;
	bool dying = false;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	f = tid > 0 ? fopen(path, "re") : NULL;
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "SigPnd: %llx", &pending) == 1)
			dying = pending >> 8 & 1; /* SIGKILL is 9 */
	(void)fclose(f);
	return dying;
}

/* libfuse calls this with the request locked: it is answered here or by the owner, whoever is first. */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct flip_fs_read *read = data;

	if (is_dying(fuse_req_ctx(req)->pid) && !atomic_exchange(&read->is_answered, true))
		(void)fuse_reply_err(req, EINTR);
}

/* The request, when it is still to be answered. */
static bool take_request(struct flip_fs_read *read, fuse_req_t *ret_req)
{
	*ret_req = read->req;
	if (atomic_exchange(&read->is_answered, true))
		return false;
	/* Waits for an on_interrupt() that has the structure in hand. */
	fuse_req_interrupt_func(read->req, NULL, NULL);
	return true;
}

void flip_fs_reply_data(struct flip_fs_read *read, const void *data, size_t size)
{
	fuse_req_t req;

	if (take_request(read, &req))
		answer_data(read->fs, req, data, size);
	read_put(read);
}

void flip_fs_reply_fd(struct flip_fs_read *read, int fd, uint64_t offset, size_t size)
{
	fuse_req_t req;

	if (take_request(read, &req))
		answer_fd(read->fs, req, fd, offset, size);
	read_put(read);
}

void flip_fs_reply_error(struct flip_fs_read *read, int r)
{
	fuse_req_t req;

	if (take_request(read, &req))
		answer_error(read->fs, req, r);
	read_put(read);
}

static void ask_owner_to_read(struct flip_fs *fs, struct object *o, fuse_req_t req, uint64_t offset, size_t size)
{
	struct flip_fs_read *read = read_get(fs);

	if (!read) {
		answer_error(fs, req, -ENOMEM);
		return;
	}
	read->fs = fs;
	read->req = req;
	atomic_store(&read->is_answered, false);
	fuse_req_interrupt_func(req, on_interrupt, read);
	fs->ops.object_read(fs->arg, o->arriving, offset, size, read);
}

void fs_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct flip_fs *fs = fuse_req_userdata(req);
	struct object *o;
	int r, fd;

	fs_count(&fs->n.reads, 1);
	r = object_for_read(fs, fi->fh, node, &o);
	if (r == -ENODATA) { /* an empty file of a layer */
		answer_data(fs, req, NULL, 0);
		return;
	}
	if (r < 0) {
		answer_error(fs, req, r);
		return;
	}
	/* The kernel asks for whole pages. */
	if ((uint64_t)offset >= o->size)
		size = 0;
	else if (size > o->size - (uint64_t)offset)
		size = (size_t)(o->size - (uint64_t)offset);
	fd = atomic_load(&o->fd);
	if (size == 0)
		answer_data(fs, req, NULL, 0);
	else if (fd >= 0)
		answer_fd(fs, req, fd, (uint64_t)offset, size);
	else
		ask_owner_to_read(fs, o, req, (uint64_t)offset, size);
}
