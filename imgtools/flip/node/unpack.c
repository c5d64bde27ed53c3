/* Ordinary layers: no table of contents, so all of it is pulled. Four things go on at once, each on a thread of its
 * own, bounded pipes between them:
 *
 *   fetch (parallel ranges) -> this thread: the blob in order, its digest -> decoding -> the tar taken apart; large
 * files are hashed and written right there, small ones by the work threads
 *
 * Contents that the store has are not written again. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "node/node_internal.h"
#include "stream/decode.h"
#include "stream/pipe.h"
#include "tree/tar.h"

enum {
	PIPE_BYTES = 2 << 20,
	SMALL = 1 << 20,       /* contents up to here are hashed and written by the work threads */
	BLOCK = 1 << 20,       /* of larger ones */
	MAX_WAITING = 6 << 20, /* bytes of small contents in memory */
	MAX_ENTRIES = 4 << 20,
};

struct content {
	uint8_t digest[FLIP_DIGEST_SIZE];
	uint64_t size;
};

struct unpack {
	struct flip_node *node;
	struct flip_blob *blob;
	struct flip_pipe *packed, *plain;
	struct img_tree *tree;
	struct content *contents; /* in order of the archive; node->user is the number + 1 */
	size_t n_contents, cap_contents;
	uint32_t n_groups;
	uint8_t *block;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t n_waiting; /* bytes; protected by lock, as the next two */
	int result;
	struct err err;
};

struct small_job {
	struct unpack *u;
	size_t content;
	size_t size;
	uint8_t data[];
};

