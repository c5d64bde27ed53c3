/* What is open. The kernel's rules, all found by test: an inode is open either by passthrough or cached, and a second
 * kind of open fails with EIO while one of the first lives; all passthrough opens of an inode name the same backing
 * id. So an inode that was first opened while its content arrived stays cached until its last file is released, even
 * if the content becomes complete meanwhile, and an object's backing id is kept as long as any inode has it open. */
#include "fusefs/fusefs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static uint64_t mix(uint64_t id)
{
	id *= 0x9e3779b97f4a7c15ull;
	return id ^ id >> 29;
}

static struct shard *shard_of(struct flip_fs *fs, uint64_t id)
{
	return &fs->shards[mix(id) % N_SHARDS];
}

static struct object **bucket_of(struct flip_fs *fs, uint64_t id)
{
	return &shard_of(fs, id)->bucket[mix(id) / N_SHARDS % N_BUCKETS];
}

int objects_init(struct flip_fs *fs)
{
	fs->shards = calloc(N_SHARDS, sizeof(*fs->shards));
	fs->slot_object = calloc(SLOTS_MAX, sizeof(*fs->slot_object)); /* touched as far as it is used */
	if (!fs->shards || !fs->slot_object)
		return -ENOMEM;
	for (size_t i = 0; i < N_SHARDS; i++)
		(void)pthread_mutex_init(&fs->shards[i].lock, NULL);
	return 0;
}

static void object_free(struct flip_fs *fs, struct object *o)
{
	struct use *u;

	while ((u = o->uses)) {
		o->uses = u->next;
		free(u);
	}
	if (atomic_load(&o->has_arriving))
		fs->ops.object_close(fs->arg, o->arriving);
	if (atomic_load(&o->fd) >= 0)
		fs->ops.object_close(fs->arg, o->done);
	free(o);
}

void objects_done(struct flip_fs *fs)
{
	for (size_t i = 0; fs->shards && i < N_SHARDS; i++) {
		struct shard *s = &fs->shards[i];

		for (size_t b = 0; b < N_BUCKETS; b++) {
			for (struct object *o = s->bucket[b], *next; o; o = next) {
				next = o->next;
				object_free(fs, o);
			}
		}
		(void)pthread_mutex_destroy(&s->lock);
	}
	free(fs->shards);
	free(fs->slot_object);
}

/* The object's entry, made when there is none. With its shard's lock held. */
static struct object *entry(struct flip_fs *fs, uint64_t id)
{
	struct object **head = bucket_of(fs, id);
	struct object *o = *head;

	while (o && o->id != id)
		o = o->next;
	if (o)
		return o;
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->id = id;
	o->size = UINT64_MAX; /* not asked for yet */
	atomic_init(&o->fd, -1);
	o->next = *head;
	*head = o;
	return o;
}

static void drop_when_unused(struct flip_fs *fs, struct object *o)
{
	struct object **at = bucket_of(fs, o->id);

	if (o->n_open > 0)
		return;
	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	object_free(fs, o);
}

static struct use *use_find(const struct object *o, uint64_t node)
{
	struct use *u = o->uses;

	while (u && u->node != node)
		u = u->next;
	return u;
}

static struct use *use_of(struct object *o, uint64_t node)
{
	struct use *u = use_find(o, node);

	if (u)
		return u;
	u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->node = node;
	u->next = o->uses;
	o->uses = u;
	return u;
}

static void drop_use(struct object *o, uint64_t node)
{
	struct use **at = &o->uses;

	while (*at && (*at)->node != node)
		at = &(*at)->next;
	if (*at && (*at)->n_cached == 0 && (*at)->n_passthrough == 0) {
		struct use *u = *at;

		*at = u->next;
		free(u);
	}
}

/* Asks the owner for what the object is now, unless it is known to be complete. With the lock held. */
static int ask_owner(struct flip_fs *fs, struct object *o)
{
	void *handle = NULL;
	int fd = -1, r;

	if (atomic_load(&o->fd) >= 0)
		return 0;
	if (o->size == UINT64_MAX) {
		uint64_t size;

		r = fs->ops.object_size(fs->arg, o->id, &size);
		if (r < 0)
			return r;
		o->size = size;
	}
	r = fs->ops.object_open(fs->arg, o->id, &handle, &fd);
	if (r < 0)
		return r;
	if (fd >= 0) {
		o->done = handle;
		atomic_store(&o->fd, fd);
	} else if (atomic_load(&o->has_arriving)) {
		fs->ops.object_close(fs->arg, handle); /* still arriving: the first handle serves */
	} else {
		o->arriving = handle;
		atomic_store(&o->has_arriving, true);
	}
	return 0;
}

/* Registers the complete object's file. A refusal is no error: it is read by this process then. */
static void register_backing(struct flip_fs *fs, struct object *o)
{
	struct wire_backing map = { .fd = atomic_load(&o->fd) };
	int id = ioctl(fs->fd, WIRE_BACKING_OPEN, &map);

	if (id > 0)
		o->backing_id = (uint32_t)id;
}

static void unregister_backing(struct flip_fs *fs, struct object *o)
{
	if (o->n_passthrough == 0 && o->backing_id) {
		(void)ioctl(fs->fd, WIRE_BACKING_CLOSE, &o->backing_id);
		o->backing_id = 0;
	}
}

