/* The cache's life, and what its owner asks of it; readers.c has the threads. */
#include "promptcache/promptcache_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "promptcache/folder.h"

/* ---- Life ---- */

static int make_slots(struct eng_pc *pc)
{
	for (int i = 0; i < N_SLOTS; i++) {
		struct slot *s = &pc->slots[i];

		/* Memory only once it is written to: the slots of a cache that is not used cost nothing. */
		s->bytes = i < N_OWN ? malloc(pc->file_bytes) : NULL;
		s->ids = calloc(pc->config.page_tokens, sizeof(*s->ids));
		if ((i < N_OWN && !s->bytes) || !s->ids)
			return -ENOMEM;
	}
	return eng_pc_index_new(&pc->index);
}

int eng_pc_open(const struct eng_pc_config *config, struct eng_pc **ret_pc, struct err *err)
{
	struct eng_pc *pc;
	int r;

	if (config->page_tokens == 0 || config->page_tokens > ENG_PC_MAX_TOKENS || config->page_bytes == 0 ||
	    config->page_bytes > SIZE_MAX / 4)
		return err_set(err, -EINVAL, "prompt cache: pages of %u tokens and %llu bytes", config->page_tokens,
		               (unsigned long long)config->page_bytes);
	pc = calloc(1, sizeof(*pc));
	if (!pc)
		return err_set(err, -ENOMEM, "out of memory");
	pc->fd = pc->lock_fd = -1;
	pc->config = *config;
	pc->header_bytes = eng_pc_header_bytes(config->page_tokens);
	pc->file_bytes = pc->header_bytes + config->page_bytes;
	(void)pthread_mutex_init(&pc->lock, NULL);
	(void)pthread_cond_init(&pc->work, NULL);
	(void)pthread_cond_init(&pc->scanned, NULL);
	if (config->budget_bytes < pc->file_bytes)
		r = err_set(err, -EINVAL, "prompt cache: %llu bytes do not hold one page of %zu bytes",
		            (unsigned long long)config->budget_bytes, pc->file_bytes);
	else
		r = eng_pc_folder_open(config->dir, &config->identity, &pc->fd, &pc->lock_fd, err);
	if (r == 0 && (!(pc->dir = strdup(config->dir)) || make_slots(pc) < 0))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0) {
		eng_pc_read_speed(pc);
		r = eng_pc_start_readers(pc);
		if (r < 0)
			(void)err_set(err, r, "prompt cache: %s", strerror(-r));
	}
	if (r < 0) {
		eng_pc_close(pc);
		return r;
	}
	*ret_pc = pc;
	return 0;
}

void eng_pc_close(struct eng_pc *pc)
{
	if (!pc)
		return;
	(void)pthread_mutex_lock(&pc->lock);
	pc->is_stopping = true;
	(void)pthread_cond_broadcast(&pc->work);
	(void)pthread_mutex_unlock(&pc->lock);
	for (unsigned i = 0; i < pc->n_readers; i++) {
		(void)pthread_join(pc->readers[i].thread, NULL);
		free(pc->readers[i].scratch);
	}
	for (int i = 0; i < N_SLOTS; i++) {
		free(pc->slots[i].bytes);
		free(pc->slots[i].ids);
	}
	eng_pc_index_free(pc->index);
	if (pc->fd >= 0)
		(void)close(pc->fd);
	if (pc->lock_fd >= 0)
		(void)close(pc->lock_fd);
	(void)pthread_mutex_destroy(&pc->lock);
	(void)pthread_cond_destroy(&pc->work);
	(void)pthread_cond_destroy(&pc->scanned);
	free(pc->dir);
	free(pc);
}

void eng_pc_set_ready(struct eng_pc *pc, void (*fn)(void *arg), void *arg)
{
	pc->ready = fn;
	pc->ready_arg = arg;
}

/* ---- For the owner ---- */

const struct eng_pc_key *eng_pc_identity(const struct eng_pc *pc)
{
	return &pc->config.identity;
}

int eng_pc_key(const struct eng_pc *pc, const struct eng_pc_key *parent, const int32_t *ids, struct eng_pc_key *ret_key)
{
	return eng_pc_key_next(&pc->config.identity, parent, ids, pc->config.page_tokens, ret_key);
}

bool eng_pc_has(struct eng_pc *pc, const struct eng_pc_key *key)
{
	struct eng_pc_name name = name_of(key);
	bool has;

	(void)pthread_mutex_lock(&pc->lock);
	while (!pc->is_scanned)
		(void)pthread_cond_wait(&pc->scanned, &pc->lock);
	has = eng_pc_index_has(pc->index, &name);
	(void)pthread_mutex_unlock(&pc->lock);
	return has;
}

bool eng_pc_get_speed(struct eng_pc *pc, struct eng_pc_speed *ret_speed)
{
	bool has_speed;

	(void)pthread_mutex_lock(&pc->lock);
	has_speed = pc->has_speed;
	if (has_speed)
		*ret_speed = pc->speed;
	(void)pthread_mutex_unlock(&pc->lock);
	return has_speed;
}

void eng_pc_keep_speed(struct eng_pc *pc, const struct eng_pc_speed *speed)
{
	(void)pthread_mutex_lock(&pc->lock);
	pc->speed = *speed;
	pc->has_speed = pc->wants_speed = true;
	(void)pthread_cond_broadcast(&pc->work); /* the first one is meant */
	(void)pthread_mutex_unlock(&pc->lock);
}

