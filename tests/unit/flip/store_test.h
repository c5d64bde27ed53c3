/* What the tests of the store share: a store in a folder of its own, contents with known digests. */
#ifndef STORE_TEST_H
#define STORE_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sha256.h"
#include "store/store.h"
#include "test.h"

struct home {
	char dir[64]; /* removed at the end */
	char path[100];
	struct flip_store *store;
};

static inline struct flip_store *home_open(struct home *h, const struct flip_store_opts *o)
{
	static const struct flip_store_opts small = { .min_free_bytes = 1 };
	struct err err = { 0 };

	if (flip_store_open(h->path, o ? o : &small, &h->store, &err) < 0)
		fail_msg("%s", err_text(&err));
	return h->store;
}

static inline void home_close(struct home *h)
{
	flip_store_close(h->store);
	h->store = NULL;
}

static inline int home_setup(void **state)
{
	struct home *h = calloc(1, sizeof(*h));
	const char *tmp = getenv("TMPDIR");

	/* In memory where that can be had: closing a store syncs the whole file system, others' work included. */
	if (!tmp)
		tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	(void)snprintf(h->dir, sizeof(h->dir), "%.32s/flip-store-XXXXXX", tmp);
	if (!mkdtemp(h->dir))
		return -1;
	(void)snprintf(h->path, sizeof(h->path), "%s/store", h->dir);
	*state = h;
	return 0;
}

static inline int home_teardown(void **state)
{
	struct home *h = *state;
	char command[128];

	flip_store_close(h->store);
	(void)snprintf(command, sizeof(command), "rm -rf %s", h->dir);
	(void)!system(command);
	free(h);
	return 0;
}

/* Bytes that are the same for the same number, and their digest. */
static inline uint8_t *content(uint64_t seed, size_t size, uint8_t ret_digest[FLIP_DIGEST_SIZE])
{
	uint64_t x = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	uint8_t *data = malloc(size + 8);

	for (size_t i = 0; i < size; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(data + i, &x, 8);
	}
	(void)base_sha256_bytes(data, size, ret_digest);
	return data;
}

/* "objects/ab/cdef..." below the store, or another folder's. */
static inline const char *object_path(const struct home *h, const char *folder, const uint8_t digest[32])
{
	static char path[256];
	char hex[BASE_SHA256_HEX_SIZE];

	base_sha256_hex(digest, hex);
	(void)snprintf(path, sizeof(path), "%s/%s/%.2s/%s", h->path, folder, hex, hex + 2);
	return path;
}

static inline bool file_is(const char *path, const void *data, size_t size)
{
	struct stat st;
	bool is_same;
	uint8_t *got;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size != size) {
		if (fd >= 0)
			(void)close(fd);
		return false;
	}
	got = malloc(size + 1);
	is_same = read(fd, got, size) == (ssize_t)size && memcmp(got, data, size) == 0;
	free(got);
	(void)close(fd);
	return is_same;
}

/* The index of these layers: the digests one behind the other in a file "index". For flip_index_walk. */
static inline int walk_index(void *arg, const char *layer_dir, int (*each)(void *each_arg, const uint8_t digest[32]),
                             void *each_arg, struct err *err)
{
	uint8_t digest[32];
	char path[512];
	FILE *f;
	int r = 0;

	(void)snprintf(path, sizeof(path), "%s/index", layer_dir);
	f = fopen(path, "re");
	if (!f)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	while (r == 0 && fread(digest, 1, 32, f) == 32)
		r = each(each_arg, digest);
	(void)fclose(f);
	return r;
}

/* "sha256:" and 64 times this digit. */
static inline const char *layer_digest(char digit)
{
	static char digest[72];

	(void)snprintf(digest, sizeof(digest), "sha256:%064d", 0);
	memset(digest + 7, digit, 64);
	return digest;
}

static inline int try_add_layer(struct flip_store *s, char digit, enum flip_layer_kind kind, int64_t last_used,
                                uint8_t (*digests)[32], size_t n)
{
	struct flip_layer_row row = { .blob_size = 1000, .kind = kind, .last_used = last_used };
	char dir[256], path[300];
	FILE *f;
	int r;

	(void)snprintf(row.digest, sizeof(row.digest), "%s", layer_digest(digit));
	r = flip_store_layer_begin(s, row.digest, dir, sizeof(dir), NULL);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/index", dir);
	f = fopen(path, "we");
	if (!f || (n > 0 && fwrite(digests, 32, n, f) != n))
		r = -EIO;
	if (f && fclose(f) != 0)
		r = -EIO;
	if (r == 0)
		r = flip_store_layer_commit(s, dir, &row, NULL);
	if (r < 0)
		flip_store_layer_abort(s, dir);
	return r;
}

#endif