/* How this open has to be: *ret_id 0 is cached. */
static int choose_mode(struct flip_fs *fs, struct object *o, const struct use *u, uint32_t *ret_id)
{
	int r;

	*ret_id = u->n_passthrough > 0 ? o->backing_id : 0;
	if (u->n_passthrough > 0)
		return 0;
	r = ask_owner(fs, o);
	if (r < 0)
		return r;
	if (u->n_cached > 0 || !fs->passthrough || atomic_load(&o->fd) < 0 || o->size < fs->passthrough_min)
		return 0;
	if (o->backing_id == 0)
		register_backing(fs, o);
	*ret_id = o->backing_id;
	return 0;
}

static void count_open(struct object *o, struct use *u, uint32_t backing_id)
{
	o->n_open++;
	if (backing_id) {
		o->n_passthrough++;
		u->n_passthrough++;
	} else {
		u->n_cached++;
	}
}

static int open_locked(struct flip_fs *fs, struct object *o, uint64_t node, uint64_t unique, struct opening *ret)
{
	struct use *u = use_of(o, node);
	struct slot slot = { .unique = unique, .node = node, .object = o->id };
	int r;

	if (!u)
		return -ENOMEM;
	r = choose_mode(fs, o, u, &slot.backing_id);
	if (r == 0)
		r = slots_take(fs->slots, &slot, &ret->fh);
	if (r < 0) {
		drop_use(o, node);
		unregister_backing(fs, o);
		return r;
	}
	atomic_store(&fs->slot_object[slot_of_fh(ret->fh)], o);
	ret->backing_id = slot.backing_id;
	count_open(o, u, slot.backing_id);
	return 0;
}

int object_open(struct flip_fs *fs, uint64_t node, uint64_t object, uint64_t unique, struct opening *ret)
{
	struct shard *s = shard_of(fs, object);
	struct object *o;
	int r;

	(void)pthread_mutex_lock(&s->lock);
	o = entry(fs, object);
	r = o ? open_locked(fs, o, node, unique, ret) : -ENOMEM;
	if (o)
		drop_when_unused(fs, o);
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

static void count_release(struct flip_fs *fs, struct object *o, const struct slot *slot)
{
	struct use *u = use_find(o, slot->node);

	o->n_open--;
	if (slot->backing_id) {
		o->n_passthrough--;
		u->n_passthrough--;
	} else {
		u->n_cached--;
	}
	drop_use(o, slot->node);
	unregister_backing(fs, o);
	drop_when_unused(fs, o);
}

void object_release(struct flip_fs *fs, uint64_t fh)
{
	struct slot slot;
	struct shard *s;

	if (!slots_peek(fs->slots, fh, &slot))
		return;
	s = shard_of(fs, slot.object);
	(void)pthread_mutex_lock(&s->lock);
	if (slots_peek(fs->slots, fh, &slot)) {
		struct object *o = atomic_exchange(&fs->slot_object[slot_of_fh(fh)], NULL);

		slots_drop(fs->slots, fh);
		count_release(fs, o, &slot);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

int objects_restore(struct flip_fs *fs)
{
	struct slot slot;
	uint64_t fh;
	uint32_t i = 0;

	while (slots_next(fs->slots, &i, &slot, &fh)) {
		struct object *o = entry(fs, slot.object);
		struct use *u = o ? use_of(o, slot.node) : NULL;

		if (!u)
			return -ENOMEM;
		if (slot.backing_id)
			o->backing_id = slot.backing_id;
		count_open(o, u, slot.backing_id);
		atomic_store(&fs->slot_object[slot_of_fh(fh)], o);
	}
	return 0;
}

static bool is_ready(const struct object *o)
{
	return atomic_load(&o->fd) >= 0 || atomic_load(&o->has_arriving);
}

/* A file whose open nobody here remembers: its object stays open until the end. */
static int adopt(struct flip_fs *fs, uint64_t node, struct object **ret_object)
{
	struct shard *s;
	struct object *o;
	uint64_t id;
	int r = node_object(fs, node, &id);

	if (r < 0)
		return r;
	s = shard_of(fs, id);
	(void)pthread_mutex_lock(&s->lock);
	o = entry(fs, id);
	r = o ? ask_owner(fs, o) : -ENOMEM;
	if (r == 0 && !o->is_adopted) {
		o->is_adopted = true;
		o->n_open++;
	}
	if (o)
		drop_when_unused(fs, o);
	(void)pthread_mutex_unlock(&s->lock);
	*ret_object = o;
	return r;
}

int object_for_read(struct flip_fs *fs, uint64_t fh, uint64_t node, struct object **ret_object)
{
	struct slot slot;
	struct object *o;
	int r = 0;

	if (!slots_peek(fs->slots, fh, &slot) || slot.node != node)
		return adopt(fs, node, ret_object);
	o = atomic_load(&fs->slot_object[slot_of_fh(fh)]);
	if (!is_ready(o)) { /* opened in the time of the process before */
		struct shard *s = shard_of(fs, o->id);

		(void)pthread_mutex_lock(&s->lock);
		r = is_ready(o) ? 0 : ask_owner(fs, o);
		(void)pthread_mutex_unlock(&s->lock);
	}
	*ret_object = o;
	return r;
}
