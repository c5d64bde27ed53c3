/* What the files of this room share: the parsed catalogue, values, commands. */
#ifndef AG_KNOW_INTERNAL_H
#define AG_KNOW_INTERNAL_H

#include <stdint.h>
#include <string.h>

#include "know.h"

enum {
	KNOW_MAX_TASKS = 8192,
	KNOW_MAX_TOKENS = 64,  /* of a question; what is longer is cut */
	KNOW_MAX_TEXT = 1024,  /* bytes of a question that are looked at */
	KNOW_MAX_DEPTH = 8,    /* of groups in a wording */
	KNOW_MAX_WORDINGS = 64 /* of one task, both languages */
};

/* Types of slots; the order is that of the table in slots.c. */
enum { SLOT_NONE = -1 };

/* A wording is a tree in one array. SEQ: children are chained by next. */
enum node_kind { NODE_TOKEN, NODE_SLOT, NODE_CHOICE };

struct node {
	uint8_t kind;
	uint8_t slot;   /* NODE_SLOT: index into the task's slots */
	uint32_t token; /* NODE_TOKEN: vocabulary id */
	uint32_t child; /* NODE_CHOICE: first alternative (index into alts), 0: none */
	uint32_t next;  /* next node of the sequence, 0: end */
};

struct alt {
	uint32_t first; /* first node, 0: empty */
	uint32_t next;  /* next alternative, 0: end */
};

struct task {
	const char *id, *command, *explain_zh, *explain_en, *packages;
	enum ag_know_risk risk;
	uint8_t n_slots;
	struct {
		const char *name, *type;
		int8_t kind;
	} slots[AG_KNOW_MAX_SLOTS];
	uint32_t wordings[KNOW_MAX_WORDINGS]; /* first nodes */
	uint8_t n_wordings;
	uint64_t chinese; /* bit i: wordings[i] is Chinese */
};

struct posting {
	uint32_t task, next;
};

struct feature { /* open addressing by hash; hash 0 is free */
	uint64_t hash;
	uint32_t n_tasks, last_task, postings;
};

struct word {
	uint64_t hash;
	const char *text;
	uint16_t len;
	uint16_t n_tasks;
	uint32_t last_task;
	float weight;
};

struct ag_know {
	char *texts[64]; /* files, cut up in place */
	size_t n_texts;
	struct task *tasks;
	size_t n_tasks, cap_tasks;
	struct node *nodes;
	size_t n_nodes, cap_nodes;
	struct alt *alts;
	size_t n_alts, cap_alts;
	struct posting *postings;
	size_t n_postings, cap_postings;
	struct feature *features;
	size_t n_features, cap_features;
	struct word *words; /* id 0 is not used */
	size_t n_words, cap_words;
	uint32_t *word_table;
	size_t cap_word_table;
	struct {
		const char *name;
		uint32_t first_alt;
	} macros[32];
	size_t n_macros;
	char **owned;
	size_t n_owned, cap_owned;
};

/* ---- catalogue.c ---- */

/* One file's text, which is cut up in place and stays the catalogue's. */
int ag_know_parse_text(struct ag_know *k, const char *name, char *text, struct err *err);
/* When all files are read: words weigh by how few tasks use them. */
void ag_know_weigh_words(struct ag_know *k);

/* ---- words.c ---- */

struct token {
	const char *text; /* as typed */
	uint16_t len;
	uint16_t start;       /* byte offset, to see what touches what */
	uint32_t word;        /* vocabulary id of its folded form, 0: not in the catalogue */
	bool is_cjk, is_near; /* is_near: the word is one typing error away */
	float weight;         /* what leaving it unexplained costs */
};

uint64_t ag_know_hash(const char *text, size_t len);
/* Folds an ASCII word for comparison (case, a plural s) into out[64]; returns its length. */
size_t ag_know_fold(const char *text, size_t len, char out[64]);
/* The next token at *pos of text[len]: 1, or 0 at the end. Sets text, len, start, is_cjk. */
int ag_know_next_token(const char *text, size_t len, size_t *pos, struct token *ret);
uint32_t ag_know_word_find(const struct ag_know *k, const char *text, size_t len, bool is_cjk);
/* A question, prepared: politeness weighs little, words near to a known one are mapped to it. */
size_t ag_know_tokenize(const struct ag_know *k, const char *question, char text[KNOW_MAX_TEXT],
                        struct token tokens[KNOW_MAX_TOKENS]);