static void fail(struct unpack *u, int r, const struct err *err)
{
	pthread_mutex_lock(&u->lock);
	if (u->result == 0) {
		u->result = r;
		u->err = *err;
	}
	pthread_mutex_unlock(&u->lock);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

static ssize_t from_packed(void *arg, void *buf, size_t size, struct err *err)
{
	return flip_pipe_read(((struct unpack *)arg)->packed, buf, size, err);
}

static void *decode(void *arg)
{
	struct unpack *u = arg;
	struct flip_decoder *d = NULL;
	struct err err = { 0 };
	uint8_t *buf = malloc(BLOCK);
	ssize_t n = buf ? flip_decoder_new(from_packed, u, &d, &err) : err_set(&err, -ENOMEM, "out of memory");

	while (n >= 0 && (n = flip_decoder_read(d, buf, BLOCK, &err)) > 0) {
		if (flip_pipe_write(u->plain, buf, (size_t)n) < 0)
			break;
	}
	flip_pipe_end(u->plain, n < 0 ? (int)n : 0, &err);
	if (n != 0)
		flip_pipe_break(u->packed); /* damaged, or nobody reads any more */
	flip_decoder_free(d);
	free(buf);
	return NULL;
}

static ssize_t from_plain(void *buf, size_t size, void *arg, struct err *err)
{
	return flip_pipe_read(((struct unpack *)arg)->plain, buf, size, err);
}

/* ---- Contents --------------------------------------------------------------------------------------------------- */

static void put_small(void *arg)
{
	struct small_job *j = arg;
	struct unpack *u = j->u;
	struct err err = { 0 };
	uint8_t digest[FLIP_DIGEST_SIZE];
	bool was_there;
	int r = base_sha256_bytes(j->data, j->size, digest);

	if (r == 0)
		r = flip_store_put(u->node->store, digest, j->data, j->size, &was_there, &err);
	if (r < 0)
		fail(u, r, &err);
	pthread_mutex_lock(&u->lock);
	if (r == 0) /* the array may move while it grows: so under the lock */
		memcpy(u->contents[j->content].digest, digest, sizeof(digest));
	u->n_waiting -= j->size;
	pthread_cond_signal(&u->changed);
	pthread_mutex_unlock(&u->lock);
	free(j);
}

static int read_all(struct img_tar_in *tar, const char *name, uint8_t *data, size_t size, struct err *err)
{
	for (size_t got = 0; got < size;) {
		ssize_t n = img_tar_read(tar, data + got, size - got, err);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return err_set(err, -EBADMSG, "%s: ends too early", name);
		got += (size_t)n;
	}
	return 0;
}

static int take_small(struct unpack *u, struct img_tar_in *tar, const struct img_tar_entry *te, size_t content,
                      struct err *err)
{
	size_t size = (size_t)te->node.size;
	struct small_job *j = malloc(sizeof(*j) + size);
	int r;

	if (!j)
		return err_set(err, -ENOMEM, "out of memory");
	*j = (struct small_job){ .u = u, .content = content, .size = size };
	r = read_all(tar, te->name, j->data, size, err);
	if (r < 0) {
		free(j);
		return r;
	}
	pthread_mutex_lock(&u->lock);
	while (u->n_waiting > MAX_WAITING)
		pthread_cond_wait(&u->changed, &u->lock);
	u->n_waiting += size;
	r = u->result;
	pthread_mutex_unlock(&u->lock);
	if (flip_work_add(u->node->work, put_small, j, false) < 0)
		put_small(j);
	return r;
}

/* Hashed and written block by block, here: decoding goes on meanwhile. */
static int take_large(struct unpack *u, struct img_tar_in *tar, const struct img_tar_entry *te, size_t content,
                      struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	struct base_sha256 *sum = NULL;
	char path[NODE_PATH + 64];
	uint8_t digest[FLIP_DIGEST_SIZE];
	bool was_there;
	int r = flip_store_tmp(u->node->store, path, sizeof(path), err);

	if (r < 0)
		return r;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	r = base_sha256_new(&sum);
	for (uint64_t at = 0; r == 0 && at < te->node.size;) {
		size_t n = te->node.size - at < BLOCK ? (size_t)(te->node.size - at) : BLOCK;

		r = read_all(tar, te->name, u->block, n, err);
		if (r == 0) {
			base_sha256_update(sum, u->block, n);
			if (pwrite(fd, u->block, n, (off_t)at) != (ssize_t)n)
				r = err_set(err, errno ? -errno : -EIO, "%s: %s", path, strerror(errno));
		}
		at += n;
	}
	if (r == 0) {
		base_sha256_final(sum, digest);
		r = flip_store_put_file(u->node->store, digest, path, &was_there, err);
	}
	base_sha256_free(sum);
	if (r < 0) {
		(void)unlink(path);
		return r;
	}
	pthread_mutex_lock(&u->lock);
	memcpy(u->contents[content].digest, digest, sizeof(digest));
	pthread_mutex_unlock(&u->lock);
	return 0;
}

static int new_content(struct unpack *u, uint64_t size, size_t *ret_content, struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&u->lock);
	if (u->n_contents == u->cap_contents) {
		size_t cap = u->cap_contents ? u->cap_contents * 2 : 1024;
		struct content *p = reallocarray(u->contents, cap, sizeof(*p));

		if (p) {
			u->contents = p;
			u->cap_contents = cap;
		} else {
			r = err_set(err, -ENOMEM, "out of memory");
		}
	}
	if (r == 0) {
		u->contents[u->n_contents] = (struct content){ .size = size };
		*ret_content = u->n_contents++;
	}
	pthread_mutex_unlock(&u->lock);
	return r;
}

/* ---- Entries ---------------------------------------------------------------------------------------------------- */

static int add_hardlink(struct unpack *u, const struct img_tar_entry *te, const char *path, struct err *err)
{
	char target[IMG_PATH_MAX];
	struct img_node *first, link;

	if (img_path_normalize(te->linkname, target) < 0)
		return err_set(err, -EBADMSG, "%s: a hard link to %s, which leads out of the root", te->name,
		               te->linkname);
	first = img_tree_find(u->tree, target);
	if (!first || first->type == IMG_DIR)
		return err_set(err, -EBADMSG, "%s: a hard link to %s, which is no file of this layer", te->name,
		               te->linkname);
	if (strcmp(target, path) == 0)
		return 0;
	if (!first->link_group)
		first->link_group = ++u->n_groups;
	link = *first;
	link.path = path;
	return img_tree_add(u->tree, &link, NULL, err);
}

