/* Trees of regular expressions and rules. */
#include "grammar/ast.h"

#include <stdlib.h>

#include "base/chars.h"

void gr_ast_pool_done(struct ast_pool *pool)
{
	struct ast *next;

	for (struct ast *a = pool->all; a; a = next) {
		next = a->all;
		gr_charset_done(&a->set);
		free(a);
	}
	*pool = (struct ast_pool){ 0 };
}

struct ast *gr_ast_new(struct ast_pool *pool, enum ast_kind kind)
{
	struct ast *a;

	if (pool->n >= AST_MAX_NODES)
		return NULL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->kind = kind;
	a->all = pool->all;
	pool->all = a;
	pool->n++;
	return a;
}

void gr_ast_append(struct ast *parent, struct ast *child)
{
	if (parent->last)
		parent->last->next = child;
	else
		parent->first = child;
	parent->last = child;
}

struct ast *gr_ast_repeat(struct ast_pool *pool, struct ast *child, uint32_t min, uint32_t max)
{
	struct ast *a = gr_ast_new(pool, AST_REPEAT);

	if (!a)
		return NULL;
	gr_ast_append(a, child);
	a->min = min;
	a->max = max;
	return a;
}

struct ast *gr_ast_char(struct ast_pool *pool, uint32_t cp)
{
	struct ast *a = gr_ast_new(pool, AST_SET);

	return a && gr_charset_add(&a->set, cp, cp) == 0 ? a : NULL;
}

struct ast *gr_ast_literal(struct ast_pool *pool, const char *text, size_t len)
{
	struct ast *cat = gr_ast_new(pool, AST_CAT), *c;
	uint32_t cp = 0;
	size_t n;

	for (size_t i = 0; i < len && cat; i += n) {
		n = base_utf8_get(text + i, len - i, &cp);
		c = n ? gr_ast_char(pool, cp) : NULL;
		if (!c)
			return NULL;
		gr_ast_append(cat, c);
	}
	return cat;
}
