/* What may go: layers that nothing uses, objects that no layer names, and, when there is no room, what was used least
 * recently and can be fetched again.
 *
 * The time of last use of an object is its file's time of access, set by the store (never by reading: overlayfs reads
 * without touching it). What was put or asked for since the oldest layer was begun that is not committed yet stays,
 * whether a committed layer names it or not: that layer's index will.
 *
 * Objects named by layers are kept as sets of 64-bit keys out of their digests: two contents with one key are taken for
 * one, which only ever keeps too much. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "store/store_internal.h"

enum {
	EMERGENCY_BYTES = 16 << 20, /* at least, so that the next write does not come straight back */
	EMERGENCY_AGE_S = 600,      /* of layers that no snapshot uses */
};

/* ---- Sets of digests ------------------------------------------------------------------------------------------ */

struct keys {
	uint64_t *slots; /* 0: free */
	size_t n, cap;   /* cap: a power of two */
};

static uint64_t key_of(const uint8_t digest[FLIP_DIGEST_SIZE])
{
	uint64_t key;

	memcpy(&key, digest + 16, sizeof(key));
	return key ? key : 1;
}

static bool keys_has(const struct keys *k, uint64_t key)
{
	for (size_t i = (size_t)key & (k->cap - 1); k->cap && k->slots[i]; i = (i + 1) & (k->cap - 1)) {
		if (k->slots[i] == key)
			return true;
	}
	return false;
}

static void keys_place(struct keys *k, uint64_t key)
{
	size_t i = (size_t)key & (k->cap - 1);

	while (k->slots[i])
		i = (i + 1) & (k->cap - 1);
	k->slots[i] = key;
}

static int keys_add(struct keys *k, uint64_t key)
{
	if (keys_has(k, key))
		return 0;
	if (2 * (k->n + 1) > k->cap) {
		struct keys more = { .cap = k->cap ? 2 * k->cap : 1024 };

		more.slots = calloc(more.cap, sizeof(uint64_t));
		if (!more.slots)
			return -ENOMEM;
		for (size_t i = 0; i < k->cap; i++) {
			if (k->slots[i])
				keys_place(&more, k->slots[i]);
		}
		free(k->slots);
		more.n = k->n;
		*k = more;
	}
	keys_place(k, key);
	k->n++;
	return 0;
}

/* ---- One run -------------------------------------------------------------------------------------------------- */

struct candidate {
	uint8_t digest[FLIP_DIGEST_SIZE];
	uint64_t size;
	int64_t used_s;
	bool is_partial;
};

struct gc {
	struct flip_store *store;
	flip_index_walk walk;
	void *walk_arg;
	int64_t layer_age_s;
	int64_t protect_since_s; /* what was used since stays, named or not */
	int64_t begun_since_s;   /* INT64_MAX: no layer is begun */
	bool dry_run;
	struct flip_gc_result result;
	struct err *err;
	int r;

	char **used; /* layers that snapshots are */
	size_t n_used;
	struct keys named, unpacked; /* objects of all layers, of unpacked ones */
	bool is_blind;               /* an index could not be read: what the layer names is not known */

	char folder[3];       /* being walked */
	uint64_t total_bytes; /* left after the first pass */
	uint64_t bytes;
	bool is_gathering; /* second pass */
	struct candidate *candidates;
	size_t n_candidates, cap_candidates;
};

static void gc_done(struct gc *g)
{
	for (size_t i = 0; i < g->n_used; i++)
		free(g->used[i]);
	free(g->used);
	free(g->named.slots);
	free(g->unpacked.slots);
	free(g->candidates);
}

static int note_used(const struct flip_snapshot *snapshot, void *arg)
{
	struct gc *g = arg;
	char **more;

	if (!snapshot->layer)
		return 0;
	more = realloc(g->used, (g->n_used + 1) * sizeof(char *));
	if (!more)
		return -ENOMEM;
	g->used = more;
	more[g->n_used] = strdup(snapshot->layer);
	if (!more[g->n_used])
		return -ENOMEM;
	g->n_used++;
	return 0;
}

