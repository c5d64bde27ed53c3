/* Reads the task catalogue (docs/formats/task-catalogue.md).
 *
 * Files are cut up in place. A wording becomes a small tree of tokens, slots and choices, never expanded: the alignment
 * walks the tree. While a task is read its words, and the pairs of Chinese characters that can stand side by side in
 * it, go into the index. The files are the project's own, but may be replaced by an administrator: every mistake is an
 * error that names file and line. */
#include "know/know_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POOL_CHUNK = 65536, MAX_NODES = 4 << 20, MAX_NEIGHBOURS = 24 };

struct parser {
	struct ag_know *k;
	const char *name;
	unsigned line;
	struct task *task;
	char *pool;
	size_t pool_left;
	struct err *err;
};

static int fail(struct parser *p, const char *what)
{
	return err_set(p->err, -EBADMSG, "%s:%u: %s", p->name, p->line, what);
}

static int no_memory(struct parser *p)
{
	return err_set(p->err, -ENOMEM, "%s: out of memory", p->name);
}

static char *pool_dup(void *arg, const char *text, size_t len)
{
	struct parser *p = arg;
	struct ag_know *k = p->k;
	char *out;

	if (len + 1 > POOL_CHUNK)
		return NULL;
	if (len + 1 > p->pool_left) {
		if (k->n_owned == k->cap_owned) {
			size_t cap = k->cap_owned ? k->cap_owned * 2 : 16;
			char **owned = realloc(k->owned, cap * sizeof(*owned));

			if (!owned)
				return NULL;
			k->owned = owned;
			k->cap_owned = cap;
		}
		p->pool = malloc(POOL_CHUNK);
		if (!p->pool)
			return NULL;
		k->owned[k->n_owned++] = p->pool;
		p->pool_left = POOL_CHUNK;
	}
	out = p->pool;
	memcpy(out, text, len);
	out[len] = '\0';
	p->pool += len + 1;
	p->pool_left -= len + 1;
	return out;
}

/* ---- Vocabulary ---------------------------------------------------------------------------------------- */

