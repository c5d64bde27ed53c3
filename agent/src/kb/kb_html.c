/* Readable text out of HTML: tags go, block elements end lines, headings are kept as headings, what is not meant for
 * reading (scripts, styles) is left out. No tree is built and nothing is corrected; entities are those that manuals use
 * and all numeric ones. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "base/cleanup.h"
#include "kb/kb_internal.h"

struct html {
	const char *s, *end;
	uint32_t line, text_line; /* now; where the text under construction began */
	struct base_buf text;
	struct ag_kb_doc *doc;
	unsigned heading;
	bool para, blank, pre, in_title;
};

static const struct {
	const char *name, *text;
} entities[] = {
	{ "amp", "&" },    { "lt", "<" },     { "gt", ">" },     { "quot", "\"" },  { "apos", "'" },  { "nbsp", " " },
	{ "copy", "©" },   { "reg", "®" },    { "trade", "™" },  { "mdash", "—" },  { "ndash", "–" }, { "hellip", "…" },
	{ "lsquo", "‘" },  { "rsquo", "’" },  { "ldquo", "“" },  { "rdquo", "”" },  { "bull", "•" },  { "middot", "·" },
	{ "times", "×" },  { "deg", "°" },    { "larr", "←" },   { "rarr", "→" },   { "laquo", "«" }, { "raquo", "»" },
	{ "sect", "§" },   { "para", "¶" },   { "le", "≤" },     { "ge", "≥" },     { "ne", "≠" },    { "plusmn", "±" },
	{ "eacute", "é" }, { "egrave", "è" }, { "agrave", "à" }, { "ccedil", "ç" }, { "auml", "ä" },  { "ouml", "ö" },
	{ "uuml", "ü" },   { "szlig", "ß" },  { "Auml", "Ä" },   { "Ouml", "Ö" },   { "Uuml", "Ü" },  { "micro", "µ" },
	{ "euro", "€" },   { "emsp", " " },   { "ensp", " " },
};

static int flush(struct html *h)
{
	int r = 0;

	if (h->in_title) {
		if (!h->doc->title[0] && h->text.len && h->text.len < sizeof(h->doc->title))
			memcpy(h->doc->title, h->text.data, h->text.len + 1);
	} else if (h->text.len) {
		r = ag_kb_doc_line(h->doc, h->text.data, h->text.len, h->text_line, h->heading, h->para || h->heading);
		h->para = false;
	}
	base_buf_reset(&h->text);
	h->blank = false;
	return r;
}

static int put(struct html *h, const char *s, size_t len)
{
	if (h->text.len == 0)
		h->text_line = h->line;
	if (h->blank && h->text.len)
		(void)base_buf_putc(&h->text, ' ');
	h->blank = false;
	return base_buf_append(&h->text, s, len);
}

static int put_char(struct html *h, char c)
{
	if (h->pre) {
		if (c == '\n')
			return flush(h);
		return c == '\r' ? 0 : put(h, &c, 1);
	}
	if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f') {
		h->blank = true;
		return 0;
	}
	return put(h, &c, 1);
}

