/* Normalizers: text to text, in the order of the file. Each reads one buffer and writes the other; one that
 * would change nothing is skipped where that is cheap to see (plain ASCII, and for NFC also Han, kana and
 * the other blocks that no composition touches), which is what most text is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/tok_internal.h"

void tok_norm_done(struct tok_norm *norm)
{
	tok_pattern_done(&norm->pattern);
	free(norm->text);
	tok_charsmap_free(norm->charsmap);
	*norm = (struct tok_norm){ 0 };
}

struct job {
	struct tok_scratch *s;
	const char *p;
	size_t n;
	struct base_buf *out;
	bool *first;
	struct err *err;
};

static bool is_ascii(const char *p, size_t n)
{
	size_t i = 0;
	uint64_t w;

	for (; n - i >= 8; i += 8) {
		memcpy(&w, p + i, 8);
		if (w & UINT64_C(0x8080808080808080))
			return false;
	}
	for (; i < n; i++) {
		if ((unsigned char)p[i] >= 0x80)
			return false;
	}
	return true;
}

/* Characters that NFC leaves alone whatever stands beside them. */
static bool nfc_is_inert(uint32_t cp)
{
	return cp < 0x300 || (cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf) ||
	       (cp >= 0x3000 && cp <= 0x3029) || (cp >= 0xff01 && cp <= 0xff9d) || (cp >= 0x2010 && cp <= 0x2027) ||
	       (cp >= 0x1f300 && cp <= 0x1faff);
}

static bool is_nfc(const char *p, size_t n)
{
	size_t len;

	for (size_t i = 0; i < n; i += len) {
		if (!nfc_is_inert(tok_utf8_get(p + i, n - i, &len)))
			return false;
	}
	return true;
}

static int unicode_form(struct job *j, int options)
{
	utf8proc_uint8_t *dst = NULL;
	utf8proc_ssize_t n;
	int r;

	n = utf8proc_map((const utf8proc_uint8_t *)j->p, (utf8proc_ssize_t)j->n, &dst, options | UTF8PROC_STABLE);
	if (n < 0) {
		free(dst);
		return n == UTF8PROC_ERROR_NOMEM ? -ENOMEM : -EBADMSG;
	}
	r = base_buf_append(j->out, dst, (size_t)n);
	free(dst);
	return r;
}

static int lowercase(struct job *j)
{
	uint32_t low[2];
	size_t len, k;

	for (size_t i = 0; i < j->n; i += len) {
		k = tok_lower(tok_utf8_get(j->p + i, j->n - i, &len), low);
		for (size_t m = 0; m < k; m++)
			(void)tok_utf8_append(j->out, low[m]);
	}
	return base_buf_error(j->out);
}

static int strip(const struct tok_norm *norm, struct job *j)
{
	size_t begin = 0, end = j->n, at, len;

	while (norm->left && begin < end && tok_is_space(tok_utf8_get(j->p + begin, end - begin, &len)))
		begin += len;
	while (norm->right && end > begin) {
		at = tok_utf8_back(j->p, end);
		if (!tok_is_space(tok_utf8_get(j->p + at, end - at, &len)))
			break;
		end = at;
	}
	if (begin > 0)
		*j->first = false;
	return base_buf_append(j->out, j->p + begin, end - begin);
}

/* Keeps, drops (-1) or changes characters one by one. */
static int map_chars(struct job *j, int64_t (*fn)(uint32_t cp))
{
	int64_t to;
	size_t len;

	for (size_t i = 0; i < j->n; i += len) {
		to = fn(tok_utf8_get(j->p + i, j->n - i, &len));
		if (to >= 0)
			(void)tok_utf8_append(j->out, (uint32_t)to);
		else if (i == 0)
			*j->first = false;
	}
	return base_buf_error(j->out);
}

static int64_t drop_marks(uint32_t cp)
{
	return tok_is_mark(cp) ? -1 : (int64_t)cp;
}

static int64_t drop_nonspacing(uint32_t cp)
{
	return tok_is_nonspacing_mark(cp) ? -1 : (int64_t)cp;
}

/* The rules SentencePiece applies before its own map ("nmt_nfkc"). */
static int64_t nmt_char(uint32_t cp)
{
	if ((cp >= 0x01 && cp <= 0x08) || cp == 0x0b || (cp >= 0x0e && cp <= 0x1f) || cp == 0x7f || cp == 0x8f ||
	    cp == 0x9f)
		return -1;
	if (cp == 0x09 || cp == 0x0a || cp == 0x0c || cp == 0x0d || cp == 0x1680 || (cp >= 0x200b && cp <= 0x200f) ||
	    cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xfeff || cp == 0xfffd)
		return ' ';
	return cp;
}

static int64_t bert_clean(uint32_t cp)
{
	if (cp == '\t' || cp == '\n' || cp == '\r')
		return ' ';
	if (cp == 0 || cp == 0xfffd || tok_is_control(cp))
		return -1;
	return tok_is_space(cp) ? ' ' : (int64_t)cp;
}

static int space_out_cjk(struct job *j)
{
	uint32_t cp;
	size_t len;

	for (size_t i = 0; i < j->n; i += len) {
		cp = tok_utf8_get(j->p + i, j->n - i, &len);
		if (tok_is_cjk(cp))
			(void)base_buf_putc(j->out, ' ');
		(void)base_buf_append(j->out, j->p + i, len);
		if (tok_is_cjk(cp))
			(void)base_buf_putc(j->out, ' ');
	}
	return base_buf_error(j->out);
}

