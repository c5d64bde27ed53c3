/* Slots for recurrent states: those of running sequences, and checkpoints beside pages of the tree. There are a few
 * hundred at most and one is looked for once in many tokens: the oldest checkpoint is found by looking at all. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "kv/kv_internal.h"

int eng_kv_pool_add_states(struct eng_kv_pool *pool, uint32_t n_states)
{
	assert(!pool->slots);
	if (n_states == 0 || n_states == UINT32_MAX)
		return -EINVAL;
	pool->slots = calloc((size_t)n_states + 1, sizeof(*pool->slots));
	pool->free_states = calloc(n_states, sizeof(*pool->free_states));
	if (!pool->slots || !pool->free_states)
		return -ENOMEM; /* what is there goes with the pool */
	pool->n_states = pool->n_free_states = n_states;
	for (uint32_t i = 0; i < n_states; i++)
		pool->free_states[i] = n_states - i; /* slot 1 first */
	return 0;
}

static void give_back(struct eng_kv_pool *pool, uint32_t slot)
{
	assert(pool->slots[slot].use != SLOT_FREE && pool->n_free_states < pool->n_states);
	pool->slots[slot] = (struct slot){ .use = SLOT_FREE };
	pool->free_states[pool->n_free_states++] = slot;
}

void eng_kv_state_forget(struct eng_kv_pool *pool, uint32_t page)
{
	uint32_t slot = pool->pages[page].checkpoint;

	if (!slot)
		return;
	pool->pages[page].checkpoint = 0;
	pool->n_checkpoints--;
	give_back(pool, slot);
}

void eng_kv_state_release(struct eng_kv_pool *pool, struct eng_kv_seq *seq)
{
	if (seq->state)
		give_back(pool, seq->state);
	if (seq->keep)
		give_back(pool, seq->keep);
	seq->state = seq->keep = 0;
}

/* A free slot, or that of the least recently used checkpoint; 0: all are running. Its use is still to be said. */
static uint32_t take_slot(struct eng_kv_pool *pool)
{
	uint32_t oldest = 0;

	for (uint32_t i = 1; i <= pool->n_states && pool->n_free_states == 0; i++) {
		if (pool->slots[i].use == SLOT_CHECKPOINT &&
		    (!oldest || pool->slots[i].last_use < pool->slots[oldest].last_use))
			oldest = i;
	}
	if (oldest) {
		eng_kv_state_forget(pool, pool->slots[oldest].page);
		pool->n_checkpoints_lost++;
	}
	return pool->n_free_states ? pool->free_states[--pool->n_free_states] : 0;
}

int eng_kv_seq_take_state(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t *ret_from)
{
	uint32_t n = seq->n_tokens / pool->page_tokens, from = n ? pool->pages[seq->pages[n - 1]].checkpoint : 0, slot;

	assert(!seq->state && seq->n_tokens % pool->page_tokens == 0 && (n == 0 || from));
	if (from) {
		pool->slots[from].last_use = ++pool->clock;
		pool->slots[from].is_used = true;
	}
	/* With no other checkpoint left, the slot is the very one that the sequence begins with. */
	slot = take_slot(pool);
	if (!slot)
		return -ENOSPC;
	pool->slots[slot] = (struct slot){ .use = SLOT_RUNNING };
	seq->state = slot;
	*ret_from = from;
	return 0;
}

/* The provisional checkpoint before the one that is to be made. */
static void drop_provisional(struct eng_kv_pool *pool, struct eng_kv_seq *seq)
{
	uint32_t page = seq->n_provisional ? seq->pages[seq->n_provisional - 1] : ENG_KV_NO_PAGE;

	if (page != ENG_KV_NO_PAGE && pool->pages[page].checkpoint &&
	    !pool->slots[pool->pages[page].checkpoint].is_used)
		eng_kv_state_forget(pool, page);
	seq->n_provisional = 0;
}

uint32_t eng_kv_seq_keep(struct eng_kv_pool *pool, struct eng_kv_seq *seq)
{
	drop_provisional(pool, seq);
	if (!seq->keep)
		seq->keep = take_slot(pool);
	if (seq->keep)
		pool->slots[seq->keep] = (struct slot){ .use = SLOT_RUNNING };
	return seq->keep;
}

void eng_kv_seq_checkpoint(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n, bool provisional)
{
	uint32_t page, slot = seq->keep;

	assert(slot && n > 0 && n <= seq->n_shared);
	seq->keep = 0;
	page = seq->pages[n - 1];
	if (pool->pages[page].checkpoint) {
		pool->slots[pool->pages[page].checkpoint].last_use = ++pool->clock;
		give_back(pool, slot);
		return;
	}
	pool->slots[slot] = (struct slot){ .use = SLOT_CHECKPOINT, .page = page, .last_use = ++pool->clock };
	pool->pages[page].checkpoint = slot;
	pool->n_checkpoints++;
	if (provisional)
		seq->n_provisional = n;
}

int eng_kv_state_check(const struct eng_kv_pool *pool, struct err *err)
{
	uint32_t n_use[3] = { 0 }, n_of_pages = 0;

	for (uint32_t i = 1; i <= pool->n_states; i++) {
		const struct slot *s = &pool->slots[i];

		n_use[s->use]++;
		if (s->use == SLOT_CHECKPOINT &&
		    (pool->pages[s->page].checkpoint != i || pool->pages[s->page].state != PAGE_TREE))
			return err_set(err, -EIO, "recurrent states: slot %u is a checkpoint of page %u, which has %u",
			               i, s->page, pool->pages[s->page].checkpoint);
	}
	for (uint32_t i = 0; i < pool->n_pages; i++)
		n_of_pages += pool->pages[i].checkpoint != 0;
	if (n_use[SLOT_FREE] != pool->n_free_states || n_use[SLOT_CHECKPOINT] != pool->n_checkpoints ||
	    n_of_pages != pool->n_checkpoints)
		return err_set(err, -EIO,
		               "recurrent states: %u free, %u running and %u checkpoints of %u slots; counted %u free, "
		               "%u checkpoints, %u pages that have one",
		               n_use[SLOT_FREE], n_use[SLOT_RUNNING], n_use[SLOT_CHECKPOINT], pool->n_states,
		               pool->n_free_states, pool->n_checkpoints, n_of_pages);
	return 0;
}
