/* Ids to text, whole or as they come: one implementation. The decoders of the file form a pipeline; each
 * takes tokens (begin, text, end) and hands tokens on, keeping only what it needs to know what is final.
 * Decoding everything is pushing all ids and flushing, so a stream's parts always add up to the whole.
 *
 * What each has to hold back: byte-level the beginning of a character; byte fallback a run of byte tokens,
 * because one bad byte turns the whole run into U+FFFD; strip the trailing marks it may have to drop; replace
 * the beginning of its pattern (a regex over joined tokens: everything); BPE one token. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"
#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

#define REPLACEMENT "\xef\xbf\xbd"

struct stage {
	const struct tok_dec *dec;
	struct base_buf buf;  /* the token so far; byte fallback: the run of bytes */
	struct base_buf prev; /* BPE, CTC: the token before */
	uint64_t n_tokens;    /* begun so far */
	bool has_prev;
	bool opened;     /* fuse, byte-level: the one token it makes has begun */
	bool run_is_bad; /* byte fallback */
	bool leading;    /* strip: still at the beginning */
	uint32_t n_cut, n_held;
	unsigned char part[4]; /* byte-level: the beginning of a character */
	size_t n_part;
};

struct eng_detok {
	const struct eng_tokenizer *tok;
	bool skip_special;
	bool begun; /* a token has reached the end */
	struct base_buf *out;
	struct tok_scratch scratch;
	struct base_buf tmp;
	size_t n_stages;
	struct stage stages[]; /* one for each decoder */
};

void tok_dec_done(struct tok_dec *dec)
{
	tok_pattern_done(&dec->pattern);
	free(dec->text);
	free(dec->text2);
	*dec = (struct tok_dec){ 0 };
}

static int token_begin(struct eng_detok *d, size_t k);
static int token_text(struct eng_detok *d, size_t k, const char *p, size_t n);
static int token_end(struct eng_detok *d, size_t k);

static int whole_token(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	int r = token_begin(d, k);

	if (r == 0)
		r = token_text(d, k, p, n);
	return r < 0 ? r : token_end(d, k);
}

/* ---- byte-level ------------------------------------------------------------------------------ */

static int bytes_to_text(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	struct stage *st = &d->stages[k];
	struct base_buf *t = &d->tmp;
	size_t i = 0, len;
	int kind, r;

	base_buf_reset(t);
	(void)base_buf_append(t, st->part, st->n_part);
	r = base_buf_append(t, p, n);
	if (r < 0)
		return r;
	st->n_part = 0;
	for (size_t done = 0; r == 0; i += len) {
		const unsigned char *u = (const unsigned char *)t->data;

		kind = i < t->len ? tok_utf8_next(u + i, t->len - i, &len) : -1;
		if (kind == 1)
			continue;
		if (i > done)
			r = token_text(d, k + 1, t->data + done, i - done);
		if (kind < 0) {
			st->n_part = t->len - i; /* at most 3 bytes: a character not complete */
			memcpy(st->part, u + i, st->n_part);
			break;
		}
		if (r == 0)
			r = token_text(d, k + 1, REPLACEMENT, 3);
		done = i + len;
	}
	return r;
}

static int byte_level_token(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	struct base_buf *bytes = &d->scratch.word;

	base_buf_reset(bytes);
	tok_undo_byte_level(p, n, bytes);
	if (base_buf_error(bytes))
		return base_buf_error(bytes);
	return bytes_to_text(d, k, base_buf_text(bytes), bytes->len);
}

/* ---- byte fallback --------------------------------------------------------------------------- */

static int bad_run(struct eng_detok *d, size_t k, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = whole_token(d, k + 1, REPLACEMENT, 3);
	return r;
}

static int end_run(struct eng_detok *d, size_t k)
{
	struct stage *st = &d->stages[k];
	int r = 0;

	if (st->buf.len)
		r = st->n_part ? bad_run(d, k, st->buf.len) : whole_token(d, k + 1, st->buf.data, st->buf.len);
	base_buf_reset(&st->buf);
	st->n_part = 0;
	st->run_is_bad = false;
	return r;
}

/* n_part counts the bytes at the run's end that are no complete character yet. */
static int byte_token(struct eng_detok *d, size_t k, int byte)
{
	struct stage *st = &d->stages[k];
	size_t len, n;
	int r, kind;

	if (st->run_is_bad)
		return bad_run(d, k, 1);
	r = base_buf_putc(&st->buf, (char)byte);
	if (r < 0)
		return r;
	n = ++st->n_part;
	kind = tok_utf8_next((const unsigned char *)st->buf.data + st->buf.len - n, n, &len);
	if (kind == 1)
		st->n_part = 0;
	if (kind != 0)
		return 0;
	r = bad_run(d, k, st->buf.len);
	base_buf_reset(&st->buf);
	st->n_part = 0;
	st->run_is_bad = true;
	return r;
}

