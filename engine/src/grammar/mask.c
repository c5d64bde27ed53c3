/* From sets to tokens.
 *
 * The mask of a set is the union of its confs' masks. A conf's mask has two parts: what its innermost node allows by
 * itself, computed by walking the vocabulary's trie with an empty stack, and kept; and the rests of tokens that run
 * over the node's end, kept as a trie of their own, which is walked from what lies below on the real stack. The walk
 * leaves a subtree out as a whole where some conf takes everything in it: strings without a pattern take nearly all
 * tokens. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_internal.h"

struct level {
	uint32_t begin, n, end, n_frames;
};

struct rests {
	struct trie_entry *entries;
	size_t n, cap;
};

struct walk {
	const struct trie *trie;
	uint64_t *bits;
	struct rests *rests; /* NULL: the end of the whole text is the end */
};

static void set_tokens(const struct trie *t, uint32_t from, uint32_t to, uint64_t *bits)
{
	for (uint32_t i = from; i < to; i++)
		bits[(uint32_t)t->tokens[i] / 64] |= 1ull << ((uint32_t)t->tokens[i] % 64);
}

static bool set_has_end(const struct machine *m, uint32_t begin, uint32_t n)
{
	for (uint32_t i = begin; i < begin + n; i++) {
		if (m->arena[i].node == GR_NONE)
			return true;
	}
	return false;
}

/* The tokens below node i, by their bytes behind it. */
static int add_rests(struct machine *m, const struct walk *w, uint32_t i)
{
	const struct trie_node *node = &w->trie->nodes[i];
	const struct grammar_vocab *v = m->g->vocab;
	uint32_t from = w->trie->nodes[i + 1].token, to = w->trie->nodes[node->end].token;
	struct rests *r = w->rests;

	for (uint32_t k = from; k < to; k++) {
		int32_t id = w->trie->tokens[k];

		if (r->n == r->cap) {
			size_t cap = r->cap ? r->cap * 2 : 64;
			struct trie_entry *e = realloc(r->entries, cap * sizeof(*e));

			if (!e)
				return -ENOMEM;
			r->entries = e;
			r->cap = cap;
		}
		r->entries[r->n++] = (struct trie_entry){ .bytes = v->bytes + v->offsets[id] + node->depth,
			                                  .len = v->offsets[id + 1] - v->offsets[id] - node->depth,
			                                  .token = id };
	}
	return 0;
}

static bool takes_all_below(struct machine *m, uint32_t n, const struct trie_node *node)
{
	for (uint32_t k = m->out; !(node->kinds & CHAR_SPECIAL) && k < m->out + n; k++) {
		const struct conf c = m->arena[k];

		if (gr_machine_takes(m, &c, node->kinds, node->chars))
			return true;
	}
	return false;
}

/* As gr_machine_step(), with a short way for what walks of a vocabulary mostly meet: one terminal, in its middle. */
static uint32_t step(struct machine *m, const struct level *at, uint8_t byte)
{
	const struct conf c = m->arena[at->begin];
	struct lex_state s = { .partial = c.d, .q = c.e, .count = c.c };
	struct lex *lex;

	if (at->n != 1 || c.node == GR_NONE || m->g->nodes[c.node].kind != NODE_LEX || byte == '"')
		return gr_machine_step(m, at->begin, at->n, byte);
	lex = &m->g->nodes[c.node].lex;
	switch (gr_lex_step(lex, &s, byte)) {
	case LEX_DEAD:
		if (lex->dfa && gr_dfa_error(lex->dfa))
			m->error = gr_dfa_error(lex->dfa);
		return 0;
	case LEX_GOES_ON:
		m->out = m->n_arena;
		m->n_steps++;
		gr_machine_emit(
		        m, &(struct conf){ .stack = c.stack, .node = c.node, .c = s.count, .d = s.partial, .e = s.q });
		return m->error ? 0 : 1;
	default:
		return gr_machine_step(m, at->begin, at->n, byte);
	}
}

