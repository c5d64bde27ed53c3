/* A snapshotter over a folder, with its table in memory: what a test serves to clients, the real containerd among them.
 *
 *   DIR/N/fs, DIR/N/work   the files of snapshot N
 *   DIR/ready/NAME         a layer that is here already: Prepare with the label containerd.io/snapshot.ref = NAME (its
 *                          colons written as dashes) makes it a committed snapshot and says that it exists */
#ifndef FLIP_OVERLAY_H
#define FLIP_OVERLAY_H

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "grpc/snapshots.h"

enum { OVERLAY_MAX = 512 };

struct overlay {
	const char *dir;
	pthread_mutex_t lock;
	struct flip_snapshot table[OVERLAY_MAX]; /* name NULL: free */
	uint64_t last_id;
	unsigned prepare_ms; /* how long Prepare takes */
	unsigned n_cleanups;
};

static inline int64_t overlay_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline struct flip_label *overlay_labels(const struct flip_label *labels, size_t n)
{
	struct flip_label *out = calloc(n + 1, sizeof(*out));

	for (size_t i = 0; i < n; i++)
		out[i] = (struct flip_label){ strdup(labels[i].name), strdup(labels[i].value) };
	return out;
}

static inline struct flip_snapshot overlay_copy(const struct flip_snapshot *s)
{
	struct flip_snapshot c = *s;

	c.name = strdup(s->name);
	c.parent = s->parent ? strdup(s->parent) : NULL;
	c.layer = NULL;
	c.labels = overlay_labels(s->labels, s->n_labels);
	return c;
}

static inline struct flip_snapshot *overlay_find(struct overlay *o, const char *name)
{
	for (size_t i = 0; name && i < OVERLAY_MAX; i++) {
		if (o->table[i].name && strcmp(o->table[i].name, name) == 0)
			return &o->table[i];
	}
	return NULL;
}

static inline const char *overlay_label(const struct flip_label *labels, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(labels[i].name, name) == 0)
			return labels[i].value;
	}
	return NULL;
}

static inline char *overlay_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline char *overlay_text(const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	return text;
}

static inline void overlay_option(struct flip_mount *m, char *option)
{
	m->options = realloc(m->options, (m->n_options + 1) * sizeof(*m->options));
	m->options[m->n_options++] = option;
}

static inline void overlay_mounts(struct overlay *o, const struct flip_snapshot *s, struct flip_mounts *ret)
{
	struct flip_mount *m = calloc(1, sizeof(*m));
	struct base_buf lower = BASE_BUF_INIT(64u << 10);
	const struct flip_snapshot *p, *first = NULL;
	unsigned n = 0;

	for (p = overlay_find(o, s->parent); p; p = overlay_find(o, p->parent)) {
		first = first ? first : p;
		(void)base_buf_printf(&lower, "%s%s/%lu/fs", n++ ? ":" : "lowerdir=", o->dir, (unsigned long)p->id);
	}
	if (n == 0 || (n == 1 && s->kind == FLIP_SNAPSHOT_VIEW)) {
		m->type = strdup("bind");
		m->source = overlay_text("%s/%lu/fs", o->dir, (unsigned long)(n ? first->id : s->id));
		overlay_option(m, strdup(s->kind == FLIP_SNAPSHOT_VIEW ? "ro" : "rw"));
		overlay_option(m, strdup("rbind"));
	} else {
		m->type = strdup("overlay");
		m->source = strdup("overlay");
		if (s->kind != FLIP_SNAPSHOT_VIEW) {
			overlay_option(m, overlay_text("workdir=%s/%lu/work", o->dir, (unsigned long)s->id));
			overlay_option(m, overlay_text("upperdir=%s/%lu/fs", o->dir, (unsigned long)s->id));
		}
		overlay_option(m, strdup(base_buf_text(&lower)));
	}
	base_buf_done(&lower);
	ret->items = m;
	ret->n = 1;
}

/* With the lock held; *ret_new is in the table. */
static inline int overlay_add(struct overlay *o, const char *name, const char *parent, enum flip_snapshot_kind kind,
                              const struct flip_label *labels, size_t n, struct flip_snapshot **ret_new,
                              struct err *err)
{
	struct flip_snapshot *p = overlay_find(o, parent), *s = NULL;

	if (overlay_find(o, name))
		return err_set(err, -EEXIST, "snapshot %s: exists", name);
	if (parent && (!p || p->kind != FLIP_SNAPSHOT_COMMITTED))
		return err_set(err, -ENOENT, "parent %s: not found", parent);
	for (size_t i = 0; !s && i < OVERLAY_MAX; i++) {
		if (!o->table[i].name)
			s = &o->table[i];
	}
	if (!s)
		return err_set(err, -ENOSPC, "too many snapshots");
	*s = (struct flip_snapshot){ .id = ++o->last_id,
		                     .kind = kind,
		                     .name = strdup(name),
		                     .parent = parent ? strdup(parent) : NULL,
		                     .labels = overlay_labels(labels, n),
		                     .n_labels = n,
		                     .created_ns = overlay_now() };
	s->updated_ns = s->created_ns;
	*ret_new = s;
	return 0;
}

