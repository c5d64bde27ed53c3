/* Trees of layers, answered from their mapped metadata. Each answer holds layers_lock for reading while it uses a
 * mapping; flip_fs_forget_layer() takes it for writing once, and whoever comes later does not find the layer. */
#include "fusefs/fusefs_internal.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* NULL, unlocked: it is gone. */
static const struct flip_erofs *hold_layer(struct flip_fs *fs, uint64_t node, uint64_t *ret_nid)
{
	const struct flip_erofs *e = NULL;

	(void)pthread_rwlock_rdlock(&fs->layers_lock);
	if (fs->ops.layer_by_id && node_class(node) == NODE_TREE)
		e = fs->ops.layer_by_id(fs->arg, layer_of_node(node));
	if (!e)
		(void)pthread_rwlock_unlock(&fs->layers_lock);
	*ret_nid = node & NODE_NID_MASK;
	return e;
}

static void let_go(struct flip_fs *fs)
{
	(void)pthread_rwlock_unlock(&fs->layers_lock);
}

static int stat_nid(const struct flip_erofs *e, uint32_t layer, uint64_t nid, struct stat *st)
{
	int r = nid > NODE_NID_MASK ? -EBADMSG : flip_erofs_stat(e, nid, st);

	if (r < 0)
		return r;
	st->st_ino = node_of_layer(layer, nid);
	st->st_blksize = 4096;
	if (S_ISREG(st->st_mode))
		st->st_blocks = st->st_size / 512 + (st->st_size % 512 != 0);
	return 0;
}

int tree_stat(struct flip_fs *fs, uint64_t node, struct stat *ret_stat)
{
	uint64_t nid;
	const struct flip_erofs *e = hold_layer(fs, node, &nid);
	int r;

	if (!e)
		return -ESTALE;
	r = stat_nid(e, layer_of_node(node), nid, ret_stat);
	let_go(fs);
	return r;
}

int tree_lookup(struct flip_fs *fs, uint64_t parent, const char *name, struct stat *ret_stat)
{
	uint64_t dir, nid;
	const struct flip_erofs *e = hold_layer(fs, parent, &dir);
	int r;

	if (!e)
		return -ESTALE;
	r = flip_erofs_lookup(e, dir, name, strlen(name), &nid);
	if (r == 0)
		r = stat_nid(e, layer_of_node(parent), nid, ret_stat);
	let_go(fs);
	return r;
}

int tree_readlink(struct flip_fs *fs, uint64_t node, char *target, size_t size)
{
	uint64_t nid;
	const struct flip_erofs *e = hold_layer(fs, node, &nid);
	const char *text;
	size_t len;
	int r;

	if (!e)
		return -ESTALE;
	r = flip_erofs_readlink(e, nid, &text, &len);
	if (r == 0 && len >= size)
		r = -ENAMETOOLONG;
	if (r == 0) {
		memcpy(target, text, len);
		target[len] = 0;
	}
	let_go(fs);
	return r;
}

ssize_t tree_getxattr(struct flip_fs *fs, uint64_t node, const char *name, void *value, size_t size)
{
	uint64_t nid;
	const struct flip_erofs *e;
	const void *data;
	ssize_t r;
	size_t n;

	if (node_class(node) != NODE_TREE)
		return -ENODATA;
	e = hold_layer(fs, node, &nid);
	if (!e)
		return -ESTALE;
	r = flip_erofs_getxattr(e, nid, name, false, &data, &n);
	if (r == 0 && n > size)
		r = -EBADMSG;
	if (r == 0) {
		memcpy(value, data, n);
		r = (ssize_t)n;
	}
	let_go(fs);
	return r;
}

ssize_t tree_listxattr(struct flip_fs *fs, uint64_t node, char *names, size_t size)
{
	uint64_t nid;
	const struct flip_erofs *e;
	ssize_t r;

	if (node_class(node) != NODE_TREE)
		return 0;
	e = hold_layer(fs, node, &nid);
	if (!e)
		return -ESTALE;
	r = flip_erofs_listxattr(e, nid, false, names, size);
	let_go(fs);
	return r;
}

int tree_object(struct flip_fs *fs, uint64_t node, uint64_t *ret_object)
{
	uint64_t nid, id, size;
	const struct flip_erofs *e = hold_layer(fs, node, &nid);
	uint8_t digest[32];
	int r;

	if (!e)
		return -ESTALE;
	r = flip_erofs_digest(e, nid, digest);
	let_go(fs);
	if (r < 0)
		return r;
	id = fs->ops.object_find(fs->arg, digest, &size);
	if (id == 0)
		return -ESTALE;
	*ret_object = id;
	return 0;
}