/* Walks the nodes [first, last) of the trie, which lie below one node, from that node's set [begin, begin + n). */
static int walk(struct machine *m, const struct walk *w, uint32_t begin, uint32_t n, uint32_t first, uint32_t last)
{
	const struct trie *t = w->trie;
	uint32_t cap = 64, level = 0, i = first;
	struct level *levels = calloc(cap, sizeof(*levels));
	int r = levels ? 0 : -ENOMEM;

	if (r == 0)
		levels[0] = (struct level){ begin, n, last, m->n_frames };
	while (r == 0 && i < last) {
		const struct trie_node *node = &t->nodes[i];
		bool has_end;
		uint32_t k;

		while (i >= levels[level].end)
			level--;
		gr_machine_cut_frames(m, levels[level].n_frames);
		m->n_arena = levels[level].begin + levels[level].n;
		k = step(m, &levels[level], node->byte);
		r = m->error;
		if (k == 0) {
			i = node->end;
			continue;
		}
		set_tokens(t, node->token, t->nodes[i + 1].token, w->bits);
		has_end = set_has_end(m, m->out, k);
		if (has_end && w->rests && node->end > i + 1)
			r = add_rests(m, w, i);
		if (node->end == i + 1 || (has_end && k == 1)) {
			i = node->end;
		} else if (takes_all_below(m, k, node)) {
			set_tokens(t, t->nodes[i + 1].token, t->nodes[node->end].token, w->bits);
			i = node->end;
		} else {
			if (level + 1 == cap) {
				struct level *more = realloc(levels, 2 * (size_t)cap * sizeof(*levels));

				if (!more) {
					r = -ENOMEM;
					break;
				}
				levels = more;
				cap *= 2;
			}
			levels[++level] = (struct level){ m->out, k, node->end, m->n_frames };
			i++;
		}
	}
	if (levels) {
		gr_machine_cut_frames(m, levels[0].n_frames);
		m->n_arena = begin + n;
	}
	free(levels);
	return r;
}

/* ---- What is kept ---- */

static void local_free(struct local_mask *l)
{
	if (!l)
		return;
	free(l->bits);
	free(l->tokens);
	gr_trie_done(&l->rest);
	free(l);
}

void gr_mask_cache_done(struct mask_cache *c)
{
	for (uint32_t i = 0; i < c->size; i++)
		local_free(c->slots[i]);
	free(c->slots);
	c->slots = NULL;
	c->n = c->size = 0;
	c->bytes = 0;
}

static uint32_t slot_of(const struct mask_cache *c, const uint64_t key[4])
{
	uint64_t h = 0x9e3779b97f4a7c15u;
	uint32_t i;

	for (int k = 0; k < 4; k++)
		h = (h ^ key[k]) * 0xff51afd7ed558ccdu, h ^= h >> 32;
	for (i = (uint32_t)h & (c->size - 1); c->slots[i]; i = (i + 1) & (c->size - 1)) {
		if (memcmp(c->slots[i]->key, key, 4 * sizeof(uint64_t)) == 0)
			break;
	}
	return i;
}

static struct local_mask *cache_find(const struct mask_cache *c, const uint64_t key[4])
{
	return c->size ? c->slots[slot_of(c, key)] : NULL;
}

/* Takes l over, also when it fails. */
static int cache_put(struct mask_cache *c, struct local_mask *l)
{
	if (c->bytes + l->bytes > c->max_bytes)
		gr_mask_cache_done(c); /* begins anew: what is in use comes back soon */
	if ((c->n + 1) * 2 > c->size) {
		struct mask_cache larger = { .size = c->size ? c->size * 2 : 64 };

		larger.slots = calloc(larger.size, sizeof(struct local_mask *));
		if (!larger.slots) {
			local_free(l);
			return -ENOMEM;
		}
		for (uint32_t i = 0; i < c->size; i++) {
			if (c->slots[i])
				larger.slots[slot_of(&larger, c->slots[i]->key)] = c->slots[i];
		}
		free(c->slots);
		c->slots = larger.slots;
		c->size = larger.size;
	}
	c->slots[slot_of(c, l->key)] = l;
	c->n++;
	c->bytes += l->bytes;
	return 0;
}

/* Bits stay where they are many; few tokens become a list. */
static int keep_bits(struct local_mask *l, uint64_t *bits, uint32_t n_words)
{
	uint32_t n = 0, k = 0;

	for (uint32_t i = 0; i < n_words; i++)
		n += (uint32_t)__builtin_popcountll(bits[i]);
	if (n > n_words) {
		l->bits = bits;
		l->bytes += n_words * sizeof(*bits);
		return 0;
	}
	l->tokens = calloc(n + 1, sizeof(*l->tokens));
	if (!l->tokens) {
		free(bits);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_words; i++) {
		for (uint64_t w = bits[i]; w; w &= w - 1)
			l->tokens[k++] = (int32_t)(i * 64 + (uint32_t)__builtin_ctzll(w));
	}
	l->n_tokens = n;
	l->bytes += n * sizeof(*l->tokens);
	free(bits);
	return 0;
}

