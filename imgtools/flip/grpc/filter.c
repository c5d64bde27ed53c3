/* Filters parsed into selectors; filter.h has the grammar. The patterns are compiled when parsed, so that a bad one is
 * refused instead of matching nothing, and matched with limits on steps, for both come from outside. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/chars.h"
#include "base/cleanup.h"
#include "grpc/filter.h"

enum { MAX_SELECTORS = 256, MAX_TEXT = 64 << 10, MAX_STEPS = 100000, MAX_HEAP_KIB = 1024 };

enum field { FIELD_NONE, FIELD_ANY, FIELD_NAME, FIELD_PARENT, FIELD_KIND, FIELD_LABEL };
enum operator{ OP_PRESENT, OP_EQUAL, OP_NOT_EQUAL, OP_MATCHES };

struct selector {
	size_t filter; /* which of the texts */
	enum field field;
	enum operator op;
	char *label; /* of FIELD_LABEL */
	char *value;
	pcre2_code *pattern;
};

struct flip_filter {
	struct selector *selectors;
	size_t n, n_texts;
};

struct parser {
	const char *begin, *at;
	struct err *err;
};

void flip_filter_free(struct flip_filter *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++) {
		free(f->selectors[i].label);
		free(f->selectors[i].value);
		pcre2_code_free(f->selectors[i].pattern);
	}
	free(f->selectors);
	free(f);
}

static void flip_filter_freep(struct flip_filter **f)
{
	flip_filter_free(*f);
}

static int refuse(const struct parser *p, const char *why)
{
	return err_set(p->err, -EINVAL, "filter \"%.200s\": byte %zu: %s", p->begin, (size_t)(p->at - p->begin), why);
}

static void skip_blanks(struct parser *p)
{
	while (*p->at == ' ' || (*p->at >= '\t' && *p->at <= '\r'))
		p->at++;
}

static bool is_field_char(char c)
{
	return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* ---- Quoted strings, in Go's syntax ---- */

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 99;
}

static int put_utf8(struct base_buf *out, uint32_t c)
{
	char bytes[4];

	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return -EINVAL;
	return base_buf_append(out, bytes, base_utf8_put(c, bytes));
}

/* What stands behind a backslash. */
static int parse_escape(struct parser *p, char quote, struct base_buf *out)
{
	static const char letters[] = "abfnrtv\\", meanings[] = "\a\b\f\n\r\t\v\\";
	char c = *p->at;
	const char *l = c ? strchr(letters, c) : NULL;
	unsigned n, base = 16;
	uint32_t value = 0;

	if (l || (c && c == quote)) {
		p->at++;
		return base_buf_putc(out, l ? meanings[l - letters] : quote);
	}
	switch (c) {
	case 'x':
		n = 2;
		break;
	case 'u':
		n = 4;
		break;
	case 'U':
		n = 8;
		break;
	default:
		if (c < '0' || c > '7')
			return refuse(p, "an escape that is none");
		n = 3;
		base = 8;
	}
	if (base == 16)
		p->at++;
	for (unsigned i = 0; i < n; i++, p->at++) {
		if (digit_value(*p->at) >= (int)base)
			return refuse(p, "a number's digit is missing");
		value = value * base + (uint32_t)digit_value(*p->at);
	}
	if (value == 0 || (base == 8 && value > 255))
		return refuse(p, "a character that cannot be");
	if (c == 'u' || c == 'U')
		return put_utf8(out, value) == -EINVAL ? refuse(p, "a character that cannot be") : 0;
	return base_buf_putc(out, (char)value);
}

static int parse_quoted(struct parser *p, char **ret_text)
{
	struct base_buf out = BASE_BUF_INIT(MAX_TEXT);
	char quote = *p->at++;
	int r = 0;

	while (r >= 0 && *p->at != quote) {
		if (*p->at == '\0' || *p->at == '\n')
			r = refuse(p, "a quoted string without an end");
		else if (*p->at != '\\')
			r = base_buf_putc(&out, *p->at++);
		else {
			p->at++;
			r = parse_escape(p, quote, &out);
		}
	}
	p->at += r >= 0;
	if (r >= 0)
		r = base_buf_error(&out);
	if (r >= 0 && !out.data)
		r = base_buf_puts(&out, "");
	if (r >= 0) {
		*ret_text = out.data ? base_buf_take(&out) : strdup("");
		r = *ret_text ? 0 : -ENOMEM;
	}
	base_buf_done(&out);
	return r;
}

