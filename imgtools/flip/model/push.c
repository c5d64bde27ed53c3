/* A folder to a registry, as an OCI 1.1 artifact: a layer for each distinct content, titled with its path (what ORAS
 * and others read), and the manifest with the chunks' digests as configuration (what we read). The manifest goes last,
 * so a tag never names what is not whole. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/sha256.h"
#include "model/flip_model.h"
#include "registry/registry.h"

enum { N_THREADS = 4 };

struct push {
	struct img_registry *registry;
	int dir_fd;
	const char *dir;
	const struct flip_model_push *o;
	const struct flip_model_file **files;
	size_t n_files;
	uint64_t n_total;
	_Atomic uint64_t n_sent;
	_Atomic size_t next;
	_Atomic bool is_over;
	pthread_mutex_t lock;
	int r; /* protected by lock, as err */
	struct err err;
};

static int count(uint64_t n, void *arg)
{
	struct push *p = arg;
	uint64_t sent = atomic_fetch_add(&p->n_sent, n) + n;

	return atomic_load(&p->is_over) || (p->o->progress && p->o->progress(p->o->arg, sent, p->n_total));
}

static void digest_of(const struct flip_model_file *f, char ret[IMG_DIGEST_SIZE])
{
	memcpy(ret, "sha256:", 7);
	base_sha256_hex(f->sha256, ret + 7);
}

static int push_file(struct push *p, const struct flip_model_file *f, struct err *err)
{
	CLEANUP(close_fdp) int fd = openat(p->dir_fd, f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char digest[IMG_DIGEST_SIZE];
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s/%s: %s", p->dir, f->path, strerror(errno));
	if ((uint64_t)st.st_size != f->size)
		return err_set(err, -EPIPE, "%s/%s: changes while it is read", p->dir, f->path);
	digest_of(f, digest);
	r = img_registry_put_blob(p->registry, fd, f->size, digest, count, p, err);
	return r < 0 ? err_prefix(err, r, "%s: ", f->path) : 0;
}

static void *push_files(void *arg)
{
	struct push *p = arg;
	struct err err = { 0 };
	int r = 0;

	while (r == 0 && !atomic_load(&p->is_over)) {
		size_t i = atomic_fetch_add(&p->next, 1);

		if (i >= p->n_files)
			break;
		r = push_file(p, p->files[i], &err);
	}
	if (r < 0) {
		(void)pthread_mutex_lock(&p->lock);
		if (p->r == 0) {
			p->r = r;
			p->err = err;
		}
		(void)pthread_mutex_unlock(&p->lock);
		atomic_store(&p->is_over, true);
	}
	return NULL;
}

static int push_all(struct push *p, struct err *err)
{
	pthread_t threads[N_THREADS];
	unsigned n = 0;

	while (n + 1 < N_THREADS && n + 1 < p->n_files && pthread_create(&threads[n], NULL, push_files, p) == 0)
		n++;
	(void)push_files(p);
	while (n > 0)
		(void)pthread_join(threads[--n], NULL);
	if (p->r < 0 && err)
		*err = p->err;
	return p->r;
}

static int push_bytes(struct push *p, const void *data, size_t size, const char *digest, struct err *err)
{
	const char *dir = getenv("TMPDIR");
	struct img_temp t;
	int r = img_temp_open(dir && *dir ? dir : "/var/tmp", &t, err);

	if (r < 0)
		return r;
	r = img_write_all(t.fd, data, size, err);
	if (r == 0)
		r = img_registry_put_blob(p->registry, t.fd, size, digest, NULL, NULL, err);
	img_temp_drop(&t);
	return r;
}

static json_t *layer_json(const struct flip_model_file *f)
{
	char digest[IMG_DIGEST_SIZE];

	digest_of(f, digest);
	return json_pack("{s:s, s:s, s:I, s:{s:s}}", "mediaType", FLIP_MODEL_FILE_TYPE, "digest", digest, "size",
	                 (json_int_t)f->size, "annotations", "org.opencontainers.image.title", f->path);
}

static int push_manifest(struct push *p, const struct flip_model *m, const char *config, size_t config_size,
                         char ret_digest[IMG_DIGEST_SIZE], struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(8 << 20);
	json_t *layers = json_array(), *doc;
	int r;

	for (size_t i = 0; i < m->n_files; i++)
		(void)json_array_append_new(layers, layer_json(&m->files[i]));
	doc = json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:I}, s:o}", "schemaVersion", 2, "mediaType",
	                IMG_TYPE_OCI_MANIFEST, "artifactType", FLIP_MODEL_TYPE, "config", "mediaType", FLIP_MODEL_TYPE,
	                "digest", config, "size", (json_int_t)config_size, "layers", layers);
	r = doc ? base_json_append(&text, doc) : -ENOMEM;
	json_decref(doc);
	if (r < 0)
		return err_set(err, r, "the artifact's manifest is too large");
	img_digest_of(text.data, text.len, ret_digest);
	return img_registry_put_manifest(p->registry, NULL, IMG_TYPE_OCI_MANIFEST, text.data, text.len, err);
}

int flip_model_push(const char *dir, const struct flip_model *m, const char *ref, const struct flip_model_push *o,
                    char ret_digest[IMG_DIGEST_SIZE], struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf config = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	const struct img_registry_opts ro = { .auth_file = o->auth_file, .insecure = o->insecure };
	struct push p = { .dir = dir, .o = o, .dir_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER };
	char config_digest[IMG_DIGEST_SIZE];
	int r = m->n_files > IMG_MAX_LAYERS ? err_set(err, -EFBIG, "%s: %zu files, an artifact has %d at most", dir,
	                                              m->n_files, IMG_MAX_LAYERS)
	                                    : 0;

	if (r == 0)
		r = img_registry_open(ref, &ro, &p.registry, err);
	if (r == 0 && img_registry_reference(p.registry)->digest)
		r = err_set(err, -EINVAL, "%s: a model is pushed to a tag, not to a digest", ref);
	if (r == 0 && flip_model_contents(m, &p.files, &p.n_files) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0) {
		p.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = p.dir_fd < 0 ? err_set(err, -errno, "%s: %s", dir, strerror(errno)) : 0;
	}
	for (size_t i = 0; r == 0 && i < p.n_files; i++)
		p.n_total += p.files[i]->size;
	if (r == 0)
		r = push_all(&p, err);
	for (size_t i = 0; r == 0 && i < m->n_files; i++) { /* all empty files are one blob */
		if (m->files[i].size == 0) {
			img_digest_of("", 0, config_digest);
			r = push_bytes(&p, "", 0, config_digest, err);
			break;
		}
	}
	if (r == 0 && (r = flip_model_append(m, false, &config)) < 0)
		(void)err_set(err, r, "%s: the list of files is too long", dir);
	if (r == 0) {
		img_digest_of(config.data, config.len, config_digest);
		r = push_bytes(&p, config.data, config.len, config_digest, err);
	}
	if (r == 0)
		r = push_manifest(&p, m, config_digest, config.len, ret_digest, err);
	img_registry_close(p.registry);
	close_fdp(&p.dir_fd);
	free(p.files);
	(void)pthread_mutex_destroy(&p.lock);
	return r;
}
