/* The prefix tree over the pool's pages. A node is a page, found by its parent and its tokens in one hash table;
 * there is nothing to split and nothing to allocate. Leaves that nobody holds wait in a heap ordered by their
 * last use. A page becomes such a leaf when its last child goes; its own last use is never older than that of
 * its children, so the order of eviction is that of a list of all leaves. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kv/kv_internal.h"

/* ---- The heap of leaves that may go ---- */

static bool is_before(const struct eng_kv_pool *pool, uint32_t a, uint32_t b)
{
	const struct page *pa = &pool->pages[a], *pb = &pool->pages[b];

	return pa->last_use < pb->last_use || (pa->last_use == pb->last_use && a < b);
}

static void heap_put(struct eng_kv_pool *pool, uint32_t at, uint32_t page)
{
	pool->heap[at] = page;
	pool->pages[page].heap_at = at;
}

static void heap_up(struct eng_kv_pool *pool, uint32_t at, uint32_t page)
{
	while (at > 0 && is_before(pool, page, pool->heap[(at - 1) / 2])) {
		heap_put(pool, at, pool->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_put(pool, at, page);
}

static void heap_down(struct eng_kv_pool *pool, uint32_t at, uint32_t page)
{
	for (uint32_t child; (child = 2 * at + 1) < pool->n_heap; at = child) {
		if (child + 1 < pool->n_heap && is_before(pool, pool->heap[child + 1], pool->heap[child]))
			child++;
		if (!is_before(pool, pool->heap[child], page))
			break;
		heap_put(pool, at, pool->heap[child]);
	}
	heap_put(pool, at, page);
}

static void heap_add(struct eng_kv_pool *pool, uint32_t page)
{
	heap_up(pool, pool->n_heap++, page);
}

static void heap_remove(struct eng_kv_pool *pool, uint32_t page)
{
	uint32_t at = pool->pages[page].heap_at, last = pool->heap[--pool->n_heap];

	pool->pages[page].heap_at = NOT_IN_HEAP;
	if (at == pool->n_heap)
		return;
	heap_down(pool, at, last);
	heap_up(pool, pool->pages[last].heap_at, last);
}

/* ---- The table of nodes ---- */

/* What a first page has for a parent: a number that is no page's, ENG_KV_NO_PAGE for family 0. */
static uint32_t root_of(uint32_t family)
{
	assert(family < ENG_KV_MAX_FAMILIES);
	return ENG_KV_NO_PAGE - family;
}

static bool is_root(const struct eng_kv_pool *pool, uint32_t parent)
{
	return parent >= pool->n_pages;
}

static uint32_t hash_edge(const struct eng_kv_pool *pool, uint32_t parent, const int32_t *ids)
{
	uint64_t h = 0x9e3779b97f4a7c15u ^ parent;

	for (uint32_t i = 0; i < pool->page_tokens; i++) {
		h = (h ^ (uint32_t)ids[i]) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	return (uint32_t)h;
}

static const int32_t *ids_of(const struct eng_kv_pool *pool, uint32_t page)
{
	return pool->ids + (size_t)page * pool->page_tokens;
}

static uint32_t find_child(const struct eng_kv_pool *pool, uint32_t parent, const int32_t *ids, uint32_t hash)
{
	uint32_t page = pool->buckets[hash & (pool->n_buckets - 1)];

	while (page != ENG_KV_NO_PAGE) {
		const struct page *p = &pool->pages[page];

		if (p->hash == hash && p->parent == parent &&
		    memcmp(ids_of(pool, page), ids, pool->page_tokens * sizeof(*ids)) == 0)
			return page;
		page = p->next;
	}
	return ENG_KV_NO_PAGE;
}

/* ---- Keys ---- */

int eng_kv_pool_set_keys(struct eng_kv_pool *pool, const struct eng_pc_key *identity)
{
	if (!pool->keys)
		pool->keys = calloc(pool->n_pages, sizeof(*pool->keys));
	if (!pool->keys)
		return -ENOMEM;
	pool->identity = *identity;
	return 0;
}

void eng_kv_key_root(uint32_t family, struct eng_pc_key *ret_key)
{
	*ret_key = (struct eng_pc_key){ { 0 } };
	memcpy(ret_key->b, &family, sizeof(family));
}

int eng_kv_key_next(const struct eng_kv_pool *pool, const struct eng_pc_key *before, const int32_t *ids,
                    struct eng_pc_key *ret_key)
{
	return eng_pc_key_next(&pool->identity, before, ids, pool->page_tokens, ret_key);
}

static bool is_known(const struct eng_pc_key *key)
{
	static const struct eng_pc_key none;

	return memcmp(key, &none, sizeof(none)) != 0;
}

const struct eng_pc_key *eng_kv_page_key(const struct eng_kv_pool *pool, uint32_t page, struct eng_pc_key *ret_before)
{
	uint32_t parent = pool->pages[page].parent;

	if (!is_known(&pool->keys[page]))
		return NULL;
	if (is_root(pool, parent))
		eng_kv_key_root(ENG_KV_NO_PAGE - parent, ret_before);
	else
		*ret_before = pool->keys[parent];
	return &pool->keys[page];
}

/* Behind a page without a key there is none either. */
static void make_key(struct eng_kv_pool *pool, uint32_t page, uint32_t parent, const int32_t *ids)
{
	struct eng_pc_key before;

	if (!pool->keys)
		return;
	pool->keys[page] = (struct eng_pc_key){ { 0 } };
	if (is_root(pool, parent))
		eng_kv_key_root(ENG_KV_NO_PAGE - parent, &before);
	else
		before = pool->keys[parent];
	if (is_root(pool, parent) || is_known(&before))
		(void)eng_kv_key_next(pool, &before, ids, &pool->keys[page]); /* failed, it stays unknown */
}

/* ---- The tree ---- */

/* An own page becomes a node that its sequence holds. */
static void insert(struct eng_kv_pool *pool, uint32_t page, uint32_t parent, const int32_t *ids, uint32_t hash)
{
	uint32_t *bucket = &pool->buckets[hash & (pool->n_buckets - 1)];

	assert(pool->pages[page].state == PAGE_OWN && !pool->pages[page].is_pinned);
	make_key(pool, page, parent, ids);
	pool->pages[page] =
	        (struct page){ .state = PAGE_TREE,
		               .family = is_root(pool, parent) ? ENG_KV_NO_PAGE - parent : pool->pages[parent].family,
		               .parent = parent,
		               .next = *bucket,
		               .hash = hash,
		               .n_holders = 1,
		               .heap_at = NOT_IN_HEAP,
		               .last_use = pool->clock };
	*bucket = page;
	memcpy(pool->ids + (size_t)page * pool->page_tokens, ids, pool->page_tokens * sizeof(*ids));
	if (!is_root(pool, parent))
		pool->pages[parent].n_children++;
}

static void hold(struct eng_kv_pool *pool, uint32_t page)
{
	struct page *p = &pool->pages[page];

	assert(p->state == PAGE_TREE);
	if (p->n_holders++ > 0)
		return;
	pool->n_cached--;
	if (p->heap_at != NOT_IN_HEAP)
		heap_remove(pool, page);
}

void eng_kv_tree_release(struct eng_kv_pool *pool, uint32_t page)
{
	struct page *p = &pool->pages[page];

	assert(p->state == PAGE_TREE && p->n_holders > 0);
	p->last_use = pool->clock;
	if (--p->n_holders > 0)
		return;
	pool->n_cached++;
	if (p->n_children == 0)
		heap_add(pool, page);
}

uint32_t eng_kv_tree_evict(struct eng_kv_pool *pool)
{
	uint32_t page, *link;
	struct page *p;

	assert(pool->n_heap > 0);
	page = pool->heap[0];
	heap_remove(pool, page);
	p = &pool->pages[page];
	link = &pool->buckets[p->hash & (pool->n_buckets - 1)];
	while (*link != page)
		link = &pool->pages[*link].next;
	*link = p->next;
	eng_kv_state_forget(pool, page);
	if (!is_root(pool, p->parent)) {
		struct page *up = &pool->pages[p->parent];

		if (--up->n_children == 0 && up->n_holders == 0)
			heap_add(pool, p->parent);
	}
	pool->n_cached--;
	pool->n_evicted++;
	return page;
}

void eng_kv_pool_flush(struct eng_kv_pool *pool)
{
	while (pool->n_cached > 0)
		eng_kv_page_give_back(pool, eng_kv_tree_evict(pool));
}

/* ---- Prefixes ---- */

/* Pages of the longest prefix in the tree, at most `max`; into path unless NULL. *ret_known: those up to the last one
 * with a checkpoint, or all where there are no states. */
static uint32_t walk(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t max, uint32_t *path,
                     uint32_t *ret_known)
{
	uint32_t n = 0, known = 0, parent = root_of(family);

	for (; n < max; n++) {
		const int32_t *edge = ids + (size_t)n * pool->page_tokens;

		parent = find_child(pool, parent, edge, hash_edge(pool, parent, edge));
		if (parent == ENG_KV_NO_PAGE)
			break;
		if (path)
			path[n] = parent;
		if (pool->n_states == 0 || pool->pages[parent].checkpoint)
			known = n + 1;
	}
	*ret_known = known;
	return n;
}

uint32_t eng_kv_pool_peek(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids)
{
	uint32_t known;

	(void)walk(pool, family, ids, n_ids / pool->page_tokens, NULL, &known);
	return known * pool->page_tokens;
}

uint32_t eng_kv_pool_peek_pages(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids)
{
	uint32_t known;

	return walk(pool, family, ids, n_ids / pool->page_tokens, NULL, &known) * pool->page_tokens;
}

uint32_t eng_kv_pool_need(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids,
                          uint32_t n_tokens)
{
	uint32_t n = eng_kv_pool_peek(pool, family, ids, n_ids) / pool->page_tokens, parent = root_of(family);
	uint32_t need = n_tokens / pool->page_tokens + (n_tokens % pool->page_tokens != 0);

	for (uint32_t i = 0; i < n; i++) {
		const int32_t *edge = ids + (size_t)i * pool->page_tokens;

		parent = find_child(pool, parent, edge, hash_edge(pool, parent, edge));
		need -= pool->pages[parent].n_holders > 0;
	}
	return need;
}

int eng_kv_seq_match(struct eng_kv_pool *pool, struct eng_kv_seq *seq, const int32_t *ids, uint32_t n_ids)
{
	uint32_t n = eng_kv_pool_peek(pool, seq->family, ids, n_ids) / pool->page_tokens, known;
	int r;

	assert(seq->n_pages == 0);
	r = eng_kv_seq_grow(pool, seq, n);
	if (r < 0)
		return r;
	(void)walk(pool, seq->family, ids, n, seq->pages, &known);
	for (uint32_t i = 0; i < n; i++) {
		hold(pool, seq->pages[i]);
		pool->pages[seq->pages[i]].hits++;
	}
	seq->n_pages = seq->n_shared = n;
	seq->n_tokens = n * pool->page_tokens;
	return 0;
}

void eng_kv_seq_publish(struct eng_kv_pool *pool, struct eng_kv_seq *seq, const int32_t *ids, uint32_t n)
{
	uint32_t n_full = n / pool->page_tokens;

	assert(n <= seq->n_tokens && n_full <= seq->n_pages);
	if (seq->n_shared < n_full)
		pool->clock++;
	for (; seq->n_shared < n_full; seq->n_shared++) {
		uint32_t i = seq->n_shared, own = seq->pages[i],
		         parent = i > 0 ? seq->pages[i - 1] : root_of(seq->family);
		const int32_t *edge = ids + (size_t)i * pool->page_tokens;
		uint32_t hash = hash_edge(pool, parent, edge), known = find_child(pool, parent, edge, hash);

		if (known == ENG_KV_NO_PAGE) {
			insert(pool, own, parent, edge, hash);
			if (pool->hooks.published)
				pool->hooks.published(pool->hooks.ctx, own);
			continue;
		}
		hold(pool, known);
		seq->pages[i] = known;
		eng_kv_page_give_back(pool, own);
		pool->n_duplicates++;
	}
}

/* ---- Copies elsewhere ---- */

uint32_t eng_kv_pool_unsaved(const struct eng_kv_pool *pool, uint32_t min_hits)
{
	for (uint32_t i = 0; i < pool->n_pages; i++) {
		const struct page *p = &pool->pages[i];

		if (p->state == PAGE_TREE && !p->is_saved && p->hits >= min_hits &&
		    (p->parent == root_of(0) || (!is_root(pool, p->parent) && pool->pages[p->parent].is_saved)))
			return i;
	}
	return ENG_KV_NO_PAGE;
}

void eng_kv_page_set_saved(struct eng_kv_pool *pool, uint32_t page)
{
	pool->pages[page].is_saved = true;
}

bool eng_kv_page_is_saved(const struct eng_kv_pool *pool, uint32_t page)
{
	return pool->pages[page].is_saved;
}

const int32_t *eng_kv_page_ids(const struct eng_kv_pool *pool, uint32_t page)
{
	return ids_of(pool, page);
}

uint32_t eng_kv_page_family(const struct eng_kv_pool *pool, uint32_t page)
{
	return pool->pages[page].family;
}

/* ---- Integrity ---- */

static int check_node(const struct eng_kv_pool *pool, uint32_t page, struct err *err)
{
	const struct page *p = &pool->pages[page], *up = NULL;
	bool may_go = p->n_holders == 0 && p->n_children == 0;

	if (is_root(pool, p->parent) && p->parent <= ENG_KV_NO_PAGE - ENG_KV_MAX_FAMILIES)
		return err_set(err, -EIO, "prefix tree: page %u hangs on page %u of %u", page, p->parent,
		               pool->n_pages);
	if (!is_root(pool, p->parent)) {
		if (pool->pages[p->parent].state != PAGE_TREE)
			return err_set(err, -EIO, "prefix tree: page %u hangs on page %u, which is not in the tree",
			               page, p->parent);
		up = &pool->pages[p->parent];
		if (p->n_holders > 0 && up->n_holders == 0)
			return err_set(err, -EIO, "prefix tree: page %u is held, page %u before it is not", page,
			               p->parent);
		/* A held one gets its time when it is let go. */
		if (up->n_holders == 0 && up->last_use < p->last_use)
			return err_set(err, -EIO, "prefix tree: page %u was used after page %u before it", page,
			               p->parent);
	}
	if (find_child(pool, p->parent, ids_of(pool, page), p->hash) != page ||
	    p->hash != hash_edge(pool, p->parent, ids_of(pool, page)))
		return err_set(err, -EIO, "prefix tree: page %u is not found by its tokens", page);
	if (may_go != (p->heap_at != NOT_IN_HEAP))
		return err_set(err, -EIO, "prefix tree: page %u: %u holders, %u children, %s the eviction heap", page,
		               p->n_holders, p->n_children, may_go ? "not in" : "in");
	if (may_go && (p->heap_at >= pool->n_heap || pool->heap[p->heap_at] != page))
		return err_set(err, -EIO, "prefix tree: page %u is not at its place in the eviction heap", page);
	return 0;
}

int eng_kv_tree_check(const struct eng_kv_pool *pool, struct err *err)
{
	uint32_t n_nodes = 0, n_cached = 0, n_children = 0, n_inner = 0, n_in_heap = 0;
	int r = 0;

	for (uint32_t i = 0; i < pool->n_pages && r == 0; i++) {
		const struct page *p = &pool->pages[i];

		if (p->state != PAGE_TREE)
			continue;
		r = check_node(pool, i, err);
		n_nodes++;
		n_cached += p->n_holders == 0;
		n_children += p->n_children;
		n_inner += !is_root(pool, p->parent);
		n_in_heap += p->heap_at != NOT_IN_HEAP;
	}
	for (uint32_t i = 1; i < pool->n_heap && r == 0; i++) {
		if (is_before(pool, pool->heap[i], pool->heap[(i - 1) / 2]))
			r = err_set(err, -EIO, "prefix tree: the eviction heap is out of order at %u", i);
	}
	if (r < 0)
		return r;
	if (n_cached != pool->n_cached || n_children != n_inner || n_in_heap != pool->n_heap)
		return err_set(err, -EIO,
		               "prefix tree: of %u pages %u are cached, counted %u; %u children, %u have a parent; "
		               "%u may go, counted %u",
		               n_nodes, n_cached, pool->n_cached, n_children, n_inner, n_in_heap, pool->n_heap);
	return 0;
}
