/* Images in OCI layouts: a folder, or the same in a tar. Blobs are named by their digests, so nothing from outside is
 * ever part of a path but 64 hexadecimal digits. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "oci_internal.h"

struct layout {
	char *path;
	char *tag;                   /* may be NULL */
	struct img_archive *archive; /* NULL: a folder */
};

void img_blob_done(struct img_blob *b)
{
	free(b->path);
	*b = (struct img_blob){ 0 };
}

int img_blob_read(const struct img_blob *b, char **ret_data, size_t *ret_size, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	char *data;
	size_t got = 0;

	if (b->size > IMG_MAX_JSON)
		return err_set(err, -EFBIG, "%s: %llu bytes are too many for a document", b->path ? b->path : "blob",
		               (unsigned long long)b->size);
	fd = open(b->path, O_RDONLY | O_CLOEXEC);
	data = fd < 0 ? NULL : malloc((size_t)b->size + 1);
	if (!data)
		return err_set(err, fd < 0 ? -errno : -ENOMEM, "%s: %s", b->path,
		               fd < 0 ? strerror(errno) : "out of memory");
	while (got < b->size) {
		ssize_t n = pread(fd, data + got, (size_t)b->size - got, (off_t)(b->offset + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int r = n < 0 ? -errno : -EBADMSG;

			free(data);
			return err_set(err, r, "%s: %s", b->path, n < 0 ? strerror(errno) : "ends too early");
		}
		got += (size_t)n;
	}
	data[got] = '\0';
	*ret_data = data;
	*ret_size = got;
	return 0;
}

int img_descriptor_check(const struct img_descriptor *d, const void *data, size_t size, struct err *err)
{
	char digest[IMG_DIGEST_SIZE];

	if (size != d->size)
		return err_set(err, -EBADMSG, "%s: %zu bytes, it should be %llu", d->digest, size,
		               (unsigned long long)d->size);
	img_digest_of(data, size, digest);
	if (strcmp(digest, d->digest) != 0)
		return err_set(err, -EBADMSG, "%s: digest mismatch, the content is %s", d->digest, digest);
	return 0;
}

int img_index_by_tag(const struct img_index *index, const char *tag, const char *where,
                     const struct img_descriptor **ret_desc, struct err *err)
{
	char there[256] = "";

	if (!tag && index->n == 1) {
		*ret_desc = &index->list[0];
		return 0;
	}
	for (size_t i = index->n; i-- > 0;) {
		const struct img_descriptor *d = &index->list[i];
		size_t used = strlen(there);

		if (tag && ((d->ref_name && strcmp(d->ref_name, tag) == 0) || strcmp(d->digest, tag) == 0)) {
			*ret_desc = d;
			return 0;
		}
		(void)snprintf(there + used, sizeof(there) - used, "%s%.60s", used ? ", " : "",
		               d->ref_name ? d->ref_name : d->digest);
	}
	return err_set(err, -ENOENT, "%s: %s%s; there are: %s", where, tag ? "no image is called " : "no tag given",
	               tag ? tag : "", there[0] ? there : "none");
}

/* A file of the layout by its name in it. */
static int find(const struct layout *l, const char *name, struct img_blob *ret, struct err *err)
{
	struct stat st;
	char *path = NULL;

	if (l->archive)
		return img_archive_find(l->archive, name, ret, err);
	if (asprintf(&path, "%s/%s", l->path, name) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
		int r = err_set(err, errno == ENOENT || errno == ENOTDIR ? -ENOENT : -EINVAL, "%s: %s", path,
		                strerror(errno));

		free(path);
		return r;
	}
	*ret = (struct img_blob){ .path = path, .size = (uint64_t)st.st_size };
	return 0;
}

static int layout_blob(void *state, const struct img_descriptor *d, struct img_blob *ret_blob, struct err *err)
{
	struct img_blob b = { 0 };
	char name[128];
	int r;

	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", d->digest + 7);
	r = find(state, name, &b, err);
	if (r < 0)
		return r;
	if (b.size != d->size) {
		r = err_set(err, -EBADMSG, "%s: %llu bytes, it should be %llu", d->digest, (unsigned long long)b.size,
		            (unsigned long long)d->size);
		img_blob_done(&b);
		return r;
	}
	*ret_blob = b;
	return 0;
}

static int layout_document(void *state, const struct img_descriptor *d, char **ret_data, size_t *ret_size,
                           struct err *err)
{
	struct img_blob b = { 0 };
	CLEANUP(freep) char *data = NULL;
	size_t size = 0;
	int r = layout_blob(state, d, &b, err);

	if (r < 0)
		return r;
	r = img_blob_read(&b, &data, &size, err);
	img_blob_done(&b);
	if (r == 0)
		r = img_descriptor_check(d, data, size, err);
	if (r < 0)
		return r;
	*ret_data = data;
	*ret_size = size;
	data = NULL;
	return 0;
}

static int layout_root(void *state, char **ret_data, size_t *ret_size, char ret_digest[IMG_DIGEST_SIZE],
                       struct err *err)
{
	struct layout *l = state;
	CLEANUP(freep) char *text = NULL;
	const struct img_descriptor *d = NULL;
	struct img_index index = { 0 };
	struct img_blob b = { 0 };
	size_t size = 0;
	char where[512];
	int r = find(l, "index.json", &b, err);

	if (r == -ENOENT)
		return err_set(err, r, "%s: not an OCI layout (it has no index.json)", l->path);
	if (r < 0)
		return r;
	r = img_blob_read(&b, &text, &size, err);
	img_blob_done(&b);
	(void)snprintf(where, sizeof(where), "%.400s: index.json", l->path);
	if (r == 0)
		r = img_index_parse(text, size, where, &index, err);
	if (r == 0)
		r = img_index_by_tag(&index, l->tag, l->path, &d, err);
	if (r == 0)
		r = layout_document(l, d, ret_data, ret_size, err);
	if (r == 0)
		memcpy(ret_digest, d->digest, IMG_DIGEST_SIZE);
	img_index_done(&index);
	return r;
}

static void layout_close(void *state)
{
	struct layout *l = state;

	img_archive_close(l->archive);
	free(l->path);
	free(l->tag);
	free(l);
}

static const struct img_source_ops layout_ops = { layout_root, layout_document, layout_blob, layout_close };

int img_source_layout_open(const struct img_name *name, struct img_blob_source *ret, struct err *err)
{
	struct layout *l = calloc(1, sizeof(*l));

	if (l) {
		l->path = strdup(name->path);
		l->tag = name->tag ? strdup(name->tag) : NULL;
	}
	if (!l || !l->path || (name->tag && !l->tag)) {
		if (l)
			layout_close(l);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*ret = (struct img_blob_source){ &layout_ops, l };
	return 0;
}

int img_source_oci_archive_open(const struct img_name *name, const char *work_dir, struct img_blob_source *ret,
                                struct err *err)
{
	struct img_blob_source s;
	int r = img_source_layout_open(name, &s, err);

	if (r < 0)
		return r;
	r = img_archive_open(name->path, work_dir, &((struct layout *)s.state)->archive, err);
	if (r < 0) {
		layout_close(s.state);
		return r;
	}
	*ret = s;
	return 0;
}
