/* Payloads: compressed cpio archives, read as a stream into a tree.
 *
 * Two formats of an entry, numbers as 8 hexadecimal digits, everything padded to multiples of 4:
 *
 *   "070701" (newc)      13 numbers: inode, mode, uid, gid, links, mtime, size, 4 device numbers, name's length, sum;
 *                        then the name, then the bytes
 *   "07070X" (stripped)  the index of the file in the package's header, then the bytes; for packages with a file of
 *                        4 GiB and more, whose size newc cannot say
 *
 * The archive is only the carrier: names, modes, targets and all else are taken from the header, an entry that the
 * header does not know is an error, and so is one with another size or digest. Of hard links the last one carries
 * the bytes. Packages are unpacked side by side; the tree is filled afterwards, in order. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/threadpool.h"
#include "rpm_internal.h"

enum { NEWC_HEAD = 110, STRIPPED_HEAD = 14, MAX_NAME = IMG_PATH_MAX + 2 };

struct content {
	void *data;
	char *source;
	bool is_wanted, is_there;
};

enum stage { AT_HEAD, AT_NAME, AT_DATA, AT_PADDING, AT_END };

struct unpack {
	const struct img_rpm *p;
	const struct img_rpm_unpack_opts *o;
	uint32_t *by_path;        /* indexes of files, sorted by path */
	uint32_t *last_of_group;  /* by the first file of a link group */
	struct content *contents; /* by file; of link groups the first one's */
	uint64_t memory_left;
	size_t n_missing; /* wanted contents that have not come yet */

	enum stage stage;
	char head[NEWC_HEAD + MAX_NAME + 1];
	size_t have, need;
	uint64_t position; /* in the archive, for padding */
	uint64_t left;     /* bytes of the current file still to come */
	uint32_t file;
	struct content *content; /* of it, when wanted */
	EVP_MD_CTX *md;
	bool has_md;
	int spool_fd;
	uint64_t done;
};

static uint32_t first_of_group(const struct img_rpm *p, uint32_t i)
{
	return p->files[i].link_group ? p->files[i].link_group - 1 : i;
}

/* ---- Preparation ------------------------------------------------------------------------------------------ */

static int compare_paths(const void *a, const void *b, void *arg)
{
	const struct img_rpm_file *files = arg;

	return strcmp(files[*(const uint32_t *)a].path, files[*(const uint32_t *)b].path);
}

static int prepare(struct unpack *u)
{
	const struct img_rpm *p = u->p;
	const size_t n = p->n_files ? p->n_files : 1;

	u->by_path = calloc(n, sizeof(*u->by_path));
	u->last_of_group = calloc(n, sizeof(*u->last_of_group));
	u->contents = calloc(n, sizeof(*u->contents));
	u->md = EVP_MD_CTX_new();
	if (!u->by_path || !u->last_of_group || !u->contents || !u->md)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n_files; i++) {
		struct content *c = &u->contents[first_of_group(p, i)];

		u->by_path[i] = i;
		u->last_of_group[first_of_group(p, i)] = i;
		if (p->files[i].type != IMG_FILE || p->files[i].flags & IMG_RPMFILE_GHOST || p->files[i].size == 0 ||
		    c->is_wanted || (u->o->wants && !u->o->wants(p, i, u->o->arg)))
			continue;
		c->is_wanted = true;
		u->n_missing++;
	}
	qsort_r(u->by_path, p->n_files, sizeof(*u->by_path), compare_paths, p->files);
	u->memory_left = u->o->spool ? u->o->memory_bytes : UINT64_MAX;
	return 0;
}

static void unpack_done(struct unpack *u)
{
	if (u->spool_fd >= 0)
		(void)close(u->spool_fd);
	for (size_t i = 0; u->contents && i < u->p->n_files; i++) {
		free(u->contents[i].data);
		free(u->contents[i].source);
	}
	free(u->contents);
	free(u->by_path);
	free(u->last_of_group);
	EVP_MD_CTX_free(u->md);
}

