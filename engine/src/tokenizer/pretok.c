/* Pre-tokenizers: text to pieces. All are one of two things: a way to find matches and a behaviour that says
 * what becomes of them (a split), or a rewriting of each piece (byte-level, metaspace). Pieces are ranges of
 * one text buffer, so that a split copies nothing. Empty pieces disappear after every step. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"
#include "tokenizer/tok_internal.h"

const char tok_gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

void tok_pretok_done(struct tok_pretok *pre)
{
	tok_pattern_done(&pre->pattern);
	*pre = (struct tok_pretok){ 0 };
}

struct work {
	struct tok_scratch *s;
	const char *text;
	struct base_buf *buf; /* where the next rewriting goes */
	unsigned in;          /* which piece list is read */
	struct err *err;
};

static int add_span(struct tok_scratch *s, size_t begin, size_t end, bool match)
{
	int r = tok_grow(&s->spans, &s->cap_spans, s->n_spans + 1, sizeof(*s->spans));

	if (r == 0)
		s->spans[s->n_spans++] = (struct tok_span){ (uint32_t)begin, (uint32_t)end, match };
	return r;
}

static int add_piece(struct work *w, size_t begin, size_t end, bool first)
{
	struct tok_scratch *s = w->s;
	unsigned to = w->in ^ 1;
	int r;

	if (begin == end)
		return 0;
	r = tok_grow(&s->pieces[to], &s->cap_pieces[to], s->n_pieces[to] + 1, sizeof(struct tok_piece));
	if (r == 0)
		s->pieces[to][s->n_pieces[to]++] = (struct tok_piece){ (uint32_t)begin, (uint32_t)end, first };
	return r;
}

/* ---- finding matches: spans that cover the piece, in order ----------------------------------- */

static int spans_by_pattern(const struct tok_pattern *pattern, struct work *w, const struct tok_piece *piece)
{
	const char *p = w->text + piece->begin;
	size_t n = piece->end - piece->begin, at = 0, done = 0, b, e, len, last = SIZE_MAX;
	int r = 0;

	while (r == 0 && at <= n) {
		r = tok_pattern_find(pattern, w->s, p, n, at, &b, &e, w->err);
		if (r <= 0)
			break;
		r = 0;
		if (b == e) {
			/* Empty: none directly behind a match, and the search goes on one character later. */
			at = n + 1;
			if (e < n) {
				(void)tok_utf8_get(p + e, n - e, &len);
				at = e + len;
			}
			if (last == e)
				continue;
		} else {
			at = e;
		}
		last = e;
		if (done != b)
			r = add_span(w->s, piece->begin + done, piece->begin + b, false);
		if (r == 0)
			r = add_span(w->s, piece->begin + b, piece->begin + e, true);
		done = e;
	}
	if (r == 0 && done != n)
		r = add_span(w->s, piece->begin + done, piece->end, false);
	return r;
}

static bool char_matches(const struct tok_pretok *pre, uint32_t cp)
{
	switch (pre->kind) {
	case TOK_PRE_WHITESPACE_SPLIT:
		return tok_is_space(cp);
	case TOK_PRE_PUNCTUATION:
		return tok_is_punctuation(cp);
	case TOK_PRE_DIGITS:
		return tok_is_numeric(cp);
	default:
		return cp == pre->cp;
	}
}

static int spans_by_char(const struct tok_pretok *pre, struct work *w, const struct tok_piece *piece)
{
	size_t done = piece->begin, len;
	int r = 0;

	for (size_t i = piece->begin; r == 0 && i < piece->end; i += len) {
		if (!char_matches(pre, tok_utf8_get(w->text + i, piece->end - i, &len)))
			continue;
		if (done < i)
			r = add_span(w->s, done, i, false);
		if (r == 0)
			r = add_span(w->s, i, i + len, true);
		done = i + len;
	}
	if (r == 0 && done < piece->end)
		r = add_span(w->s, done, piece->end, false);
	return r;
}

