/* An image into a tar: an OCI layout in one file, or what `docker load` reads. The archive is made without a name and
 * gets it when it is whole. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "oci_internal.h"
#include "tree/tar.h"

enum { COPY_SIZE = 1 << 18 };

struct dest_archive {
	char *path, *dir, *tag;
	bool is_docker;
	const struct img_config *config;
	struct img_temp file;
	struct img_tar_out out;
	struct img_strings members; /* what is in it */
	struct img_strings layers;  /* docker: names of the layers, lowest first */
	char config_name[IMG_DIGEST_SIZE];
};

static const struct img_write_opts plain = { .clamp_mtime = -1, .numeric_only = true };

static int to_file(const void *data, size_t size, void *arg, struct err *err)
{
	return img_write_all(*(int *)arg, data, size, err);
}

/* 1: it is in the archive already. */
static int note_member(struct dest_archive *a, const char *name, struct err *err)
{
	for (size_t i = 0; i < a->members.n; i++) {
		if (strcmp(a->members.items[i], name) == 0)
			return 1;
	}
	return img_strings_add(&a->members, name) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
}

static int put_text(struct dest_archive *a, const char *name, const void *data, size_t size, struct err *err)
{
	struct img_node n = { .type = IMG_FILE, .mode = 0644, .size = size, .data = (void *)data };
	char path[200];
	int r = note_member(a, name, err);

	if (r != 0)
		return r < 0 ? r : 0;
	(void)snprintf(path, sizeof(path), "/%s", name);
	n.path = path;
	return img_tar_write_node(&a->out, &n, NULL, NULL, NULL, &plain, err);
}

static int put_file(struct dest_archive *a, const char *name, int fd, uint64_t size, struct err *err)
{
	struct img_node n = { .type = IMG_FILE, .mode = 0644, .size = size };
	CLEANUP(freep) char *buf = malloc(COPY_SIZE);
	char path[200];
	int r = note_member(a, name, err);

	if (r != 0)
		return r < 0 ? r : 0;
	if (!buf)
		return err_set(err, -ENOMEM, "out of memory");
	(void)snprintf(path, sizeof(path), "/%s", name);
	n.path = path;
	r = img_tar_write_header(&a->out, &n, NULL, NULL, NULL, &plain, err);
	for (uint64_t done = 0; r == 0 && done < size;) {
		ssize_t got = pread(fd, buf, COPY_SIZE, (off_t)done);

		if (got <= 0)
			return err_set(err, got < 0 ? -errno : -EIO, "%s: cannot be read back", name);
		r = to_file(buf, (size_t)got, a->out.arg, err);
		done += (uint64_t)got;
		a->out.offset += (uint64_t)got;
	}
	return r == 0 ? img_tar_write_padding(&a->out, err) : r;
}

static int archive_layer(void *state, struct img_temp *file, const struct img_layer *layer, struct err *err)
{
	struct dest_archive *a = state;
	char name[128];
	int r;

	if (a->is_docker)
		(void)snprintf(name, sizeof(name), "%s.tar", layer->diff_id + 7);
	else
		(void)snprintf(name, sizeof(name), "blobs/sha256/%s", layer->digest + 7);
	r = put_file(a, name, file->fd, layer->size, err);
	img_temp_drop(file);
	if (r == 0 && img_strings_add(&a->layers, name) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	return r;
}

static int archive_config(void *state, const void *data, size_t size, const char *digest, struct err *err)
{
	struct dest_archive *a = state;
	char name[128];

	if (a->is_docker)
		(void)snprintf(name, sizeof(name), "%s.json", digest + 7);
	else
		(void)snprintf(name, sizeof(name), "blobs/sha256/%s", digest + 7);
	(void)snprintf(a->config_name, sizeof(a->config_name), "%s.json", digest + 7);
	return put_text(a, name, data, size, err);
}

/* Said rather than implied: unpackers that are not root stumble over making what is only implied. */
static int put_folders(struct dest_archive *a, struct err *err)
{
	static const char *const paths[] = { "/blobs", "/blobs/sha256" };
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(paths) / sizeof(*paths); i++) {
		struct img_node n = { .path = paths[i], .type = IMG_DIR, .mode = 0755 };

		r = img_tar_write_node(&a->out, &n, NULL, NULL, NULL, &plain, err);
	}
	return r;
}

