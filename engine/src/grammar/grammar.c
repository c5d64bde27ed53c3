/* Grammars as objects: compiling, counting references, ending. */
#include "grammar/grammar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_internal.h"

enum { MAX_TEXT = 1 << 20, MASKS_BYTES = 24 << 20 };

void gr_node_done(struct node *n)
{
	struct object *o = &n->object;

	switch (n->kind) {
	case NODE_VALUE:
		free(n->value.alternatives);
		break;
	case NODE_LEX:
		gr_dfa_free(n->lex.dfa);
		break;
	case NODE_OBJECT:
		for (uint32_t i = 0; i < o->n_props; i++)
			free(o->props[i].name);
		for (uint32_t i = 0; i < o->n_dependencies; i++)
			free(o->dependencies[i].needed);
		free(o->props);
		free(o->required);
		free(o->names);
		free(o->dependencies);
		gr_dfa_free(o->patterns);
		break;
	case NODE_ARRAY:
		free(n->array.prefix);
		break;
	case NODE_RULE:
	case NODE_DOCUMENT:
		break;
	}
	memset(n, 0, sizeof(*n));
}

int gr_grammar_node(struct eng_grammar *g, enum node_kind kind, uint32_t *ret)
{
	if (g->n_nodes >= GR_MAX_NODES)
		return -E2BIG;
	if (g->n_nodes == g->cap_nodes) {
		uint32_t cap = g->cap_nodes ? g->cap_nodes * 2 : 16;
		struct node *nodes = realloc(g->nodes, cap * sizeof(*nodes));

		if (!nodes)
			return -ENOMEM;
		g->nodes = nodes;
		g->cap_nodes = cap;
	}
	memset(&g->nodes[g->n_nodes], 0, sizeof(*g->nodes));
	g->nodes[g->n_nodes].kind = kind;
	*ret = g->n_nodes++;
	return 0;
}

static void grammar_free(struct eng_grammar *g)
{
	for (uint32_t i = 0; i < g->n_nodes; i++)
		gr_node_done(&g->nodes[i]);
	for (uint32_t i = 0; g->closures && i < g->rules.n_states; i++) {
		free(g->closures[i].sets);
		free(g->closures[i].set_to);
		free(g->closures[i].calls);
		free(g->closures[i].call_to);
	}
	for (uint32_t i = 0; i < g->n_seen; i++)
		free(g->seen[i]);
	free(g->seen);
	free(g->closures);
	free(g->rule_nodes);
	free(g->nodes);
	free(g->text);
	gr_nfa_done(&g->rules);
	gr_mask_cache_done(&g->masks);
	(void)pthread_mutex_destroy(&g->lock);
	gr_grammar_vocab_unref(g->vocab);
	free(g);
}

struct eng_grammar *eng_grammar_ref(struct eng_grammar *g)
{
	(void)atomic_fetch_add(&g->refs, 1);
	return g;
}

void eng_grammar_unref(struct eng_grammar *g)
{
	if (g && atomic_fetch_sub(&g->refs, 1) == 1)
		grammar_free(g);
}

static int regex_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err)
{
	struct ast_pool pool = { 0 };
	struct dfa_builder b;
	struct ast *tree = NULL;
	uint32_t node = 0;
	int r;

	gr_dfa_builder_init(&b);
	r = gr_ast_parse_regex(&pool, text, len, &tree, err);
	if (r == 0) {
		r = gr_dfa_builder_add(&b, tree, false);
		if (r < 0)
			(void)err_set(err, r, "regular expression: too large");
	}
	gr_ast_pool_done(&pool);
	if (r == 0)
		r = gr_grammar_node(g, NODE_LEX, &node);
	if (r < 0) {
		gr_dfa_builder_done(&b);
		return r;
	}
	b.need = 1;
	g->nodes[node].lex.max = UINT32_MAX;
	r = gr_dfa_finish(&b, &g->nodes[node].lex.dfa, err);
	if (r == 0 && gr_dfa_start(g->nodes[node].lex.dfa) == DFA_DEAD)
		r = err_set(err, -EINVAL, "regular expression: nothing matches it");
	g->root = node;
	return r;
}

static int compile(struct eng_grammar *g, const char *text, size_t len, struct err *err)
{
	static const char any_object[] = "{\"type\":\"object\"}";

	switch (g->kind) {
	case ENG_GRAMMAR_JSON_OBJECT:
		return gr_schema_compile(g, any_object, sizeof(any_object) - 1, err);
	case ENG_GRAMMAR_JSON_SCHEMA:
		return gr_schema_compile(g, text, len, err);
	case ENG_GRAMMAR_REGEX:
		return regex_compile(g, text, len, err);
	case ENG_GRAMMAR_EBNF:
		return gr_ebnf_compile(g, text, len, err);
	case ENG_GRAMMAR_STRUCTURAL_TAG:
		return gr_tags_compile(g, text, len, err);
	}
	return err_set(err, -EINVAL, "unknown kind of grammar");
}

/* What cannot even begin within the limits is refused now, not when an output begins. */
static int try_beginning(struct eng_grammar *g, struct err *err)
{
	struct eng_matcher *m = NULL;
	int r = eng_matcher_new(g, &m);

	eng_matcher_free(m);
	return r < 0 ? err_set(err, r, "the grammar is too ambiguous, or its rules too deep, where it begins") : 0;
}

int gr_grammar_compile(struct grammar_vocab *vocab, enum eng_grammar_kind kind, const char *text, size_t len,
                       struct eng_grammar **ret, struct err *err)
{
	struct eng_grammar *g;
	int r;

	if (kind == ENG_GRAMMAR_JSON_OBJECT)
		len = 0;
	if (len > MAX_TEXT)
		return err_set(err, -E2BIG, "a grammar of %zu bytes: at most %d are taken", len, MAX_TEXT);
	g = calloc(1, sizeof(*g));
	if (!g)
		return err_set(err, -ENOMEM, "out of memory");
	atomic_init(&g->refs, 1);
	(void)pthread_mutex_init(&g->lock, NULL);
	g->kind = kind;
	g->len = len;
	g->vocab = gr_grammar_vocab_ref(vocab);
	g->masks.max_bytes = MASKS_BYTES;
	g->text = malloc(len + 1);
	if (!g->text) {
		grammar_free(g);
		return err_set(err, -ENOMEM, "out of memory");
	}
	if (len > 0)
		memcpy(g->text, text, len);
	g->text[len] = '\0';
	r = compile(g, g->text, len, err);
	if (r == 0)
		r = try_beginning(g, err);
	if (r < 0) {
		grammar_free(g);
		return err && err->code == 0 ? err_set(err, r, "the grammar is too large") : r;
	}
	*ret = g;
	return 0;
}

bool gr_grammar_is(const struct eng_grammar *g, enum eng_grammar_kind kind, const char *text, size_t len)
{
	if (g->kind != kind)
		return false;
	return kind == ENG_GRAMMAR_JSON_OBJECT || (g->len == len && memcmp(g->text, text, len) == 0);
}