/* "&...;": returns its length in bytes, 0 when it is none. */
static size_t entity(struct html *h, int *ret_r)
{
	size_t max = (size_t)(h->end - h->s) < 12 ? (size_t)(h->end - h->s) : 12;
	const char *semicolon = memchr(h->s, ';', max);
	char name[16], *rest;
	uint8_t utf8[4];
	size_t n;

	if (!semicolon || semicolon == h->s + 1)
		return 0;
	n = (size_t)(semicolon - h->s) - 1;
	memcpy(name, h->s + 1, n);
	name[n] = '\0';
	if (name[0] == '#') {
		bool hex = name[1] == 'x' || name[1] == 'X';
		unsigned long c = strtoul(name + (hex ? 2 : 1), &rest, hex ? 16 : 10);

		if (*rest || c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
			return 0;
		*ret_r = put(h, (const char *)utf8, (size_t)utf8proc_encode_char((int32_t)c, utf8));
		return n + 2;
	}
	for (size_t i = 0; i < sizeof(entities) / sizeof(entities[0]); i++) {
		if (strcmp(name, entities[i].name) == 0) {
			*ret_r = put(h, entities[i].text, strlen(entities[i].text));
			return n + 2;
		}
	}
	return 0;
}

static bool is_one_of(const char *name, const char *list)
{
	size_t n = strlen(name);

	for (const char *p = list; (p = strstr(p, name)); p += n) {
		if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			return true;
	}
	return false;
}

static void advance(struct html *h, const char *to)
{
	for (; h->s < to; h->s++)
		h->line += *h->s == '\n';
}

/* The end of a tag that begins at h->s, behind its '>'; quotes may hold one. */
static const char *tag_end(const struct html *h)
{
	char quote = 0;

	for (const char *p = h->s + 1; p < h->end; p++) {
		if (quote) {
			quote = *p == quote ? 0 : quote;
		} else if (*p == '>') {
			return p + 1;
		} else if ((*p == '"' || *p == '\'') && p[-1] == '=') {
			quote = *p;
		}
	}
	return h->end;
}

/* Behind "</name" ... ">" of an element whose content is not read. */
static void skip_element(struct html *h, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = h->s; p < h->end; p++) {
		p = memchr(p, '<', (size_t)(h->end - p));
		if (!p)
			break;
		if ((size_t)(h->end - p) > n + 2 && p[1] == '/' && strncasecmp(p + 2, name, n) == 0) {
			advance(h, p);
			advance(h, tag_end(h));
			return;
		}
	}
	advance(h, h->end);
}

static int on_tag(struct html *h, const char *name, bool closing)
{
	static const char blocks[] =
	        "p div section article header footer main nav aside ul ol dl dt dd table tr "
	        "blockquote pre hr form figure figcaption body html head h1 h2 h3 h4 h5 h6 li title";
	int r;

	if (is_one_of(name, "script style template svg noscript math") && !closing) {
		skip_element(h, name);
		return 0;
	}
	if (is_one_of(name, "td th")) {
		h->blank = true;
		return 0;
	}
	if (strcmp(name, "br") == 0)
		return flush(h);
	if (!is_one_of(name, blocks))
		return 0;
	r = flush(h);
	h->para = h->para || !is_one_of(name, "li dd tr");
	h->heading = !closing && name[0] == 'h' && name[1] >= '1' && name[1] <= '6' ? (unsigned)(name[1] - '0') : 0;
	if (strcmp(name, "pre") == 0)
		h->pre = !closing;
	if (strcmp(name, "title") == 0)
		h->in_title = !closing;
	else
		h->in_title = false;
	if (r == 0 && strcmp(name, "li") == 0 && !closing)
		r = put(h, "- ", 2);
	return r;
}

static int markup(struct html *h)
{
	const char *p = h->s + 1, *stop;
	char name[16];
	size_t n = 0;
	bool closing = false;

	if (h->end - h->s >= 4 && memcmp(h->s, "<!--", 4) == 0) {
		stop = memmem(h->s + 4, (size_t)(h->end - h->s - 4), "-->", 3);
		advance(h, stop ? stop + 3 : h->end);
		return 0;
	}
	if (p < h->end && *p == '/') {
		closing = true;
		p++;
	}
	if (p == h->end || !((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '!' || *p == '?')) {
		h->s++; /* a lone '<' is text */
		return put(h, "<", 1);
	}
	for (; p < h->end && n + 1 < sizeof(name) && strchr(" \t\r\n/>", *p) == NULL; p++)
		name[n++] = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
	name[n] = '\0';
	advance(h, tag_end(h));
	return n ? on_tag(h, name, closing) : 0;
}

int ag_kb_extract_html(const char *data, size_t len, struct ag_kb_doc *doc)
{
	struct html h = { .s = data, .end = data + len, .line = 1, .doc = doc, .para = true };
	int r = 0;

	base_buf_init(&h.text, doc->text.max);
	while (h.s < h.end && r == 0) {
		size_t n = 0;

		if (*h.s == '<') {
			r = markup(&h);
			continue;
		}
		if (*h.s == '&' && (n = entity(&h, &r)) > 0) {
			h.s += n;
			continue;
		}
		r = put_char(&h, *h.s);
		h.line += *h.s == '\n';
		h.s++;
	}
	h.in_title = false;
	if (r == 0)
		r = flush(&h);
	base_buf_done(&h.text);
	return r;
}
