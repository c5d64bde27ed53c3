/* Which contents the known layers name, by number, and the file system's questions about them.
 *
 * A content's number is the first 60 bits of its digest: the same in every process, without a table on disk. Two
 * contents with the same number are possible on purpose only (2^30 tries); the first one known keeps it, the other is
 * not found and its readers get an error, never the wrong bytes. The table is open addressing over 16-byte slots:
 * 100,000 contents take 4 MiB at most. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/node_internal.h"

enum { MIN_SLOTS = 1024, MAX_AHEAD = 4 << 20 };

struct handle { /* one open file */
	struct node_layer *layer;
	const struct flip_index_object *object;
	struct flip_object *store;
	/* Reading in sequence: where the last read ended, how far was asked ahead, and by how much. Readers of one open
	 * file on several threads only make the guess worse. */
	_Atomic uint64_t last_end, ahead_end, window;
};

static uint64_t object_id(const uint8_t digest[FLIP_DIGEST_SIZE])
{
	uint64_t id = 0;

	for (int i = 0; i < 8; i++)
		id = id << 8 | digest[i];
	id >>= 4;
	return id ? id : 1;
}

/* The slot of the number, or the free one where it would be. */
static struct node_object_slot *slot_of(struct node_object_slot *slots, size_t n_slots, uint64_t id)
{
	size_t i = (size_t)id & (n_slots - 1);

	while (slots[i].id && slots[i].id != id)
		i = (i + 1) & (n_slots - 1);
	return &slots[i];
}

/* The content of that number; NULL: nobody names it. With layers_lock held. */
static const struct node_object_slot *find_slot(const struct flip_node *node, uint64_t id)
{
	const struct node_object_slot *s = node->n_slots ? slot_of(node->slots, node->n_slots, id) : NULL;

	return s && s->id ? s : NULL;
}

static const struct flip_index_object *object_of(const struct flip_node *node, const struct node_object_slot *s)
{
	return flip_index_object(node->layers[s->layer]->index, s->object);
}

static int grow(struct flip_node *node, size_t n_more)
{
	size_t n = node->n_slots ? node->n_slots : MIN_SLOTS;
	struct node_object_slot *slots;

	while ((node->n_used + n_more) * 3 / 2 > n)
		n *= 2;
	if (n == node->n_slots)
		return 0;
	slots = calloc(n, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < node->n_slots; i++) {
		if (node->slots[i].id)
			*slot_of(slots, n, node->slots[i].id) = node->slots[i];
	}
	free(node->slots);
	node->slots = slots;
	node->n_slots = n;
	return 0;
}

int node_objects_add(struct flip_node *node, uint32_t layer)
{
	const struct flip_index *ix = node->layers[layer]->index;
	size_t n = flip_index_n_objects(ix);
	int r = grow(node, n);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		const struct flip_index_object *o = flip_index_object(ix, i);
		uint64_t id = object_id(o->digest);
		struct node_object_slot *s = slot_of(node->slots, node->n_slots, id);

		if (!s->id) {
			*s = (struct node_object_slot){ .id = id, .layer = layer, .object = (uint32_t)i };
			node->n_used++;
		} else if (memcmp(object_of(node, s)->digest, o->digest, FLIP_DIGEST_SIZE) != 0) {
			base_log(BASE_LOG_ERROR, "layer %s: a content whose digest begins like another's is not served",
			         node->layers[layer]->digest);
		} else if (flip_index_is_unverified(node->layers[s->layer]->index, object_of(node, s))) {
			/* Who knows the chunks' digests serves them before all is there. */
			s->layer = layer;
			s->object = (uint32_t)i;
		} else if (flip_index_is_unverified(ix, o)) {
			; /* what it brings lies apart until it is whole */
		} else if (!node_contents_agree(node->layers[s->layer]->index, object_of(node, s), ix, o)) {
			s->is_contested = true;
		} else if (node_layer_can_fetch(node->layers[layer]) &&
		           (!node_layer_can_fetch(node->layers[s->layer]) || node->layers[layer]->model)) {
			/* A layer that can be asked for chunks is better than one that cannot, and where a model can be
			 * had from was said just now. */
			s->layer = layer;
			s->object = (uint32_t)i;
		}
	}
	return 0;
}