static int find_path(const struct unpack *u, const char *name)
{
	size_t lo = 0, hi = u->p->n_files;
	char path[MAX_NAME + 2];

	while (name[0] == '.' && name[1] == '/')
		name += 2;
	(void)snprintf(path, sizeof(path), "/%s", name + strspn(name, "/"));
	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;
		const int r = strcmp(u->p->files[u->by_path[mid]].path, path);

		if (r == 0)
			return (int)u->by_path[mid];
		if (r < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return -1;
}

/* ---- One file --------------------------------------------------------------------------------------------- */

static const EVP_MD *digest_of(int algo)
{
	switch (algo) {
	case 1:
		return EVP_md5();
	case 2:
		return EVP_sha1();
	case 8:
		return EVP_sha256();
	case 9:
		return EVP_sha384();
	case 10:
		return EVP_sha512();
	case 11:
		return EVP_sha224();
	default:
		return NULL;
	}
}

static int begin_content(struct unpack *u, struct err *err)
{
	const struct img_rpm_file *f = &u->p->files[u->file];
	struct content *c = &u->contents[first_of_group(u->p, u->file)];
	const EVP_MD *md = *f->digest ? digest_of(u->p->digest_algo) : NULL;

	u->content = NULL;
	if (!c->is_wanted || c->is_there)
		return 0;
	u->content = c;
	u->has_md = md && EVP_DigestInit_ex(u->md, md, NULL) == 1;
	/* Hard links share one file on disk; a copy for each would be a surprise. */
	if (u->o->spool && (f->size > u->memory_left || f->link_group)) {
		if (asprintf(&c->source, "%s/%d-%u", u->o->spool, u->p->index, u->file) < 0) {
			c->source = NULL;
			return -ENOMEM;
		}
		u->spool_fd = open(c->source, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		return u->spool_fd < 0 ? err_set(err, -errno, "%s: %s", c->source, strerror(errno)) : 0;
	}
	if (f->size >= SIZE_MAX / 2)
		return -ENOMEM;
	c->data = malloc((size_t)f->size);
	if (!c->data)
		return err_set(err, -ENOMEM, "no memory for a file of %llu bytes", (unsigned long long)f->size);
	u->memory_left -= f->size;
	return 0;
}

static int add_content(struct unpack *u, const void *data, size_t size, struct err *err)
{
	const uint64_t at = u->p->files[u->file].size - u->left;

	if (u->has_md)
		(void)EVP_DigestUpdate(u->md, data, size);
	if (u->spool_fd < 0) {
		memcpy((char *)u->content->data + at, data, size);
		return 0;
	}
	while (size) {
		const ssize_t n = write(u->spool_fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "%s: %s", u->content->source, strerror(errno));
		data = (const char *)data + n;
		size -= (size_t)n;
	}
	return 0;
}

static int end_content(struct unpack *u, struct err *err)
{
	const struct img_rpm_file *f = &u->p->files[u->file];
	uint8_t digest[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
	unsigned n = 0;

	if (u->spool_fd >= 0) {
		const int fd = u->spool_fd;

		u->spool_fd = -1;
		if (close(fd) < 0)
			return err_set(err, -errno, "%s: %s", u->content->source, strerror(errno));
	}
	if (u->has_md) {
		(void)EVP_DigestFinal_ex(u->md, digest, &n);
		for (unsigned i = 0; i < n; i++)
			(void)snprintf(hex + (size_t)i * 2, 3, "%02x", digest[i]);
		if (strcasecmp(hex, f->digest) != 0)
			return err_set(err, -EBADMSG, "%s: the bytes are not those that its digest was made of",
			               f->path);
	}
	u->content->is_there = true;
	u->content = NULL;
	u->n_missing--;
	return 0;
}

/* ---- The stream ------------------------------------------------------------------------------------------- */

static int hex8(const char *s, uint32_t *ret)
{
	uint32_t v = 0;

	for (int i = 0; i < 8; i++) {
		const char c = s[i];
		const int d = c >= '0' && c <= '9'                 ? c - '0'
		              : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
		                                                   : -1;

		if (d < 0)
			return -EBADMSG;
		v = v << 4 | (uint32_t)d;
	}
	*ret = v;
	return 0;
}

static void expect(struct unpack *u, enum stage stage, size_t need)
{
	u->stage = stage;
	u->need = need;
}

static void expect_head(struct unpack *u)
{
	u->have = 0;
	expect(u, AT_HEAD, STRIPPED_HEAD);
}

/* The entry's bytes come next, after padding. */
static int expect_data(struct unpack *u, uint64_t size, struct err *err)
{
	const struct img_rpm_file *f = &u->p->files[u->file];

	u->left = size;
	expect(u, AT_DATA, (size_t)(-u->position & 3));
	u->content = NULL;
	if (f->type != IMG_FILE || !size)
		return 0;
	if (f->size != size)
		return err_set(err, -EBADMSG, "%s: %llu bytes in the payload, %llu in the header", f->path,
		               (unsigned long long)size, (unsigned long long)f->size);
	return begin_content(u, err);
}

static int on_stripped(struct unpack *u, struct err *err)
{
	const struct img_rpm *p = u->p;
	uint32_t i;
	bool has_bytes;

	if (hex8(u->head + 6, &i) < 0 || i >= p->n_files)
		return err_set(err, -EBADMSG, "payload: an entry that the header does not have");
	u->file = i;
	has_bytes = (p->files[i].type == IMG_FILE && u->last_of_group[first_of_group(p, i)] == i) ||
	            p->files[i].type == IMG_SYMLINK;
	return expect_data(u, has_bytes ? p->files[i].size : 0, err);
}

static int on_name(struct unpack *u, struct err *err)
{
	const char *name = u->head + NEWC_HEAD;
	uint32_t size;
	int i;

	if (u->head[u->have - 1] != 0 || hex8(u->head + 54, &size) < 0)
		return err_set(err, -EBADMSG, "payload: a broken entry");
	if (strcmp(name, "TRAILER!!!") == 0) {
		u->stage = AT_END;
		return 1;
	}
	i = find_path(u, name);
	if (i < 0)
		return err_set(err, -EBADMSG, "payload: \"%.200s\" is not in the header", name);
	u->file = (uint32_t)i;
	return expect_data(u, size, err);
}

static int on_head(struct unpack *u, struct err *err)
{
	uint32_t n;

	if (memcmp(u->head, "07070X", 6) == 0)
		return on_stripped(u, err);
	if (memcmp(u->head, "070701", 6) != 0 && memcmp(u->head, "070702", 6) != 0)
		return err_set(err, -EBADMSG, "payload: not a cpio archive of a kind that rpm writes");
	if (u->have < NEWC_HEAD) {
		u->need = NEWC_HEAD;
		return 0;
	}
	if (hex8(u->head + 94, &n) < 0 || n == 0 || n > MAX_NAME)
		return err_set(err, -EBADMSG, "payload: a name of no sensible length");
	expect(u, AT_NAME, NEWC_HEAD + n);
	return 0;
}

/* Takes what is needed for the stage at hand; returns how much was used, 0 when the archive is at its end. */
static ssize_t step(struct unpack *u, const char *data, size_t size, struct err *err)
{
	size_t n;
	int r;

	switch (u->stage) {
	case AT_HEAD:
	case AT_NAME:
		n = u->need - u->have < size ? u->need - u->have : size;
		memcpy(u->head + u->have, data, n);
		u->have += n;
		u->position += n;
		if (u->have < u->need)
			return (ssize_t)n;
		r = u->stage == AT_HEAD ? on_head(u, err) : on_name(u, err);
		return r < 0 ? r : r > 0 ? 0 : (ssize_t)n;
	case AT_DATA:
		if (u->need) { /* padding before the bytes */
			n = u->need < size ? u->need : size;
			u->need -= n;
			u->position += n;
			return (ssize_t)n;
		}
		n = u->left < size ? (size_t)u->left : size;
		r = u->content && n ? add_content(u, data, n, err) : 0;
		if (r < 0)
			return r;
		u->left -= n;
		u->position += n;
		u->done += n;
		return (ssize_t)n;
	case AT_PADDING:
		n = u->need < size ? u->need : size;
		u->need -= n;
		u->position += n;
		return (ssize_t)n;
	default:
		return 0;
	}
}

/* Stages that end without input: an empty file, no padding. Returns 1 when everything wanted is there. */
static int settle(struct unpack *u, struct err *err)
{
	int r;

	if (u->stage == AT_DATA && u->need == 0 && u->left == 0) {
		r = u->content ? end_content(u, err) : 0;
		if (r < 0)
			return r;
		if (u->n_missing == 0)
			return 1;
		expect(u, AT_PADDING, (size_t)(-u->position & 3));
	}
	if (u->stage == AT_PADDING && u->need == 0)
		expect_head(u);
	return 0;
}

static int on_bytes(const void *data, size_t size, void *arg, struct err *err)
{
	struct unpack *u = arg;
	const char *p = data;

	while (size) {
		ssize_t n = step(u, p, size, err);
		int r;

		if (n <= 0)
			return n < 0 ? (int)n : 1;
		p += n;
		size -= (size_t)n;
		r = settle(u, err);
		if (r)
			return r;
	}
	if (u->o->on_bytes && u->done) {
		u->o->on_bytes(u->done, u->o->arg);
		u->done = 0;
	}
	return 0;
}

static int unpack_package(struct unpack *u, struct err *err)
{
	const struct img_rpm_priv *priv = u->p->priv;
	int r;

	/* Before anything of it is believed: folders and links come from the header alone. */
	r = priv->keys ? img_rpm_keys_check(priv->keys, u->p, err) : 0;
	if (r == 0)
		r = prepare(u);
	if (r < 0 || u->n_missing == 0)
		return r;
	if (priv->checksum) {
		r = img_rpm_check_file(u->p->location, priv->checksum, err);
		if (r < 0)
			return r;
	}
	expect_head(u);
	r = img_rpm_decompress(u->p->location, u->p->payload_offset, on_bytes, u, err);
	if (r == 0 && u->n_missing)
		r = err_set(err, -EBADMSG, "payload: the file is cut short, %zu files are missing", u->n_missing);
	if (u->o->on_bytes && u->done)
		u->o->on_bytes(u->done, u->o->arg);
	return r;
}

/* ---- Into the tree ---------------------------------------------------------------------------------------- */

static int same_file(const struct img_node *have, const struct img_rpm_file *f)
{
	const struct img_rpm_file *g = have->user;

	if (have->type != f->type)
		return 0;
	if (f->type == IMG_SYMLINK)
		return strcmp(have->target, f->target) == 0;
	return f->type != IMG_FILE || (g && strcmp(g->digest, f->digest) == 0);
}

/* 1: that path is taken care of already. */
static int is_present(struct img_tree *t, const struct unpack *u, const char *path, const struct img_rpm_file *f,
                      struct err *err)
{
	const struct img_node *have = img_tree_find(t, path);

	if (!have || have->package < 0)
		return 0;
	/* A folder where another package has a link to one (/lib -> usr/lib) is that link. */
	if (u->o->first_wins || same_file(have, f) || (have->type == IMG_SYMLINK && f->type == IMG_DIR))
		return 1;
	return err_set(err, -EEXIST, "%s: %s: another package has a different file of this name", u->p->name, path);
}

static int add_file(struct img_tree *t, struct unpack *u, uint32_t i, uint32_t group_base, struct err *err)
{
	const struct img_rpm_file *f = &u->p->files[i];
	struct content *c = &u->contents[first_of_group(u->p, i)];
	struct img_xattr caps = { (char *)"security.capability", NULL, 20 };
	struct img_node n = { .path = f->path, .type = f->type, .mode = f->mode, .package = u->p->index, .layer = -1 };
	struct img_node *node;
	char path[IMG_PATH_MAX];
	uint8_t value[20];
	int r;

	if (u->o->aliases) {
		r = img_rpm_canonical(u->o->aliases, f->path, path);
		if (r < 0)
			return err_set(err, r, "%s: %s: %s", u->p->name, f->path, strerror(-r));
		n.path = path;
	}
	r = is_present(t, u, n.path, f, err);
	if (r)
		return r < 0 ? r : 0;
	n.size = f->type == IMG_FILE ? f->size : 0;
	n.mtime_s = f->mtime;
	n.target = f->type == IMG_SYMLINK ? (char *)f->target : NULL;
	n.major = f->rdev >> 8 & 0xff;
	n.minor = f->rdev & 0xff;
	n.link_group = f->link_group && f->type == IMG_FILE ? group_base + f->link_group : 0;
	n.source = c->source;
	if (*f->caps && f->type == IMG_FILE) {
		r = img_rpm_caps_value(f->caps, value);
		if (r < 0)
			return err_set(err, -EBADMSG, "%s: %s: \"%.100s\" are no capabilities", u->p->name, f->path,
			               f->caps);
		caps.value = value;
		n.xattrs = &caps;
		n.n_xattrs = 1;
	}
	r = img_tree_add(t, &n, &node, err);
	if (r == -ENOTDIR && u->o->first_wins)
		return 0; /* below what is a file of another package */
	if (r < 0)
		return err_prefix(err, r, "%s: ", u->p->name);
	node->user = (void *)f;
	if (c->data && !f->link_group) {
		node->data = c->data; /* the node's now */
		c->data = NULL;
	} else if (c->data && f->size) {
		node->data = malloc((size_t)f->size);
		if (!node->data)
			return -ENOMEM;
		memcpy(node->data, c->data, (size_t)f->size);
	}
	return 0;
}

static int add_package(struct img_tree *t, struct unpack *u, uint32_t group_base, struct err *err)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < u->p->n_files; i++) {
		const struct img_rpm_file *f = &u->p->files[i];

		if (f->flags & IMG_RPMFILE_GHOST || (u->o->wants && !u->o->wants(u->p, i, u->o->arg)))
			continue;
		r = add_file(t, u, i, group_base, err);
	}
	return r;
}

struct job {
	struct unpack *units;
	int *results;
	struct err *errors;
};

static void run(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct job *j = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		j->results[i] = unpack_package(&j->units[i], &j->errors[i]);
		if (j->results[i] < 0)
			(void)err_prefix(&j->errors[i], j->results[i], "%s: ", j->units[i].p->name);
	}
}

