/* A page's file is named after its key and the key before it (the first 16 bytes of each), so that the folder's
 * list alone says what is there; the header says it again in full, and that is what counts when it is read. A file
 * is written as "tmp" and renamed: a name of ours stands for a whole file, but for a crash of the machine, which
 * the digests find. Nothing is synced: a lost page is computed again. */
#include "promptcache/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"

static const char tmp_name[] = "tmp";

static void put_hex(char *to, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)snprintf(to + 2 * i, 3, "%02x", bytes[i]);
}

static bool get_hex(const char *from, uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < 2 * n; i++) {
		static const char digits[] = "0123456789abcdef";
		const char *d = from[i] ? strchr(digits, from[i]) : NULL;

		if (!d)
			return false;
		bytes[i / 2] = (uint8_t)(bytes[i / 2] << 4 | (d - digits));
	}
	return true;
}

void eng_pc_file_name(const struct eng_pc_name *name, const struct eng_pc_name *parent, char ret_name[ENG_PC_FILE_NAME])
{
	put_hex(ret_name, name->b, sizeof(name->b));
	ret_name[2 * sizeof(name->b)] = '-';
	put_hex(ret_name + 2 * sizeof(name->b) + 1, parent->b, sizeof(parent->b));
	memcpy(ret_name + ENG_PC_FILE_NAME - 4, ".kv", 4);
}

static bool parse_name(const char *text, struct eng_pc_name *name, struct eng_pc_name *parent)
{
	return strlen(text) == ENG_PC_FILE_NAME - 1 && strcmp(text + ENG_PC_FILE_NAME - 4, ".kv") == 0 &&
	       text[2 * sizeof(name->b)] == '-' && get_hex(text, name->b, sizeof(name->b)) &&
	       get_hex(text + 2 * sizeof(name->b) + 1, parent->b, sizeof(parent->b));
}

/* ---- The folder ---- */

static void folder_name(const struct eng_pc_key *identity, char ret_name[2 * ENG_PC_NAME_BYTES + 1])
{
	put_hex(ret_name, identity->b, ENG_PC_NAME_BYTES);
}

static int take_lock(int dir_fd)
{
	int fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int r = errno == EWOULDBLOCK ? -EBUSY : -errno;

		(void)close(fd);
		return r;
	}
	return fd;
}

