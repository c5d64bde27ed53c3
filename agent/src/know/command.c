/* Command templates: filling them, and recognising a command as one of them.
 *
 * A slot of a template is {name} or {name:type} with a known type; any other brace is the command's own (awk, curl -w).
 * Values are quoted for the place where they stand: bare, inside '...' or inside "...". */
#include "gate/gate.h"
#include "know/know_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses {name:type} at s[0] == '{': its length, or 0. */
static size_t slot_at(const char *s, size_t *ret_name_len, const char **ret_type, size_t *ret_type_len)
{
	size_t n = 1, name, type;

	if (!islower((unsigned char)s[n]))
		return 0;
	while (islower((unsigned char)s[n]) || isdigit((unsigned char)s[n]) || s[n] == '_')
		n++;
	name = n - 1;
	*ret_type = s + 1;
	type = name;
	if (s[n] == ':') {
		*ret_type = s + n + 1;
		for (type = 0; islower((unsigned char)s[n + 1 + type]) || isdigit((unsigned char)s[n + 1 + type]) ||
		               s[n + 1 + type] == '_';)
			type++;
		n += 1 + type;
	}
	if (s[n] != '}' || ag_know_slot_kind(*ret_type, type) == SLOT_NONE)
		return 0;
	*ret_name_len = name;
	*ret_type_len = type;
	return n + 1;
}

/* Finds the next slot of a template at or after *pos: its index in t->slots and [*start, *end); -1: none. */
static int next_slot(const struct task *t, const char *command, size_t *pos, size_t *start, size_t *end)
{
	for (size_t i = *pos; command[i]; i++) {
		size_t name, type_len, len;
		const char *type;

		if (command[i] != '{')
			continue;
		len = slot_at(command + i, &name, &type, &type_len);
		for (int s = 0; len && s < t->n_slots; s++) {
			if (strlen(t->slots[s].name) == name && !memcmp(t->slots[s].name, command + i + 1, name)) {
				*start = i;
				*end = *pos = i + len;
				return s;
			}
		}
	}
	return -1;
}

int ag_know_template_read(struct task *t, char *(*dup)(void *, const char *, size_t), void *arg)
{
	for (const char *s = t->command; *s; s++) {
		size_t name, type_len, len;
		const char *type;
		bool known = false;

		if (*s != '{')
			continue;
		len = slot_at(s, &name, &type, &type_len);
		for (int i = 0; len && i < t->n_slots; i++)
			known = known || (strlen(t->slots[i].name) == name && !memcmp(t->slots[i].name, s + 1, name));
		if (!len || known)
			continue;
		if (t->n_slots == AG_KNOW_MAX_SLOTS)
			return -E2BIG;
		t->slots[t->n_slots].name = dup(arg, s + 1, name);
		t->slots[t->n_slots].type = dup(arg, type, type_len);
		t->slots[t->n_slots].kind = (int8_t)ag_know_slot_kind(type, type_len);
		if (!t->slots[t->n_slots].name || !t->slots[t->n_slots].type)
			return -ENOMEM;
		t->n_slots++;
	}
	return 0;
}

/* ---- Filling ------------------------------------------------------------------------------------------------ */

static bool is_safe(const char *v)
{
	for (const char *p = v; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("_./:@%+=,-~", *p))
			return false;
	return *v != '\0' && (strchr(v, '~') == NULL || (v[0] == '~' && !strchr(v + 1, '~')));
}

static void put_value(struct base_buf *out, const char *v, char quote)
{
	if (!quote && is_safe(v)) {
		(void)base_buf_puts(out, v);
		return;
	}
	if (!quote)
		(void)base_buf_putc(out, '\'');
	for (; *v; v++) {
		if (quote == '"') {
			if (strchr("\\\"$`", *v))
				(void)base_buf_putc(out, '\\');
			(void)base_buf_putc(out, *v);
		} else if (*v == '\'') {
			(void)base_buf_puts(out, "'\\''");
		} else {
			(void)base_buf_putc(out, *v);
		}
	}
	if (!quote)
		(void)base_buf_putc(out, '\'');
}

static char quote_after(const char *text, size_t len, char quote)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\\' && quote != '\'')
			i++;
		else if (quote ? text[i] == quote : text[i] == '\'' || text[i] == '"')
			quote = quote ? '\0' : text[i];
	}
	return quote;
}

int ag_know_fill(const struct task *t, char *const values[], struct base_buf *out)
{
	size_t pos = 0, done = 0, start, end;
	char quote = '\0';
	int slot;

	while ((slot = next_slot(t, t->command, &pos, &start, &end)) >= 0) {
		/* Words that are commands of their own stay words. */
		bool words = strcmp(t->slots[slot].type, "rcmd") == 0 || strcmp(t->slots[slot].type, "script") == 0;

		(void)base_buf_append(out, t->command + done, start - done);
		quote = quote_after(t->command + done, start - done, quote);
		if (!values[slot])
			(void)base_buf_printf(out, "<%s>", t->slots[slot].type);
		else if (words && !quote &&
		         strspn(values[slot], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		                              "0123456789_./:@%+=,- ") == strlen(values[slot]))
			(void)base_buf_puts(out, values[slot]);
		else
			put_value(out, values[slot], quote);
		done = end;
	}
	(void)base_buf_puts(out, t->command + done);
	return base_buf_error(out);
}

