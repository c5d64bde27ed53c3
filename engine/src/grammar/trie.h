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
	uint16_t kinds; /* of all characters below, CHAR_KIND_... */
	uint16_t depth; /* bytes from the root */
	uint32_t chars; /* most characters below */
};

/* Characters by what patterns tell apart most; a state that stays as it is over all characters of some kinds takes
 * whole subtrees. */
enum {
	CHAR_LOWER = 1u << 0,
	CHAR_UPPER = 1u << 1,
	CHAR_DIGIT = 1u << 2,
	CHAR_SPACE = 1u << 3,
	CHAR_LINE = 1u << 4, /* _ */
	CHAR_DASH = 1u << 5,
	CHAR_DOT = 1u << 6,
	CHAR_SLASH = 1u << 7,
	CHAR_OTHER = 1u << 8,    /* the rest of printable ASCII but " and \ */
	CHAR_BEYOND = 1u << 9,   /* beyond ASCII, whole */
	CHAR_SPECIAL = 1u << 10, /* controls, " \ DEL, parts of characters: never taken as a whole */
};
uint16_t gr_char_kind(uint32_t cp);

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
int gr_trie_build(struct trie *t, struct trie_entry *entries, size_t n);
void gr_trie_done(struct trie *t);

#endif
