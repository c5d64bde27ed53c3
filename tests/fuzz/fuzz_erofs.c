/* Any bytes as a layer's metadata image: everything that the reader can be asked, of every path that it finds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "erofs/erofs_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Directories that contain themselves have paths of thousands of names, one after the other looked up. */
enum { MAX_PATHS = 300, MAX_RESOLVED = 20, MAX_NAMES = 20 };

struct visit {
	const struct flip_erofs *fs;
	size_t n;
};

static int sum_entry(void *arg, const char *name, size_t len, uint64_t nid, unsigned dtype, uint64_t next_pos)
{
	uint64_t *sum = arg;

	for (size_t i = 0; i < len; i++)
		*sum += (uint8_t)name[i];
	*sum += nid + dtype + next_pos;
	return 0;
}

static void ask_xattrs(const struct flip_erofs *fs, uint64_t nid)
{
	static char names[1 << 18];
	ssize_t size = flip_erofs_listxattr(fs, nid, true, names, sizeof(names));
	int left = MAX_NAMES;
	const void *value;
	size_t value_size;

	for (const char *p = names; left > 0 && size > 0 && p < names + size; left--, p += strlen(p) + 1) {
		if (flip_erofs_getxattr(fs, nid, p, true, &value, &value_size) == 0 && value_size)
			*(volatile char *)names = *((const char *)value + value_size - 1);
	}
	(void)flip_erofs_getxattr(fs, nid, FLIP_XATTR_REDIRECT, false, &value, &value_size);
}

static int visit_one(void *arg, const char *path, uint64_t nid, const struct stat *st)
{
	struct visit *v = arg;
	uint64_t found, sum = 0;
	uint8_t digest[32];
	const char *target;
	size_t len;

	if (v->n < MAX_RESOLVED)
		(void)flip_erofs_resolve(v->fs, path, &found);
	if (S_ISDIR(st->st_mode))
		(void)flip_erofs_readdir(v->fs, nid, 40, sum_entry, &sum);
	else
		(void)flip_erofs_lookup(v->fs, nid, "x", 1, &found);
	if (flip_erofs_readlink(v->fs, nid, &target, &len) == 0)
		(void)sum_entry(&sum, target, len, 0, 0, 0);
	(void)flip_erofs_digest(v->fs, nid, digest);
	ask_xattrs(v->fs, nid);
	return v->n++ > MAX_PATHS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct flip_erofs fs;
	struct visit v = { .fs = &fs };

	if (flip_erofs_use(data, size, "input", &fs, NULL) < 0)
		return 0;
	(void)flip_erofs_walk(&fs, visit_one, &v, NULL);
	for (uint64_t nid = 0; nid < 200; nid++)
		ask_xattrs(&fs, nid);
	return 0;
}