/* \w+ and [^\w\s]+ are words; the white space between them is the match. */
static int spans_of_words(struct work *w, const struct tok_piece *piece)
{
	size_t begin = piece->begin, len;
	int kind, last = -1, r = 0;
	uint32_t cp;

	for (size_t i = piece->begin; r == 0 && i < piece->end; i += len) {
		cp = tok_utf8_get(w->text + i, piece->end - i, &len);
		kind = tok_is_word(cp) ? 1 : tok_is_space(cp) ? 0 : 2;
		if (last >= 0 && kind != last) {
			r = add_span(w->s, begin, i, last == 0);
			begin = i;
		}
		last = kind;
	}
	if (r == 0 && begin < piece->end)
		r = add_span(w->s, begin, piece->end, last == 0);
	return r;
}

static int spans_of_length(const struct tok_pretok *pre, struct work *w, const struct tok_piece *piece)
{
	size_t begin = piece->begin, i = begin, len;
	uint32_t k = 0;
	int r = 0;

	for (; r == 0 && i < piece->end; i += len) {
		if (k == pre->length) {
			r = add_span(w->s, begin, i, false);
			begin = i;
			k = 0;
		}
		(void)tok_utf8_get(w->text + i, piece->end - i, &len);
		k++;
	}
	return r < 0 ? r : add_span(w->s, begin, piece->end, false);
}

/* ---- what becomes of matches ----------------------------------------------------------------- */

/* Neighbours of the same kind become one. */
static void merge_runs(struct tok_scratch *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_spans; i++) {
		if (n && s->spans[n - 1].match == s->spans[i].match)
			s->spans[n - 1].end = s->spans[i].end;
		else
			s->spans[n++] = s->spans[i];
	}
	s->n_spans = n;
}

/* A match joins what is before it, unless that ended with a match too. */
static void merge_previous(struct tok_scratch *s)
{
	bool previous = false, match;
	size_t n = 0;

	for (size_t i = 0; i < s->n_spans; i++) {
		match = s->spans[i].match;
		if (match && !previous && n)
			s->spans[n - 1].end = s->spans[i].end;
		else
			s->spans[n++] = s->spans[i];
		previous = match;
	}
	s->n_spans = n;
}

/* The mirror image, from the end; the kept spans gather at the end of the array. */
static void merge_next(struct tok_scratch *s)
{
	size_t to = s->n_spans;
	bool previous = false, match;

	for (size_t i = s->n_spans; i-- > 0;) {
		match = s->spans[i].match;
		if (match && !previous && to < s->n_spans)
			s->spans[to].begin = s->spans[i].begin;
		else
			s->spans[--to] = s->spans[i];
		previous = match;
	}
	memmove(s->spans, s->spans + to, (s->n_spans - to) * sizeof(*s->spans));
	s->n_spans -= to;
}

static int spans_to_pieces(enum tok_behavior behavior, struct work *w, const struct tok_piece *piece)
{
	struct tok_scratch *s = w->s;
	int r = 0;

	if (behavior == TOK_CONTIGUOUS)
		merge_runs(s);
	else if (behavior == TOK_MERGED_WITH_PREVIOUS)
		merge_previous(s);
	else if (behavior == TOK_MERGED_WITH_NEXT)
		merge_next(s);
	for (size_t i = 0; r == 0 && i < s->n_spans; i++) {
		if (behavior == TOK_REMOVED && s->spans[i].match)
			continue;
		r = add_piece(w, s->spans[i].begin, s->spans[i].end, piece->first && s->spans[i].begin == piece->begin);
	}
	return r;
}

static int split_piece(const struct tok_pretok *pre, struct work *w, const struct tok_piece *piece)
{
	struct tok_scratch *s = w->s;
	int r;

	s->n_spans = 0;
	if (pre->kind == TOK_PRE_SPLIT)
		r = spans_by_pattern(&pre->pattern, w, piece);
	else if (pre->kind == TOK_PRE_WHITESPACE)
		r = spans_of_words(w, piece);
	else if (pre->kind == TOK_PRE_FIXED_LENGTH)
		r = spans_of_length(pre, w, piece);
	else
		r = spans_by_char(pre, w, piece);
	if (r < 0)
		return r;
	for (size_t i = 0; pre->invert && i < s->n_spans; i++)
		s->spans[i].match = !s->spans[i].match;
	return spans_to_pieces(pre->behavior, w, piece);
}

/* ---- rewriting ------------------------------------------------------------------------------- */