static inline int overlay_make_dirs(const struct overlay *o, const struct flip_snapshot *s)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/%lu", o->dir, (unsigned long)s->id);
	if (mkdir(path, 0700) < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "%s/%lu/work", o->dir, (unsigned long)s->id);
	if (mkdir(path, 0711) < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "%s/%lu/fs", o->dir, (unsigned long)s->id);
	return mkdir(path, 0755) < 0 ? -errno : 0;
}

/* The layer is here: it becomes the snapshot `ref`. 1: so it is. */
static inline int overlay_remote(struct overlay *o, const char *parent, const struct flip_label *labels, size_t n)
{
	const char *ref = overlay_label(labels, n, "containerd.io/snapshot.ref");
	char from[4096], to[4096];
	struct flip_snapshot *s;

	if (!ref)
		return 0;
	(void)snprintf(from, sizeof(from), "%s/ready/%s", o->dir, ref);
	for (char *c = from + strlen(o->dir); *c; c++)
		*c = *c == ':' ? '-' : *c;
	if (access(from, F_OK) < 0)
		return 0;
	if (overlay_add(o, ref, parent, FLIP_SNAPSHOT_COMMITTED, labels, n, &s, NULL) < 0)
		return 0;
	(void)snprintf(to, sizeof(to), "%s/%lu", o->dir, (unsigned long)s->id);
	(void)mkdir(to, 0700);
	(void)snprintf(to, sizeof(to), "%s/%lu/fs", o->dir, (unsigned long)s->id);
	(void)rename(from, to);
	return 1;
}

static inline int overlay_make(struct overlay *o, const char *key, const char *parent, enum flip_snapshot_kind kind,
                               const struct flip_label *labels, size_t n, struct flip_mounts *ret, struct err *err)
{
	struct flip_snapshot *s;
	int r;

	if (kind == FLIP_SNAPSHOT_ACTIVE && o->prepare_ms)
		(void)usleep(o->prepare_ms * 1000);
	(void)pthread_mutex_lock(&o->lock);
	if (kind == FLIP_SNAPSHOT_ACTIVE && overlay_remote(o, parent, labels, n)) {
		r = err_set(err, -EEXIST, "target snapshot: already exists");
	} else {
		r = overlay_add(o, key, parent, kind, labels, n, &s, err);
		if (r == 0) {
			r = overlay_make_dirs(o, s);
			if (r < 0)
				flip_snapshot_done(s);
			else
				overlay_mounts(o, s, ret);
		}
	}
	(void)pthread_mutex_unlock(&o->lock);
	return r;
}

static inline int overlay_prepare(void *arg, const char *key, const char *parent, const struct flip_label *labels,
                                  size_t n, struct flip_mounts *ret, struct err *err)
{
	return overlay_make(arg, key, parent, FLIP_SNAPSHOT_ACTIVE, labels, n, ret, err);
}

static inline int overlay_view(void *arg, const char *key, const char *parent, const struct flip_label *labels,
                               size_t n, struct flip_mounts *ret, struct err *err)
{
	return overlay_make(arg, key, parent, FLIP_SNAPSHOT_VIEW, labels, n, ret, err);
}

/* With the lock held. */
static inline int overlay_get(struct overlay *o, const char *key, struct flip_snapshot **ret, struct err *err)
{
	*ret = overlay_find(o, key);
	return *ret ? 0 : err_set(err, -ENOENT, "snapshot %s: not found", key);
}

static inline int overlay_mounts_of(void *arg, const char *key, struct flip_mounts *ret, struct err *err)
{
	struct overlay *o = arg;
	struct flip_snapshot *s;
	int r;

	(void)pthread_mutex_lock(&o->lock);
	r = overlay_get(o, key, &s, err);
	if (r == 0 && s->kind == FLIP_SNAPSHOT_COMMITTED)
		r = err_set(err, -EINVAL, "snapshot %s: committed", key);
	if (r == 0)
		overlay_mounts(o, s, ret);
	(void)pthread_mutex_unlock(&o->lock);
	return r;
}

static inline int overlay_commit(void *arg, const char *name, const char *key, const struct flip_label *labels,
                                 size_t n, struct err *err)
{
	struct overlay *o = arg;
	struct flip_snapshot *s;
	int r;

	(void)pthread_mutex_lock(&o->lock);
	r = overlay_get(o, key, &s, err);
	if (r == 0 && s->kind != FLIP_SNAPSHOT_ACTIVE)
		r = err_set(err, -EINVAL, "snapshot %s: not active", key);
	if (r == 0 && overlay_find(o, name))
		r = err_set(err, -EEXIST, "snapshot %s: exists", name);
	if (r == 0) {
		free(s->name);
		s->name = strdup(name);
		s->kind = FLIP_SNAPSHOT_COMMITTED;
		flip_labels_free(s->labels, s->n_labels);
		s->labels = overlay_labels(labels, n);
		s->n_labels = n;
		s->updated_ns = overlay_now();
	}
	(void)pthread_mutex_unlock(&o->lock);
	return r;
}

