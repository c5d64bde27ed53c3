/* Words of the shell: quotes, escapes, expansions, here-document bodies (POSIX.1-2024 Shell Command Language
 * sections 2.2 and 2.6, and the additions of the bash manual: $'..', <( ), >( ), extended patterns).
 *
 * Text is collected in the parser's scratch buffer; a nested word starts where the outer one stands and cuts the
 * buffer back to there when it is done. Words are not expanded here: risk.c does what can be done without running. */
#include <errno.h>
#include <string.h>

#include "base/chars.h"
#include "shell_internal.h"

struct builder {
	struct gate_parser *p;
	struct ag_gate_word *word;
	struct ag_gate_part **tail;
	size_t start; /* of the open text in the scratch buffer */
	bool quoted;  /* of the open text */
};

static void flush(struct builder *b)
{
	struct gate_parser *p = b->p;
	struct ag_gate_part *part;

	if (p->error || p->scratch.len == b->start)
		return;
	part = ag_gate_tree_alloc(p, sizeof(*part));
	if (!part)
		return;
	part->kind = AG_GATE_PART_TEXT;
	part->quoted = b->quoted;
	part->len = p->scratch.len - b->start;
	part->text = ag_gate_tree_text(p, p->scratch.data + b->start, part->len);
	p->scratch.len = b->start;
	*b->tail = part;
	b->tail = &part->next;
}

static void put(struct builder *b, int c, bool quoted)
{
	if (quoted != b->quoted) {
		flush(b);
		b->quoted = quoted;
	}
	if (!b->p->error && base_buf_putc(&b->p->scratch, (char)c) < 0)
		b->p->error = -ENOMEM;
}

static struct ag_gate_part *put_part(struct builder *b, enum ag_gate_part_kind kind, bool quoted)
{
	struct ag_gate_part *part;

	flush(b);
	part = b->p->error ? NULL : ag_gate_tree_alloc(b->p, sizeof(*part));
	if (!part)
		return NULL;
	part->kind = kind;
	part->quoted = quoted;
	part->op = "";
	part->text = "";
	*b->tail = part;
	b->tail = &part->next;
	return part;
}

struct ag_gate_word *ag_gate_parse_range(struct gate_parser *p, size_t from, size_t to)
{
	size_t saved_len = p->len, saved_pos = p->pos;
	struct ag_gate_word *w;

	p->len = to;
	p->pos = from;
	w = ag_gate_parse_word(p, GATE_WORD_ALL, true);
	p->len = saved_len;
	p->pos = saved_pos;
	return w;
}

size_t ag_gate_arith_end(const struct gate_parser *p, size_t from)
{
	unsigned depth = 0;

	for (size_t i = from; i < p->len; i++) {
		char c = p->s[i];

		if (c == '\\') {
			i++;
		} else if (c == '\'' || c == '"') {
			const char *q = memchr(p->s + i + 1, c, p->len - i - 1);

			if (!q)
				return 0;
			i = (size_t)(q - p->s);
		} else if (c == '(') {
			depth++;
		} else if (c == ')' && depth) {
			depth--;
		} else if (c == ')') {
			return i + 1 < p->len && p->s[i + 1] == ')' ? i : 0;
		}
	}
	return 0;
}

/* Commands between parentheses; p->pos is behind the opening one and ends behind the closing one. */
static struct ag_gate_node *nested_list(struct gate_parser *p)
{
	struct ag_gate_node *node;

	if (!ag_gate_parse_enter(p))
		return NULL;
	node = ag_gate_parse_list(p);
	p->depth--;
	if (!p->error && gate_peek(p, 0) != ')')
		ag_gate_parse_fail(p, "no ')' closes the substitution");
	p->pos++;
	return p->error ? NULL : node;
}

static void put_substitution(struct builder *b, enum ag_gate_part_kind kind, bool quoted)
{
	struct ag_gate_part *part = put_part(b, kind, quoted);

	if (part)
		part->node = nested_list(b->p);
}