static int copy_text(const char *begin, const char *end, char **ret_text)
{
	*ret_text = strndup(begin, (size_t)(end - begin));
	return *ret_text ? 0 : -ENOMEM;
}

/* ---- Selectors ---- */

static int parse_field(struct parser *p, char **ret_text)
{
	const char *begin;

	skip_blanks(p);
	if (*p->at == '"')
		return parse_quoted(p, ret_text);
	begin = p->at;
	while (is_field_char(*p->at))
		p->at++;
	return p->at > begin ? copy_text(begin, p->at, ret_text) : refuse(p, "a field's name is missing");
}

static enum field field_of(const char *name)
{
	if (strcmp(name, "name") == 0)
		return FIELD_NAME;
	if (strcmp(name, "parent") == 0)
		return FIELD_PARENT;
	if (strcmp(name, "kind") == 0)
		return FIELD_KIND;
	return strcmp(name, "labels") == 0 ? FIELD_LABEL : FIELD_NONE;
}

/* The parts of a label's name that stand unquoted are joined again by their dots. */
static int add_part(struct selector *s, const char *part)
{
	char *longer;
	size_t len = s->label ? strlen(s->label) + 1 : 0;

	longer = realloc(s->label, len + strlen(part) + 1);
	if (!longer)
		return -ENOMEM;
	if (len)
		longer[len - 1] = '.';
	memcpy(longer + len, part, strlen(part) + 1);
	s->label = longer;
	return 0;
}

