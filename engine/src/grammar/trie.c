/* Building: sort by bytes, then each entry adds the nodes that it does not share with the one before. */
#include "grammar/trie.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* Whether a string made of these bytes needs no escape and cuts no character; the number of its characters. */
static bool plain(const uint8_t *p, uint32_t len, uint32_t *ret_chars)
{
	uint32_t cp = 0, n = 0;
	size_t step;

	for (uint32_t i = 0; i < len; i += (uint32_t)step, n++) {
		step = ast_utf8((const char *)p + i, len - i, &cp);
		if (step == 0 || cp < 0x20 || cp == '"' || cp == '\\' || cp == 0x7f)
			return false;
	}
	*ret_chars = n;
	return true;
}

/* is_plain and chars of every node: of each token, from each of its bytes on. Nodes are plain unless a token below says
 * no; path[d] is the node at depth d. */
static void mark_path(struct trie *t, const uint32_t *path, const struct trie_entry *e)
{
	for (uint32_t d = 0; d < e->len; d++) {
		struct trie_node *node = &t->nodes[path[d]];
		uint32_t chars = 0;

		if (!node->is_plain)
			continue;
		if (!plain(e->bytes + d, e->len - d, &chars))
			node->is_plain = false;
		else if (chars > node->chars)
			node->chars = chars;
	}
}

int trie_build(struct trie *t, struct trie_entry *entries, size_t n)
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
	t->nodes[0].is_plain = true;
	t->n_nodes = 1;
	for (size_t i = 0; i < n; i++) {
		const struct trie_entry *e = &entries[i];
		uint32_t from = i ? common(e, &entries[i - 1]) : 0;

		for (uint32_t d = from; i && d < entries[i - 1].len; d++)
			t->nodes[path[d + 1]].end = t->n_nodes;
		for (uint32_t d = from; d < e->len; d++) {
			path[d + 1] = t->n_nodes;
			t->nodes[t->n_nodes++] = (struct trie_node){ .byte = e->bytes[d],
				                                     .is_plain = true,
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
		trie_done(t);
	return r;
}

void trie_done(struct trie *t)
{
	free(t->nodes);
	free(t->tokens);
	memset(t, 0, sizeof(*t));
}