int img_rpm_unpack(struct img_rpm *const *packages, size_t n, const struct img_rpm_unpack_opts *o, struct img_tree *t,
                   struct err *err)
{
	struct base_threadpool *pool = NULL;
	struct job j = { 0 };
	uint32_t group_base = 0;
	int r = 0;

	if (n == 0)
		return 0;
	j.units = calloc(n, sizeof(*j.units));
	j.results = calloc(n, sizeof(*j.results));
	j.errors = calloc(n, sizeof(*j.errors));
	if (!j.units || !j.results || !j.errors)
		r = -ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++) {
		j.units[i] = (struct unpack){ .p = packages[i], .o = o, .spool_fd = -1 };
		if (!packages[i]->is_loaded || !packages[i]->location)
			r = err_set(err, -EINVAL, "%s: there is no package file to unpack", packages[i]->name);
	}
	if (r == 0)
		r = base_threadpool_new(o->n_threads, &pool, err);
	if (r == 0)
		base_threadpool_for(pool, n, 1, run, &j);
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = j.results[i];
		if (r < 0 && err)
			*err = j.errors[i];
		if (r == 0)
			r = add_package(t, &j.units[i], group_base, err);
		group_base += (uint32_t)packages[i]->n_files + 1;
	}
	for (size_t i = 0; j.units && i < n; i++) {
		if (j.units[i].p)
			unpack_done(&j.units[i]);
	}
	base_threadpool_free(pool);
	free(j.units);
	free(j.results);
	free(j.errors);
	return r;
}
