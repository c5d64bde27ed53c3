/* The parsed template: tokens, tree, and what owns them. Immutable once parsed. */
#ifndef ENG_TPL_AST_H
#define ENG_TPL_AST_H

#include "template.h"
#include "tpl_value.h"

enum { TPL_MAX_SOURCE = 1 << 20, TPL_MAX_NESTING = 120, TPL_MAX_NAMES = 4096 };

enum tpl_token_kind {
	TPL_TOK_TEXT,
	TPL_TOK_VAR_BEGIN,
	TPL_TOK_VAR_END,
	TPL_TOK_BLOCK_BEGIN,
	TPL_TOK_BLOCK_END,
	TPL_TOK_NAME,
	TPL_TOK_STR,
	TPL_TOK_INT,
	TPL_TOK_FLOAT,
	TPL_TOK_OP,
	TPL_TOK_EOF,
};

enum tpl_op {
	TPL_OP_NONE,
	TPL_OP_ADD,
	TPL_OP_SUB,
	TPL_OP_MUL,
	TPL_OP_DIV,
	TPL_OP_FLOORDIV,
	TPL_OP_MOD,
	TPL_OP_POW,
	TPL_OP_TILDE,
	TPL_OP_EQ,
	TPL_OP_NE,
	TPL_OP_LT,
	TPL_OP_LE,
	TPL_OP_GT,
	TPL_OP_GE,
	TPL_OP_IN,
	TPL_OP_NOT_IN,
	TPL_OP_ASSIGN,
	TPL_OP_DOT,
	TPL_OP_COLON,
	TPL_OP_PIPE,
	TPL_OP_COMMA,
	TPL_OP_SEMICOLON,
	TPL_OP_LPAREN,
	TPL_OP_RPAREN,
	TPL_OP_LBRACKET,
	TPL_OP_RBRACKET,
	TPL_OP_LBRACE,
	TPL_OP_RBRACE,
};

struct tpl_token {
	uint8_t kind; /* enum tpl_token_kind */
	uint8_t op;   /* enum tpl_op, for TPL_TOK_OP */
	uint32_t line;
	struct tpl_value value; /* text, name, number */
};

enum tpl_node_kind {
	/* Expressions */
	TPL_N_CONST,   /* value */
	TPL_N_NAME,    /* name */
	TPL_N_TUPLE,   /* items */
	TPL_N_LIST,    /* items */
	TPL_N_DICT,    /* items: key, value, ... */
	TPL_N_COND,    /* a if b else c (c may be NULL) */
	TPL_N_AND,     /* a, b */
	TPL_N_OR,      /* a, b */
	TPL_N_NOT,     /* a */
	TPL_N_NEG,     /* a */
	TPL_N_POS,     /* a */
	TPL_N_BINARY,  /* a op b */
	TPL_N_CONCAT,  /* items */
	TPL_N_COMPARE, /* a, then items with their op */
	TPL_N_OPERAND, /* one of the above's items: op a */
	TPL_N_ATTR,    /* a.value */
	TPL_N_ITEM,    /* a[b] */
	TPL_N_SLICE,   /* a[b:c:d] */
	TPL_N_CALL,    /* a(args) */
	TPL_N_FILTER,  /* a|filter(args); a is NULL at the head of a filter block's chain */
	TPL_N_TEST,    /* a is test(args) */
	TPL_N_NSREF,   /* assignment target: name.value */
	/* Statements */
	TPL_N_BODY,         /* items */
	TPL_N_TEXT,         /* value */
	TPL_N_OUTPUT,       /* a */
	TPL_N_IF,           /* a condition, b then, c else (maybe another if, maybe NULL) */
	TPL_N_FOR,          /* a target, b iterable, c filter or NULL, d body, e else or NULL */
	TPL_N_SET,          /* a target, b value */
	TPL_N_SET_BLOCK,    /* a target, b filter chain or NULL, d body */
	TPL_N_MACRO,        /* name, items parameters, defaults, d body */
	TPL_N_CALL_BLOCK,   /* a the call, b the caller macro */
	TPL_N_FILTER_BLOCK, /* b filter chain, d body */
	TPL_N_WITH,         /* items: target, value, ...; d body */
	TPL_N_SCOPE,        /* d body, in a scope of its own */
	TPL_N_BREAK,
	TPL_N_CONTINUE,
};

/* Special names a macro's body mentions (its node's op): only then are they accepted by a call. */
enum tpl_macro_uses { TPL_USES_VARARGS = 1u << 0, TPL_USES_KWARGS = 1u << 1, TPL_USES_CALLER = 1u << 2 };