static int add_entry(struct unpack *u, struct img_tar_in *tar, const struct img_tar_entry *te, struct err *err)
{
	char path[IMG_PATH_MAX];
	struct img_node n = te->node;
	size_t content = 0;
	int r;

	if (img_path_normalize(te->name, path) < 0)
		return err_set(err, -EBADMSG, "%s: leads out of the root, or is too long", te->name);
	if (te->is_hardlink)
		return add_hardlink(u, te, path, err);
	n.path = path;
	n.target = n.type == IMG_SYMLINK ? (char *)te->linkname : NULL;
	n.size = n.type == IMG_SYMLINK ? strlen(te->linkname) : n.type == IMG_FILE ? n.size : 0;
	n.user = NULL;
	if (n.type == IMG_FILE && n.size) {
		r = new_content(u, n.size, &content, err);
		if (r < 0)
			return r;
		r = n.size <= SMALL ? take_small(u, tar, te, content, err) : take_large(u, tar, te, content, err);
		if (r < 0)
			return r;
		n.user = (void *)(content + 1);
	}
	return img_tree_add(u->tree, &n, NULL, err);
}

static int take_apart(struct unpack *u, struct err *err)
{
	const struct img_tar_entry *te;
	struct img_tar_in *tar = NULL;
	int r = img_tar_in_new(from_plain, u, &tar);

	if (r < 0)
		return err_set(err, r, "out of memory");
	for (size_t n = 0; (r = img_tar_next(tar, &te, err)) > 0; n++) {
		r = n < MAX_ENTRIES ? add_entry(u, tar, te, err)
		                    : err_set(err, -EFBIG, "more than %d entries", MAX_ENTRIES);
		if (r < 0)
			break;
	}
	img_tar_in_free(tar);
	if (r == 0) { /* what is behind the end of the archive belongs to the blob too */
		ssize_t k;

		while ((k = flip_pipe_read(u->plain, u->block, BLOCK, err)) > 0)
			;
		r = (int)k;
	}
	return r;
}

static void *take_apart_thread(void *arg)
{
	struct unpack *u = arg;
	struct err err = { 0 };
	int r = take_apart(u, &err);

	if (r < 0) {
		fail(u, r, &err);
		flip_pipe_break(u->plain);
	}
	return NULL;
}

static int to_packed(void *arg, const void *data, size_t size, struct err *err)
{
	struct unpack *u = arg;
	int r = flip_pipe_write(u->packed, data, size);

	return r < 0 ? err_set(err, r, "unpacking has ended") : 0;
}

/* ---- What it becomes -------------------------------------------------------------------------------------------- */

static int by_digest(const void *a, const void *b)
{
	return memcmp(a, b, FLIP_DIGEST_SIZE);
}

/* Contents once each, sorted; the nodes point to theirs. */
static int make_toc(struct unpack *u, struct flip_toc *toc, struct err *err)
{
	struct content *sorted = malloc((u->n_contents + 1) * sizeof(*sorted));

	toc->contents = calloc(u->n_contents + 1, sizeof(*toc->contents));
	if (!sorted || !toc->contents) {
		free(sorted);
		return err_set(err, -ENOMEM, "out of memory");
	}
	memcpy(sorted, u->contents, u->n_contents * sizeof(*sorted));
	qsort(sorted, u->n_contents, sizeof(*sorted), by_digest);
	for (size_t i = 0; i < u->n_contents; i++) {
		struct flip_toc_content *c = &toc->contents[toc->n_contents];

		if (i && by_digest(&sorted[i], &sorted[i - 1]) == 0)
			continue;
		memcpy(c->digest, sorted[i].digest, sizeof(c->digest));
		c->size = sorted[i].size;
		toc->n_contents++;
	}
	free(sorted);
	for (size_t i = 0; i < img_tree_count(u->tree); i++) {
		struct img_node *n = img_tree_at(u->tree, i);

		if (n->user)
			n->user = bsearch(u->contents[(size_t)n->user - 1].digest, toc->contents, toc->n_contents,
			                  sizeof(*toc->contents), by_digest);
	}
	return 0;
}

