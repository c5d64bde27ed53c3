/* Blobs of models: files that lie at addresses of their own, and several files that are read as one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fetch_internal.h"

int flip_blob_open_urls(struct flip_fetch *f, const char *const *urls, size_t n_urls, const char *digest, uint64_t size,
                        struct flip_blob **ret_blob, struct err *err)
{
	struct flip_blob *b;
	int r = n_urls ? flip_blob_new(f, digest, size, urls[0], &b, err)
	               : err_set(err, -EINVAL, "%.19s: no address to fetch it from", digest);

	if (r < 0)
		return r;
	r = flip_repo_get_urls(f, urls, n_urls, &b->repo, err);
	if (r < 0) {
		flip_blob_unref(b);
		return r;
	}
	*ret_blob = b;
	return 0;
}

int flip_blob_join(struct flip_fetch *f, struct flip_blob **parts, size_t n, struct flip_blob **ret_blob,
                   struct err *err)
{
	struct flip_blob *b = NULL;
	uint64_t size = 0;
	int r = n ? 0 : err_set(err, -EINVAL, "no blobs to join");

	for (size_t i = 0; r == 0 && i < n; i++) {
		if (parts[i]->n_parts || parts[i]->size > INT64_MAX - size)
			r = err_set(err, -EINVAL, "%.19s: cannot be joined", parts[i]->digest);
		size += parts[i]->size;
	}
	if (r == 0)
		r = flip_blob_new(f, parts[0]->digest, size, "a model", &b, err);
	if (r < 0)
		return r;
	b->parts = calloc(n, sizeof(struct flip_blob *));
	b->starts = calloc(n, sizeof(*b->starts));
	if (!b->parts || !b->starts) {
		flip_blob_unref(b);
		return err_set(err, -ENOMEM, "out of memory");
	}
	memcpy(b->parts, parts, n * sizeof(struct flip_blob *));
	for (size_t i = 1; i < n; i++)
		b->starts[i] = b->starts[i - 1] + parts[i - 1]->size;
	b->n_parts = n;
	*ret_blob = b;
	return 0;
}

struct flip_blob *flip_blob_part(const struct flip_blob *b, uint64_t *offset, uint64_t size)
{
	size_t low = 0, high = b->n_parts;

	while (high - low > 1) { /* the last that begins at or before offset */
		size_t mid = low + (high - low) / 2;

		if (b->starts[mid] <= *offset)
			low = mid;
		else
			high = mid;
	}
	*offset -= b->starts[low];
	return *offset < b->parts[low]->size && size <= b->parts[low]->size - *offset ? b->parts[low] : NULL;
}

/* ---- Object stores ---- */

/* With s3_lock. The first who asks reads the files; what is wrong with them is told again. */
static int get_s3(struct flip_fetch *f, struct err *err)
{
	const struct flip_s3_opts o = { .endpoint = f->s3_endpoint,
		                        .region = f->s3_region,
		                        .credentials_file = f->s3_credentials_file };

	return f->s3 ? 0 : flip_s3_new(&o, &f->s3, err);
}

int flip_fetch_s3_address(struct flip_fetch *f, const char *url, char **ret_address, struct err *err)
{
	struct base_buf address = BASE_BUF_INIT(16 << 10);
	int r;

	(void)pthread_mutex_lock(&f->s3_lock);
	r = get_s3(f, err);
	if (r == 0)
		r = flip_s3_address(f->s3, url, &address, err);
	(void)pthread_mutex_unlock(&f->s3_lock);
	if (r == 0 && !(*ret_address = base_buf_take(&address)))
		r = err_set(err, -ENOMEM, "out of memory");
	base_buf_done(&address);
	return r;
}

int flip_fetch_s3_headers(struct flip_fetch *f, const char *address, const char *range,
                          char *ret_lines[FLIP_S3_MAX_HEADERS + 1], struct err *err)
{
	int r;

	(void)pthread_mutex_lock(&f->s3_lock);
	r = get_s3(f, err);
	if (r == 0)
		r = flip_s3_headers(f->s3, address, range, time(NULL), ret_lines, err);
	(void)pthread_mutex_unlock(&f->s3_lock);
	return r;
}

int flip_fetch_s3(struct flip_fetch *f, const char *url, char **ret_address, char *ret_lines[FLIP_S3_MAX_HEADERS + 1],
                  struct err *err)
{
	int r = flip_fetch_s3_address(f, url, ret_address, err);

	if (r < 0)
		return r;
	r = flip_fetch_s3_headers(f, *ret_address, NULL, ret_lines, err);
	if (r < 0) {
		free(*ret_address);
		*ret_address = NULL;
	}
	return r;
}
