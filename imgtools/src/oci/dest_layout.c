/* An image into an OCI layout. Blobs get their names when they are whole; index.json, the only file that names images,
 * is replaced in one step at the very end, under a lock, with what other images it has. Whoever reads meanwhile, or
 * after a crash, sees the old images or the new one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "oci_internal.h"

static const char layout_text[] = "{\"imageLayoutVersion\":\"1.0.0\"}";

struct dest_layout {
	char *path, *blobs, *tag;
	const struct img_config *config;
	bool made_path;           /* the folder is ours: an image that fails leaves none */
	struct img_strings fresh; /* blobs that were not there before */
	bool is_done;
};

static int publish(struct dest_layout *d, struct img_temp *t, const char *digest, struct err *err)
{
	char *path = NULL;
	bool is_fresh;
	int r;

	if (asprintf(&path, "%s/%s", d->blobs, digest + 7) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	is_fresh = access(path, F_OK) < 0;
	r = img_temp_publish(t, path, true, err);
	if (r == 0 && is_fresh && img_strings_add(&d->fresh, path) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	free(path);
	return r;
}

static int layout_layer(void *state, struct img_temp *file, const struct img_layer *layer, struct err *err)
{
	return publish(state, file, layer->digest, err);
}

static int layout_config(void *state, const void *data, size_t size, const char *digest, struct err *err)
{
	struct dest_layout *d = state;
	struct img_temp t;
	int r = img_temp_open(d->blobs, &t, err);

	if (r < 0)
		return r;
	r = img_write_all(t.fd, data, size, err);
	if (r < 0)
		img_temp_drop(&t);
	return r < 0 ? r : publish(d, &t, digest, err);
}

json_t *img_manifest_descriptor(const char *digest, size_t size, const struct img_config *c, const char *tag)
{
	json_t *d = json_pack("{s:s, s:s, s:I}", "mediaType", c ? IMG_TYPE_OCI_MANIFEST : IMG_TYPE_OCI_INDEX, "digest",
	                      digest, "size", (json_int_t)size);
	json_t *platform = NULL;

	if (c)
		platform = json_pack("{s:s, s:s}", "architecture", c->arch ? c->arch : img_host_arch(), "os",
		                     c->os ? c->os : "linux");
	if (c && c->variant)
		(void)json_object_set_new(platform, "variant", json_string(c->variant));
	if (tag && json_object_set_new(d, "annotations", json_pack("{s:s}", IMG_REF_NAME, tag)) < 0) {
		json_decref(d);
		json_decref(platform);
		return NULL;
	}
	if (platform)
		(void)json_object_set_new(d, "platform", platform);
	return d;
}

static bool has_tag(const json_t *descriptor, const char *tag)
{
	const char *there =
	        json_string_value(json_object_get(json_object_get(descriptor, "annotations"), IMG_REF_NAME));

	return tag ? there && strcmp(there, tag) == 0 : !there;
}

/* The index with the new image in it: the old text, its image of the same tag replaced. */
static int make_index(struct dest_layout *d, const char *path, json_t *descriptor, json_t **ret_index, struct err *err)
{
	json_t *index = NULL, *list, *item;
	size_t i;

	if (access(path, F_OK) == 0) {
		int r = base_json_read_file(path, IMG_MAX_JSON, &index, err);

		if (r < 0)
			return r;
	} else {
		index = json_pack("{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", IMG_TYPE_OCI_INDEX, "manifests");
	}
	list = json_object_get(index, "manifests");
	if (!json_is_array(list)) {
		json_decref(index);
		return err_set(err, -EBADMSG, "%s: manifests: expected a list", path);
	}
	for (i = json_array_size(list); i-- > 0;) {
		item = json_array_get(list, i);
		if (has_tag(item, d->tag))
			(void)json_array_remove(list, i);
	}
	(void)json_array_append(list, descriptor);
	*ret_index = index;
	return 0;
}

static int update_index(struct dest_layout *d, json_t *descriptor, struct err *err)
{
	struct base_buf b = BASE_BUF_INIT(IMG_MAX_JSON);
	CLEANUP(freep) char *path = NULL;
	json_t *index = NULL;
	int r;

	if (asprintf(&path, "%s/index.json", d->path) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = make_index(d, path, descriptor, &index, err);
	if (r == 0 && (base_json_append(&b, index) < 0 || base_buf_error(&b)))
		r = err_set(err, -ENOMEM, "%s: out of memory", path);
	if (r == 0)
		r = base_write_file_atomic(path, b.data, b.len, 0644, err);
	json_decref(index);
	base_buf_done(&b);
	return r;
}

static int layout_manifest(void *state, const void *data, size_t size, const char *digest, struct err *err)
{
	CLEANUP(close_fdp) int lock = -1;
	CLEANUP(freep) char *path = NULL;
	struct dest_layout *d = state;
	json_t *descriptor;
	int r = layout_config(d, data, size, digest, err);

	if (r < 0)
		return r;
	if (asprintf(&path, "%s/oci-layout", d->path) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	lock = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return err_set(err, -errno, "%s: %s", d->path, strerror(errno));
	if (access(path, F_OK) < 0 &&
	    (r = base_write_file_atomic(path, layout_text, sizeof(layout_text) - 1, 0644, err)) < 0)
		return r;
	descriptor = img_manifest_descriptor(digest, size, d->config, d->tag);
	r = descriptor ? update_index(d, descriptor, err) : err_set(err, -EINVAL, "%s: the tag is no text", d->path);
	json_decref(descriptor);
	d->is_done = r == 0;
	return r;
}

static void layout_close(void *state)
{
	struct dest_layout *d = state;

	for (size_t i = 0; i < d->fresh.n && !d->is_done; i++)
		(void)unlink(d->fresh.items[i]);
	if (d->made_path && !d->is_done) {
		char parent[4096];

		(void)rmdir(d->blobs);
		(void)snprintf(parent, sizeof(parent), "%s/blobs", d->path);
		(void)rmdir(parent);
		(void)rmdir(d->path);
	}
	img_strings_done(&d->fresh);
	free(d->path);
	free(d->blobs);
	free(d->tag);
	free(d);
}

static int make_dir(const char *path, bool *made, struct err *err)
{
	if (mkdir(path, 0755) == 0)
		*made = true;
	else if (errno != EEXIST)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

static const struct img_dest_ops layout_ops = { layout_layer, layout_config, layout_config, layout_manifest,
	                                        layout_close };

int img_dest_layout_open(const struct img_name *name, const struct img_config *c, struct img_dest *ret, struct err *err)
{
	struct dest_layout *d = calloc(1, sizeof(*d));
	bool ignored = false;
	char *slash;
	int r = 0;

	if (!d)
		return err_set(err, -ENOMEM, "out of memory");
	d->config = c;
	d->path = strdup(name->path);
	d->tag = name->tag ? strdup(name->tag) : NULL;
	if (!d->path || (name->tag && !d->tag) || asprintf(&d->blobs, "%s/blobs/sha256", name->path) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = make_dir(d->path, &d->made_path, err);
	if (r == 0) {
		slash = strrchr(d->blobs, '/');
		*slash = '\0';
		r = make_dir(d->blobs, &ignored, err);
		*slash = '/';
	}
	if (r == 0)
		r = make_dir(d->blobs, &ignored, err);
	if (r < 0) {
		layout_close(d);
		return r;
	}
	*ret = (struct img_dest){ .ops = &layout_ops, .state = d, .temp_dir = d->blobs };
	return 0;
}