static const uint8_t *digest_of(const struct img_node *n, void *arg)
{
	const struct flip_toc_content *c = n->user;

	return c ? c->digest : NULL;
}

int node_write_layer(struct flip_toc *toc, const char *blob_digest, uint64_t blob_size, const char *dir,
                     struct err *err)
{
	char path[NODE_PATH + 32];
	int r;

	(void)snprintf(path, sizeof(path), "%s/index", dir);
	r = flip_index_write(toc, blob_digest, blob_size, path, err);
	if (r == 0)
		r = flip_tree_to_overlay(toc->tree, err);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/image.erofs", dir);
	return flip_erofs_write(toc->tree, digest_of, NULL, path, err);
}

static int pull_through(struct unpack *u, struct err *err)
{
	pthread_t decoder, taker;
	struct err fetch_err = { 0 };
	int r = pthread_create(&decoder, NULL, decode, u);

	if (r)
		return err_set(err, -r, "a thread: %s", strerror(r));
	r = pthread_create(&taker, NULL, take_apart_thread, u);
	if (r) {
		flip_pipe_break(u->plain);
		flip_pipe_end(u->packed, -ECANCELED, NULL);
		(void)pthread_join(decoder, NULL);
		return err_set(err, -r, "a thread: %s", strerror(r));
	}
	r = flip_blob_stream(u->blob, FLIP_FOREGROUND, to_packed, u, &fetch_err);
	flip_pipe_end(u->packed, r, &fetch_err);
	(void)pthread_join(decoder, NULL);
	(void)pthread_join(taker, NULL);
	pthread_mutex_lock(&u->lock);
	while (u->n_waiting)
		pthread_cond_wait(&u->changed, &u->lock);
	pthread_mutex_unlock(&u->lock);
	/* What broke the pipe says more than that it was broken. */
	if (u->result < 0 && (r == 0 || r == -EPIPE)) {
		*(err ? err : &fetch_err) = u->err;
		return u->result;
	}
	if (r < 0 && err)
		*err = fetch_err;
	return r;
}

int node_unpack(struct flip_node *node, const struct node_image *image, const struct img_descriptor *desc,
                struct flip_blob *blob, const char *dir, struct err *err)
{
	struct unpack u = { .node = node, .blob = blob };
	struct flip_toc toc = { .format = FLIP_PLAIN };
	int r;

	(void)pthread_mutex_init(&u.lock, NULL);
	(void)pthread_cond_init(&u.changed, NULL);
	u.packed = flip_pipe_new(PIPE_BYTES);
	u.plain = flip_pipe_new(PIPE_BYTES);
	u.tree = img_tree_new();
	u.block = malloc(BLOCK);
	r = u.packed && u.plain && u.tree && u.block ? pull_through(&u, err) : err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = make_toc(&u, &toc, err);
	toc.tree = u.tree;
	if (r == 0)
		r = node_write_layer(&toc, desc->digest, desc->size, dir, err);
	atomic_store(&node->is_dirty, true);
	free(toc.contents);
	free(u.contents);
	free(u.block);
	img_tree_free(u.tree);
	flip_pipe_free(u.packed);
	flip_pipe_free(u.plain);
	(void)pthread_cond_destroy(&u.changed);
	(void)pthread_mutex_destroy(&u.lock);
	return r < 0 ? err_prefix(err, r, "%s: layer %s: ", image->ref, desc->digest) : 0;
}