static int metaspace_pieces(const struct tok_pretok *pre, struct work *w, size_t begin, bool first)
{
	const char *mark_text = w->buf->data;
	size_t end = w->buf->len, from = begin, len;
	int r = 0;

	if (!pre->split)
		return add_piece(w, begin, end, first);
	for (size_t i = begin; r == 0 && i < end; i += len) {
		if (tok_utf8_get(mark_text + i, end - i, &len) == pre->cp && i > from) {
			r = add_piece(w, from, i, first && from == begin);
			from = i;
		}
	}
	return r < 0 ? r : add_piece(w, from, end, first && from == begin);
}

static int metaspace(const struct tok_pretok *pre, struct work *w, const struct tok_piece *piece)
{
	const char *p = w->text + piece->begin;
	size_t n = piece->end - piece->begin, begin = w->buf->len, len, mark_len;
	char mark[4];
	uint32_t c;

	mark_len = base_utf8_put(pre->cp, mark);
	c = tok_utf8_get(p, n, &len);
	if (c != pre->cp && c != ' ' &&
	    (pre->prepend == TOK_PREPEND_ALWAYS || (pre->prepend == TOK_PREPEND_FIRST && piece->first)))
		(void)base_buf_append(w->buf, mark, mark_len);
	for (size_t i = 0, done = 0; i <= n; i++) {
		if (i < n && p[i] != ' ')
			continue;
		(void)base_buf_append(w->buf, p + done, i - done);
		if (i < n)
			(void)base_buf_append(w->buf, mark, mark_len);
		done = i + 1;
	}
	if (base_buf_error(w->buf))
		return base_buf_error(w->buf);
	return metaspace_pieces(pre, w, begin, piece->first);
}

static int rewrite_piece(const struct tok_pretok *pre, struct work *w, const struct tok_piece *piece)
{
	const char *p = w->text + piece->begin;
	size_t n = piece->end - piece->begin, begin = w->buf->len;
	int r;

	if (pre->kind == TOK_PRE_METASPACE)
		return metaspace(pre, w, piece);
	if (pre->kind == TOK_PRE_BYTE_LEVEL) {
		r = tok_append_byte_level(w->buf, p, n);
	} else {
		if (*p != ' ')
			(void)base_buf_putc(w->buf, ' ');
		r = base_buf_append(w->buf, p, n);
	}
	return r < 0 ? r : add_piece(w, begin, w->buf->len, piece->first);
}

static bool rewrites(const struct tok_pretok *pre)
{
	return pre->kind == TOK_PRE_METASPACE || pre->kind == TOK_PRE_BYTE_LEVEL || pre->kind == TOK_PRE_PREFIX_SPACE;
}

static int step(const struct tok_pretok *pre, struct work *w)
{
	struct tok_scratch *s = w->s;
	bool rewriting = rewrites(pre);
	int r = 0;

	s->n_pieces[w->in ^ 1] = 0;
	if (rewriting)
		base_buf_reset(w->buf);
	for (size_t i = 0; r == 0 && i < s->n_pieces[w->in]; i++) {
		const struct tok_piece piece = s->pieces[w->in][i];

		r = rewriting ? rewrite_piece(pre, w, &piece) : split_piece(pre, w, &piece);
	}
	w->in ^= 1;
	if (rewriting) {
		w->text = base_buf_text(w->buf);
		w->buf = w->buf == &s->pre[0] ? &s->pre[1] : &s->pre[0];
	}
	return r;
}

int tok_pretokenize(const struct tok_pretok *pres, size_t n_pres, struct tok_scratch *s, const char *text, size_t n,
                    bool first, const char **ret_text, unsigned *ret_set, struct err *err)
{
	struct work w = { .s = s, .text = text, .buf = &s->pre[0], .in = 1, .err = err };
	int r;

	s->n_pieces[0] = 0;
	r = add_piece(&w, 0, n, first);
	w.in = 0;
	for (size_t i = 0; r == 0 && i < n_pres; i++)
		r = step(&pres[i], &w);
	if (r < 0)
		return err && err->code ? r : err_set(err, r, "tokenizer: the text is too large");
	*ret_text = w.text;
	*ret_set = w.in;
	return 0;
}