static int byte_fallback_token(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	int byte = tok_byte_of_spelling(p, n), r;

	if (byte >= 0)
		return byte_token(d, k, byte);
	r = end_run(d, k);
	return r < 0 ? r : whole_token(d, k + 1, p, n);
}

/* ---- WordPiece, BPE, CTC --------------------------------------------------------------------- */

/* The reference's list of spaces that English does not write, in its order. */
static int clean_up(struct base_buf *buf)
{
	static const char *const pairs[][2] = {
		{ " .", "." },   { " ?", "?" },     { " !", "!" },     { " ,", "," },
		{ " ' ", "'" },  { " n't", "n't" }, { " 'm", "'m" },   { " do not", " don't" },
		{ " 's", "'s" }, { " 've", "'ve" }, { " 're", "'re" },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(pairs) / sizeof(*pairs); i++)
		r = tok_replace_all(buf, pairs[i][0], strlen(pairs[i][0]), pairs[i][1], strlen(pairs[i][1]));
	return r;
}

/* The token in st->buf, changed for its place in the text. */
static int wordpiece_token(struct stage *st, struct base_buf *t, const char *p, size_t n)
{
	const struct tok_dec *dec = st->dec;

	if (st->n_tokens > 1) {
		if (n >= dec->n && memcmp(p, dec->text, dec->n) == 0) {
			p += dec->n;
			n -= dec->n;
		} else {
			(void)base_buf_putc(t, ' ');
		}
	}
	(void)base_buf_append(t, p, n);
	return base_buf_error(t) ? base_buf_error(t) : dec->cleanup ? clean_up(t) : 0;
}

static int ctc_token(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	CLEANUP(base_buf_done) struct base_buf t = BASE_BUF_INIT(TOK_MAX_TEXT_BYTES);
	struct stage *st = &d->stages[k];
	const struct tok_dec *dec = st->dec;
	int r;

	if (st->has_prev && st->prev.len == n && (n == 0 || memcmp(st->prev.data, p, n) == 0))
		return 0;
	st->has_prev = true;
	base_buf_reset(&st->prev);
	(void)base_buf_append(&st->prev, p, n);
	r = base_buf_append(&t, p, n);
	if (r == 0)
		r = tok_replace_all(&t, dec->text, dec->n, "", 0);
	if (r == 0 && dec->cleanup)
		r = clean_up(&t);
	if (r == 0 && dec->cleanup)
		r = tok_replace_all(&t, dec->text2, dec->n2, " ", 1);
	return r < 0 || t.len == 0 ? r : whole_token(d, k + 1, t.data, t.len);
}

/* The token before this one is not the last: its suffix is a space. */
static int bpe_token(struct eng_detok *d, size_t k, bool last)
{
	struct stage *st = &d->stages[k];
	int r;

	if (!st->has_prev)
		return 0;
	r = tok_replace_all(&st->prev, st->dec->text, st->dec->n, last ? "" : " ", last ? 0 : 1);
	return r < 0 ? r : whole_token(d, k + 1, base_buf_text(&st->prev), st->prev.len);
}

/* ---- replace --------------------------------------------------------------------------------- */

/* How many bytes at the end of the text may be the beginning of the pattern. */
static size_t partial_match(const char *p, size_t n, const struct tok_pattern *pattern)
{
	size_t k = pattern->n - 1 < n ? pattern->n - 1 : n;

	while (k > 0 && memcmp(p + n - k, pattern->text, k) != 0)
		k--;
	return k;
}

/* Hands on what st->buf holds with matches replaced; keeps `hold` bytes of the end when more may follow. */
static int replace_text(struct eng_detok *d, size_t k, bool more)
{
	struct stage *st = &d->stages[k];
	const struct tok_dec *dec = st->dec;
	const char *p = base_buf_text(&st->buf);
	size_t n = st->buf.len, at = 0, done = 0, b, e, len, hold = 0;
	int r = 0;

	while (r == 0 && at <= n) {
		r = tok_pattern_find(&dec->pattern, &d->scratch, p, n, at, &b, &e, NULL);
		if (r <= 0)
			break;
		r = b > done ? token_text(d, k + 1, p + done, b - done) : 0;
		if (r == 0)
			r = token_text(d, k + 1, dec->text, dec->n);
		done = at = e;
		if (b == e) {
			if (e == n)
				break;
			(void)tok_utf8_get(p + e, n - e, &len);
			at += len;
		}
	}
	if (r < 0)
		return r;
	if (more)
		hold = partial_match(p + done, n - done, &dec->pattern);
	if (n - done > hold)
		r = token_text(d, k + 1, p + done, n - done - hold);
	if (hold)
		memmove(st->buf.data, st->buf.data + n - hold, hold);
	st->buf.len = hold;
	return r;
}