/* ---- Directories ------------------------------------------------------------------------------------------ */

struct tree_listing {
	const struct flip_erofs *e;
	uint32_t layer;
	bool with_attr;
	entry_fn fn;
	void *arg;
	int r;
};

static int list_entry(void *arg, const char *name, size_t name_len, uint64_t nid, unsigned dtype, uint64_t next_pos)
{
	struct tree_listing *l = arg;
	char text[NAME_MAX + 1];
	struct stat st = { .st_ino = node_of_layer(l->layer, nid), .st_mode = DTTOIF(dtype) };

	if (name_len > NAME_MAX) {
		l->r = -EBADMSG;
		return 1;
	}
	memcpy(text, name, name_len);
	text[name_len] = 0;
	if (l->with_attr)
		l->r = stat_nid(l->e, l->layer, nid, &st);
	return l->r < 0 || l->fn(l->arg, text, &st, next_pos);
}

int tree_list(struct flip_fs *fs, uint64_t node, uint64_t pos, bool with_attr, entry_fn fn, void *arg)
{
	struct tree_listing l = { .layer = layer_of_node(node), .with_attr = with_attr, .fn = fn, .arg = arg };
	uint64_t nid;
	int r;

	l.e = hold_layer(fs, node, &nid);
	if (!l.e)
		return -ESTALE;
	r = flip_erofs_readdir(l.e, nid, pos, list_entry, &l);
	let_go(fs);
	return l.r < 0 ? l.r : r;
}

/* ---- /layers ---------------------------------------------------------------------------------------------- */

/* The kernel keeps a layer's directory by this name until it is told otherwise. */
static void remember(struct flip_fs *fs, uint32_t id, const char *name)
{
	struct seen_layer *s;

	(void)pthread_mutex_lock(&fs->seen_lock);
	for (s = fs->seen; s && s->id != id; s = s->next)
		;
	if (!s && (s = malloc(sizeof(*s) + strlen(name) + 1))) {
		s->id = id;
		memcpy(s->name, name, strlen(name) + 1);
		s->next = fs->seen;
		fs->seen = s;
	}
	(void)pthread_mutex_unlock(&fs->seen_lock);
}

static struct seen_layer *take_seen(struct flip_fs *fs, uint32_t id)
{
	struct seen_layer **at, *s;

	(void)pthread_mutex_lock(&fs->seen_lock);
	for (at = &fs->seen; *at && (*at)->id != id; at = &(*at)->next)
		;
	s = *at;
	if (s)
		*at = s->next;
	(void)pthread_mutex_unlock(&fs->seen_lock);
	return s;
}

int layer_lookup(struct flip_fs *fs, const char *name, struct stat *ret_stat)
{
	const struct flip_erofs *e = NULL;
	uint32_t id = 0;
	int r = -ENOENT;

	(void)pthread_rwlock_rdlock(&fs->layers_lock);
	if (fs->ops.layer_find)
		e = fs->ops.layer_find(fs->arg, name, &id);
	if (e)
		r = stat_nid(e, id, flip_erofs_root(e), ret_stat);
	(void)pthread_rwlock_unlock(&fs->layers_lock);
	if (r == 0)
		remember(fs, id, name);
	return r;
}

/* Behind "." and "..", which are 1 and 2. */
int layers_list(struct flip_fs *fs, uint64_t pos, entry_fn fn, void *arg)
{
	(void)pthread_rwlock_rdlock(&fs->layers_lock);
	for (uint64_t i = pos - 2; fs->ops.layer_at; i++) {
		const char *name = fs->ops.layer_at(fs->arg, i);
		const struct flip_erofs *e;
		struct stat st;
		uint32_t id;

		if (!name)
			break;
		e = fs->ops.layer_find(fs->arg, name, &id);
		if (!e || stat_nid(e, id, flip_erofs_root(e), &st) < 0)
			continue;
		remember(fs, id, name);
		if (fn(arg, name, &st, i + 3))
			break;
	}
	(void)pthread_rwlock_unlock(&fs->layers_lock);
	return 0;
}

void flip_fs_forget_layer(struct flip_fs *fs, uint32_t id)
{
	struct seen_layer *s;

	/* Whoever found it before has let go when this lock was had. */
	(void)pthread_rwlock_wrlock(&fs->layers_lock);
	(void)pthread_rwlock_unlock(&fs->layers_lock);
	s = take_seen(fs, id);
	if (s)
		(void)fuse_lowlevel_notify_inval_entry(fs->session, NODE_LAYERS, s->name, strlen(s->name));
	free(s);
}