/* `...`: one level of backslashes goes, then the text is a script of its own. */
static void put_backticks(struct builder *b, bool quoted, bool in_double)
{
	struct gate_parser *p = b->p;
	struct ag_gate_part *part = put_part(b, AG_GATE_PART_CMD, quoted);
	const char *saved_s = p->s;
	size_t saved_len = p->len, start = p->scratch.len, end = p->pos + 1;

	for (; end < p->len && p->s[end] != '`'; end++) {
		char c = p->s[end];

		if (c == '\\' && end + 1 < p->len) {
			char n = p->s[++end];

			if (n != '`' && n != '\\' && n != '$' && !(in_double && n == '"'))
				(void)base_buf_putc(&p->scratch, '\\');
			c = n;
		}
		(void)base_buf_putc(&p->scratch, c);
	}
	if (end >= p->len) {
		ag_gate_parse_fail(p, "no '`' closes the substitution");
		return;
	}
	if (base_buf_error(&p->scratch)) {
		p->error = -ENOMEM;
		return;
	}
	if (!part || !ag_gate_parse_enter(p))
		return;
	p->len = p->scratch.len - start;
	p->s = ag_gate_tree_text(p, base_buf_text(&p->scratch) + start, p->len);
	p->scratch.len = start;
	p->pos = 0;
	if (!p->error)
		part->node = ag_gate_parse_list(p);
	if (!p->error && p->pos < p->len)
		ag_gate_parse_fail(p, "the text between '`' is not a list of commands");
	p->depth--;
	p->s = saved_s;
	p->len = saved_len;
	p->pos = end + 1;
}

static unsigned read_digits(struct gate_parser *p, unsigned base, unsigned max_digits)
{
	unsigned value = 0;

	for (unsigned n = 0; n < max_digits; n++) {
		int d = base_hex_value(gate_peek(p, 0));

		if (d < 0 || (unsigned)d >= base)
			break;
		value = value * base + (unsigned)d;
		p->pos++;
	}
	return value;
}

static void put_utf8(struct builder *b, unsigned c)
{
	char bytes[4];
	size_t n = base_utf8_put(c, bytes);

	for (size_t i = 0; i < n; i++)
		put(b, (unsigned char)bytes[i], true);
}

/* The escape after a backslash in $'...'. */
static void put_ansi_escape(struct builder *b)
{
	static const char names[] = "abeEfnrtv", values[] = "\a\b\033\033\f\n\r\t\v";
	struct gate_parser *p = b->p;
	int c = gate_peek(p, 0);
	const char *at = c > 0 ? strchr(names, c) : NULL;
	unsigned value;

	p->pos++;
	if (at) {
		put(b, values[at - names], true);
	} else if (c >= '0' && c <= '7') {
		p->pos--;
		put(b, (int)(read_digits(p, 8, 3) & 0xff), true);
	} else if (c == 'x') {
		put(b, (int)read_digits(p, 16, 2), true);
	} else if (c == 'u' || c == 'U') {
		value = read_digits(p, 16, c == 'u' ? 4 : 8);
		put_utf8(b, value > 0x10ffff ? 0xfffd : value);
	} else if (c == 'c') {
		put(b, gate_peek(p, 0) & 0x1f, true);
		p->pos++;
	} else {
		put(b, c < 0 ? '\\' : c, true);
	}
}

static void put_ansi_quoted(struct builder *b)
{
	struct gate_parser *p = b->p;

	for (int c = gate_peek(p, 0); c != '\''; c = gate_peek(p, 0)) {
		if (c < 0) {
			ag_gate_parse_fail(p, "no ' closes the quoted text");
			return;
		}
		p->pos++;
		if (c == '\\')
			put_ansi_escape(b);
		else
			put(b, c, true);
		if (p->error)
			return;
	}
	p->pos++;
}

