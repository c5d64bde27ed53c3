/* What was read of a blob to get its table of contents, kept beside the index it became (layers/HEX/tail), so that
 * other nodes get it from us: a table cannot be made from an index again, and only it can be verified. A list of
 * ranges, each its offset and size (8 bytes each, little-endian) and its bytes; docs/formats/peer-protocol.md. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "node/tail.h"

enum { MAX_RANGES = 16, HEAD = 16 };

struct range {
	uint64_t offset, size;
	uint8_t *data;
};

struct node_tail {
	struct flip_blob *blob; /* borrowed; NULL: nothing more can be read */
	uint64_t blob_size;
	struct range ranges[MAX_RANGES];
	size_t n;
};

struct node_tail *node_tail_new(struct flip_blob *blob, uint64_t blob_size)
{
	struct node_tail *t = calloc(1, sizeof(*t));

	if (t) {
		t->blob = blob;
		t->blob_size = blob_size;
	}
	return t;
}

void node_tail_free(struct node_tail *t)
{
	for (size_t i = 0; t && i < t->n; i++)
		free(t->ranges[i].data);
	free(t);
}

static int add(struct node_tail *t, uint64_t offset, uint64_t size, const void *data)
{
	struct range *r = &t->ranges[t->n];

	if (t->n == MAX_RANGES)
		return -ENOSPC;
	r->data = malloc(size);
	if (!r->data)
		return -ENOMEM;
	memcpy(r->data, data, size);
	r->offset = offset;
	r->size = size;
	t->n++;
	return 0;
}

int node_tail_read_at(void *tail, uint64_t offset, size_t size, void *data, struct err *err)
{
	struct node_tail *t = tail;
	int r;

	for (size_t i = 0; i < t->n; i++) {
		const struct range *x = &t->ranges[i];

		if (offset >= x->offset && size <= x->size && offset - x->offset <= x->size - size) {
			memcpy(data, x->data + (offset - x->offset), size);
			return 0;
		}
	}
	if (!t->blob)
		return err_set(err, -EBADMSG, "the table of contents lies elsewhere");
	r = flip_blob_read_wait(t->blob, offset, size, data, FLIP_FOREGROUND, err);
	if (r == 0 && size)
		(void)add(t, offset, size, data); /* what does not fit is not given to others, that is all */
	return r;
}

static uint64_t number(const uint8_t *p)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 8; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

int node_tail_parse(struct node_tail *t, const void *data, size_t size, struct err *err)
{
	const uint8_t *p = data;

	if (size == 0)
		return err_set(err, -EBADMSG, "an empty table of contents");
	while (size) {
		uint64_t offset, n;
		int r;

		if (size < HEAD)
			return err_set(err, -EBADMSG, "a table of contents is cut");
		offset = number(p);
		n = number(p + 8);
		if (n == 0 || n > size - HEAD || offset > t->blob_size || n > t->blob_size - offset)
			return err_set(err, -EBADMSG, "a table of contents lies outside of its blob");
		r = add(t, offset, n, p + HEAD);
		if (r < 0)
			return err_set(err, r == -ENOSPC ? -EBADMSG : r, "too many ranges of a table of contents");
		p += HEAD + n;
		size -= HEAD + (size_t)n;
	}
	return 0;
}

static int write_all(int fd, const void *data, size_t size)
{
	const uint8_t *p = data;

	while (size) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

int node_tail_write(const struct node_tail *t, const char *dir, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	char path[4096];
	int r = 0;

	(void)snprintf(path, sizeof(path), "%s/tail", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	for (size_t i = 0; r == 0 && i < t->n; i++) {
		uint8_t head[HEAD];

		for (unsigned k = 0; k < 8; k++) {
			head[k] = (uint8_t)(t->ranges[i].offset >> 8 * k);
			head[8 + k] = (uint8_t)(t->ranges[i].size >> 8 * k);
		}
		r = write_all(fd, head, sizeof(head));
		if (r == 0)
			r = write_all(fd, t->ranges[i].data, t->ranges[i].size);
	}
	return r < 0 ? err_set(err, r, "%s: %s", path, strerror(-r)) : 0;
}
