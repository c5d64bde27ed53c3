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
	char path[80];
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

	(void)snprintf(h->dir, sizeof(h->dir), "%.32s/flip-store-XXXXXX", tmp ? tmp : "/tmp");
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

#endif