static int replace_fragment(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	struct stage *st = &d->stages[k];
	int r = base_buf_append(&st->buf, p, n);

	if (r < 0 || st->dec->pattern.regex || !st->dec->fragments)
		return r;
	return replace_text(d, k, true);
}

/* ---- strip and metaspace: by characters ------------------------------------------------------ */

static int put_held(struct eng_detok *d, size_t k, uint32_t n)
{
	char c[4];
	size_t len = base_utf8_put(d->stages[k].dec->cp, c);
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = token_text(d, k + 1, c, len);
	return r;
}

static int strip_text(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	struct stage *st = &d->stages[k];
	const struct tok_dec *dec = st->dec;
	size_t done = 0, len;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i += len) {
		bool mark = tok_utf8_get(p + i, n - i, &len) == dec->cp;

		if (st->leading && mark && st->n_cut < dec->start) {
			st->n_cut++;
			done = i + len;
			continue;
		}
		st->leading = false;
		if (dec->stop == 0)
			break; /* the rest goes through */
		if (mark) {
			if (i > done)
				r = token_text(d, k + 1, p + done, i - done);
			done = i + len;
			if (++st->n_held > dec->stop) {
				st->n_held--;
				r = r < 0 ? r : put_held(d, k, 1);
			}
		} else if (st->n_held) {
			r = put_held(d, k, st->n_held);
			st->n_held = 0;
		}
	}
	return r < 0 || done == n ? r : token_text(d, k + 1, p + done, n - done);
}

static int metaspace_text(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	const struct stage *st = &d->stages[k];
	bool drop = st->n_tokens == 1 && !st->dec->keep_first;
	size_t done = 0, len;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i += len) {
		if (tok_utf8_get(p + i, n - i, &len) != st->dec->cp)
			continue;
		if (i > done)
			r = token_text(d, k + 1, p + done, i - done);
		if (r == 0 && !drop)
			r = token_text(d, k + 1, " ", 1);
		done = i + len;
	}
	return r < 0 || done == n ? r : token_text(d, k + 1, p + done, n - done);
}

/* ---- the pipeline: stage n_stages is the output ---------------------------------------------- */

static int open_once(struct eng_detok *d, size_t k)
{
	struct stage *st = &d->stages[k];

	if (st->opened)
		return 0;
	st->opened = true;
	return token_begin(d, k + 1);
}

static int token_begin(struct eng_detok *d, size_t k)
{
	struct stage *st;
	int r = 0;

	if (k == d->n_stages) {
		/* Without a decoder the reference puts a space between tokens. */
		if (d->begun && d->n_stages == 0)
			r = base_buf_putc(d->out, ' ');
		d->begun = true;
		return r;
	}
	st = &d->stages[k];
	st->n_tokens++;
	switch (st->dec->kind) {
	case TOK_DEC_FUSE:
	case TOK_DEC_BYTE_LEVEL:
		r = open_once(d, k);
		break;
	case TOK_DEC_STRIP:
		st->leading = true;
		st->n_cut = st->n_held = 0;
		/* fallthrough */
	case TOK_DEC_METASPACE:
	case TOK_DEC_REPLACE:
		return token_begin(d, k + 1);
	default:
		break;
	}
	return r;
}

static int token_text(struct eng_detok *d, size_t k, const char *p, size_t n)
{
	struct stage *st;

	if (k == d->n_stages)
		return base_buf_append(d->out, p, n);
	st = &d->stages[k];
	switch (st->dec->kind) {
	case TOK_DEC_FUSE:
		return token_text(d, k + 1, p, n);
	case TOK_DEC_STRIP:
		return strip_text(d, k, p, n);
	case TOK_DEC_METASPACE:
		return metaspace_text(d, k, p, n);
	case TOK_DEC_REPLACE:
		return replace_fragment(d, k, p, n);
	case TOK_DEC_BYTE_FALLBACK:
		/* buf holds the run; a token in parts is put together in prev. */
		return base_buf_append(&st->prev, p, n);
	default:
		return base_buf_append(&st->buf, p, n);
	}
}