static int parse_path(struct parser *p, struct selector *s)
{
	CLEANUP(freep) char *first = NULL;
	int r = parse_field(p, &first);

	if (r < 0)
		return r;
	s->field = field_of(first);
	for (skip_blanks(p); *p->at == '.'; skip_blanks(p)) {
		CLEANUP(freep) char *part = NULL;

		p->at++;
		r = parse_field(p, &part);
		if (r == 0)
			r = add_part(s, part);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_value(struct parser *p, struct selector *s)
{
	const char *begin;

	skip_blanks(p);
	if (*p->at == '"' || (s->op == OP_MATCHES && (*p->at == '/' || *p->at == '|')))
		return parse_quoted(p, &s->value);
	if (*p->at == '/' || *p->at == '|')
		return refuse(p, "a value in quotes of patterns");
	begin = p->at;
	while (*p->at && *p->at != ',' && *p->at != ' ' && !(*p->at >= '\t' && *p->at <= '\r'))
		p->at++;
	return p->at > begin ? copy_text(begin, p->at, &s->value) : refuse(p, "a value is missing");
}

static int compile(const struct parser *p, struct selector *s)
{
	int code;
	size_t offset;

	s->pattern = pcre2_compile((PCRE2_SPTR)s->value, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C,
	                           &code, &offset, NULL);
	return s->pattern ? 0 : refuse(p, "not a regular expression");
}

static int parse_selector(struct parser *p, struct selector *s)
{
	static const char operators[][3] = { [OP_EQUAL] = "==", [OP_NOT_EQUAL] = "!=", [OP_MATCHES] = "~=" };
	int r = parse_path(p, s);

	if (r < 0)
		return r;
	if (*p->at == '\0' || *p->at == ',')
		return 0;
	for (enum operator op = OP_EQUAL; op <= OP_MATCHES; op++) {
		if (strncmp(p->at, operators[op], 2) == 0)
			s->op = op;
	}
	if (s->op == OP_PRESENT || (p->at[2] && strchr("=!~", p->at[2])))
		return refuse(p, "an operator is missing: == != ~=");
	p->at += 2;
	r = parse_value(p, s);
	if (r == 0 && s->op == OP_MATCHES)
		r = compile(p, s);
	return r;
}

static struct selector *add_selector(struct flip_filter *f)
{
	struct selector *more;

	if (f->n >= MAX_SELECTORS)
		return NULL;
	more = realloc(f->selectors, (f->n + 1) * sizeof(*more));
	if (!more)
		return NULL;
	f->selectors = more;
	memset(&more[f->n], 0, sizeof(*more));
	return &more[f->n++];
}

static int parse_one(struct flip_filter *f, size_t index, const char *text, struct err *err)
{
	struct parser p = { .begin = text, .at = text, .err = err };
	struct selector *s;
	int r;

	if (strlen(text) > MAX_TEXT)
		return err_set(err, -EINVAL, "a filter of more than 64 KiB");
	do {
		s = add_selector(f);
		if (!s)
			return err_set(err, -EINVAL, "too many selectors in the filters");
		s->filter = index;
		if (!*text) {
			s->field = FIELD_ANY; /* an empty filter matches all */
			return 0;
		}
		r = parse_selector(&p, s);
		if (r < 0)
			return r;
		skip_blanks(&p);
	} while (*p.at == ',' && *++p.at != '\0');
	if (*p.at)
		return refuse(&p, "a comma is missing");
	return p.at > text && p.at[-1] == ',' ? refuse(&p, "a selector is missing") : 0;
}

int flip_filter_parse(const char *const *texts, size_t n_texts, struct flip_filter **ret_filter, struct err *err)
{
	CLEANUP(flip_filter_freep) struct flip_filter *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->n_texts = n_texts;
	for (size_t i = 0; i < n_texts; i++) {
		r = parse_one(f, i, texts[i], err);
		if (r == -ENOMEM)
			return err_set(err, r, "out of memory");
		if (r < 0)
			return r;
	}
	*ret_filter = f;
	f = NULL;
	return 0;
}

/* ---- Matching ---- */

/* NULL: the snapshot has no such field. */
static const char *value_of(const struct selector *s, const struct flip_snapshot *snapshot)
{
	switch (s->field) {
	case FIELD_NAME:
		return snapshot->name;
	case FIELD_PARENT:
		return snapshot->parent ? snapshot->parent : ""; /* there in any case: parent=="" is asked for */
	case FIELD_KIND:
		return snapshot->kind == FLIP_SNAPSHOT_VIEW        ? "view"
		       : snapshot->kind == FLIP_SNAPSHOT_ACTIVE    ? "active"
		       : snapshot->kind == FLIP_SNAPSHOT_COMMITTED ? "committed"
		                                                   : NULL;
	case FIELD_LABEL:
		for (size_t i = 0; s->label && i < snapshot->n_labels; i++) {
			if (strcmp(snapshot->labels[i].name, s->label) == 0)
				return snapshot->labels[i].value;
		}
		return NULL;
	case FIELD_ANY:
		return "";
	case FIELD_NONE:
		return NULL;
	}
	return NULL;
}

static bool pattern_matches(const pcre2_code *pattern, const char *text)
{
	pcre2_match_context *limits = pcre2_match_context_create(NULL);
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	bool is = false;

	if (limits && data) {
		(void)pcre2_set_match_limit(limits, MAX_STEPS);
		(void)pcre2_set_heap_limit(limits, MAX_HEAP_KIB);
		is = pcre2_match(pattern, (PCRE2_SPTR)text, strlen(text), 0, 0, data, limits) >= 0;
	}
	pcre2_match_data_free(data);
	pcre2_match_context_free(limits);
	return is;
}

static bool selector_matches(const struct selector *s, const struct flip_snapshot *snapshot)
{
	const char *value = value_of(s, snapshot);

	switch (s->op) {
	case OP_PRESENT:
		return value != NULL;
	case OP_EQUAL:
		return value && strcmp(value, s->value) == 0;
	case OP_NOT_EQUAL:
		return strcmp(value ? value : "", s->value) != 0;
	case OP_MATCHES:
		return pattern_matches(s->pattern, value ? value : "");
	}
	return false;
}

bool flip_filter_matches(const struct flip_filter *f, const struct flip_snapshot *s)
{
	if (f->n_texts == 0)
		return true;
	for (size_t i = 0; i < f->n;) {
		size_t filter = f->selectors[i].filter;
		bool is = true;

		for (; i < f->n && f->selectors[i].filter == filter; i++)
			is = is && selector_matches(&f->selectors[i], s);
		if (is)
			return true;
	}
	return false;
}