static size_t name_length(const struct gate_parser *p)
{
	size_t n = 0;
	int c = gate_peek(p, 0);

	if (gate_is_name_start(c)) {
		while (gate_is_name(gate_peek(p, n)))
			n++;
		return n;
	}
	if (c >= '0' && c <= '9') {
		while (gate_peek(p, n) >= '0' && gate_peek(p, n) <= '9')
			n++;
		return n;
	}
	return c > 0 && strchr("@*#?-$!", c) ? 1 : 0;
}

/* What may follow the name in ${...}, longer ones first. */
static const char *const param_ops[] = { ":-", ":=", ":?", ":+", "##", "%%", "//", "/#", "/%", "^^", ",,", "-",
	                                 "=",  "?",  "+",  "#",  "%",  "/",  ":",  "^",  ",",  "@",  "*",  NULL };

static void skip_index(struct gate_parser *p)
{
	unsigned depth = 0;

	for (int c = gate_peek(p, 0); c >= 0; c = gate_peek(p, 0)) {
		p->pos++;
		if (c == '[')
			depth++;
		else if (c == ']' && --depth == 0)
			return;
	}
	ag_gate_parse_fail(p, "no ']' closes the index");
}

/* ${...}; p->pos is behind the brace. An index may hold substitutions: it is kept as the word. */
static void put_braced_param(struct builder *b, bool quoted)
{
	struct gate_parser *p = b->p;
	struct ag_gate_part *part = put_part(b, AG_GATE_PART_PARAM, quoted);
	const char *prefix = "";
	size_t n, index;
	int c = gate_peek(p, 0);

	if (!part)
		return;
	if ((c == '#' || c == '!') && gate_peek(p, 1) != '}') {
		prefix = c == '#' ? "length" : "indirect";
		p->pos++;
	}
	n = name_length(p);
	if (n == 0) {
		ag_gate_parse_fail(p, "no name stands in ${...}");
		return;
	}
	part->text = ag_gate_tree_text(p, p->s + p->pos, n);
	part->len = n;
	p->pos += n;
	part->op = prefix;
	if (gate_peek(p, 0) == '[') {
		index = p->pos;
		skip_index(p);
		if (p->error)
			return;
		part->op = "[";
		part->word = ag_gate_parse_range(p, index, p->pos);
	}
	for (size_t i = 0; param_ops[i] && !p->error; i++) {
		size_t len = strlen(param_ops[i]);

		if (len > gate_left(p) || memcmp(p->s + p->pos, param_ops[i], len) != 0)
			continue;
		p->pos += len;
		if (!*part->op)
			part->op = param_ops[i];
		if (!ag_gate_parse_enter(p))
			return;
		if (part->word) {
			part->word->next = ag_gate_parse_word(p, GATE_WORD_BRACE, quoted);
		} else {
			part->word = ag_gate_parse_word(p, GATE_WORD_BRACE, quoted);
		}
		p->depth--;
		break;
	}
	if (!p->error && gate_peek(p, 0) != '}')
		ag_gate_parse_fail(p, "no '}' closes ${...}");
	p->pos++;
}

/* What a '$' starts; p->pos is on it. */
static void put_dollar(struct builder *b, bool quoted, bool in_double)
{
	struct gate_parser *p = b->p;
	struct ag_gate_part *part;
	int c = gate_peek(p, 1);
	size_t end, n;

	if (c == '\'' && !in_double) {
		b->word->quoted = true;
		p->pos += 2;
		put_ansi_quoted(b);
		return;
	}
	if (c == '"' && !in_double) { /* "$"..." is translated text: the quotes follow */
		p->pos++;
		return;
	}
	if (c == '(' && gate_peek(p, 2) == '(' && (end = ag_gate_arith_end(p, p->pos + 3)) > 0) {
		part = put_part(b, AG_GATE_PART_ARITH, quoted);
		if (part && ag_gate_parse_enter(p)) {
			part->word = ag_gate_parse_range(p, p->pos + 3, end);
			p->depth--;
		}
		p->pos = end + 2;
		return;
	}
	if (c == '(') {
		p->pos += 2;
		put_substitution(b, AG_GATE_PART_CMD, quoted);
		return;
	}
	if (c == '{') {
		p->pos += 2;
		put_braced_param(b, quoted);
		return;
	}
	p->pos++;
	n = name_length(p);
	if (n == 0) {
		put(b, '$', quoted);
		return;
	}
	if (c >= '0' && c <= '9') /* $10 is ${1}0 */
		n = 1;
	part = put_part(b, AG_GATE_PART_PARAM, quoted);
	if (part) {
		part->text = ag_gate_tree_text(p, p->s + p->pos, n);
		part->len = n;
	}
	p->pos += n;
}

