/* Building: sort by bytes, then each entry adds the nodes that it does not share with the one before. */
#include "grammar/trie.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"
#include "grammar/lex.h"

static int compare(const void *a, const void *b)
{
	const struct trie_entry *x = a, *y = b;
	uint32_t n = x->len < y->len ? x->len : y->len;
	int c = memcmp(x->bytes, y->bytes, n);

	if (c != 0)
		return c;
	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return x->token < y->token ? -1 : x->token > y->token;
}

static uint32_t common(const struct trie_entry *x, const struct trie_entry *y)
{
	uint32_t i = 0;

	while (i < x->len && i < y->len && x->bytes[i] == y->bytes[i])
		i++;
	return i;
}

uint16_t gr_char_kind(uint32_t cp)
{
	if (cp >= 0x80)
		return CHAR_BEYOND;
	if (cp < 0x20 || cp == '"' || cp == '\\' || cp == 0x7f)
		return CHAR_SPECIAL;
	if (cp >= 'a' && cp <= 'z')
		return CHAR_LOWER;
	if (cp >= 'A' && cp <= 'Z')
		return CHAR_UPPER;
	if (cp >= '0' && cp <= '9')
		return CHAR_DIGIT;
	switch (cp) {
	case ' ':
		return CHAR_SPACE;
	case '_':
		return CHAR_LINE;
	case '-':
		return CHAR_DASH;
	case '.':
		return CHAR_DOT;
	case '/':
		return CHAR_SLASH;
	default:
		return CHAR_OTHER;
	}
}

/* kinds and chars of every node that leads to the token; path[d] is the node at depth d. */
static void mark_path(struct trie *t, const uint32_t *path, const struct trie_entry *e)
{
	uint32_t end = 0, n_chars = 0, cp = 0;
	size_t step;

	/* How far it is whole characters. */
	for (; end < e->len; end += (uint32_t)step, n_chars++) {
		step = base_utf8_get((const char *)e->bytes + end, e->len - end, &cp);
		if (step == 0)
			break;
	}
	for (uint32_t d = 0; d < end; d += (uint32_t)step, n_chars--) {
		step = base_utf8_get((const char *)e->bytes + d, e->len - d, &cp);
		for (uint32_t k = 0; k <= d; k++) /* below all the nodes before it, too */
			t->nodes[path[k]].kinds |= gr_char_kind(cp);
		for (uint32_t k = 1; k < step; k++)
			t->nodes[path[d + k]].kinds |= CHAR_SPECIAL;
		if (n_chars > t->nodes[path[d]].chars)
			t->nodes[path[d]].chars = n_chars;
	}
	for (uint32_t k = 0; end < e->len && k < e->len; k++)
		t->nodes[path[k]].kinds |= CHAR_SPECIAL;
}

int gr_trie_build(struct trie *t, struct trie_entry *entries, size_t n)
{
	size_t n_nodes = 2, longest = 0, skip = 0;
	uint32_t *path = NULL;
	int r = -ENOMEM;

	memset(t, 0, sizeof(*t));
	if (n > 0)
		qsort(entries, n, sizeof(*entries), compare);
	while (skip < n && entries[skip].len == 0)
		skip++;
	entries += skip;
	n -= skip;
	for (size_t i = 0; i < n; i++) {
		n_nodes += entries[i].len - (i ? common(&entries[i], &entries[i - 1]) : 0);
		longest = entries[i].len > longest ? entries[i].len : longest;
	}
	if (longest > UINT16_MAX || n_nodes > UINT32_MAX)
		return -E2BIG;
	t->nodes = calloc(n_nodes, sizeof(*t->nodes));
	t->tokens = calloc(n + 1, sizeof(*t->tokens));
	path = calloc(longest + 1, sizeof(*path));
	if (!t->nodes || !t->tokens || !path)
		goto out;
	t->n_nodes = 1;
	for (size_t i = 0; i < n; i++) {
		const struct trie_entry *e = &entries[i];
		uint32_t from = i ? common(e, &entries[i - 1]) : 0;

		for (uint32_t d = from; i && d < entries[i - 1].len; d++)
			t->nodes[path[d + 1]].end = t->n_nodes;
		for (uint32_t d = from; d < e->len; d++) {
			path[d + 1] = t->n_nodes;
			t->nodes[t->n_nodes++] = (struct trie_node){ .byte = e->bytes[d],
				                                     .depth = (uint16_t)(d + 1),
				                                     .token = t->n_tokens };
		}
		t->tokens[t->n_tokens++] = e->token;
		mark_path(t, path, e);
	}
	for (uint32_t d = 0; n && d < entries[n - 1].len; d++)
		t->nodes[path[d + 1]].end = t->n_nodes;
	t->nodes[0].end = t->n_nodes;
	t->nodes[t->n_nodes] = (struct trie_node){ .end = t->n_nodes, .token = t->n_tokens };
	r = 0;
out:
	free(path);
	if (r < 0)
		gr_trie_done(t);
	return r;
}

void gr_trie_done(struct trie *t)
{
	free(t->nodes);
	free(t->tokens);
	memset(t, 0, sizeof(*t));
}