void eng_pc_get_stats(struct eng_pc *pc, struct eng_pc_stats *ret_stats)
{
	(void)pthread_mutex_lock(&pc->lock);
	*ret_stats = pc->stats;
	(void)pthread_mutex_unlock(&pc->lock);
}

/* Locked. */
static struct slot *free_slot(struct eng_pc *pc, int from, int to)
{
	for (int i = from; i < to; i++) {
		if (pc->slots[i].state == SLOT_FREE)
			return &pc->slots[i];
	}
	return NULL;
}

/* Locked. */
static void queue(struct eng_pc *pc, struct slot *s, bool is_read)
{
	s->is_read = is_read;
	s->order = pc->n_queued++;
	s->state = SLOT_QUEUED;
	(void)pthread_cond_broadcast(&pc->work);
}

void *eng_pc_store_slot(struct eng_pc *pc)
{
	struct slot *s;

	(void)pthread_mutex_lock(&pc->lock);
	s = free_slot(pc, N_READ, N_OWN);
	if (s)
		s->state = SLOT_OWNER;
	(void)pthread_mutex_unlock(&pc->lock);
	return s ? s->bytes + pc->header_bytes : NULL;
}

static void describe(struct eng_pc *pc, struct slot *s, const struct eng_pc_key *parent, const int32_t *ids,
                     uint64_t compute_ns)
{
	s->page = (struct eng_pc_page){ .identity = pc->config.identity,
		                        .parent = *parent,
		                        .n_tokens = pc->config.page_tokens,
		                        .compute_ns = compute_ns,
		                        .payload_bytes = pc->config.page_bytes };
	memcpy(s->ids, ids, pc->config.page_tokens * sizeof(*ids));
}

void eng_pc_store(struct eng_pc *pc, void *bytes, const struct eng_pc_key *parent, const int32_t *ids,
                  uint64_t compute_ns)
{
	struct slot *s = &pc->slots[N_READ];

	while (s->bytes + pc->header_bytes != bytes)
		s++;
	describe(pc, s, parent, ids, compute_ns);
	(void)pthread_mutex_lock(&pc->lock);
	queue(pc, s, false);
	(void)pthread_mutex_unlock(&pc->lock);
}

bool eng_pc_store_from(struct eng_pc *pc, const struct eng_pc_key *parent, const int32_t *ids, uint64_t compute_ns,
                       uint64_t tag, const void *from)
{
	struct slot *s;

	(void)pthread_mutex_lock(&pc->lock);
	s = free_slot(pc, N_OWN, N_SLOTS);
	if (s) {
		describe(pc, s, parent, ids, compute_ns);
		s->from = from;
		s->tag = tag;
		queue(pc, s, false);
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return s != NULL;
}

bool eng_pc_take_stored(struct eng_pc *pc, uint64_t *ret_tag)
{
	bool found = false;

	(void)pthread_mutex_lock(&pc->lock);
	for (int i = N_OWN; i < N_SLOTS && !found; i++) {
		struct slot *s = &pc->slots[i];

		found = s->state == SLOT_DONE && !s->is_read;
		if (found) {
			*ret_tag = s->tag;
			s->state = SLOT_FREE;
		}
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return found;
}

static bool load(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag,
                 void *into)
{
	struct slot *s;

	(void)pthread_mutex_lock(&pc->lock);
	s = into ? free_slot(pc, N_OWN, N_SLOTS) : free_slot(pc, 0, N_READ);
	if (s) {
		s->key = *key;
		s->page.parent = *parent;
		s->tag = tag;
		s->into = into;
		queue(pc, s, true);
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return s != NULL;
}

bool eng_pc_load(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag)
{
	return load(pc, parent, key, tag, NULL);
}

bool eng_pc_load_into(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag,
                      void *into)
{
	return load(pc, parent, key, tag, into);
}

bool eng_pc_take(struct eng_pc *pc, struct eng_pc_loaded *ret_loaded)
{
	struct slot *best = NULL;

	(void)pthread_mutex_lock(&pc->lock);
	for (int i = 0; i < N_SLOTS; i++) {
		struct slot *s = &pc->slots[i];

		if (s->state >= SLOT_QUEUED && s->is_read && (!best || s->order < best->order))
			best = s;
	}
	if (best && best->state != SLOT_DONE)
		best = NULL; /* its turn first */
	if (best)
		best->state = SLOT_OWNER;
	(void)pthread_mutex_unlock(&pc->lock);
	if (!best)
		return false;
	*ret_loaded = (struct eng_pc_loaded){ .tag = best->tag,
		                              .page = !best->is_good ? NULL
		                                      : best->bytes  ? best->bytes + pc->header_bytes
		                                                     : best->into,
		                              .compute_ns = best->is_good ? best->page.compute_ns : 0,
		                              .slot = (uint32_t)(best - pc->slots) };
	return true;
}

void eng_pc_release(struct eng_pc *pc, const struct eng_pc_loaded *loaded)
{
	(void)pthread_mutex_lock(&pc->lock);
	pc->slots[loaded->slot].state = SLOT_FREE;
	(void)pthread_mutex_unlock(&pc->lock);
}