static bool is_used(const struct gc *g, const char *digest)
{
	for (size_t i = 0; i < g->n_used; i++) {
		if (strcmp(g->used[i], digest) == 0)
			return true;
	}
	return false;
}

static int name_object(void *arg, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	return keys_add(arg, key_of(digest));
}

static int remove_layer(struct gc *g, const char *digest)
{
	int r = flip_layer_remove(g->store, digest, g->err);

	if (r == -ENOSPC && flip_store_use_reserve(g->store)) {
		if (g->err)
			g->err->code = 0;
		r = flip_layer_remove(g->store, digest, g->err);
	}
	return r;
}

/* Removed when nothing needs it, else what it names is noted. */
static int visit_layer(const struct flip_layer_row *row, void *arg)
{
	struct gc *g = arg;
	int64_t age_s = flip_store_now_s() - row->last_used;
	char dir[4096];
	int r;

	if (!is_used(g, row->digest) && age_s >= g->layer_age_s) {
		g->result.n_layers++;
		return g->dry_run ? 0 : remove_layer(g, row->digest);
	}
	if (!g->walk)
		return 0;
	(void)snprintf(dir, sizeof(dir), "%s/layers/%s", g->store->dir, flip_layer_hex(row->digest));
	r = g->walk(g->walk_arg, dir, name_object, &g->named, g->err);
	if (r == 0 && row->kind == FLIP_LAYER_UNPACKED)
		r = g->walk(g->walk_arg, dir, name_object, &g->unpacked, g->err);
	if (r == -ENOMEM)
		return r;
	if (r < 0 && g->r == 0) { /* said at the end; what can be done without is done */
		g->is_blind = true;
		g->r = err_prefix(g->err, r, "layer %s: ", row->digest);
	}
	return 0;
}

/* ---- Objects -------------------------------------------------------------------------------------------------- */

static int gather(struct gc *g, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size, int64_t used_s, bool is_partial)
{
	struct candidate *c;

	if (g->n_candidates == g->cap_candidates) {
		size_t cap = g->cap_candidates ? 2 * g->cap_candidates : 1024;

		c = realloc(g->candidates, cap * sizeof(*c));
		if (!c)
			return -ENOMEM;
		g->candidates = c;
		g->cap_candidates = cap;
	}
	c = &g->candidates[g->n_candidates++];
	memcpy(c->digest, digest, FLIP_DIGEST_SIZE);
	c->size = size;
	c->used_s = used_s;
	c->is_partial = is_partial;
	return 0;
}

/* Under shard->lock, not open. */
static int remove_object(struct gc *g, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size)
{
	char name[STORE_NAME_SIZE];

	flip_object_name(digest, name);
	if (!g->dry_run) {
		if (unlinkat(g->store->objects_fd, name, 0) < 0)
			return errno == ENOENT ? 0 : -errno;
		flip_store_count(g->store, digest, -1, -(int64_t)size);
	}
	g->result.n_objects++;
	g->result.n_bytes += size;
	return 1;
}

/* The map first: without it the data is nothing. */
static int remove_partial(struct gc *g, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t disk_size)
{
	char name[STORE_NAME_SIZE], map_name[STORE_NAME_SIZE + 4];

	flip_object_name(digest, name);
	(void)stpcpy(stpcpy(map_name, name), ".map");
	if (!g->dry_run) {
		if (unlinkat(g->store->partial_fd, map_name, 0) < 0 && errno != ENOENT)
			return -errno;
		if (unlinkat(g->store->partial_fd, name, 0) < 0)
			return errno == ENOENT ? 0 : -errno;
	}
	g->result.n_partials++;
	g->result.n_bytes += disk_size;
	return 1;
}