static int put_json(struct dest_archive *a, const char *name, json_t *doc, struct err *err)
{
	struct base_buf b = BASE_BUF_INIT(IMG_MAX_JSON);
	int r = -ENOMEM;

	if (doc && base_json_append(&b, doc) == 0)
		r = put_text(a, name, b.data, b.len, err);
	else
		(void)err_set(err, r, "%s: out of memory", name);
	base_buf_done(&b);
	json_decref(doc);
	return r;
}

/* A docker name without a tag is of "latest". */
static char *docker_tag(const char *tag)
{
	const char *slash = strrchr(tag, '/');
	char *text = NULL;

	if (strchr(slash ? slash : tag, ':'))
		return strdup(tag);
	return asprintf(&text, "%s:latest", tag) < 0 ? NULL : text;
}

static int put_docker_manifest(struct dest_archive *a, struct err *err)
{
	json_t *layers = json_array(), *tags = json_array();
	CLEANUP(freep) char *tag = a->tag ? docker_tag(a->tag) : NULL;

	for (size_t i = 0; i < a->layers.n; i++)
		(void)json_array_append_new(layers, json_string(a->layers.items[i]));
	if (tag)
		(void)json_array_append_new(tags, json_string(tag));
	return put_json(a, "manifest.json",
	                json_pack("[{s:s, s:o, s:o}]", "Config", a->config_name, "RepoTags", tags, "Layers", layers),
	                err);
}

static int put_oci_index(struct dest_archive *a, const void *data, size_t size, const char *digest, struct err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	json_t *d = img_manifest_descriptor(digest, size, a->config, a->tag);
	char name[128];
	int r;

	if (!d)
		return err_set(err, -EINVAL, "%s: the tag is no text", a->path);
	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", digest + 7);
	r = put_text(a, name, data, size, err);
	if (r == 0)
		r = put_text(a, "oci-layout", layout, sizeof(layout) - 1, err);
	if (r < 0) {
		json_decref(d);
		return r;
	}
	return put_json(
	        a, "index.json",
	        json_pack("{s:i, s:s, s:[o]}", "schemaVersion", 2, "mediaType", IMG_TYPE_OCI_INDEX, "manifests", d),
	        err);
}

static int archive_manifest(void *state, const void *data, size_t size, const char *digest, struct err *err)
{
	struct dest_archive *a = state;
	int r = a->is_docker ? put_docker_manifest(a, err) : put_oci_index(a, data, size, digest, err);

	if (r == 0)
		r = img_tar_write_end(&a->out, err);
	return r == 0 ? img_temp_publish(&a->file, a->path, false, err) : r;
}

static void archive_close(void *state)
{
	struct dest_archive *a = state;

	img_temp_drop(&a->file);
	img_strings_done(&a->members);
	img_strings_done(&a->layers);
	free(a->path);
	free(a->dir);
	free(a->tag);
	free(a);
}

static const struct img_dest_ops archive_ops = { archive_layer, archive_config, archive_config, archive_manifest,
	                                         archive_close };

int img_dest_archive_open(const struct img_name *name, const struct img_config *c, struct img_dest *ret,
                          struct err *err)
{
	struct dest_archive *a = calloc(1, sizeof(*a));
	CLEANUP(freep) char *copy = strdup(name->path);
	int r = 0;

	if (!a)
		return err_set(err, -ENOMEM, "out of memory");
	a->file.fd = -1;
	a->is_docker = name->place == IMG_PLACE_DOCKER_ARCHIVE;
	a->config = c;
	a->path = strdup(name->path);
	a->dir = copy ? strdup(dirname(copy)) : NULL;
	a->tag = name->tag ? strdup(name->tag) : NULL;
	if (!a->path || !a->dir || (name->tag && !a->tag))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = img_temp_open(a->dir, &a->file, err);
	if (r < 0) {
		archive_close(a);
		return r;
	}
	a->out = (struct img_tar_out){ .sink = to_file, .arg = &a->file.fd };
	r = a->is_docker ? 0 : put_folders(a, err);
	if (r < 0) {
		archive_close(a);
		return r;
	}
	*ret = (struct img_dest){ .ops = &archive_ops, .state = a, .temp_dir = a->dir, .is_plain = a->is_docker };
	return 0;
}