/* A word that carries no meaning for the choice of a task. */
bool ag_know_is_filler(const char *text, size_t len);

/* ---- index.c ---- */

int ag_know_index_word(struct ag_know *k, uint32_t word, uint32_t task);
int ag_know_index_pair(struct ag_know *k, uint32_t a, uint32_t b, uint32_t task);
/* Tasks by shared words and pairs, best first. */
size_t ag_know_candidates(const struct ag_know *k, const struct token *tokens, size_t n_tokens, uint32_t *ret_tasks,
                          float *ret_scores, size_t max);

/* ---- align.c ---- */

struct alignment {
	float score;                        /* 0 to 1 */
	uint8_t span[AG_KNOW_MAX_SLOTS][2]; /* tokens [from, to); from == to: not filled */
	float missing;                      /* weight of wording tokens that the question lacks */
	float leftover;                     /* weight of question tokens that nothing explains */
	bool leftover_value;                /* among them a path, number or the like */
};

void ag_know_align(const struct ag_know *k, const struct task *t, const struct token *tokens, size_t n_tokens,
                   struct alignment *ret);

/* ---- slots.c ---- */

int ag_know_slot_kind(const char *type, size_t len); /* index, or SLOT_NONE */
/* Do these tokens read as a value of this kind? Negative: no; else a cost, 0 the best. */
float ag_know_slot_cost(const struct ag_know *k, int kind, const struct token *tokens, size_t n);
/* The value in the form that the command wants ("500兆" -> "500M"); false when out is too small. */
bool ag_know_slot_value(int kind, const struct token *tokens, size_t n, char *out, size_t size);
/* A token that can only be a value: a path, an address, a number. */
bool ag_know_is_value(const struct token *t);

/* ---- numbers.c ---- */

/* Digits, or a number in words; -1: none. */
long ag_know_number(const struct token *tokens, size_t n);
/* Digits of a size and its unit letter: "10G", "10GB", "500 M", "500兆", "2个G". */
bool ag_know_size(const struct token *tokens, size_t n, char *out, size_t size);

/* Some bytes, and each of them is in the set. */
static inline bool all_of(const char *s, size_t len, const char *set)
{
	for (size_t i = 0; i < len; i++)
		if (!strchr(set, s[i]))
			return false;
	return len > 0;
}

/* ---- command.c ---- */

/* Reads the template's slots into t->slots. 0, or -E2BIG. */
int ag_know_template_read(struct task *t, char *(*dup)(void *, const char *, size_t), void *arg);
int ag_know_fill(const struct task *t, char *const values[], struct base_buf *out);
/* One form for commands that differ in what does not matter (sudo, yum, -y, podman, quotes, blanks). */
void ag_know_normalise(const char *command, char out[1024]);
bool ag_know_same_command(const char *a, const char *b);
/* The command is this template with values: their places in the normalised command are copied into values. */
bool ag_know_is_instance(const struct task *t, const char *command, char values[AG_KNOW_MAX_SLOTS][128]);
/* What a command line does, by the gate; only for what the catalogue does not have. Without memory: the worst. */
enum ag_know_risk ag_know_guess_risk(const char *command);

/* ---- match.c ---- */

struct scored {
	uint32_t task;
	float score;
	struct alignment a;
};

enum { KNOW_CANDIDATES = 64 };

/* A question against the catalogue: the candidates, best first. */
struct know_query {
	char text[KNOW_MAX_TEXT];
	struct token tokens[KNOW_MAX_TOKENS];
	size_t n_tokens, n;
	struct scored best[KNOW_CANDIDATES];
};

bool ag_know_asks_only(const char *question);
void ag_know_query(const struct ag_know *k, const char *question, struct know_query *q);
/* The place of a task among the candidates, or -1. */
int ag_know_query_rank(const struct know_query *q, uint32_t task);
/* Values of best[at] filled in; negative errno without memory. */
int ag_know_query_result(const struct ag_know *k, const struct know_query *q, size_t at, struct ag_know_match *ret);

#endif
