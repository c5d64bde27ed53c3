/* Tokens by their bytes: a trie in preorder, so that a subtree is a run of nodes and of tokens. */
#ifndef ENG_GRAMMAR_TRIE_H
#define ENG_GRAMMAR_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trie_node {
	uint32_t end;   /* first node behind the subtree */
	uint32_t token; /* tokens[token .. next node's token) end here; the subtree's reach up to nodes[end].token */
	uint8_t byte;
	bool is_plain;  /* every way below is made of whole characters that a JSON string holds unescaped */
	uint16_t depth; /* bytes from the root */
	uint32_t chars; /* is_plain: most characters below */
};

struct trie {
	struct trie_node *nodes; /* [0] is the root; one more behind the last ends the token runs */
	uint32_t n_nodes;
	int32_t *tokens;
	uint32_t n_tokens;
};

struct trie_entry {
	const uint8_t *bytes; /* borrowed during the build */
	uint32_t len;
	int32_t token;
};

/* Sorts the entries; empty ones are left out. -ENOMEM. */
int trie_build(struct trie *t, struct trie_entry *entries, size_t n);
void trie_done(struct trie *t);

#endif