/* Under shard->lock. */
static int judge_object(struct gc *g, const uint8_t digest[FLIP_DIGEST_SIZE], const struct stat *st)
{
	uint64_t key = key_of(digest), size = (uint64_t)st->st_size;
	int64_t used_s = (int64_t)st->st_atim.tv_sec;
	bool is_known = g->walk && !g->is_blind;

	if (!g->is_gathering && is_known && !keys_has(&g->named, key) && used_s < g->protect_since_s)
		return remove_object(g, digest, size);
	if (g->is_gathering && is_known && !keys_has(&g->unpacked, key) && used_s < g->begun_since_s)
		return gather(g, digest, size, used_s, false);
	return 0;
}

static int visit_object(void *arg, const char *file)
{
	struct gc *g = arg;
	struct flip_store *s = g->store;
	uint8_t digest[FLIP_DIGEST_SIZE];
	char name[STORE_NAME_SIZE];
	struct shard *sh;
	struct stat st;
	int r = 0;

	if (!flip_object_parse_name(g->folder, file, digest))
		return 0;
	flip_object_name(digest, name);
	sh = shard_of(s, digest);
	pthread_mutex_lock(&sh->lock);
	if (fstatat(s->objects_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
		if (!flip_shard_find(sh, digest))
			r = judge_object(g, digest, &st);
		if (r == 0) {
			g->bytes += (uint64_t)st.st_size;
		}
	}
	pthread_mutex_unlock(&sh->lock);
	return r < 0 ? r : 0;
}

static int visit_partial(void *arg, const char *file)
{
	struct gc *g = arg;
	struct flip_store *s = g->store;
	uint8_t digest[FLIP_DIGEST_SIZE];
	char name[STORE_NAME_SIZE];
	uint64_t size = 0;
	struct shard *sh;
	struct stat st;
	int r = 0;

	if (!flip_object_parse_name(g->folder, file, digest)) /* maps go with their data */
		return 0;
	flip_object_name(digest, name);
	sh = shard_of(s, digest);
	pthread_mutex_lock(&sh->lock);
	if (fstatat(s->partial_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		int64_t used_s = (int64_t)st.st_mtim.tv_sec;

		size = (uint64_t)st.st_blocks * 512;
		if (flip_shard_find(sh, digest))
			;
		else if (g->is_gathering)
			r = gather(g, digest, size, used_s, true);
		else if (g->walk && !g->is_blind && !keys_has(&g->named, key_of(digest)) && used_s < g->protect_since_s)
			r = remove_partial(g, digest, size);
	}
	pthread_mutex_unlock(&sh->lock);
	if (r == 0)
		g->total_bytes += size;
	return r < 0 ? r : 0;
}

static int walk_all(struct gc *g)
{
	int r = 0;

	g->bytes = g->total_bytes = 0;
	for (unsigned i = 0; r == 0 && i < STORE_N_SHARDS; i++) {
		(void)snprintf(g->folder, sizeof(g->folder), "%02x", i);
		r = flip_store_each(g->store->objects_fd, g->folder, visit_object, g);
		if (r == 0)
			r = flip_store_each(g->store->partial_fd, g->folder, visit_partial, g);
	}
	g->total_bytes += g->bytes;
	return r;
}

/* ---- Room ----------------------------------------------------------------------------------------------------- */

uint64_t flip_store_free_bytes(struct flip_store *s)
{
	struct statvfs v;

	return fstatvfs(s->dir_fd, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : UINT64_MAX;
}

static uint64_t missing_room(const struct gc *g, uint64_t at_least)
{
	struct flip_store *s = g->store;
	uint64_t budget = s->opts.budget_bytes, is_free = flip_store_free_bytes(s), need = at_least;

	if (g->dry_run) /* what the first pass would have freed */
		is_free = is_free > UINT64_MAX - g->result.n_bytes ? UINT64_MAX : is_free + g->result.n_bytes;
	if (budget && g->total_bytes > budget && g->total_bytes - budget > need)
		need = g->total_bytes - budget;
	if (is_free < s->opts.min_free_bytes && s->opts.min_free_bytes - is_free > need)
		need = s->opts.min_free_bytes - is_free;
	return need;
}

static int by_use(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return x->used_s < y->used_s ? -1 : x->used_s > y->used_s ? 1 : memcmp(x->digest, y->digest, FLIP_DIGEST_SIZE);
}

static int evict(struct gc *g, uint64_t need)
{
	uint64_t freed = 0;
	int r;

	g->is_gathering = true;
	r = walk_all(g);
	if (r < 0)
		return r;
	if (g->n_candidates > 0)
		qsort(g->candidates, g->n_candidates, sizeof(*g->candidates), by_use);
	for (size_t i = 0; i < g->n_candidates && freed < need; i++) {
		const struct candidate *c = &g->candidates[i];
		struct shard *sh = shard_of(g->store, c->digest);

		r = 0;
		pthread_mutex_lock(&sh->lock);
		if (!flip_shard_find(sh, c->digest))
			r = c->is_partial ? remove_partial(g, c->digest, c->size)
			                  : remove_object(g, c->digest, c->size);
		pthread_mutex_unlock(&sh->lock);
		if (r < 0)
			return r;
		freed += r == 1 ? c->size : 0;
	}
	return 0;
}

static int run(struct gc *g, uint64_t at_least)
{
	struct flip_store *s = g->store;
	int64_t now = flip_store_now_s();
	uint64_t need;
	int r;

	pthread_mutex_lock(&s->db_lock);
	g->begun_since_s = s->begun.n > 0 ? s->begun.since_s - STORE_TOUCH_PUT_S : INT64_MAX;
	pthread_mutex_unlock(&s->db_lock);
	g->protect_since_s = now - g->layer_age_s + 1;
	if (g->begun_since_s < g->protect_since_s)
		g->protect_since_s = g->begun_since_s;

	r = flip_store_recount(s, g->err);
	if (r == 0)
		r = flip_store_snapshots(s, note_used, g, g->err);
	if (r == 0)
		r = flip_store_layers(s, visit_layer, g, g->err);
	if (r == 0)
		r = walk_all(g);
	if (r == 0) {
		need = missing_room(g, at_least);
		if (need > 0)
			r = evict(g, need);
	}
	if (!g->dry_run)
		flip_store_reserve(s);
	if (r < 0 && (!g->err || g->err->code == 0))
		(void)err_set(g->err, r, "%s: gc: %s", s->dir, strerror(-r));
	return r < 0 ? r : g->r;
}

int flip_store_gc(struct flip_store *s, int64_t min_age_s, bool dry_run, flip_index_walk index_walk, void *arg,
                  struct flip_gc_result *ret_result, struct err *err)
{
	struct gc g = { .store = s,
		        .walk = index_walk,
		        .walk_arg = arg,
		        .layer_age_s = min_age_s,
		        .dry_run = dry_run,
		        .err = err };
	int r;

	if (s->opts.read_only && !dry_run)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	pthread_mutex_lock(&s->gc_lock);
	r = run(&g, 0);
	pthread_mutex_unlock(&s->gc_lock);
	if (ret_result)
		*ret_result = g.result;
	gc_done(&g);
	return r;
}

int flip_store_emergency_gc(struct flip_store *s)
{
	struct gc g = {
		.store = s, .walk = s->opts.index_walk, .walk_arg = s->opts.index_arg, .layer_age_s = EMERGENCY_AGE_S
	};
	int r;

	/* While another one runs, its end is waited for: it frees what there is. */
	if (pthread_mutex_trylock(&s->gc_lock) != 0) {
		pthread_mutex_lock(&s->gc_lock);
		pthread_mutex_unlock(&s->gc_lock);
		return 0;
	}
	(void)run(&g, EMERGENCY_BYTES);
	pthread_mutex_unlock(&s->gc_lock);
	if (g.result.n_layers > 0 && s->opts.layers_gone)
		s->opts.layers_gone(s->opts.index_arg);
	r = g.result.n_bytes + g.result.n_layers > 0 ? 0 : -ENOSPC;
	gc_done(&g);
	return r;
}