static int grow_word_table(struct ag_know *k)
{
	size_t cap = k->cap_word_table ? k->cap_word_table * 2 : 16384;
	uint32_t *table = calloc(cap, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (uint32_t i = 1; i < k->n_words; i++) {
		size_t at;

		for (at = k->words[i].hash & (cap - 1); table[at]; at = (at + 1) & (cap - 1))
			;
		table[at] = i;
	}
	free(k->word_table);
	k->word_table = table;
	k->cap_word_table = cap;
	return 0;
}

static uint32_t word_add(struct parser *p, const char *text, size_t len, bool is_cjk)
{
	struct ag_know *k = p->k;
	char folded[64];
	uint32_t id = ag_know_word_find(k, text, len, is_cjk);
	struct word *w;
	size_t at;

	if (id)
		return id;
	if (k->n_words * 2 >= k->cap_word_table && grow_word_table(k) < 0)
		return 0;
	if (k->n_words + 1 >= k->cap_words) {
		size_t cap = k->cap_words ? k->cap_words * 2 : 4096;
		struct word *words = realloc(k->words, cap * sizeof(*words));

		if (!words)
			return 0;
		k->words = words;
		k->cap_words = cap;
	}
	if (!k->n_words)
		k->n_words = 1;
	if (!is_cjk) {
		len = ag_know_fold(text, len, folded);
		text = folded;
	}
	id = (uint32_t)k->n_words;
	w = &k->words[id];
	memset(w, 0, sizeof(*w));
	w->text = pool_dup(p, text, len);
	if (!w->text)
		return 0;
	w->hash = ag_know_hash(text, len);
	w->len = (uint16_t)len;
	for (at = w->hash & (k->cap_word_table - 1); k->word_table[at]; at = (at + 1) & (k->cap_word_table - 1))
		;
	k->word_table[at] = id;
	k->n_words++;
	return id;
}

/* ---- Wordings ------------------------------------------------------------------------------------------- */

static uint32_t node_add(struct parser *p, enum node_kind kind, uint32_t value, uint8_t slot)
{
	struct ag_know *k = p->k;

	if (k->n_nodes + 1 >= k->cap_nodes) {
		size_t cap = k->cap_nodes ? k->cap_nodes * 2 : 65536;
		struct node *nodes = cap <= MAX_NODES ? realloc(k->nodes, cap * sizeof(*nodes)) : NULL;

		if (!nodes)
			return 0;
		k->nodes = nodes;
		k->cap_nodes = cap;
	}
	if (!k->n_nodes)
		k->n_nodes = 1;
	k->nodes[k->n_nodes] = (struct node){ .kind = (uint8_t)kind, .slot = slot, .next = 0 };
	if (kind == NODE_TOKEN)
		k->nodes[k->n_nodes].token = value;
	else
		k->nodes[k->n_nodes].child = value;
	return (uint32_t)k->n_nodes++;
}

static uint32_t alt_add(struct parser *p, uint32_t first)
{
	struct ag_know *k = p->k;

	if (k->n_alts + 1 >= k->cap_alts) {
		size_t cap = k->cap_alts ? k->cap_alts * 2 : 32768;
		struct alt *alts = cap <= MAX_NODES ? realloc(k->alts, cap * sizeof(*alts)) : NULL;

		if (!alts)
			return 0;
		k->alts = alts;
		k->cap_alts = cap;
	}
	if (!k->n_alts)
		k->n_alts = 1;
	k->alts[k->n_alts] = (struct alt){ first, 0 };
	return (uint32_t)k->n_alts++;
}

/* A sequence under construction. */
struct chain {
	uint32_t first, last, before_last;
};

static int chain_add(struct parser *p, struct chain *c, uint32_t node)
{
	if (!node)
		return no_memory(p);
	c->before_last = c->last;
	if (c->last)
		p->k->nodes[c->last].next = node;
	else
		c->first = node;
	c->last = node;
	return 0;
}

/* The last node of the chain becomes (node|). */
static int chain_make_optional(struct parser *p, struct chain *c)
{
	uint32_t alt = alt_add(p, c->last), empty = alt ? alt_add(p, 0) : 0, choice;

	if (!empty)
		return no_memory(p);
	p->k->alts[alt].next = empty;
	choice = node_add(p, NODE_CHOICE, alt, 0);
	if (!choice)
		return no_memory(p);
	if (c->before_last)
		p->k->nodes[c->before_last].next = choice;
	else
		c->first = choice;
	c->last = choice;
	return 0;
}

static int parse_group(struct parser *p, const char **pos, unsigned depth, char stop, uint32_t *ret_alt);

static int add_words(struct parser *p, struct chain *c, const char *text, size_t len)
{
	struct token t;
	size_t at = 0;
	int r;

	while (ag_know_next_token(text, len, &at, &t)) {
		uint32_t word = word_add(p, t.text, t.len, t.is_cjk);

		if (!word)
			return no_memory(p);
		r = chain_add(p, c, node_add(p, NODE_TOKEN, word, 0));
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_slot(struct parser *p, const char **pos, struct chain *c)
{
	const char *end = strchr(*pos, '}'), *colon;
	size_t len;

	if (!end || !p->task)
		return fail(p, "a slot is not closed, or stands outside a task");
	colon = memchr(*pos, ':', (size_t)(end - *pos));
	len = (size_t)((colon ? colon : end) - *pos);
	for (uint8_t i = 0; i < p->task->n_slots; i++) {
		if (strlen(p->task->slots[i].name) == len && !memcmp(p->task->slots[i].name, *pos, len)) {
			*pos = end + 1;
			return chain_add(p, c, node_add(p, NODE_SLOT, 0, i));
		}
	}
	return fail(p, "a wording has a slot that the command has not");
}

static int parse_macro(struct parser *p, const char **pos, struct chain *c)
{
	const char *end = strchr(*pos, '>');

	for (size_t i = 0; end && i < p->k->n_macros; i++) {
		if (strlen(p->k->macros[i].name) == (size_t)(end - *pos) &&
		    !memcmp(p->k->macros[i].name, *pos, (size_t)(end - *pos))) {
			*pos = end + 1;
			return chain_add(p, c, node_add(p, NODE_CHOICE, p->k->macros[i].first_alt, 0));
		}
	}
	return fail(p, "an unknown <name>");
}

/* Plain text up to the next special character; *ret_optional: a '?' may follow and mean the last node. */
static int parse_text(struct parser *p, const char **pos, struct chain *c, bool *ret_optional)
{
	char run[256];
	size_t n = 0;
	uint32_t before = c->last;
	bool ascii = (unsigned char)**pos < 0x80;
	int r;

	while (**pos && n < sizeof(run) - 8) {
		unsigned char ch = (unsigned char)**pos;

		if (strchr("(|){<?", ch) || (ch < 0x80) != ascii || ch == ' ')
			break;
		if (!ascii && n) /* one character at a time, so that ? knows which it means */
			if ((ch & 0xc0) != 0x80)
				break;
		if (ch == '\\' && (*pos)[1])
			(*pos)++;
		run[n++] = *(*pos)++;
	}
	r = add_words(p, c, run, n);
	if (r < 0)
		return r;
	*ret_optional = c->last != before;
	if (ascii && n && run[n - 1] == ',') /* punctuation is no token: nothing to make optional */
		*ret_optional = false;
	if (*ret_optional && ascii && **pos == '?')
		return fail(p, "'?' after a Latin word: write (word|words)");
	return 0;
}

static int parse_sequence(struct parser *p, const char **pos, unsigned depth, char stop, uint32_t *ret_first)
{
	struct chain c = { 0 };
	bool can_be_optional = false;
	uint32_t alt;
	int r = 0;

	while (**pos && !(stop && (**pos == stop || **pos == '|'))) {
		switch (**pos) {
		case '(':
			(*pos)++;
			r = parse_group(p, pos, depth + 1, ')', &alt);
			if (r == 0)
				r = chain_add(p, &c, node_add(p, NODE_CHOICE, alt, 0));
			can_be_optional = true;
			break;
		case '<':
			(*pos)++;
			r = parse_macro(p, pos, &c);
			can_be_optional = true;
			break;
		case '{':
			(*pos)++;
			r = parse_slot(p, pos, &c);
			can_be_optional = true;
			break;
		case '?':
			(*pos)++;
			if (can_be_optional)
				r = chain_make_optional(p, &c);
			can_be_optional = false;
			break;
		case ' ':
			(*pos)++;
			can_be_optional = false;
			break;
		case ')':
		case '|':
			r = fail(p, "')' or '|' outside a group");
			break;
		default:
			r = parse_text(p, pos, &c, &can_be_optional);
		}
		if (r < 0)
			return r;
	}
	*ret_first = c.first;
	return 0;
}

static int parse_group(struct parser *p, const char **pos, unsigned depth, char stop, uint32_t *ret_alt)
{
	uint32_t first = 0, last = 0;

	if (depth > KNOW_MAX_DEPTH)
		return fail(p, "groups too deep");
	for (;;) {
		uint32_t sequence, alt;
		int r = parse_sequence(p, pos, depth, stop, &sequence);

		if (r < 0)
			return r;
		alt = alt_add(p, sequence);
		if (!alt)
			return no_memory(p);
		if (last)
			p->k->alts[last].next = alt;
		else
			first = alt;
		last = alt;
		if (**pos != '|')
			break;
		(*pos)++;
	}
	if (stop == ')') {
		if (**pos != stop)
			return fail(p, "a group is not closed");
		(*pos)++;
	}
	*ret_alt = first;
	return 0;
}

/* ---- Index of one task ------------------------------------------------------------------------------------ */

/* The tokens that can stand just before a place. */
struct neighbours {
	uint32_t words[MAX_NEIGHBOURS];
	uint8_t n;
};

static void neighbours_add(struct neighbours *s, uint32_t word)
{
	for (uint8_t i = 0; i < s->n; i++)
		if (s->words[i] == word)
			return;
	if (s->n < MAX_NEIGHBOURS)
		s->words[s->n++] = word;
}

static int index_sequence(struct parser *p, uint32_t node, struct neighbours *s, uint32_t task)
{
	struct ag_know *k = p->k;
	int r = 0;

	for (; node && r == 0; node = k->nodes[node].next) {
		const struct node *n = &k->nodes[node];

		if (n->kind == NODE_SLOT) {
			s->n = 0;
		} else if (n->kind == NODE_TOKEN) {
			struct word *w = &k->words[n->token];

			if (w->last_task != task + 1) {
				w->last_task = task + 1;
				w->n_tasks++;
				r = ag_know_index_word(k, n->token, task);
			}
			if ((unsigned char)w->text[0] < 0x80) {
				s->n = 0;
				continue;
			}
			for (uint8_t i = 0; i < s->n && r == 0; i++)
				r = ag_know_index_pair(k, s->words[i], n->token, task);
			s->words[0] = n->token;
			s->n = 1;
		} else {
			struct neighbours out = { .n = 0 };

			for (uint32_t a = n->child; a && r == 0; a = k->alts[a].next) {
				struct neighbours in = *s;

				r = index_sequence(p, k->alts[a].first, &in, task);
				for (uint8_t i = 0; i < in.n; i++)
					neighbours_add(&out, in.words[i]);
			}
			*s = out;
		}
	}
	return r;
}

static int finish_task(struct parser *p)
{
	struct ag_know *k = p->k;
	const struct task *t = p->task;

	if (!t)
		return 0;
	if (!t->command || !t->n_wordings)
		return fail(p, "the task before this line has no command or no wording");
	for (uint8_t i = 0; i < t->n_wordings; i++) {
		struct neighbours s = { .n = 0 };

		if (index_sequence(p, t->wordings[i], &s, (uint32_t)(t - k->tasks)) < 0)
			return no_memory(p);
	}
	p->task = NULL;
	return 0;
}

/* ---- Lines -------------------------------------------------------------------------------------------------- */

static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (*s == ' ')
		s++;
	while (end > s && (end[-1] == ' ' || end[-1] == '\r'))
		*--end = '\0';
	return s;
}

static int line_head(struct parser *p, char *line)
{
	static const char *const risks[] = { "read", "change", "destructive" };
	struct ag_know *k = p->k;
	char *end = strchr(line, ']'), *risk;
	int r = finish_task(p);

	if (r < 0)
		return r;
	if (!end || end == line || end - line > 60)
		return fail(p, "not [id] risk");
	*end = '\0';
	risk = trim(end + 1);
	if (k->n_tasks == KNOW_MAX_TASKS)
		return fail(p, "too many tasks");
	if (k->n_tasks == k->cap_tasks) {
		size_t cap = k->cap_tasks ? k->cap_tasks * 2 : 1024;
		struct task *tasks = realloc(k->tasks, cap * sizeof(*tasks));

		if (!tasks)
			return no_memory(p);
		k->tasks = tasks;
		k->cap_tasks = cap;
	}
	p->task = &k->tasks[k->n_tasks];
	memset(p->task, 0, sizeof(*p->task));
	p->task->id = line;
	p->task->explain_zh = p->task->explain_en = p->task->packages = "";
	for (int i = 0; i < 3; i++) {
		if (strcmp(risk, risks[i]) == 0) {
			p->task->risk = (enum ag_know_risk)i;
			k->n_tasks++;
			return 0;
		}
	}
	p->task = NULL;
	return fail(p, "risk is none of read, change, destructive");
}

static int line_wordings(struct parser *p, char *line, bool chinese)
{
	while (line && *line) {
		char *end = strstr(line, " ; ");
		const char *pos;
		int r;

		if (end)
			*end = '\0';
		line = trim(line);
		if (strlen(line) >= 2 && strcmp(line + strlen(line) - 2, " ;") == 0)
			line[strlen(line) - 2] = '\0';
		pos = line;
		if (*line) {
			if (p->task->n_wordings == KNOW_MAX_WORDINGS)
				return fail(p, "too many wordings");
			r = parse_sequence(p, &pos, 0, '\0', &p->task->wordings[p->task->n_wordings]);
			if (r < 0)
				return r;
			if (p->task->wordings[p->task->n_wordings]) {
				p->task->chinese |= (uint64_t)chinese << p->task->n_wordings;
				p->task->n_wordings++;
			}
		}
		line = end ? end + 3 : NULL;
	}
	return 0;
}

static int line_macro(struct parser *p, char *line)
{
	struct ag_know *k = p->k;
	char *equals = strchr(line, '=');
	const char *pos;
	uint32_t alt;
	int r;

	if (!equals || k->n_macros == sizeof(k->macros) / sizeof(k->macros[0]))
		return fail(p, "not @name = word | word, or too many of them");
	*equals = '\0';
	pos = equals + 1;
	r = finish_task(p);
	if (r == 0)
		r = parse_group(p, &pos, 1, '\n', &alt); /* ends with the line */
	if (r < 0)
		return r;
	k->macros[k->n_macros].name = trim(line);
	k->macros[k->n_macros++].first_alt = alt;
	return 0;
}

/* "zh TEXT ; en TEXT" */
static int line_explain(struct parser *p, char *line)
{
	char *en = strstr(line, " ; en ");

	if (strncmp(line, "zh ", 3) != 0 || !en)
		return fail(p, "not ? zh ... ; en ...");
	*en = '\0';
	p->task->explain_zh = trim(line + 3);
	p->task->explain_en = trim(en + 6);
	return 0;
}

static int parse_line(struct parser *p, char *line)
{
	line = trim(line);
	if (!*line || *line == '#')
		return 0;
	if (*line == '@')
		return line_macro(p, line + 1);
	if (*line == '[')
		return line_head(p, line + 1);
	if (!p->task)
		return fail(p, "a line before the first [id]");
	if (strncmp(line, "$ ", 2) == 0 && !p->task->command) {
		p->task->command = line + 2;
		if (ag_know_template_read(p->task, pool_dup, p) < 0)
			return fail(p, "too many slots");
		return 0;
	}
	if (strncmp(line, "% ", 2) == 0) {
		p->task->packages = trim(line + 2);
		return 0;
	}
	if (strncmp(line, "? ", 2) == 0)
		return line_explain(p, line + 2);
	if (!p->task->command)
		return fail(p, "a wording before the command");
	if (strncmp(line, "zh ", 3) == 0 || strncmp(line, "en ", 3) == 0)
		return line_wordings(p, line + 3, *line == 'z');
	return fail(p, "not understood");
}

int ag_know_parse_text(struct ag_know *k, const char *name, char *text, struct err *err)
{
	struct parser p = { .k = k, .name = name, .err = err };

	for (char *line = text; line;) {
		char *end = strchr(line, '\n');
		int r;

		if (end)
			*end = '\0';
		p.line++;
		r = parse_line(&p, line);
		if (r < 0)
			return r;
		line = end ? end + 1 : NULL;
	}
	return finish_task(&p);
}

void ag_know_weigh_words(struct ag_know *k)
{
	for (uint32_t i = 1; i < k->n_words; i++) {
		struct word *w = &k->words[i];
		bool cjk = (unsigned char)w->text[0] >= 0x80;
		float weight = logf((float)(k->n_tasks + 1) / ((float)w->n_tasks + 0.5f));

		if (ag_know_is_filler(w->text, w->len))
			weight = 0.25f;
		else if (weight < 0.4f)
			weight = 0.4f;
		else if (weight > 5)
			weight = 5;
		w->weight = cjk ? weight * 0.6f : weight;
	}
}
