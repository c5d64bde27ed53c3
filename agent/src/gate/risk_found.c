/* What an assessment has found, and the memory of it: one pool under a ceiling, freed with the result. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "risk_internal.h"

struct block {
	struct block *next;
	max_align_t data[];
};

struct tree_ref {
	struct ag_gate_tree *tree;
	struct tree_ref *next;
};

struct owner {
	struct ag_gate_risk risk; /* first: the caller's pointer is the owner's */
	struct tree_ref *trees;   /* of inner lines: functions point into them until all is judged */
	struct block *blocks;
	size_t total;
};

struct ag_gate_risk *ag_gate_risk_new(void)
{
	struct owner *o = calloc(1, sizeof(*o));

	return o ? &o->risk : NULL;
}

void ag_gate_risk_free(struct ag_gate_risk *risk)
{
	struct owner *o = (struct owner *)risk;
	struct block *next;

	if (!o)
		return;
	for (struct block *b = o->blocks; b; b = next) {
		next = b->next;
		free(b);
	}
	free(o);
}

bool ag_gate_keep_tree(struct gate_eval *ev, struct ag_gate_tree *tree)
{
	struct owner *o = (struct owner *)ev->risk;
	struct tree_ref *ref = ag_gate_pool_alloc(ev, sizeof(*ref));

	if (!ref) {
		ag_gate_tree_free(tree);
		return false;
	}
	*ref = (struct tree_ref){ tree, o->trees };
	o->trees = ref;
	return true;
}

void ag_gate_trees_free(struct gate_eval *ev)
{
	struct owner *o = (struct owner *)ev->risk;

	for (struct tree_ref *t = o->trees; t; t = t->next)
		ag_gate_tree_free(t->tree);
	o->trees = NULL;
}

/* ---- The pool ------------------------------------------------------------------------------------------- */

void ag_gate_pool_anew(struct gate_eval *ev)
{
	((struct owner *)ev->risk)->total = 0;
}

void *ag_gate_pool_alloc(struct gate_eval *ev, size_t size)
{
	struct owner *o = (struct owner *)ev->risk;
	struct block *b;

	if (o->total + size > GATE_MAX_POOL_BYTES) {
		ev->cut = true;
		return NULL;
	}
	b = calloc(1, sizeof(*b) + size + 1);
	if (!b) {
		ev->error = -ENOMEM;
		return NULL;
	}
	o->total += sizeof(*b) + size;
	b->next = o->blocks;
	o->blocks = b;
	return b->data;
}

char *ag_gate_pool_text(struct gate_eval *ev, const char *text, size_t len)
{
	static char empty[1];
	char *copy = ag_gate_pool_alloc(ev, len + 1);

	if (!copy)
		return empty;
	memcpy(copy, text, len);
	return copy;
}

char *ag_gate_pool_take(struct gate_eval *ev, struct base_buf *b)
{
	char *text;

	if (base_buf_error(b))
		ev->cut = true;
	text = ag_gate_pool_text(ev, base_buf_text(b), b->len);
	base_buf_done(b);
	return text;
}

/* ---- What was found ------------------------------------------------------------------------------------- */

void ag_gate_opinion_raise(struct gate_opinion *o, enum ag_gate_class class, unsigned flags, const char *why,
                           const char *word)
{
	if (class > o->class || !o->why || ((flags & AG_GATE_HARD) && !(o->flags & AG_GATE_HARD))) {
		o->why = why;
		o->word = word;
	}
	if (class > o->class)
		o->class = class;
	o->flags |= flags;
}

/* Room for one more in an array of the pool. */
static void *grown(struct gate_eval *ev, void *items, size_t n, size_t *max, size_t item_size)
{
	void *more;

	if (n < *max)
		return items;
	more = ag_gate_pool_alloc(ev, (*max * 2 + 8) * item_size);
	if (!more)
		return NULL;
	if (n)
		memcpy(more, items, n * item_size);
	*max = *max * 2 + 8;
	return more;
}

/* For messages: control characters and the mark of the unknown become readable. */
static char *clean_word(struct gate_eval *ev, const char *word)
{
	size_t len = strnlen(word, 120);
	char *text = ag_gate_pool_text(ev, word, len);

	for (size_t i = 0; i < len && text[i]; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 127)
			text[i] = text[i] == GATE_UNKNOWN_BYTE ? '?' : ' ';
	return text;
}

static void add_finding(struct gate_eval *ev, const struct gate_opinion *o, const char *program)
{
	struct ag_gate_risk *r = ev->risk;
	struct ag_gate_finding *f, found = { o->class, o->flags, NULL, NULL };
	size_t at = 0;

	found.word = clean_word(ev, o->word ? o->word : program);
	found.why = clean_word(ev, o->why ? o->why : "alters the system");
	for (size_t i = 0; i < r->n_findings; i++)
		if (strcmp(r->findings[i].word, found.word) == 0 && strcmp(r->findings[i].why, found.why) == 0)
			return;
	f = grown(ev, r->findings, r->n_findings, &ev->max_findings, sizeof(*f));
	if (!f)
		return;
	while (at < r->n_findings && (f[at].flags & AG_GATE_HARD) >= (o->flags & AG_GATE_HARD) &&
	       (f[at].class >= o->class || ((f[at].flags & ~o->flags) & AG_GATE_HARD)))
		at++;
	memmove(&f[at + 1], &f[at], (r->n_findings - at) * sizeof(*f));
	f[at] = found;
	r->findings = f;
	r->n_findings++;
}

void ag_gate_add(struct gate_eval *ev, char **argv, size_t argc, const struct gate_opinion *o, bool wrapper)
{
	struct ag_gate_risk *r = ev->risk;
	struct ag_gate_command *c = grown(ev, r->commands, r->n_commands, &ev->max_commands, sizeof(*c));
	char **copy = ag_gate_pool_alloc(ev, (argc + 1) * sizeof(*copy));

	if (!c || !copy)
		return;
	r->commands = c;
	memcpy(copy, argv, argc * sizeof(*copy));
	if (argc && strrchr(copy[0], '/') && strcmp(copy[0], ">") != 0)
		copy[0] = strrchr(copy[0], '/') + 1;
	c[r->n_commands++] = (struct ag_gate_command){ copy, argc, o->class, o->flags | ev->inherited, wrapper };
	if (o->class > r->class)
		r->class = o->class;
	r->flags |= o->flags | ev->inherited;
	if (o->class > AG_GATE_READ || o->flags)
		add_finding(ev, o, argc ? argv[0] : "");
}

void ag_gate_add_cut(struct gate_eval *ev, const char *why, const char *word)
{
	struct gate_opinion o = { AG_GATE_CHANGE, AG_GATE_UNKNOWN, why, word };
	char *argv[] = { ag_gate_pool_text(ev, "?", 1), NULL };

	ag_gate_add(ev, argv, 1, &o, false);
}
