/* What shell.c (compound commands and lists), shell_simple.c (simple commands) and shell_word.c (words) share. */
#ifndef AG_GATE_SHELL_INTERNAL_H
#define AG_GATE_SHELL_INTERNAL_H

#include "gate.h"

enum { GATE_MAX_HEREDOCS = 16, GATE_MAX_TREE_BYTES = 24 * 1024 * 1024 };

struct gate_heredoc {
	struct ag_gate_redir *redir;
	const char *delimiter;
	bool strip_tabs, literal;
};

struct gate_parser {
	const char *s; /* not NUL-terminated */
	size_t len, pos;
	unsigned depth;
	int error; /* sticky: 0, -EBADMSG, -ENOMEM */
	struct err *err;
	struct ag_gate_tree *tree;
	struct base_buf scratch; /* text of the words being read, innermost last */
	struct gate_heredoc heredocs[GATE_MAX_HEREDOCS];
	size_t n_heredocs;
};

/* How far a word reaches. */
enum gate_word_mode {
	GATE_WORD_PLAIN,  /* to a blank or an operator */
	GATE_WORD_BRACE,  /* to the '}' of ${...} */
	GATE_WORD_DOUBLE, /* to the closing double quote */
	GATE_WORD_ALL,    /* to the end of the text: here-documents, arithmetic */
};

/* Bytes not read yet. After an error the position may stand behind the end. */
static inline size_t gate_left(const struct gate_parser *p)
{
	return p->pos < p->len ? p->len - p->pos : 0;
}

static inline int gate_peek(const struct gate_parser *p, size_t ahead)
{
	return ahead < gate_left(p) ? (unsigned char)p->s[p->pos + ahead] : -1;
}

static inline bool gate_is_name_start(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static inline bool gate_is_name(int c)
{
	return gate_is_name_start(c) || (c >= '0' && c <= '9');
}

static inline bool gate_is_meta(int c)
{
	return c < 0 || c == ' ' || c == '\t' || c == '\n' || c == ';' || c == '&' || c == '|' || c == '<' ||
	       c == '>' || c == '(' || c == ')';
}

static inline bool gate_at_process_substitution(const struct gate_parser *p)
{
	return (gate_peek(p, 0) == '<' || gate_peek(p, 0) == '>') && gate_peek(p, 1) == '(';
}

void *ag_gate_tree_alloc(struct gate_parser *p, size_t size); /* zeroed; NULL sets the error */
const char *ag_gate_tree_text(struct gate_parser *p, const char *text, size_t len);
void ag_gate_parse_fail(struct gate_parser *p, const char *what);
bool ag_gate_parse_enter(struct gate_parser *p); /* one level deeper; false sets the error */
struct ag_gate_node *ag_gate_node_new(struct gate_parser *p, enum ag_gate_node_kind kind);

void ag_gate_skip_blanks(struct gate_parser *p);   /* and comments */
void ag_gate_skip_newlines(struct gate_parser *p); /* and blanks; reads the bodies of here-documents */
/* The word stands here, with an operator or a blank behind it; take: and is consumed. */
bool ag_gate_at_word(const struct gate_parser *p, const char *word);
bool ag_gate_take_word(struct gate_parser *p, const char *word);

struct ag_gate_node *ag_gate_parse_command(struct gate_parser *p); /* compound, or else simple */
struct ag_gate_node *ag_gate_parse_simple(struct gate_parser *p);
struct ag_gate_node *ag_gate_parse_function_body(struct gate_parser *p, const char *name);
void ag_gate_parse_redirs(struct gate_parser *p, struct ag_gate_node *n); /* those behind a compound command */
/* The commands up to what ends them: the end of the text, ')' or a word such as "done"; not consumed. */
struct ag_gate_node *ag_gate_parse_list(struct gate_parser *p);
struct ag_gate_word *ag_gate_parse_word(struct gate_parser *p, enum gate_word_mode mode, bool quoted);
/* Offset of the "))" that closes an arithmetic expression whose text starts at `from`; 0 when there is none. */
size_t ag_gate_arith_end(const struct gate_parser *p, size_t from);
/* The substitutions in s[from, to), all of it quoted text. */
struct ag_gate_word *ag_gate_parse_range(struct gate_parser *p, size_t from, size_t to);
void ag_gate_parse_heredocs(struct gate_parser *p); /* at the start of a line */

#endif
