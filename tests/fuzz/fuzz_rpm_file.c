/* Whole package files: lead, signature, header, compressed payload, into a tree. What gets in has the digest that the
 * header promises, or no digest was promised. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rpm/rpm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_small(const struct img_rpm *p, size_t file, void *arg)
{
	(void)arg;
	return p->files[file].size < 1u << 20; /* sizes are claims; memory is not what is tested */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct img_rpm_unpack_opts o = { .wants = is_small, .n_threads = 1 };
	struct img_rpm_aliases *aliases = NULL;
	struct img_rpm_unpack_opts with_aliases = o;
	struct img_rpm *p = NULL;
	struct err err = { 0 };
	struct img_tree *t;
	char path[64];
	int fd = memfd_create("rpm", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
		(void)close(fd);
		return 0;
	}
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (img_rpm_open(path, &p, &err) == 0) {
		t = img_tree_new();
		if (t && img_rpm_aliases_new(&p, 1, &aliases) == 0) {
			with_aliases.aliases = aliases;
			(void)img_rpm_unpack(&p, 1, &with_aliases, t, &err);
		}
		img_rpm_aliases_free(aliases);
		img_tree_free(t);
	}
	img_rpm_free(p);
	(void)close(fd);
	return 0;
}