static void put_single_quoted(struct builder *b)
{
	struct gate_parser *p = b->p;
	const char *from = p->s + p->pos + 1;
	const char *end = p->pos + 1 < p->len ? memchr(from, '\'', gate_left(p) - 1) : NULL;

	if (!end) {
		ag_gate_parse_fail(p, "no ' closes the quoted text");
		return;
	}
	for (; from < end && !p->error; from++)
		put(b, (unsigned char)*from, true);
	p->pos = (size_t)(end - p->s) + 1;
}

/* A backslash outside single quotes; p->pos is on it. */
static void put_escape(struct builder *b, bool quoted)
{
	struct gate_parser *p = b->p;
	int c = gate_peek(p, 1);

	p->pos += c < 0 ? 1 : 2;
	if (c == '\n')
		return;
	if (c < 0) {
		put(b, '\\', true);
		return;
	}
	if (quoted && !strchr("$`\"\\", c))
		put(b, '\\', true);
	put(b, c, true);
}

static void put_double_quoted(struct builder *b)
{
	struct gate_parser *p = b->p;

	p->pos++;
	while (!p->error && gate_peek(p, 0) != '"') {
		int c = gate_peek(p, 0);

		if (c < 0)
			ag_gate_parse_fail(p, "no \" closes the quoted text");
		else if (c == '\\')
			put_escape(b, true);
		else if (c == '$')
			put_dollar(b, true, true);
		else if (c == '`')
			put_backticks(b, true, true);
		else
			put(b, p->s[p->pos++], true);
	}
	p->pos++;
}

/* The parenthesis of an extended pattern such as !(a|b), kept as text. */
static void put_extended_pattern(struct builder *b)
{
	struct gate_parser *p = b->p;
	unsigned depth = 0;

	do {
		int c = gate_peek(p, 0);

		if (c < 0) {
			ag_gate_parse_fail(p, "no ')' closes the pattern");
			return;
		}
		if (c == '\'') {
			put_single_quoted(b);
			continue;
		}
		if (c == '$' || c == '`' || c == '"') {
			ag_gate_parse_fail(p, "a substitution stands in an extended pattern");
			return;
		}
		depth += c == '(';
		depth -= c == ')';
		put(b, c, false);
		p->pos++;
	} while (depth && !p->error);
}

static bool word_ends(const struct builder *b, enum gate_word_mode mode, int c)
{
	const struct gate_parser *p = b->p;

	if (c < 0)
		return true;
	if (mode == GATE_WORD_PLAIN) {
		if ((c == '<' || c == '>') && gate_peek(p, 1) == '(')
			return false;
		if (c == '(' && p->scratch.len > b->start && !b->quoted &&
		    strchr("?*+@!", p->scratch.data[p->scratch.len - 1]))
			return false;
		return gate_is_meta(c);
	}
	return (mode == GATE_WORD_BRACE && c == '}') || (mode == GATE_WORD_DOUBLE && c == '"');
}

struct ag_gate_word *ag_gate_parse_word(struct gate_parser *p, enum gate_word_mode mode, bool quoted)
{
	struct builder b = { .p = p, .start = p->scratch.len };
	bool all = mode == GATE_WORD_ALL;

