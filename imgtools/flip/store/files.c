/* Small things around files: names of objects, whole reads and writes, folders removed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/sha256.h"
#include "store/store_internal.h"

static const char hex_digits[] = "0123456789abcdef";

void flip_object_name(const uint8_t digest[FLIP_DIGEST_SIZE], char ret_name[STORE_NAME_SIZE])
{
	char *p = ret_name;

	for (size_t i = 0; i < FLIP_DIGEST_SIZE; i++) {
		*p++ = hex_digits[digest[i] >> 4];
		*p++ = hex_digits[digest[i] & 15];
		if (i == 0)
			*p++ = '/';
	}
	*p = 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool flip_object_parse_name(const char *folder, const char *file, uint8_t ret_digest[FLIP_DIGEST_SIZE])
{
	uint8_t digest[FLIP_DIGEST_SIZE];

	if (strlen(folder) != 2 || strlen(file) != 2 * (FLIP_DIGEST_SIZE - 1))
		return false;
	for (size_t i = 0; i < FLIP_DIGEST_SIZE; i++) {
		const char *p = i == 0 ? folder : file + 2 * (i - 1);
		int high = hex_value(p[0]), low = hex_value(p[1]);

		if (high < 0 || low < 0)
			return false;
		digest[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret_digest, digest, sizeof(digest));
	return true;
}

/* All of it, whatever pieces the kernel makes of it. */
static int move_at(bool is_write, int fd, void *data, size_t size, uint64_t offset)
{
	while (size > 0) {
		ssize_t n = is_write ? pwrite(fd, data, size, (off_t)offset) : pread(fd, data, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data = (char *)data + n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int flip_store_read_at(int fd, void *data, size_t size, uint64_t offset)
{
	return move_at(false, fd, data, size, offset);
}

int flip_store_write_at(int fd, const void *data, size_t size, uint64_t offset)
{
	return move_at(true, fd, (void *)data, size, offset);
}

/* What is mounted somewhere in a folder belongs to somebody else: its files are not ours to remove. */
static uint64_t mount_of(int dir_fd, const char *name)
{
	struct statx st;

	if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH), STATX_MNT_ID,
	          &st) < 0)
		return 0;
	return st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
}

static int remove_folder(int dir_fd, const char *name, uint64_t mount);

struct removal {
	int fd;
	uint64_t mount;
	int r;
};

static int remove_entry(void *arg, const char *name)
{
	struct removal *rm = arg;
	int r = 0;

	if (unlinkat(rm->fd, name, 0) < 0) {
		if (errno == EISDIR || errno == EPERM)
			r = remove_folder(rm->fd, name, rm->mount);
		else if (errno != ENOENT)
			r = -errno;
	}
	if (r < 0 && rm->r == 0)
		rm->r = r;
	return 0;
}

static int remove_folder(int dir_fd, const char *name, uint64_t mount)
{
	CLEANUP(close_fdp) int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct removal rm = { .mount = mount };
	int r;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (mount_of(fd, "") != mount)
		return -EBUSY;
	rm.fd = fd;
	/* Removing what was just listed may hide entries from the listing: until nothing is left or nothing goes. */
	for (int i = 0; i < 8; i++) {
		rm.r = 0;
		r = flip_store_each(fd, ".", remove_entry, &rm);
		if (r < 0)
			return r;
		if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (rm.r < 0)
			return rm.r;
	}
	return -errno;
}

int flip_store_remove_tree(int dir_fd, const char *name)
{
	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	return remove_folder(dir_fd, name, mount_of(dir_fd, ""));
}

void flip_store_tmp_name(struct flip_store *s, char ret_name[64])
{
	(void)snprintf(ret_name, 64, "%s-%" PRIu64, s->instance, (uint64_t)atomic_fetch_add(&s->n_tmp, 1));
}

int flip_store_discard(struct flip_store *s, int dir_fd, const char *name)
{
	char tmp[64];

	flip_store_tmp_name(s, tmp);
	if (renameat(dir_fd, name, s->tmp_fd, tmp) < 0)
		return errno == ENOENT ? 0 : -errno;
	return flip_store_remove_tree(s->tmp_fd, tmp);
}

int flip_store_each(int dir_fd, const char *name, int (*fn)(void *arg, const char *name), void *arg)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;
	DIR *d;
	int r = 0;

	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = fn(arg, e->d_name);
	}
	if (r == 0 && errno != 0)
		r = -errno;
	(void)closedir(d);
	return r;
}

int flip_store_write_small(struct flip_store *s, int dir_fd, const char *name, const void *data, size_t size)
{
	CLEANUP(close_fdp) int fd = -1;
	char tmp[64];
	int r;

	flip_store_tmp_name(s, tmp);
	fd = openat(s->tmp_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = flip_store_write_at(fd, data, size, 0);
	if (r == 0 && renameat(s->tmp_fd, tmp, dir_fd, name) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(s->tmp_fd, tmp, 0);
	return r;
}

static void sha256_freep(struct base_sha256 **sha)
{
	base_sha256_free(*sha);
}

int flip_store_hash_fd(int fd, uint8_t ret_digest[FLIP_DIGEST_SIZE], uint64_t *ret_size)
{
	CLEANUP(sha256_freep) struct base_sha256 *sha = NULL;
	CLEANUP(freep) char *buf = malloc(1 << 18);
	uint64_t size = 0;
	ssize_t n;

	if (!buf || base_sha256_new(&sha) < 0)
		return -ENOMEM;
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	while ((n = pread(fd, buf, 1 << 18, (off_t)size)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		base_sha256_update(sha, buf, (size_t)n);
		size += (uint64_t)n;
	}
	base_sha256_final(sha, ret_digest);
	*ret_size = size;
	return 0;
}

int64_t flip_store_now_s(void)
{
	return (int64_t)time(NULL);
}