static int end_assembled(struct eng_detok *d, size_t k)
{
	CLEANUP(base_buf_done) struct base_buf t = BASE_BUF_INIT(TOK_MAX_TEXT_BYTES);
	struct stage *st = &d->stages[k];
	const char *p = base_buf_text(&st->buf);
	size_t n = st->buf.len;
	int r;

	switch (st->dec->kind) {
	case TOK_DEC_BYTE_LEVEL:
		r = byte_level_token(d, k, p, n);
		break;
	case TOK_DEC_WORDPIECE:
		r = wordpiece_token(st, &t, p, n);
		if (r == 0)
			r = whole_token(d, k + 1, base_buf_text(&t), t.len);
		break;
	case TOK_DEC_CTC:
		r = ctc_token(d, k, p, n);
		break;
	default: /* TOK_DEC_BPE */
		r = bpe_token(d, k, false);
		base_buf_reset(&st->prev);
		if (r == 0)
			r = base_buf_append(&st->prev, p, n);
		st->has_prev = true;
		break;
	}
	base_buf_reset(&st->buf);
	return r;
}

static int token_end(struct eng_detok *d, size_t k)
{
	struct stage *st;
	int r;

	if (k == d->n_stages)
		return 0;
	st = &d->stages[k];
	switch (st->dec->kind) {
	case TOK_DEC_FUSE:
		return 0;
	case TOK_DEC_STRIP:
	case TOK_DEC_METASPACE:
		return token_end(d, k + 1);
	case TOK_DEC_REPLACE:
		r = replace_text(d, k, false);
		return r < 0 ? r : token_end(d, k + 1);
	case TOK_DEC_BYTE_FALLBACK:
		r = byte_fallback_token(d, k, base_buf_text(&st->prev), st->prev.len);
		base_buf_reset(&st->prev);
		return r;
	default:
		return end_assembled(d, k);
	}
}

/* The end of all tokens, stage by stage. */
static int finish(struct eng_detok *d, size_t k)
{
	struct stage *st;
	int r = 0;

	if (k == d->n_stages)
		return 0;
	st = &d->stages[k];
	switch (st->dec->kind) {
	case TOK_DEC_BYTE_LEVEL:
		r = open_once(d, k);
		if (r == 0 && st->n_part)
			r = token_text(d, k + 1, REPLACEMENT, 3);
		st->n_part = 0;
		if (r == 0)
			r = token_end(d, k + 1);
		break;
	case TOK_DEC_FUSE:
		r = open_once(d, k);
		if (r == 0)
			r = token_end(d, k + 1);
		break;
	case TOK_DEC_BYTE_FALLBACK:
		r = end_run(d, k);
		break;
	case TOK_DEC_BPE:
		r = bpe_token(d, k, true);
		break;
	default:
		break;
	}
	return r < 0 ? r : finish(d, k + 1);
}

/* ---- the public side ------------------------------------------------------------------------- */

int eng_detok_new(const struct eng_tokenizer *tok, bool skip_special, struct eng_detok **ret_detok)
{
	struct eng_detok *d = calloc(1, sizeof(*d) + tok->n_decs * sizeof(d->stages[0]));

	if (!d)
		return -ENOMEM;
	d->tok = tok;
	d->skip_special = skip_special;
	d->n_stages = tok->n_decs;
	tok_scratch_init(&d->scratch);
	base_buf_init(&d->tmp, TOK_MAX_TEXT_BYTES);
	for (size_t i = 0; i < d->n_stages; i++) {
		d->stages[i].dec = &tok->decs[i];
		base_buf_init(&d->stages[i].buf, TOK_MAX_TEXT_BYTES);
		base_buf_init(&d->stages[i].prev, TOK_MAX_TEXT_BYTES);
	}
	*ret_detok = d;
	return 0;
}

void eng_detok_free(struct eng_detok *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n_stages; i++) {
		base_buf_done(&d->stages[i].buf);
		base_buf_done(&d->stages[i].prev);
	}
	base_buf_done(&d->tmp);
	tok_scratch_done(&d->scratch);
	free(d);
}

static void detok_freep(struct eng_detok **d)
{
	eng_detok_free(*d);
}

int eng_detok_push(struct eng_detok *d, int32_t id, struct base_buf *out)
{
	const char *p;
	size_t n;

	p = tok_decode_piece(d->tok, id, &n);
	if (!p || (d->skip_special && eng_tokenizer_is_special(d->tok, id)))
		return 0;
	d->out = out;
	return whole_token(d, 0, p, n);
}

int eng_detok_flush(struct eng_detok *d, struct base_buf *out)
{
	d->out = out;
	return finish(d, 0);
}

int eng_tokenizer_decode(const struct eng_tokenizer *tok, const int32_t *ids, size_t n, bool skip_special,
                         struct base_buf *out)
{
	CLEANUP(detok_freep) struct eng_detok *d = NULL;
	int r;

	r = eng_detok_new(tok, skip_special, &d);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = eng_detok_push(d, ids[i], out);
	return r < 0 ? r : eng_detok_flush(d, out);
}