int eng_pc_folder_open(const char *dir, const struct eng_pc_key *identity, int *ret_fd, int *ret_lock, struct err *err)
{
	char name[2 * ENG_PC_NAME_BYTES + 1], path[4096 + sizeof(name)];
	CLEANUP(close_fdp) int fd = -1;
	int lock, r;

	if (*dir == '\0' || strlen(dir) >= 4096)
		return err_set(err, -EINVAL, "\"%s\" is no folder for the prompt cache", dir);
	folder_name(identity, name);
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	r = base_make_folders(path, 0700, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	lock = take_lock(fd);
	if (lock == -EBUSY)
		return err_set(err, -EBUSY, "%s: another process uses it", path);
	if (lock < 0)
		return err_set(err, lock, "%s/lock: %s", path, strerror(-lock));
	*ret_fd = fd;
	*ret_lock = lock;
	fd = -1;
	return 0;
}

/* ---- Other models' folders ---- */

struct other {
	char name[2 * ENG_PC_NAME_BYTES + 1];
	uint64_t bytes;
	struct timespec used;
};

static DIR *open_list(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *list = fd >= 0 ? fdopendir(fd) : NULL;

	if (!list && fd >= 0)
		(void)close(fd);
	return list;
}

static bool is_older(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

/* Counts a folder's pages; with `gone`, removes them. */
static void walk_other(int at, struct other *o, bool gone)
{
	DIR *list = open_list(at, o->name);
	struct dirent *d;
	int lock = -1;

	if (!list)
		return;
	if (gone && (lock = take_lock(dirfd(list))) < 0) {
		(void)closedir(list);
		return;
	}
	o->bytes = 0;
	while ((d = readdir(list))) {
		struct eng_pc_name name, parent;
		struct stat st;

		if (!parse_name(d->d_name, &name, &parent) ||
		    fstatat(dirfd(list), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		if (gone && unlinkat(dirfd(list), d->d_name, 0) == 0)
			continue;
		o->bytes += (uint64_t)st.st_size;
		if (is_older(&o->used, &st.st_mtim))
			o->used = st.st_mtim;
	}
	if (gone) {
		(void)unlinkat(dirfd(list), ENG_PC_SPEED_NAME, 0);
		(void)unlinkat(dirfd(list), "lock", 0);
		(void)unlinkat(at, o->name, AT_REMOVEDIR); /* stays when it holds what is not ours */
		(void)close(lock);
	}
	(void)closedir(list);
}

static bool is_folder_name(const char *text)
{
	uint8_t bytes[ENG_PC_NAME_BYTES];

	return strlen(text) == 2 * ENG_PC_NAME_BYTES && get_hex(text, bytes, sizeof(bytes));
}

uint64_t eng_pc_folder_trim_others(const char *dir, const struct eng_pc_key *identity, uint64_t max_bytes)
{
	DIR *list = open_list(AT_FDCWD, dir);
	char own[2 * ENG_PC_NAME_BYTES + 1];
	struct other *others = NULL;
	size_t n = 0, cap = 0;
	struct dirent *d;
	uint64_t total = 0;

	if (!list)
		return 0;
	folder_name(identity, own);
	while ((d = readdir(list))) {
		if (!is_folder_name(d->d_name) || strcmp(d->d_name, own) == 0)
			continue;
		if (n == cap) {
			struct other *grown = realloc(others, (cap ? cap * 2 : 8) * sizeof(*others));

			if (!grown)
				break;
			others = grown;
			cap = cap ? cap * 2 : 8;
		}
		others[n] = (struct other){ 0 };
		memcpy(others[n].name, d->d_name, sizeof(others[n].name));
		walk_other(dirfd(list), &others[n], false);
		total += others[n++].bytes;
	}
	while (total > max_bytes && n > 0) {
		size_t oldest = 0;

		for (size_t i = 1; i < n; i++) {
			if (is_older(&others[i].used, &others[oldest].used))
				oldest = i;
		}
		total -= others[oldest].bytes;
		walk_other(dirfd(list), &others[oldest], true);
		total += others[oldest].bytes; /* in use: still there */
		max_bytes += others[oldest].bytes;
		others[oldest] = others[--n];
	}
	free(others);
	(void)closedir(list);
	return total;
}

/* ---- The list of pages ---- */

struct found {
	struct eng_pc_name name, parent;
	struct timespec used;
};

static int by_use(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return is_older(&x->used, &y->used) ? -1 : is_older(&y->used, &x->used);
}

static int list_pages(DIR *list, uint64_t file_bytes, struct found **ret_found, size_t *ret_n)
{
	struct found *found = NULL;
	size_t n = 0, cap = 0;
	struct dirent *d;

	while ((d = readdir(list))) {
		struct found f = { 0 };
		struct stat st;

		if (strcmp(d->d_name, tmp_name) == 0)
			(void)unlinkat(dirfd(list), d->d_name, 0);
		if (!parse_name(d->d_name, &f.name, &f.parent) ||
		    fstatat(dirfd(list), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != file_bytes) {
			(void)unlinkat(dirfd(list), d->d_name, 0);
			continue;
		}
		if (n == cap) {
			struct found *grown = realloc(found, (cap ? cap * 2 : 64) * sizeof(*found));

			if (!grown) {
				free(found);
				return -ENOMEM;
			}
			found = grown;
			cap = cap ? cap * 2 : 64;
		}
		f.used = st.st_mtim;
		found[n++] = f;
	}
	*ret_found = found;
	*ret_n = n;
	return 0;
}

int eng_pc_folder_scan(int fd, uint64_t file_bytes, struct eng_pc_index *ix)
{
	DIR *list = open_list(fd, ".");
	struct found *found = NULL;
	size_t n = 0, left, before;
	int r;

	if (!list)
		return -errno;
	r = list_pages(list, file_bytes, &found, &n);
	if (r < 0) {
		(void)closedir(list);
		return r;
	}
	if (n > 0)
		qsort(found, n, sizeof(*found), by_use);
	/* Pages are written and read from the beginning of a prefix, so that one pass nearly always adds them all. */
	left = n;
	do {
		before = left;
		left = 0;
		for (size_t i = 0; i < before && r == 0; i++) {
			int e = eng_pc_index_add(ix, &found[i].name, &found[i].parent);

			if (e == -ENOENT)
				found[left++] = found[i];
			else if (e == -ENOMEM)
				r = e;
		}
	} while (left > 0 && left < before && r == 0);
	for (size_t i = 0; i < left && r == 0; i++) {
		char name[ENG_PC_FILE_NAME];

		eng_pc_file_name(&found[i].name, &found[i].parent, name);
		(void)unlinkat(fd, name, 0);
	}
	free(found);
	(void)closedir(list);
	return r;
}

/* ---- Files ---- */

int eng_pc_file_write(int dir_fd, const char *name, const uint8_t *bytes, size_t size)
{
	int fd = openat(dir_fd, tmp_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), r = 0;

	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < size && r == 0;) {
		ssize_t n = write(fd, bytes + at, size - at);

		if (n > 0)
			at += (size_t)n;
		else if (n == 0)
			r = -EIO;
		else if (errno != EINTR)
			r = -errno;
	}
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && renameat(dir_fd, tmp_name, dir_fd, name) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(dir_fd, tmp_name, 0);
	return r;
}

static int read_all(int fd, uint8_t *bytes, size_t size, uint64_t from)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = pread(fd, bytes + at, size - at, (off_t)(from + at));

		if (n > 0)
			at += (size_t)n;
		else if (n == 0)
			return -EBADMSG;
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int eng_pc_file_read(int dir_fd, const char *name, uint8_t *bytes, size_t size, uint8_t *rest, size_t rest_size)
{
	CLEANUP(close_fdp) int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != (uint64_t)size + rest_size)
		return -EBADMSG;
	r = read_all(fd, bytes, size, 0);
	r = r < 0 ? r : read_all(fd, rest, rest_size, size);
	if (r == 0)
		(void)futimens(fd, NULL);
	return r;
}
