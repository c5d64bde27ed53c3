/* Shared by the grammar's files: what a compiled grammar is made of, and the machine that reads bytes by it. */
#ifndef ENG_GRAMMAR_INTERNAL_H
#define ENG_GRAMMAR_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine.h"
#include "grammar/grammar.h"
#include "grammar/lex.h"
#include "grammar/trie.h"

enum {
	GR_MAX_DEPTH = 200,      /* of frames: nesting of an output */
	GR_MAX_CONFS = 512,      /* alternatives followed at once */
	GR_MAX_INDENT = 24,      /* blanks behind an end of line between tokens of JSON */
	GR_MAX_NODES = 20000,    /* of one grammar */
	GR_MAX_SETS = 65536,     /* different sets of seen properties */
	GR_MAX_PATTERNS = 6,     /* patternProperties that meet in one object */
	GR_MAX_STEPS = 16 << 20, /* of one mask */
};
#define GR_NONE UINT32_MAX

/* ---- Nodes: what a grammar is made of ---- */

enum node_kind { NODE_VALUE, NODE_LEX, NODE_OBJECT, NODE_ARRAY, NODE_RULE, NODE_DOCUMENT };

struct prop {
	char *name; /* UTF-8 */
	uint32_t len;
	uint32_t value; /* node; GR_NONE: forbidden */
	bool is_required;
};

/* Names as a trie over code points; children of a node lie together, sorted. */
struct name_node {
	uint32_t cp;
	uint32_t first, n; /* children */
	uint32_t lo, hi;   /* props [lo, hi) begin with this prefix; props[lo] is this one when is_name */
	bool is_name;
};

/* What an object may hold beyond `required`: if any of `given` is there, all of `needed` are. */
struct dependency {
	uint32_t given;
	uint32_t *needed;
	uint32_t n_needed;
};

struct object {
	struct prop *props;        /* sorted by code points of their names */
	uint32_t n_props, n_words; /* n_words: of a set of seen properties */
	uint64_t *required;        /* [n_words] */
	struct name_node *names;
	uint32_t n_names;
	struct dfa *patterns; /* owned, of the names of other properties; NULL: none */
	uint32_t n_patterns;
	uint32_t other[1u << GR_MAX_PATTERNS]; /* value by the mask of patterns that match; [0]: none of them */
	uint32_t min, max;                     /* properties */
	struct dependency *dependencies;
	uint32_t n_dependencies;
};

struct array {
	uint32_t *prefix, n_prefix; /* values */
	uint32_t items;             /* GR_NONE: none behind the prefix */
	uint32_t min, max;
};

struct rule {
	uint32_t start, accept; /* states of the grammar's rule automaton */
};

struct node {
	enum node_kind kind;
	union {
		struct {
			uint32_t *alternatives, n; /* LEX, OBJECT and ARRAY nodes */
		} value;
		struct lex lex;
		struct object object;
		struct array array;
		struct rule rule;
		uint32_t document; /* the value behind leading white space */
	};
};

/* What a state of the rule automaton leads to without reading: */
struct rule_closure {
	bool is_known, accepts;
	uint32_t *sets, *set_to, n_sets;    /* characters */
	uint32_t *calls, *call_to, n_calls; /* rules */
};

/* ---- Vocabulary and masks ---- */

/* Tokens that a state allows by itself, and those whose rest belongs to whatever surrounds it. */
struct local_mask {
	uint64_t key[4];
	uint64_t *bits;  /* dense, or */
	int32_t *tokens; /* a list */
	uint32_t n_tokens;
	struct trie rest; /* by the bytes behind the end of the state's own part */
	size_t bytes;
};

struct mask_cache {
	struct local_mask **slots; /* open addressing */
	uint32_t n, size;
	size_t bytes, max_bytes;
};

struct grammar_vocab {
	atomic_uint refs;
	uint32_t n, n_words;
	uint32_t *offsets; /* [n + 1] into bytes */
	uint8_t *bytes;
	struct trie trie;
	struct trie closing; /* of those that can close a string when they come within one */
	uint8_t *chars; /* per token: characters that a string must have room for to take it without being closed; 255:
	                   none */
	uint32_t most_chars; /* of a token */
	pthread_mutex_t lock;
	struct mask_cache strings; /* inside of strings without a pattern, for all grammars; protected by lock */
};

struct seen_set {
	uint32_t next; /* of the same bucket + 1 */
	uint32_t n_words;
	uint64_t words[];
};

struct eng_grammar {
	atomic_uint refs;
	enum eng_grammar_kind kind;
	char *text; /* for finding it again */
	size_t len;
	struct grammar_vocab *vocab;
	struct node *nodes;
	uint32_t n_nodes, cap_nodes;
	uint32_t root;
	uint32_t free_string; /* any string: a terminal */
	struct nfa rules;     /* EBNF */
	uint32_t *rule_nodes, n_rules;