struct tpl_call_args {
	struct tpl_node **pos;
	uint32_t n_pos;
	struct tpl_value *kw_names;
	struct tpl_node **kw_vals;
	uint32_t n_kw;
	struct tpl_node *star, *star_star; /* *args, **kwargs, or NULL */
};

struct tpl_node {
	uint8_t kind; /* enum tpl_node_kind */
	uint8_t op;   /* enum tpl_op */
	uint32_t line;
	uint32_t name; /* index into the template's names */
	uint32_t n_items;
	uint32_t n_defaults; /* TPL_N_MACRO: of the last parameters */
	struct tpl_node *a, *b, *c, *d, *e;
	struct tpl_node **items, **defaults;
	struct tpl_value value;
	const struct tpl_call_args *args;
	const struct tpl_filter *filter;
	const struct tpl_test *test;
};

struct eng_template {
	char *where;
	struct tpl_arena arena;
	char *source; /* newlines normalized; text nodes point into it */
	size_t source_len;
	struct tpl_token *tokens;
	size_t n_tokens, cap_tokens;
	struct tpl_value *names; /* every variable name used, once */
	uint32_t n_names;
	struct tpl_node *body;
	uint32_t name_loop, name_caller, name_varargs, name_kwargs;
};

/* Fills tmpl->tokens (its array is freed after parsing). */
int eng_tpl_lex(struct eng_template *tmpl, struct err *err);

struct tpl_parser {
	struct eng_template *tmpl;
	struct err *err;
	const struct tpl_token *tok; /* the current one; the last is TPL_TOK_EOF */
	unsigned depth;
	unsigned n_loops;                       /* loops around the current statement, inside the current macro */
	unsigned macro_uses;                    /* enum tpl_macro_uses of the current macro */
	uint32_t name_index[2 * TPL_MAX_NAMES]; /* hash of a name -> its number + 1 */
};

/* Where a tuple may stop, and whether `x if y` belongs to it. */
enum tpl_tuple_flags { TPL_TUPLE_COND = 1u << 0, TPL_TUPLE_PARENS = 1u << 1, TPL_TUPLE_TARGET = 1u << 2 };

int eng_tpl_parse(struct eng_template *tmpl, struct err *err);
int eng_tpl_parse_expr(struct tpl_parser *p, struct tpl_node **ret);
int eng_tpl_parse_tuple(struct tpl_parser *p, unsigned flags, struct tpl_node **ret);
int eng_tpl_parse_target(struct tpl_parser *p, struct tpl_node **ret);
/* At a filter's name; the chain goes on while pipes follow. */
int eng_tpl_parse_filter(struct tpl_parser *p, struct tpl_node *input, struct tpl_node **ret);
int eng_tpl_parse_filter_chain(struct tpl_parser *p, struct tpl_node *input, struct tpl_node **ret);
int eng_tpl_parse_postfix(struct tpl_parser *p, struct tpl_node *node, struct tpl_node **ret);
int eng_tpl_parse_primary(struct tpl_parser *p, struct tpl_node **ret);
int eng_tpl_parse_name(struct tpl_parser *p, struct tpl_node **ret);
int eng_tpl_parse_call(struct tpl_parser *p, struct tpl_node *callee, struct tpl_node **ret);
int eng_tpl_parse_test(struct tpl_parser *p, struct tpl_node *input, struct tpl_node **ret);

/* Shared by the statement and expression parsers. */
int eng_tpl_syntax_error(struct tpl_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int eng_tpl_unsupported(struct tpl_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "expected X, got the current token"; expected may be NULL. */
int eng_tpl_unexpected(struct tpl_parser *p, const char *expected);
int eng_tpl_parse_enter(struct tpl_parser *p);
struct tpl_node *eng_tpl_node_new(struct tpl_parser *p, enum tpl_node_kind kind);
int eng_tpl_no_memory(struct tpl_parser *p);
int eng_tpl_intern(struct tpl_parser *p, const struct tpl_value *name, uint32_t *ret);
int eng_tpl_expect_op(struct tpl_parser *p, enum tpl_op op, const char *what);
int eng_tpl_take_name(struct tpl_parser *p, const char *what, struct tpl_value *ret);

static inline bool tpl_at_op(const struct tpl_parser *p, enum tpl_op op)
{
	return p->tok->kind == TPL_TOK_OP && p->tok->op == op;
}

static inline bool tpl_at_name(const struct tpl_parser *p, const char *name)
{
	return p->tok->kind == TPL_TOK_NAME && tpl_is_text(&p->tok->value, name);
}

/* Nodes collected one by one, then frozen in the arena. */
struct tpl_nodes {
	struct tpl_node **v;
	uint32_t n, cap;
};
int eng_tpl_nodes_push(struct tpl_parser *p, struct tpl_nodes *list, struct tpl_node *node);

#endif
