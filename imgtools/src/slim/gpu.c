/* GPU code for architectures that nobody asked for leaves the files (elf/fatbin.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "elf/elf.h"
#include "elf/fatbin.h"
#include "slim/slim.h"

static int prune(struct img_node *n, const struct img_gpu_archs *archs, const char *copy, uint64_t *dropped,
                 struct err *err)
{
	struct img_fatbin_plan plan;
	struct base_mapfile map;
	char *source;
	int r = base_mapfile_open(n->source, &map, err);

	if (r < 0)
		return r;
	r = img_fatbin_plan(map.data, map.size_bytes, archs, NULL, NULL, &plan, err);
	base_mapfile_close(&map);
	if (r < 0)
		return r;
	if (plan.n_dropped) {
		r = img_fatbin_copy(n->source, copy, &plan, err);
		source = r == 0 ? strdup(copy) : NULL;
		if (source) {
			free(n->source);
			n->source = source;
			*dropped += plan.dropped_bytes;
		} else if (r == 0) {
			r = err_set(err, -ENOMEM, "out of memory");
		}
	}
	r = r < 0 ? r : plan.n_dropped > 0;
	img_fatbin_plan_done(&plan);
	return r;
}

int img_slim_gpu(struct img_tree *slim, const struct img_gpu_archs *archs, const char *work,
                 uint64_t *ret_dropped_bytes, uint64_t *ret_n_files, struct err *err)
{
	char path[IMG_PATH_MAX];
	int r = 0;

	*ret_dropped_bytes = *ret_n_files = 0;
	(void)snprintf(path, sizeof(path), "%s/gpu", work);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	for (size_t i = 0; r >= 0 && i < img_tree_count(slim); i++) {
		struct img_node *n = img_tree_at(slim, i);

		if (!n->source || n->link_group || !img_elf_is(n))
			continue;
		(void)snprintf(path, sizeof(path), "%s/gpu/%zu", work, i);
		r = prune(n, archs, path, ret_dropped_bytes, err);
		*ret_n_files += r > 0;
	}
	return r < 0 ? r : 0;
}
