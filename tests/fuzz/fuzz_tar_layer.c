/* Any bytes as a layer: decompressed, read as a tar, applied to a tree twice over, and the tree written as a tar, which
 * must then read back as the same tree. Bytes of files are passed over: nothing is written to the host. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "oci/oci_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int to_buf(const void *data, size_t size, void *arg, struct err *err)
{
	(void)err;
	return base_buf_append(arg, data, size);
}

/* What every tree keeps: normal paths, real directories above, the order. */
static void check(struct img_tree *t)
{
	char path[IMG_PATH_MAX];

	for (size_t i = 0; i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);

		if (!n || img_path_normalize(n->path, path) < 0 || strcmp(path, n->path) != 0)
			abort();
		if (!i)
			continue;
		*strrchr(path, '/') = '\0';
		if (path[0] && img_tree_find(t, path)->type != IMG_DIR)
			abort();
	}
}

static int decode(const void *data, size_t size, struct img_layer_entries *entries)
{
	static const struct img_limits limits = { .max_bytes = 64 << 20, .max_entries = 10000, .max_ratio = 2000 };
	_Atomic uint64_t n_bytes = 0;
	struct img_layer_job job = { .blob = { .data = data, .size = size },
		                     .label = "layer",
		                     .limits = &limits,
		                     .n_bytes = &n_bytes,
		                     .reads_ahead = size % 2 };
	struct err err = { 0 };
	int r = img_layer_decode(&job, entries, &err);

	if (r < 0 && (!err.code || !err.msg[0]))
		abort(); /* an error without words */
	return r;
}

/* Files have no bytes here: as empty ones they can be written. */
static void round_trip(struct img_tree *t)
{
	const struct img_write_opts o = { .clamp_mtime = -1, .numeric_only = true };
	struct base_buf b = BASE_BUF_INIT(64 << 20);
	struct img_layer_entries entries = { 0 };
	struct img_tree *back = img_tree_new();
	uint32_t next_group = 1;

	for (size_t i = 0; i < img_tree_count(t); i++) {
		if (img_tree_at(t, i)->type == IMG_FILE)
			img_tree_at(t, i)->size = 0;
	}
	if (!back || img_tree_write_tar(t, &o, to_buf, &b, NULL) < 0)
		abort();
	/* Names that mean something to a layer, and devices, do not come back as they were. */
	if (decode(b.data, b.len, &entries) == 0 && img_layer_apply(back, &entries, 0, "back", &next_group, NULL) == 0)
		check(back);
	img_layer_entries_done(&entries);
	img_tree_free(back);
	base_buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_layer_entries entries = { 0 };
	struct img_tree *t = img_tree_new();
	uint32_t next_group = 1;

	if (!t)
		return 0;
	if (decode(data, size, &entries) == 0) {
		/* The second time it lies over itself: whiteouts and replaced names have something to work on. */
		if (img_layer_apply(t, &entries, 0, "first", &next_group, NULL) == 0)
			(void)img_layer_apply(t, &entries, 1, "second", &next_group, NULL);
		check(t);
		round_trip(t);
	}
	img_layer_entries_done(&entries);
	img_tree_free(t);
	return 0;
}
