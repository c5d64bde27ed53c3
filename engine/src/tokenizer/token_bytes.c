/* The bytes that one token stands for in the middle of a text, and the small transformations that this shares with
 * decoding whole texts (decode.c). */
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"
#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

void tok_undo_byte_level(const char *p, size_t n, struct base_buf *out)
{
	size_t mark = out->len, len;
	int byte;

	for (size_t i = 0; i < n; i += len) {
		byte = tok_char_byte(tok_utf8_get(p + i, n - i, &len));
		if (byte < 0) {
			out->len = mark;
			(void)base_buf_append(out, p, n);
			return;
		}
		(void)base_buf_putc(out, (char)byte);
	}
}

int tok_byte_of_spelling(const char *p, size_t n)
{
	int v = 0;

	if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
		return -1;
	for (int i = 3; i < 5; i++) {
		char c = p[i];

		if (c >= '0' && c <= '9')
			v = v * 16 + (c - '0');
		else if (c >= 'A' && c <= 'F')
			v = v * 16 + (c - 'A' + 10);
		else if (c >= 'a' && c <= 'f')
			v = v * 16 + (c - 'a' + 10);
		else
			return -1;
	}
	return v;
}

int tok_replace_all(struct base_buf *buf, const char *from, size_t from_n, const char *to, size_t to_n)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(buf->max);
	const char *p = base_buf_text(buf), *end = p + buf->len, *hit;
	int r;

	if (from_n == 0 || !memmem(p, buf->len, from, from_n))
		return 0;
	while ((hit = memmem(p, (size_t)(end - p), from, from_n))) {
		(void)base_buf_append(&out, p, (size_t)(hit - p));
		(void)base_buf_append(&out, to, to_n);
		p = hit + from_n;
	}
	(void)base_buf_append(&out, p, (size_t)(end - p));
	base_buf_reset(buf);
	r = base_buf_error(&out);
	return r < 0 ? r : base_buf_append(buf, base_buf_text(&out), out.len);
}

/* One decoder applied to one token in the middle of a text, as bytes. */
static int token_bytes_step(const struct tok_dec *dec, struct base_buf *t, bool joined)
{
	CLEANUP(base_buf_done) struct base_buf in = BASE_BUF_INIT(TOK_MAX_PIECE_BYTES * 8);
	char mark[4];
	int byte;

	switch (dec->kind) {
	case TOK_DEC_BYTE_LEVEL:
		(void)base_buf_append(&in, base_buf_text(t), t->len);
		base_buf_reset(t);
		tok_undo_byte_level(base_buf_text(&in), in.len, t);
		break;
	case TOK_DEC_BYTE_FALLBACK:
		byte = tok_byte_of_spelling(base_buf_text(t), t->len);
		if (byte >= 0) {
			base_buf_reset(t);
			(void)base_buf_putc(t, (char)byte);
		}
		break;
	case TOK_DEC_METASPACE:
		return tok_replace_all(t, mark, base_utf8_put(dec->cp, mark), " ", 1);
	case TOK_DEC_REPLACE:
		if (!dec->pattern.regex && !joined)
			return tok_replace_all(t, dec->pattern.text, dec->pattern.n, dec->text, dec->n);
		break;
	case TOK_DEC_WORDPIECE:
		(void)base_buf_append(&in, base_buf_text(t), t->len);
		base_buf_reset(t);
		if (in.len < dec->n || memcmp(base_buf_text(&in), dec->text, dec->n) != 0)
			return base_buf_printf(t, " %s", base_buf_text(&in));
		return base_buf_append(t, in.data + dec->n, in.len - dec->n);
	case TOK_DEC_BPE:
		return tok_replace_all(t, dec->text, dec->n, " ", 1);
	default:
		break; /* fuse and strip do nothing in the middle of a text */
	}
	return base_buf_error(t);
}

int eng_tokenizer_token_bytes(const struct eng_tokenizer *tok, int32_t id, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf t = BASE_BUF_INIT(TOK_MAX_PIECE_BYTES * 8);
	const char *p;
	bool is_byte;
	size_t n;
	int r;

	p = tok_decode_piece(tok, id, &n);
	if (!p)
		return 0;
	r = base_buf_append(&t, p, n);
	for (size_t i = 0; r == 0 && i < tok->n_decs; i++) {
		is_byte = tok->decs[i].kind == TOK_DEC_BYTE_FALLBACK &&
		          tok_byte_of_spelling(base_buf_text(&t), t.len) >= 0;
		r = token_bytes_step(&tok->decs[i], &t, tok->decs[i].fragments);
		if (is_byte)
			break; /* a byte is not text that later decoders could look at */
	}
	return r < 0 ? r : base_buf_append(out, base_buf_text(&t), t.len);
}
