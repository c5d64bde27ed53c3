/* Registries as a place that images come from and go to: the protocol is the registry room's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "oci_internal.h"
#include "registry/registry.h"

struct remote {
	struct img_registry *registry;
	char *dir; /* blobs are fetched to */
	struct img_meter meter;
};

static int count_bytes(uint64_t n, void *arg)
{
	return img_meter_add(arg, n);
}

static int is_canceled(void *arg)
{
	return img_meter_add(arg, 0) < 0;
}

static void remote_close(void *state)
{
	struct remote *m = state;

	img_registry_close(m->registry);
	img_meter_done(&m->meter);
	free(m->dir);
	free(m);
}

static int remote_open(const char *name, const struct img_registry_opts *ro, const char *what, const char *dir,
                       img_progress_fn progress, void *arg, struct remote **ret, struct err *err)
{
	struct remote *m = calloc(1, sizeof(*m));
	struct img_registry_opts watched = *ro;
	int r;

	if (!m)
		return err_set(err, -ENOMEM, "out of memory");
	img_meter_init(&m->meter, what, 0, progress, arg);
	m->dir = dir ? strdup(dir) : NULL;
	watched.is_canceled = is_canceled;
	watched.is_canceled_arg = &m->meter;
	r = dir && !m->dir ? err_set(err, -ENOMEM, "out of memory")
	                   : img_registry_open(name, &watched, &m->registry, err);
	if (r < 0) {
		remote_close(m);
		return r;
	}
	*ret = m;
	return 0;
}

/* ---- In --------------------------------------------------------------------------------------------------------- */

static int remote_root(void *state, char **ret_data, size_t *ret_size, char ret_digest[IMG_DIGEST_SIZE],
                       struct err *err)
{
	struct remote *m = state;

	return img_registry_get_manifest(m->registry, NULL, ret_data, ret_size, ret_digest, err);
}

static int remote_blob(void *state, const struct img_descriptor *d, struct img_blob *ret_blob, struct err *err)
{
	static _Atomic unsigned counter; /* one blob may be several layers of an image */
	struct remote *m = state;
	char *path = NULL;
	int r;

	if (asprintf(&path, "%s/blob-%.16s-%u", m->dir, d->digest + 7, atomic_fetch_add(&counter, 1)) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_lock(&m->meter.lock);
	m->meter.now.total += d->size;
	(void)pthread_mutex_unlock(&m->meter.lock);
	r = img_registry_get_blob(m->registry, d->digest, d->size, path, count_bytes, &m->meter, err);
	if (r < 0) {
		free(path);
		return r;
	}
	*ret_blob = (struct img_blob){ .path = path, .size = d->size };
	return 0;
}

/* Indexes and manifests are asked for as such, configurations are blobs. */
static int remote_document(void *state, const struct img_descriptor *d, char **ret_data, size_t *ret_size,
                           struct err *err)
{
	struct remote *m = state;
	struct img_blob b = { 0 };
	char digest[IMG_DIGEST_SIZE];
	bool is_manifest = d->media_type && (strstr(d->media_type, "manifest") || strstr(d->media_type, "index"));
	int r;

	if (d->size > IMG_MAX_JSON)
		return err_set(err, -EFBIG, "%s: too large for a document", d->digest);
	if (is_manifest)
		return img_registry_get_manifest(m->registry, d->digest, ret_data, ret_size, digest, err);
	r = remote_blob(state, d, &b, err);
	if (r == 0)
		r = img_blob_read(&b, ret_data, ret_size, err);
	img_blob_done(&b);
	return r;
}

static const struct img_source_ops remote_ops = { remote_root, remote_document, remote_blob, remote_close };

int img_source_registry_open(const struct img_name *name, const char *work_dir, const struct img_open_opts *o,
                             struct img_blob_source *ret, struct err *err)
{
	struct img_registry_opts ro = { .auth_file = o->auth_file, .insecure = o->insecure };
	struct remote *m = NULL;
	int r = remote_open(name->path, &ro, "pulling", work_dir, o->progress, o->progress_arg, &m, err);

	if (r < 0)
		return r;
	*ret = (struct img_blob_source){ &remote_ops, m };
	return 0;
}

/* ---- Out ---- */

static int push_layer(void *state, struct img_temp *file, const struct img_layer *layer, struct err *err)
{
	struct remote *m = state;
	int r;

	m->meter.now.total += layer->size;
	r = img_registry_put_blob(m->registry, file->fd, layer->size, layer->digest, count_bytes, &m->meter, err);
	img_temp_drop(file);
	return r;
}

static int push_config(void *state, const void *data, size_t size, const char *digest, struct err *err)
{
	const char *dir = getenv("TMPDIR");
	struct remote *m = state;
	struct img_temp t;
	int r = img_temp_open(dir && dir[0] ? dir : "/var/tmp", &t, err);

	if (r < 0)
		return r;
	r = img_write_all(t.fd, data, size, err);
	if (r == 0)
		r = img_registry_put_blob(m->registry, t.fd, size, digest, NULL, NULL, err);
	img_temp_drop(&t);
	return r;
}

static int push_manifest(void *state, const void *data, size_t size, const char *digest, struct err *err)
{
	struct remote *m = state;
	enum img_document kind;
	int r = img_document_kind(data, size, digest, &kind, err);

	return r < 0 ? r
	             : img_registry_put_manifest(m->registry, NULL,
	                                         kind == IMG_DOC_INDEX ? IMG_TYPE_OCI_INDEX : IMG_TYPE_OCI_MANIFEST,
	                                         data, size, err);
}

static int push_part(void *state, const void *data, size_t size, const char *digest, struct err *err)
{
	struct remote *m = state;

	return img_registry_put_manifest(m->registry, digest, IMG_TYPE_OCI_MANIFEST, data, size, err);
}

static const struct img_dest_ops push_ops = { push_layer, push_config, push_part, push_manifest, remote_close };

int img_dest_registry_open(const struct img_name *name, const struct img_write_plan *plan, struct img_dest *ret,
                           struct err *err)
{
	struct img_registry_opts ro = { .auth_file = plan->auth_file, .insecure = plan->insecure };
	const char *dir = getenv("TMPDIR");
	struct remote *m = NULL;
	int r = remote_open(name->path, &ro, "pushing", NULL, plan->progress, plan->progress_arg, &m, err);

	if (r < 0)
		return r;
	if (img_registry_reference(m->registry)->digest) {
		remote_close(m);
		return err_set(err, -EINVAL, "an image is pushed to a tag, not to a digest");
	}
	*ret = (struct img_dest){ .ops = &push_ops, .state = m, .temp_dir = dir && dir[0] ? dir : "/var/tmp" };
	return 0;
}