static int replace(const struct tok_norm *norm, struct job *j)
{
	size_t at = 0, done = 0, b, e, len;
	int r;

	while (at <= j->n) {
		r = tok_pattern_find(&norm->pattern, j->s, j->p, j->n, at, &b, &e, j->err);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		(void)base_buf_append(j->out, j->p + done, b - done);
		(void)base_buf_append(j->out, norm->text, norm->n);
		if (b == 0 && e > 0) {
			(void)tok_utf8_get(j->p, j->n, &len);
			if (norm->n == 0 || len < e)
				*j->first = false;
		}
		done = at = e;
		if (b == e) { /* an empty match: go on behind the next character */
			if (e == j->n)
				break;
			(void)tok_utf8_get(j->p + e, j->n - e, &len);
			at += len;
		}
	}
	return base_buf_append(j->out, j->p + done, j->n - done);
}

/* Runs of spaces become one, none at either end. */
static int squeeze_spaces(struct job *j)
{
	bool pending = false;

	for (size_t i = 0; i < j->n; i++) {
		if (j->p[i] == ' ') {
			pending = j->out->len > 0;
			continue;
		}
		if (pending)
			(void)base_buf_putc(j->out, ' ');
		pending = false;
		(void)base_buf_putc(j->out, j->p[i]);
	}
	return base_buf_error(j->out);
}

/* Makes what was written the input of the next step. */
static void turn(struct job *j)
{
	j->p = base_buf_text(j->out);
	j->n = j->out->len;
	j->out = j->out == &j->s->norm[0] ? &j->s->norm[1] : &j->s->norm[0];
	base_buf_reset(j->out);
}

static int bert(const struct tok_norm *norm, struct job *j)
{
	int r = 0;

	if (norm->clean_text) {
		r = map_chars(j, bert_clean);
		turn(j);
	}
	if (r == 0 && norm->chinese && !is_ascii(j->p, j->n)) {
		r = space_out_cjk(j);
		turn(j);
	}
	if (r == 0 && norm->strip_accents && !is_ascii(j->p, j->n)) {
		r = unicode_form(j, UTF8PROC_DECOMPOSE);
		turn(j);
		if (r == 0)
			r = map_chars(j, drop_nonspacing);
		turn(j);
	}
	if (r == 0 && norm->lowercase) {
		r = lowercase(j);
		turn(j);
	}
	return r;
}

/* 1: changed, the result is in j->out; 0: as it was, or turned already. */
static int step(const struct tok_norm *norm, struct job *j)
{
	int r = 0;

	switch (norm->kind) {
	case TOK_NORM_NFC:
		if (is_nfc(j->p, j->n))
			return 0;
		r = unicode_form(j, UTF8PROC_COMPOSE);
		break;
	case TOK_NORM_NFD:
	case TOK_NORM_NFKD:
	case TOK_NORM_NFKC:
		if (is_ascii(j->p, j->n))
			return 0;
		r = unicode_form(j, norm->kind == TOK_NORM_NFD    ? UTF8PROC_DECOMPOSE
		                    : norm->kind == TOK_NORM_NFKD ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT
		                                                  : UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
		break;
	case TOK_NORM_LOWERCASE:
		r = lowercase(j);
		break;
	case TOK_NORM_STRIP:
		r = strip(norm, j);
		break;
	case TOK_NORM_STRIP_ACCENTS:
		if (is_ascii(j->p, j->n))
			return 0;
		r = map_chars(j, drop_marks);
		break;
	case TOK_NORM_REPLACE:
		r = replace(norm, j);
		break;
	case TOK_NORM_PREPEND:
		if (j->n == 0)
			return 0;
		(void)base_buf_append(j->out, norm->text, norm->n);
		r = base_buf_append(j->out, j->p, j->n);
		break;
	case TOK_NORM_BERT:
		return bert(norm, j);
	case TOK_NORM_CHARSMAP:
		r = tok_charsmap_apply(norm->charsmap, j->p, j->n, j->out);
		break;
	case TOK_NORM_NMT:
		r = map_chars(j, nmt_char);
		break;
	case TOK_NORM_BYTE_LEVEL:
		r = tok_append_byte_level(j->out, j->p, j->n);
		break;
	case TOK_NORM_SQUEEZE_SPACES:
		r = squeeze_spaces(j);
		break;
	}
	return r < 0 ? r : 1;
}

int tok_normalize(const struct tok_norm *norms, size_t n_norms, struct tok_scratch *s, const char *text, size_t n,
                  const char **ret_text, size_t *ret_n, bool *first, struct err *err)
{
	struct job j = { .s = s, .p = text, .n = n, .out = &s->norm[0], .first = first, .err = err };
	int r;

	base_buf_reset(&s->norm[0]);
	base_buf_reset(&s->norm[1]);
	for (size_t i = 0; i < n_norms; i++) {
		r = step(&norms[i], &j);
		if (r < 0)
			return err && err->code ? r : err_set(err, r, "tokenizer: the normalized text is too large");
		if (r)
			turn(&j);
	}
	*ret_text = j.p;
	*ret_n = j.n;
	return 0;
}