static bool is_free_string(const struct machine *m, const struct conf *c)
{
	const struct node *n = &m->g->nodes[c->node];

	return n->kind == NODE_LEX && n->lex.is_string && !n->lex.dfa;
}

/* Within a string without a pattern tokens only need room; those that close it are what is left to walk. */
static const struct trie *add_roomy(const struct machine *m, const struct conf *c, uint64_t *bits)
{
	const struct grammar_vocab *v = m->g->vocab;
	const struct lex *lex = &m->g->nodes[c->node].lex;
	uint32_t room = lex->max - c->c; /* huge without a maximum */

	for (uint32_t i = 0; i < v->n; i++)
		bits[i / 64] |= (uint64_t)(v->chars[i] <= room && v->chars[i] != 255) << (i % 64);
	return &v->closing;
}

/* Walks the whole vocabulary from the conf alone. */
static int local_new(struct machine *m, const struct conf *c, const uint64_t key[4], struct local_mask **ret)
{
	const struct grammar_vocab *v = m->g->vocab;
	const struct trie *trie = &v->trie;
	struct local_mask *l = calloc(1, sizeof(*l));
	uint64_t *bits = calloc(v->n_words, sizeof(*bits));
	struct rests rests = { 0 };
	/* What nothing surrounds has no rests; of plain text, which may end anywhere, every token would have one. */
	bool wants_rests = c->stack != 0;
	struct conf alone = *c;
	int r = l && bits ? 0 : -ENOMEM;

	alone.stack = 0;
	if (r == 0) {
		memcpy(l->key, key, sizeof(l->key));
		l->bytes = sizeof(*l);
		m->out = m->n_arena;
		gr_machine_emit(m, &alone);
		r = m->error;
	}
	if (r == 0 && is_free_string(m, c) && c->d == DECODE_NONE)
		trie = add_roomy(m, c, bits);
	if (r == 0)
		r = walk(m, &(struct walk){ trie, bits, wants_rests ? &rests : NULL }, m->out, 1, 1, trie->n_nodes);
	if (r == 0 && rests.n > 0) {
		r = gr_trie_build(&l->rest, rests.entries, rests.n);
		l->bytes += l->rest.n_nodes * sizeof(*l->rest.nodes) + l->rest.n_tokens * sizeof(*l->rest.tokens);
	}
	free(rests.entries);
	if (r == 0) {
		r = keep_bits(l, bits, v->n_words);
		bits = NULL;
	}
	if (r < 0) {
		free(bits);
		local_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

static int add_local(struct machine *m, const struct conf *c, struct mask_cache *cache, const uint64_t key[4],
                     uint64_t *bits)
{
	struct local_mask *l = cache_find(cache, key);
	uint32_t base = m->n_arena, n_frames = m->n_frames, n;
	int r;

	if (!l) {
		r = local_new(m, c, key, &l);
		m->n_arena = base;
		if (r == 0)
			r = cache_put(cache, l);
		if (r < 0)
			return r;
	}
	for (uint32_t i = 0; l->bits && i < m->g->vocab->n_words; i++)
		bits[i] |= l->bits[i];
	for (uint32_t i = 0; i < l->n_tokens; i++)
		bits[(uint32_t)l->tokens[i] / 64] |= 1ull << ((uint32_t)l->tokens[i] % 64);
	if (c->stack == 0 || l->rest.n_nodes < 2)
		return 0;
	n = gr_machine_pop(m, c->stack);
	r = m->error ? m->error : walk(m, &(struct walk){ &l->rest, bits, NULL }, m->out, n, 1, l->rest.n_nodes);
	gr_machine_cut_frames(m, n_frames);
	m->n_arena = base;
	return r;
}

/* ---- Names of objects that take any name ---- */

/* Follows the tokens that can close a string, as long as what they spell may still become the name of a property. Those
 * that close it there were taken for free names; *bits is put right. */
static int correct_names(struct machine *m, const struct conf *c, uint64_t *bits)
{
	const struct trie *t = &m->g->vocab->closing;
	struct {
		struct conf conf;
		uint32_t end;
	} levels[256];
	uint32_t level = 0, i = 1, base = m->n_arena, n_frames = m->n_frames;
	int r = 0;

	levels[0].conf = *c;
	levels[0].end = t->n_nodes;
	while (r == 0 && i < t->n_nodes) {
		const struct trie_node *node = &t->nodes[i];
		bool is_end;
		uint32_t k;

		while (i >= levels[level].end)
			level--;
		is_end = node->byte == '"' && levels[level].conf.d == DECODE_NONE;
		gr_machine_cut_frames(m, n_frames);
		m->n_arena = base;
		m->out = base;
		gr_machine_emit(m, &levels[level].conf);
		k = gr_machine_step(m, base, 1, node->byte);
		r = m->error;
		if (is_end) {
			for (uint32_t id = node->token; id < t->nodes[node->end].token; id++)
				bits[(uint32_t)t->tokens[id] / 64] &= ~(1ull << ((uint32_t)t->tokens[id] % 64));
			if (k > 0)
				set_tokens(t, node->token, t->nodes[i + 1].token, bits);
			if (k > 0 && node->end > i + 1)
				r = walk(m, &(struct walk){ t, bits, NULL }, m->out, k, i + 1, node->end);
			i = node->end;
		} else if (k == 1 && gr_object_is_in_name(m, &m->arena[m->out]) && level + 1 < 256) {
			levels[++level].conf = m->arena[m->out];
			levels[level].end = node->end;
			i++;
		} else {
			i = node->end;
		}
	}
	gr_machine_cut_frames(m, n_frames);
	m->n_arena = base;
	return r;
}

/* In the middle of a name that may still be a property's or any other: as within a free string, but for the tokens that
 * close a property's name. */
static int add_name(struct machine *m, const struct conf *c, const struct conf *free_name, uint64_t *bits)
{
	uint32_t n_words = m->g->vocab->n_words;
	uint64_t *own = calloc(n_words, sizeof(*own));
	int r = own ? gr_mask_add(m, free_name, own) : -ENOMEM;

	if (r == 0)
		r = correct_names(m, c, own);
	for (uint32_t i = 0; i < n_words && r == 0; i++)
		bits[i] |= own[i];
	free(own);
	return r;
}

static uint64_t at_most(uint32_t x, uint32_t most)
{
	return x < most ? x : most;
}

int gr_mask_add(struct machine *m, const struct conf *c, uint64_t *bits)
{
	uint64_t key[4] = { (uint64_t)c->node << 32 | c->a, (uint64_t)c->b << 32 | c->c, (uint64_t)c->d << 32 | c->e,
		            (uint64_t)(c->stack == 0) << 32 | c->f };
	struct grammar_vocab *v = m->g->vocab;
	uint32_t n_frames = m->n_frames;
	struct conf free_name;
	const struct lex *lex;
	int r;

	if (c->node == GR_NONE)
		return 0;
	if (gr_object_free_name(m, c, &free_name)) {
		r = add_name(m, c, &free_name, bits);
		gr_machine_cut_frames(m, n_frames);
		return r;
	}
	lex = &m->g->nodes[c->node].lex;
	/* While one token cannot reach the maximum, how many characters there are makes no difference. */
	if (m->g->nodes[c->node].kind == NODE_LEX && lex->dfa &&
	    (lex->max == UINT32_MAX || lex->max - c->c > (uint64_t)v->most_chars + gr_dfa_farthest(lex->dfa)))
		key[1] = (uint64_t)c->b << 32 | UINT32_MAX;
	if (!is_free_string(m, c))
		return add_local(m, c, &m->g->masks, key, bits);
	/* How many characters must and may still come decides, as far as one token reaches. */
	key[0] = c->d;
	key[1] = at_most(lex->min > c->c ? lex->min - c->c : 0, v->most_chars + 1);
	key[2] = lex->max == UINT32_MAX ? v->most_chars + 1 : at_most(lex->max - c->c, v->most_chars + 1);
	key[3] = c->stack == 0;
	(void)pthread_mutex_lock(&v->lock);
	r = add_local(m, c, &v->strings, key, bits);
	(void)pthread_mutex_unlock(&v->lock);
	return r;
}
