/* Words into arguments, as far as that can be told without running anything: quotes, variables set in the same line,
 * $HOME and $IFS, defaults, braces, tildes, splitting, and substitutions whose output is plain (echo, which).
 *
 * Text is built with a parallel string that says where each byte comes from. What is not known becomes the byte 1, also
 * a byte 1 written by $'\1': nobody needs it, and "not known" is the careful reading. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "risk_internal.h"

enum origin { QUOTED = 'q', PLAIN = 'p', EXPANDED = 'e' /* may be split */ };

enum { MAX_WORDS = 512, MAX_TEXT = 64 * 1024 };

struct text {
	struct base_buf bytes, origins;
};

struct words {
	struct gate_eval *ev;
	char **items;
	size_t n, max;
};

void ag_gate_var_set(struct gate_eval *ev, const char *name, const char *value, bool array)
{
	struct gate_var *v = ag_gate_pool_alloc(ev, sizeof(*v));

	if (!v)
		return;
	v->name = name;
	v->value = value;
	v->array = array;
	v->next = ev->vars;
	ev->vars = v;
}

const struct gate_var *ag_gate_var_get(const struct gate_eval *ev, const char *name)
{
	for (const struct gate_var *v = ev->vars; v; v = v->next)
		if (strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

static void put(struct text *t, const char *bytes, size_t len, enum origin origin)
{
	(void)base_buf_append(&t->bytes, bytes, len);
	for (size_t i = 0; i < len; i++)
		(void)base_buf_putc(&t->origins, (char)origin);
}

static void put_unknown(struct text *t, enum origin origin)
{
	static const char unknown = GATE_UNKNOWN_BYTE;

	put(t, &unknown, 1, origin);
}

static void put_word(struct gate_eval *ev, struct text *t, const struct ag_gate_word *w, bool quoted, unsigned depth);

static void put_known(struct text *t, const char *value, bool quoted)
{
	put(t, value, strlen(value), quoted ? QUOTED : EXPANDED);
}

static void put_param(struct gate_eval *ev, struct text *t, const struct ag_gate_part *part, unsigned depth)
{
	const struct gate_var *v = ag_gate_var_get(ev, part->text);
	const char *value = v ? v->value : NULL, *op = part->op;
	bool quoted = part->quoted;

	if (!v && strcmp(part->text, "HOME") == 0)
		value = ev->home;
	else if (!v && strcmp(part->text, "PWD") == 0)
		value = ev->cwd;
	else if (!v && strcmp(part->text, "IFS") == 0)
		value = " ";
	if (*op == ':')
		op++;
	if (strcmp(part->op, "[") == 0 || (v && v->array && (*part->text == '@' || *part->text == '*'))) {
		if (value)
			put(t, value, strlen(value), EXPANDED);
		else
			put_unknown(t, EXPANDED);
	} else if (*op == '\0' && part->op == op && value) {
		put_known(t, value, quoted);
	} else if (*op && strchr("-=", *op) && op[1] == '\0' && part->word) {
		if (value && *value)
			put_known(t, value, quoted);
		else
			put_word(ev, t, part->word, quoted, depth);
	} else if (strcmp(op, "+") == 0 && part->word) {
		put_word(ev, t, part->word, quoted, depth);
	} else if (strcmp(op, "?") == 0 && value) {
		put_known(t, value, quoted);
	} else {
		put_unknown(t, quoted ? QUOTED : EXPANDED);
	}
}

/* $(echo WORDS), $(which NAME), $(pwd): what they print is known. */
static bool put_output(struct gate_eval *ev, struct text *t, const struct ag_gate_part *part, unsigned depth)
{
	const struct ag_gate_node *n = part->node ? part->node->children : NULL;
	size_t argc, from = 1;
	char **argv;

	if (!n || n->next || n->kind != AG_GATE_SIMPLE || n->redirs || !n->words || depth > GATE_MAX_EVAL_DEPTH)
		return false;
	ev->depth++;
	argv = ev->depth < GATE_MAX_EVAL_DEPTH ? ag_gate_expand(ev, n->words, &argc) : NULL;
	ev->depth--;
	if (!argv || argc == 0)
		return false;
	if (strcmp(argv[0], "pwd") == 0 && ev->cwd) {
		put_known(t, ev->cwd, part->quoted);
		return true;
	}
	if (strcmp(argv[0], "command") == 0 && argc == 3 && strcmp(argv[1], "-v") == 0)
		from = 2;
	else if (strcmp(argv[0], "which") != 0 && strcmp(argv[0], "echo") != 0)
		return false;
	while (from < argc && strcmp(argv[0], "echo") == 0 && argv[from][0] == '-')
		from++;
	for (size_t i = from; i < argc; i++) {
		if (i > from)
			put_known(t, " ", part->quoted);
		put_known(t, argv[i], part->quoted);
	}
	return true;
}

static void put_word(struct gate_eval *ev, struct text *t, const struct ag_gate_word *w, bool quoted, unsigned depth)
{
	if (depth > GATE_MAX_EVAL_DEPTH) {
		put_unknown(t, QUOTED);
		return;
	}
	for (const struct ag_gate_part *part = w->parts; part; part = part->next) {
		switch (part->kind) {
		case AG_GATE_PART_TEXT:
			put(t, part->text, part->len, part->quoted || quoted ? QUOTED : PLAIN);
			break;
		case AG_GATE_PART_PARAM:
			put_param(ev, t, part, depth + 1);
			break;
		case AG_GATE_PART_CMD:
			if (!put_output(ev, t, part, depth + 1))
				put_unknown(t, part->quoted ? QUOTED : EXPANDED);
			break;
		case AG_GATE_PART_ARITH:
			put_unknown(t, QUOTED);
			break;
		case AG_GATE_PART_PROC: /* a name of a pipe */
			put(t, "/dev/fd/\1", 9, QUOTED);
			break;
		}
	}
}

static void add_item(struct words *out, const char *bytes, size_t len)
{
	char **grown;

	if (out->ev->error)
		return;
	if (out->n == MAX_WORDS) {
		out->ev->cut = true;
		return;
	}
	if (out->n + 1 >= out->max) {
		grown = ag_gate_pool_alloc(out->ev, (out->max * 2 + 8) * sizeof(*grown));
		if (!grown)
			return;
		if (out->n)
			memcpy(grown, out->items, out->n * sizeof(*grown));
		out->items = grown;
		out->max = out->max * 2 + 8;
	}
	out->items[out->n++] = ag_gate_pool_text(out->ev, bytes, len);
}

/* ~ and ~user at the start of a word. */
static void add_with_tilde(struct words *out, const char *bytes, const char *origins, size_t len)
{
	struct base_buf b = BASE_BUF_INIT(2 * (size_t)MAX_TEXT);
	size_t name = 1;

	if (len == 0 || bytes[0] != '~' || origins[0] != PLAIN) {
		add_item(out, bytes, len);
		return;
	}
	while (name < len && bytes[name] != '/')
		name++;
	if (name == 1 && out->ev->home)
		(void)base_buf_puts(&b, out->ev->home);
	else if (name == 5 && memcmp(bytes, "~root", 5) == 0)
		(void)base_buf_puts(&b, "/root");
	else if (name > 1 && bytes[1] != '+' && bytes[1] != '-')
		(void)base_buf_printf(&b, "/home/%.*s", (int)(name - 1), bytes + 1);
	else
		(void)base_buf_putc(&b, GATE_UNKNOWN_BYTE);
	(void)base_buf_append(&b, bytes + name, len - name);
	add_item(out, base_buf_text(&b), b.len);
	base_buf_done(&b);
}

/* The end and the comma count of the brace expression at `from`; 0 when it is none. "{a..b}" counts as one. */
static size_t brace_end(const char *bytes, const char *origins, size_t len, size_t from, bool *ret_range)
{
	unsigned depth = 0, commas = 0;
	bool range = false;

	for (size_t i = from; i < len; i++) {
		if (origins[i] != PLAIN)
			continue;
		if (bytes[i] == '{') {
			depth++;
		} else if (bytes[i] == '}') {
			if (--depth == 0) {
				*ret_range = commas == 0;
				return commas || range ? i : 0;
			}
		} else if (bytes[i] == ',' && depth == 1) {
			commas++;
		} else if (bytes[i] == '.' && i + 1 < len && bytes[i + 1] == '.' && depth == 1) {
			range = true;
		}
	}
	return 0;
}

static void add_braces(struct words *out, const char *bytes, const char *origins, size_t len, unsigned depth);

/* prefix + one alternative + suffix, expanded further. */
static void add_alternative(struct words *out, const char *bytes, const char *origins, size_t len, size_t open,
                            size_t from, size_t to, size_t close, unsigned depth)
{
	size_t n = open + (to - from) + (len - close - 1);
	char *b = ag_gate_pool_alloc(out->ev, n + 1), *o = ag_gate_pool_alloc(out->ev, n + 1);

	if (!b || !o)
		return;
	memcpy(b, bytes, open);
	memcpy(o, origins, open);
	memcpy(b + open, bytes + from, to - from);
	memcpy(o + open, origins + from, to - from);
	memcpy(b + open + (to - from), bytes + close + 1, len - close - 1);
	memcpy(o + open + (to - from), origins + close + 1, len - close - 1);
	add_braces(out, b, o, n, depth + 1);
}

static void add_braces(struct words *out, const char *bytes, const char *origins, size_t len, unsigned depth)
{
	size_t open, close = 0, from;
	unsigned nested = 0;
	bool range = false;

	for (open = 0; open < len && depth < 8 && !out->ev->cut; open++) {
		if (bytes[open] != '{' || origins[open] != PLAIN)
			continue;
		close = brace_end(bytes, origins, len, open, &range);
		if (close || depth == 0)
			break;
	}
	if (!close) {
		add_with_tilde(out, bytes, origins, len);
		return;
	}
	if (range) { /* {1..9}: what matters is where it stands, not each number */
		static const char unknown[] = { GATE_UNKNOWN_BYTE, QUOTED };
		size_t n = open + 1 + (len - close - 1);
		char *b = ag_gate_pool_alloc(out->ev, n + 1), *o = ag_gate_pool_alloc(out->ev, n + 1);

		if (!b || !o)
			return;
		memcpy(b, bytes, open);
		memcpy(o, origins, open);
		b[open] = unknown[0];
		o[open] = unknown[1];
		memcpy(b + open + 1, bytes + close + 1, len - close - 1);
		memcpy(o + open + 1, origins + close + 1, len - close - 1);
		add_braces(out, b, o, n, depth + 1);
		return;
	}
	from = open + 1;
	for (size_t i = open; i <= close; i++) {
		if (origins[i] != PLAIN)
			continue;
		nested += bytes[i] == '{';
		if ((bytes[i] == ',' && nested == 1) || i == close) {
			add_alternative(out, bytes, origins, len, open, from, i, close, depth);
			from = i + 1;
		}
		nested -= bytes[i] == '}';
	}
}

static void add_split(struct words *out, const struct text *t, bool keep_empty)
{
	const char *bytes = base_buf_text(&t->bytes), *origins = base_buf_text(&t->origins);
	size_t from = 0, len = t->bytes.len;

	if (len == 0 && keep_empty)
		add_item(out, "", 0);
	for (size_t i = 0; i <= len; i++) {
		if (i < len && !(origins[i] == EXPANDED && (bytes[i] == ' ' || bytes[i] == '\t' || bytes[i] == '\n')))
			continue;
		if (i > from)
			add_braces(out, bytes + from, origins + from, i - from, 0);
		from = i + 1;
	}
}

char **ag_gate_expand(struct gate_eval *ev, const struct ag_gate_word *words, size_t *ret_n)
{
	struct words out = { .ev = ev };
	struct text t = { BASE_BUF_INIT(MAX_TEXT), BASE_BUF_INIT(MAX_TEXT) };

	for (; words && !ev->error && !ev->cut; words = words->next) {
		base_buf_reset(&t.bytes);
		base_buf_reset(&t.origins);
		put_word(ev, &t, words, false, 0);
		if (base_buf_error(&t.bytes) || t.bytes.len != t.origins.len)
			ev->cut = true;
		else
			add_split(&out, &t, words->quoted);
	}
	base_buf_done(&t.bytes);
	base_buf_done(&t.origins);
	if (!out.items)
		out.items = ag_gate_pool_alloc(ev, sizeof(*out.items));
	*ret_n = out.items ? out.n : 0;
	return ev->error ? NULL : out.items;
}

const char *ag_gate_expand_one(struct gate_eval *ev, const struct ag_gate_word *word)
{
	struct text t = { BASE_BUF_INIT(MAX_TEXT), BASE_BUF_INIT(MAX_TEXT) };
	struct words out = { .ev = ev };
	const char *value = "\1";

	if (!word)
		return "";
	put_word(ev, &t, word, false, 0);
	if (!base_buf_error(&t.bytes) && t.bytes.len == t.origins.len) {
		add_with_tilde(&out, base_buf_text(&t.bytes), base_buf_text(&t.origins), t.bytes.len);
		if (out.n)
			value = out.items[0];
	}
	base_buf_done(&t.bytes);
	base_buf_done(&t.origins);
	return value;
}