	b.word = ag_gate_tree_alloc(p, sizeof(*b.word));
	if (!b.word)
		return NULL;
	b.tail = &b.word->parts;
	for (int c = gate_peek(p, 0); !p->error && !word_ends(&b, mode, c); c = gate_peek(p, 0)) {
		if (c == '\\') {
			b.word->quoted |= gate_peek(p, 1) != '\n';
			put_escape(&b, quoted);
		} else if (c == '\'' && !quoted) {
			b.word->quoted = true;
			put_single_quoted(&b);
		} else if (c == '"' && !all) {
			b.word->quoted = true;
			put_double_quoted(&b);
		} else if (c == '$') {
			put_dollar(&b, quoted, quoted);
		} else if (c == '`') {
			put_backticks(&b, quoted, quoted);
		} else if ((c == '<' || c == '>') && mode == GATE_WORD_PLAIN) {
			p->pos += 2;
			put_substitution(&b, AG_GATE_PART_PROC, true);
		} else if (c == '(' && mode == GATE_WORD_PLAIN) {
			put_extended_pattern(&b);
		} else {
			put(&b, c, quoted);
			p->pos++;
		}
	}
	flush(&b);
	p->scratch.len = b.start;
	return p->error ? NULL : b.word;
}

/* The body with its leading tabs gone, as <<- wants it. */
static const char *strip_tabs(struct gate_parser *p, const char *body, size_t len, size_t *ret_len)
{
	size_t start = p->scratch.len;
	const char *text;
	bool at_start = true;

	for (size_t i = 0; i < len; i++) {
		if (at_start && body[i] == '\t')
			continue;
		at_start = body[i] == '\n';
		(void)base_buf_putc(&p->scratch, body[i]);
	}
	if (base_buf_error(&p->scratch)) {
		p->error = -ENOMEM;
		return NULL;
	}
	*ret_len = p->scratch.len - start;
	text = ag_gate_tree_text(p, base_buf_text(&p->scratch) + start, *ret_len);
	p->scratch.len = start;
	return text;
}

static void set_body(struct gate_parser *p, const struct gate_heredoc *doc, const char *body, size_t len)
{
	const char *saved_s = p->s;
	size_t saved_len = p->len, saved_pos = p->pos;
	struct builder b = { .p = p, .start = p->scratch.len };

	if (doc->strip_tabs)
		body = strip_tabs(p, body, len, &len);
	if (p->error)
		return;
	if (doc->literal) {
		b.word = ag_gate_tree_alloc(p, sizeof(*b.word));
		if (!b.word)
			return;
		b.tail = &b.word->parts;
		for (size_t i = 0; i < len && !p->error; i++)
			put(&b, (unsigned char)body[i], true);
		flush(&b);
		doc->redir->target = b.word;
		return;
	}
	p->s = body;
	p->len = len;
	p->pos = 0;
	if (ag_gate_parse_enter(p)) {
		doc->redir->target = ag_gate_parse_word(p, GATE_WORD_ALL, true);
		p->depth--;
	}
	p->s = saved_s;
	p->len = saved_len;
	p->pos = saved_pos;
}

static void read_heredoc(struct gate_parser *p, const struct gate_heredoc *doc)
{
	size_t start = p->pos, delimiter_len = strlen(doc->delimiter);

	while (p->pos < p->len) {
		size_t line = p->pos, end = line;
		const char *nl = memchr(p->s + line, '\n', p->len - line);

		end = nl ? (size_t)(nl - p->s) : p->len;
		p->pos = nl ? end + 1 : end;
		if (doc->strip_tabs)
			while (line < end && p->s[line] == '\t')
				line++;
		if (end - line == delimiter_len && memcmp(p->s + line, doc->delimiter, delimiter_len) == 0) {
			set_body(p, doc, p->s + start, line - start);
			return;
		}
	}
	set_body(p, doc, p->s + start, p->len - start);
}

void ag_gate_parse_heredocs(struct gate_parser *p)
{
	struct gate_heredoc docs[GATE_MAX_HEREDOCS];
	size_t n = p->n_heredocs;

	memcpy(docs, p->heredocs, n * sizeof(docs[0]));
	p->n_heredocs = 0; /* a body's substitutions may hold documents of their own */
	for (size_t i = 0; i < n && !p->error; i++)
		read_heredoc(p, &docs[i]);
}