static inline int overlay_unlink(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline int overlay_remove(void *arg, const char *key, struct err *err)
{
	struct overlay *o = arg;
	struct flip_snapshot *s;
	char path[4096];
	int r;

	(void)pthread_mutex_lock(&o->lock);
	r = overlay_get(o, key, &s, err);
	for (size_t i = 0; r == 0 && i < OVERLAY_MAX; i++) {
		if (o->table[i].name && o->table[i].parent && strcmp(o->table[i].parent, key) == 0)
			r = err_set(err, -EBUSY, "snapshot %s: has children", key);
	}
	if (r == 0) {
		(void)snprintf(path, sizeof(path), "%s/%lu", o->dir, (unsigned long)s->id);
		(void)nftw(path, overlay_unlink, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
		flip_snapshot_done(s);
		memset(s, 0, sizeof(*s));
	}
	(void)pthread_mutex_unlock(&o->lock);
	return r;
}

static inline int overlay_stat(void *arg, const char *key, struct flip_snapshot *ret, struct err *err)
{
	struct overlay *o = arg;
	struct flip_snapshot *s;
	int r;

	(void)pthread_mutex_lock(&o->lock);
	r = overlay_get(o, key, &s, err);
	if (r == 0)
		*ret = overlay_copy(s);
	(void)pthread_mutex_unlock(&o->lock);
	return r;
}

static inline int overlay_update(void *arg, const struct flip_snapshot *wanted, const char *const *paths,
                                 size_t n_paths, struct flip_snapshot *ret, struct err *err)
{
	struct overlay *o = arg;
	struct flip_snapshot *s;
	struct flip_label *labels;
	size_t n;
	int r;

	(void)pthread_mutex_lock(&o->lock);
	r = overlay_get(o, wanted->name, &s, err);
	if (r == 0)
		r = flip_labels_merge(s->labels, s->n_labels, wanted->labels, wanted->n_labels, paths, n_paths, &labels,
		                      &n, err);
	if (r == 0) {
		flip_labels_free(s->labels, s->n_labels);
		s->labels = labels;
		s->n_labels = n;
		s->updated_ns = overlay_now();
		*ret = overlay_copy(s);
	}
	(void)pthread_mutex_unlock(&o->lock);
	return r;
}

static inline int overlay_list(void *arg, int (*each)(void *each_arg, const struct flip_snapshot *s), void *each_arg,
                               struct err *err)
{
	struct overlay *o = arg;
	int r = 0;

	(void)err;
	for (size_t i = 0; i < OVERLAY_MAX && r == 0; i++) {
		struct flip_snapshot copy = { 0 };

		(void)pthread_mutex_lock(&o->lock);
		if (o->table[i].name)
			copy = overlay_copy(&o->table[i]);
		(void)pthread_mutex_unlock(&o->lock);
		if (copy.name)
			r = each(each_arg, &copy);
		flip_snapshot_done(&copy);
	}
	return r;
}

static inline int overlay_usage(void *arg, const char *key, uint64_t *ret_size, uint64_t *ret_inodes, struct err *err)
{
	struct overlay *o = arg;
	struct flip_snapshot *s;
	int r;

	(void)pthread_mutex_lock(&o->lock);
	r = overlay_get(o, key, &s, err);
	if (r == 0) {
		*ret_size = 4096 * s->id;
		*ret_inodes = s->id;
	}
	(void)pthread_mutex_unlock(&o->lock);
	return r;
}

static inline int overlay_cleanup(void *arg, struct err *err)
{
	struct overlay *o = arg;

	(void)err;
	(void)pthread_mutex_lock(&o->lock);
	o->n_cleanups++;
	(void)pthread_mutex_unlock(&o->lock);
	return 0;
}

static const struct flip_snapshots_ops overlay_ops = {
	.prepare = overlay_prepare,
	.view = overlay_view,
	.mounts = overlay_mounts_of,
	.commit = overlay_commit,
	.remove = overlay_remove,
	.stat = overlay_stat,
	.update = overlay_update,
	.list = overlay_list,
	.usage = overlay_usage,
	.cleanup = overlay_cleanup,
};

static inline void overlay_init(struct overlay *o, const char *dir)
{
	memset(o, 0, sizeof(*o));
	o->dir = dir;
	(void)pthread_mutex_init(&o->lock, NULL);
}

static inline void overlay_done(struct overlay *o)
{
	for (size_t i = 0; i < OVERLAY_MAX; i++)
		flip_snapshot_done(&o->table[i]);
	(void)pthread_mutex_destroy(&o->lock);
}

#endif