	pthread_mutex_t lock;
	/* protected by lock, which every reading of bytes takes: automata are completed as they are walked */
	struct rule_closure *closures; /* [rules.n_states] */
	struct seen_set **seen;
	uint32_t n_seen, cap_seen, seen_buckets[1024];
	struct mask_cache masks;
};

int gr_grammar_node(struct eng_grammar *g, enum node_kind kind, uint32_t *ret);
int gr_schema_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err);
int gr_tags_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err);
int gr_ebnf_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err);
void gr_node_done(struct node *n);
/* Sorts the properties and builds the trie of names. */
int gr_object_finish(struct object *o);

/* ---- The machine ---- */

/* One thing that the text so far may be: the innermost node with its own state, above a stack of frames. */
struct conf {
	uint32_t stack; /* frame below, 0: none */
	uint32_t node;  /* GR_NONE: the text is complete */
	uint32_t a, b, c, d, e, f;
};

struct frame {
	struct conf conf; /* goes on when what is above has ended */
	uint32_t next;    /* of the same bucket */
	uint32_t depth;
};

enum { MACHINE_BUCKETS = 4096, MACHINE_VISITED = 4096 };

struct machine {
	struct eng_grammar *g;
	struct frame *frames; /* [0] unused */
	uint32_t n_frames, cap_frames;
	uint32_t buckets[MACHINE_BUCKETS];
	struct conf *arena;
	uint32_t n_arena, cap_arena;
	uint32_t out; /* where the set being made begins */
	struct {
		uint32_t stamp, stack, node, state;
	} * visited;
	uint32_t stamp, n_visited;
	uint64_t n_steps;
	int error; /* sticky */
};

int gr_machine_init(struct machine *m, struct eng_grammar *g);
void gr_machine_done(struct machine *m);
/* Sets are runs of the arena: [begin, begin + count). Each call appends a set at the arena's end, returns its size and
 * leaves its begin in m->out. Callers cut the arena back themselves. */
uint32_t gr_machine_start(struct machine *m);
uint32_t gr_machine_step(struct machine *m, uint32_t begin, uint32_t n, uint8_t byte);
/* Where the text goes on when the innermost node of a conf on this stack has ended. */
uint32_t gr_machine_pop(struct machine *m, uint32_t stack);
/* Forgets the frames made since n_frames was so many. */
void gr_machine_cut_frames(struct machine *m, uint32_t n_frames);
/* Keeps only the frames that these confs reach, and changes their stacks. */
int gr_machine_collect(struct machine *m, struct conf *confs, uint32_t n);
/* Whether all texts of up to n characters of these kinds may follow. */
bool gr_machine_takes(struct machine *m, const struct conf *c, uint16_t kinds, uint32_t n);

/* seen sets: 0 is the empty one */
uint32_t gr_seen_with(struct eng_grammar *g, const struct object *o, uint32_t seen, uint32_t prop); /* GR_NONE: error */
bool gr_seen_has(const struct eng_grammar *g, uint32_t seen, uint32_t prop);

/* object.c: one byte for a conf whose node is an object; appends to the set. */
void gr_object_step(struct machine *m, const struct conf *c, uint8_t byte);
bool gr_object_takes(struct machine *m, const struct conf *c, uint16_t kinds, uint32_t n);
/* Within a name, between two characters of it. */
bool gr_object_is_in_name(const struct machine *m, const struct conf *c);
/* And any other name may come as well: the conf of a free string that is such a name, on a frame of its own. */
bool gr_object_free_name(struct machine *m, const struct conf *c, struct conf *ret);
/* White space at phase a: 1 read, 0 it is none, -1 refused. */
enum gap_kind { GAP_BLANK, GAP_LEAD, GAP_LINE }; /* a blank; or a line end; or one and an indentation */
int gr_machine_gap(uint32_t *a, uint8_t byte, enum gap_kind kind);
/* A line ended in it. */
bool gr_machine_gap_has_line(uint32_t a);
void gr_machine_emit(struct machine *m, const struct conf *c);
uint32_t gr_machine_push(struct machine *m, const struct conf *c); /* GR_NONE: too deep or an error */
void gr_machine_leave(struct machine *m, uint32_t stack);
void gr_machine_value(struct machine *m, uint32_t value, uint32_t stack, uint8_t byte);

/* ---- Masks ---- */

void gr_mask_cache_done(struct mask_cache *c);
/* Adds to bits what the conf allows. */
int gr_mask_add(struct machine *m, const struct conf *c, uint64_t *bits);

#endif