int node_objects_rebuild(struct flip_node *node)
{
	if (node->slots)
		memset(node->slots, 0, node->n_slots * sizeof(*node->slots));
	node->n_used = 0;
	for (size_t i = 0; i < node->n_layers; i++) {
		int r = node->layers[i] ? node_objects_add(node, (uint32_t)i) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

/* Where a content is named: a reference to the layer and its object; false when nowhere. */
static bool object_by_id(struct flip_node *node, uint64_t id, struct node_layer **ret_layer,
                         const struct flip_index_object **ret_object)
{
	const struct node_object_slot *s;
	bool found = false;

	pthread_rwlock_rdlock(&node->layers_lock);
	s = find_slot(node, id);
	if (s) {
		*ret_layer = node->layers[s->layer];
		atomic_fetch_add(&(*ret_layer)->n_refs, 1);
		*ret_object = object_of(node, s);
		found = true;
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return found;
}

int node_object_open(struct node_layer *layer, const struct flip_index_object *object, struct flip_object **ret,
                     struct err *err)
{
	return (flip_index_is_unverified(layer->index, object) ? flip_object_open_unverified : flip_object_open)(
	        layer->node->store, object->digest, object->size, ret, err);
}

bool node_object_is_contested(struct flip_node *node, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	const struct node_object_slot *s;
	bool is;

	pthread_rwlock_rdlock(&node->layers_lock);
	s = find_slot(node, object_id(digest));
	is = s && s->is_contested;
	pthread_rwlock_unlock(&node->layers_lock);
	return is;
}

/* ---- For the file system --------------------------------------------------------------------------------------- */

static uint64_t fs_object_find(void *arg, const uint8_t digest[32], uint64_t *ret_size)
{
	struct flip_node *node = arg;
	uint64_t id = object_id(digest), found = 0;
	const struct node_object_slot *s;

	pthread_rwlock_rdlock(&node->layers_lock);
	s = find_slot(node, id);
	if (s && memcmp(object_of(node, s)->digest, digest, FLIP_DIGEST_SIZE) == 0) {
		*ret_size = object_of(node, s)->size;
		found = id;
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return found;
}

static int fs_object_size(void *arg, uint64_t id, uint64_t *ret_size)
{
	struct flip_node *node = arg;
	const struct node_object_slot *s;
	int r = -ENOENT;

	pthread_rwlock_rdlock(&node->layers_lock);
	s = find_slot(node, id);
	if (s) {
		*ret_size = object_of(node, s)->size;
		r = 0;
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return r;
}

static void handle_free(struct handle *h)
{
	if (!h)
		return;
	flip_object_unref(h->store);
	node_layer_unref(h->layer);
	free(h);
}

static int fs_object_open(void *arg, uint64_t id, void **ret_handle, int *ret_fd)
{
	struct flip_node *node = arg;
	struct handle *h = calloc(1, sizeof(*h));
	struct err err = { 0 };
	int r;

	if (!h)
		return -ENOMEM;
	if (!object_by_id(node, id, &h->layer, &h->object)) {
		free(h);
		return -ESTALE;
	}
	if (node_object_is_contested(node, h->object->digest) && !flip_store_has(node->store, h->object->digest, NULL))
		r = node_fetch_whole(h->layer, h->object, &err);
	else
		r = 0;
	if (r == 0)
		r = node_object_open(h->layer, h->object, &h->store, &err);
	if (r < 0) {
		node_complain(h->layer, r, err_text(&err));
		handle_free(h);
		return r == -ENOMEM || r == -ENOSPC ? r : -EIO;
	}
	*ret_fd = flip_object_is_complete(h->store) ? flip_object_fd(h->store) : -1;
	*ret_handle = h;
	return 0;
}

static void fs_object_close(void *arg, void *handle)
{
	handle_free(handle);
}

/* From the moment it is asked, the read may be answered, its file be closed and the handle be gone: all that is needed
 * of it is taken before. */
static void fs_object_read(void *arg, void *handle, uint64_t offset, size_t size, struct flip_fs_read *read)
{
	struct handle *h = handle;
	struct node_layer *layer = h->layer;
	const struct flip_index_object *object = h->object;
	uint64_t window = atomic_load(&h->window), ahead = atomic_load(&h->ahead_end), end = offset + size, from = end;
	bool is_sequential = offset && offset == atomic_load(&h->last_end);

	window = is_sequential ? (window ? window * 2 : size) : 0;
	window = window < MAX_AHEAD ? window : MAX_AHEAD;
	atomic_store(&h->last_end, end);
	atomic_store(&h->window, window);
	if (!is_sequential) {
		atomic_store(&h->ahead_end, end);
	} else if (end + window / 2 >= ahead) { /* half of what was asked ahead is used up */
		from = ahead > end ? ahead : end;
		atomic_store(&h->ahead_end, end + window);
	} else {
		window = 0;
	}
	atomic_fetch_add(&layer->n_refs, 1);
	node_read(layer, object, h->store, offset, size, read);
	if (end + window > from)
		node_read_ahead(layer, object, from, (size_t)(end + window - from));
	node_layer_unref(layer);
}

/* ---- Trees ------------------------------------------------------------------------------------------------------ */

static const struct flip_erofs *fs_layer_find(void *arg, const char *name, uint32_t *ret_id)
{
	struct flip_node *node = arg;
	const struct flip_erofs *meta = NULL;

	pthread_rwlock_rdlock(&node->layers_lock);
	for (size_t i = 0; i < node->n_layers && !meta; i++) {
		if (node->layers[i] && strcmp(node->layers[i]->digest + strlen("sha256:"), name) == 0) {
			meta = node->layers[i]->meta;
			*ret_id = node->layers[i]->id;
		}
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return meta;
}

static const struct flip_erofs *fs_layer_by_id(void *arg, uint32_t id)
{
	struct flip_node *node = arg;
	const struct flip_erofs *meta = NULL;

	pthread_rwlock_rdlock(&node->layers_lock);
	for (size_t i = 0; i < node->n_layers && !meta; i++) {
		if (node->layers[i] && node->layers[i]->id == id)
			meta = node->layers[i]->meta;
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return meta;
}

static const char *fs_layer_at(void *arg, size_t i)
{
	struct flip_node *node = arg;
	const char *name = NULL;

	pthread_rwlock_rdlock(&node->layers_lock);
	for (size_t k = 0; k < node->n_layers && !name; k++) {
		if (node->layers[k] && i-- == 0)
			name = node->layers[k]->digest + strlen("sha256:");
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return name;
}

const struct flip_fs_ops node_fs_ops = {
	.object_find = fs_object_find,
	.object_size = fs_object_size,
	.object_open = fs_object_open,
	.object_close = fs_object_close,
	.object_read = fs_object_read,
	.layer_find = fs_layer_find,
	.layer_by_id = fs_layer_by_id,
	.layer_at = fs_layer_at,
};