/* ---- Comparing ------------------------------------------------------------------------------------------------ */

static bool word_is(const char *s, const char *word)
{
	size_t n = strlen(word);

	return strncmp(s, word, n) == 0 && !isalnum((unsigned char)s[n]) && !strchr("_-./", s[n] ? s[n] : ' ');
}

/* A word at s that is written differently in the normal form: its length, and what replaces it. */
static size_t replace_word(const char *s, bool *dnf, const char **ret_with)
{
	static const char *const gone[] = { "sudo ", "--no-pager", "--assumeyes" };

	*ret_with = "";
	for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
		if (strncmp(s, gone[i], strlen(gone[i])) == 0)
			return strlen(gone[i]);
	if (word_is(s, "yum") || word_is(s, "dnf")) {
		*dnf = true;
		*ret_with = "dnf";
		return 3;
	}
	if (*dnf && word_is(s, "-y"))
		return 2;
	if (word_is(s, "podman")) {
		*ret_with = "docker";
		return 6;
	}
	if (word_is(s, "2>/dev/null"))
		return 11;
	return 0;
}

void ag_know_normalise(const char *command, char out[1024])
{
	bool dnf = false, blank = true;
	size_t n = 0;

	for (const char *s = command; *s && n < 1000;) {
		const char *with;
		size_t skip = blank ? replace_word(s, &dnf, &with) : 0;

		if (skip) {
			n += (size_t)snprintf(out + n, 1024 - n, "%s", with);
			s += skip;
			blank = *with == '\0' && (n == 0 || out[n - 1] == ' ');
			continue;
		}
		if (strchr(" \t\n", *s)) {
			if (!blank)
				out[n++] = ' ';
			blank = true;
		} else if (strncmp(s, ".service", 8) == 0 && (s[8] == ' ' || !s[8])) {
			s += 7;
		} else if (!strchr("'\"", *s)) {
			if (strchr("|;&", *s))
				dnf = false;
			out[n++] = *s;
			blank = strchr("(;", *s) != NULL;
		}
		s++;
	}
	while (n && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

bool ag_know_same_command(const char *a, const char *b)
{
	char x[1024], y[1024];

	ag_know_normalise(a, x);
	ag_know_normalise(b, y);
	return strcmp(x, y) == 0;
}

/* Matches the template from t against c; steps bounds the backtracking. */
static bool match_from(const struct task *task, const char *t, const char *c, char values[][128], unsigned *steps)
{
	while (*t) {
		size_t pos = 0, start = 0, end = 0;
		int slot = *t == '{' ? next_slot(task, t, &pos, &start, &end) : -1;

		if (++*steps > 20000)
			return false;
		if (slot < 0 || start != 0) {
			if (*t++ != *c++)
				return false;
			continue;
		}
		if (values[slot][0]) { /* the second place of the same slot */
			size_t n = strlen(values[slot]);

			if (strncmp(c, values[slot], n) != 0)
				return false;
			t += end;
			c += n;
			continue;
		}
		for (size_t n = 1; c[n - 1] && c[n - 1] != '|' && c[n - 1] != ';' && n < 127; n++) {
			if (c[n - 1] == ' ' && strcmp(task->slots[slot].type, "rcmd") != 0 &&
			    strcmp(task->slots[slot].type, "datetime") != 0 &&
			    strcmp(task->slots[slot].type, "script") != 0)
				break;
			memcpy(values[slot], c, n);
			values[slot][n] = '\0';
			if (match_from(task, t + end, c + n, values, steps))
				return true;
		}
		values[slot][0] = '\0';
		return false;
	}
	return *c == '\0';
}

bool ag_know_is_instance(const struct task *t, const char *command, char values[AG_KNOW_MAX_SLOTS][128])
{
	char template[1024], normal[1024];
	unsigned steps = 0;

	for (size_t i = 0; i < AG_KNOW_MAX_SLOTS; i++)
		values[i][0] = '\0';
	ag_know_normalise(t->command, template);
	ag_know_normalise(command, normal);
	return match_from(t, template, normal, values, &steps);
}

/* ---- Risk ------------------------------------------------------------------------------------------------------- */

/* By the gate's parse of the line. The place where it would run is not known here: no home, no mounts. */
enum ag_know_risk ag_know_guess_risk(const char *command)
{
	const struct ag_gate_context nowhere = { .home = "/root", .cwd = NULL, .mounts = "" };
	struct ag_gate_risk *risk = NULL;
	enum ag_know_risk found;

	if (ag_gate_assess(command, strlen(command), &nowhere, &risk) < 0)
		return AG_KNOW_DESTRUCTIVE;
	found = risk->class == AG_GATE_READ     ? AG_KNOW_READ
	        : risk->class == AG_GATE_CHANGE ? AG_KNOW_CHANGE
	                                        : AG_KNOW_DESTRUCTIVE;
	ag_gate_risk_free(risk);
	return found;
}
