/* The tokenizer as a whole: its public calls, and what holds its parts together.
 *
 * Text goes: invalid bytes replaced -> added tokens cut out -> each stretch between normalized -> normalized
 * added tokens cut out -> pre-tokenizers -> model -> ids, with the post-processor's ids around them. */
#include "tokenizer/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

void tok_scratch_init(struct tok_scratch *s)
{
	*s = (struct tok_scratch){ 0 };
	base_buf_init(&s->clean, TOK_MAX_TEXT_BYTES);
	base_buf_init(&s->word, TOK_MAX_TEXT_BYTES);
	for (int i = 0; i < 2; i++) {
		base_buf_init(&s->norm[i], TOK_MAX_TEXT_BYTES);
		base_buf_init(&s->pre[i], TOK_MAX_TEXT_BYTES);
	}
}

void tok_scratch_done(struct tok_scratch *s)
{
	base_buf_done(&s->clean);
	base_buf_done(&s->word);
	for (int i = 0; i < 2; i++) {
		base_buf_done(&s->norm[i]);
		base_buf_done(&s->pre[i]);
		free(s->pieces[i]);
	}
	free(s->spans);
	free(s->symbols);
	free(s->heap);
	free(s->path);
	tok_regex_scratch_done(s);
}

/* ---- building -------------------------------------------------------------------------------- */

struct eng_tokenizer *tok_new(void)
{
	struct eng_tokenizer *tok = calloc(1, sizeof(*tok));

	if (tok)
		tok->model.unk_id = -1;
	return tok;
}

void eng_tokenizer_free(struct eng_tokenizer *tok)
{
	if (!tok)
		return;
	for (size_t i = 0; i < tok->n_norms; i++)
		tok_norm_done(&tok->norms[i]);
	for (size_t i = 0; i < tok->n_pretoks; i++)
		tok_pretok_done(&tok->pretoks[i]);
	for (size_t i = 0; i < tok->n_decs; i++)
		tok_dec_done(&tok->decs[i]);
	free(tok->norms);
	free(tok->pretoks);
	free(tok->decs);
	tok_added_done(&tok->added);
	tok_model_done(&tok->model);
	tok_vocab_done(&tok->vocab);
	eng_ids_done(&tok->prefix);
	eng_ids_done(&tok->suffix);
	free(tok->special);
	free(tok);
}

/* Room for one more element, zeroed. */
static void *add_component(void *array_ptr, size_t *n, size_t elem_size)
{
	char **array = array_ptr;
	char *p;

	if (*n >= TOK_MAX_COMPONENTS)
		return NULL;
	p = reallocarray(*array, *n + 1, elem_size);
	if (!p)
		return NULL;
	*array = p;
	p += *n * elem_size;
	memset(p, 0, elem_size);
	(*n)++;
	return p;
}

struct tok_norm *tok_add_norm(struct eng_tokenizer *tok, enum tok_norm_kind kind)
{
	struct tok_norm *norm = add_component(&tok->norms, &tok->n_norms, sizeof(*norm));

	if (norm)
		norm->kind = kind;
	return norm;
}

struct tok_pretok *tok_add_pretok(struct eng_tokenizer *tok, enum tok_pretok_kind kind)
{
	struct tok_pretok *pre = add_component(&tok->pretoks, &tok->n_pretoks, sizeof(*pre));

	if (pre)
		pre->kind = kind;
	return pre;
}

struct tok_dec *tok_add_dec(struct eng_tokenizer *tok, enum tok_dec_kind kind)
{
	struct tok_dec *dec = add_component(&tok->decs, &tok->n_decs, sizeof(*dec));

	if (dec)
		dec->kind = kind;
	return dec;
}

int tok_add_regex_split(struct eng_tokenizer *tok, const char *where, const char *pattern, struct err *err)
{
	struct tok_pretok *pre = tok_add_pretok(tok, TOK_PRE_SPLIT);

	if (!pre)
		return err_set(err, -E2BIG, "%s: too many pre-tokenizers", where);
	pre->behavior = TOK_ISOLATED;
	return tok_regex_compile(where, pattern, strlen(pattern), &pre->pattern.regex, err);
}

static int check_ids(const struct eng_tokenizer *tok, const struct eng_ids *ids, const char *where, struct err *err)
{
	for (size_t i = 0; i < ids->n; i++) {
		if (ids->ids[i] < 0 || (uint32_t)ids->ids[i] >= tok->n_vocab)
			return err_set(err, -ERANGE, "%s: post_processor: id %d is not in the vocabulary", where,
			               (int)ids->ids[i]);
	}
	return 0;
}

/* Special is a property of the spelling: a vocabulary entry spelled like a special added token is one too. */
static int mark_special(struct eng_tokenizer *tok)
{
	int32_t id;

	tok->special = calloc((size_t)tok->n_vocab + 1, 1);
	if (!tok->special)
		return -ENOMEM;
	for (size_t i = 0; i < tok->added.n; i++) {
		const struct tok_added *a = &tok->added.items[i];

		if (!a->special)
			continue;
		tok->special[a->id] = 1;
		id = tok_vocab_find(&tok->vocab, a->content, a->n);
		if (id >= 0 && !tok_added_by_id(&tok->added, id))
			tok->special[id] = 1;
	}
	return 0;
}

/* Decoders that join tokens make those behind them see text in parts. */
static void mark_fragments(struct eng_tokenizer *tok)
{
	bool joined = false;

	for (size_t i = 0; i < tok->n_decs; i++) {
		tok->decs[i].fragments = joined;
		joined = joined || tok->decs[i].kind == TOK_DEC_FUSE || tok->decs[i].kind == TOK_DEC_BYTE_LEVEL;
	}
}

int tok_finish(struct eng_tokenizer *tok, const char *where, struct err *err)
{
	int r;

	tok_model_index(tok);
	r = tok_added_index(tok, where, err);
	if (r < 0)
		return r;
	tok->n_vocab = tok->vocab.n_ids;
	if (tok->added.n && (uint32_t)tok->added.items[tok->added.n - 1].id >= tok->n_vocab)
		tok->n_vocab = (uint32_t)tok->added.items[tok->added.n - 1].id + 1;
	if (tok->n_vocab == 0)
		return err_set(err, -EBADMSG, "%s: the vocabulary is empty", where);
	mark_fragments(tok);
	if (mark_special(tok) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	r = check_ids(tok, &tok->prefix, where, err);
	return r < 0 ? r : check_ids(tok, &tok->suffix, where, err);
}

/* ---- questions about ids --------------------------------------------------------------------- */

uint32_t eng_tokenizer_n_vocab(const struct eng_tokenizer *tok)
{
	return tok->n_vocab;
}

int32_t eng_tokenizer_find(const struct eng_tokenizer *tok, const char *piece, size_t len)
{
	for (size_t i = 0; i < tok->added.n; i++) {
		if (tok->added.items[i].n == len && memcmp(tok->added.items[i].content, piece, len) == 0)
			return tok->added.items[i].id;
	}
	return tok_vocab_find(&tok->vocab, piece, len);
}

const char *eng_tokenizer_piece(const struct eng_tokenizer *tok, int32_t id, size_t *ret_len)
{
	const struct tok_added *a = tok_added_by_id(&tok->added, id);

	if (!a)
		return tok_vocab_get(&tok->vocab, id, ret_len);
	*ret_len = a->n;
	return a->content;
}

const char *tok_decode_piece(const struct eng_tokenizer *tok, int32_t id, size_t *ret_n)
{
	const struct tok_added *a = tok_added_by_id(&tok->added, id);

	if (a && a->decoded) {
		*ret_n = a->decoded_n;
		return a->decoded;
	}
	return eng_tokenizer_piece(tok, id, ret_n);
}

bool eng_tokenizer_is_special(const struct eng_tokenizer *tok, int32_t id)
{
	return id >= 0 && (uint32_t)id < tok->n_vocab && tok->special[id];
}

/* ---- encoding -------------------------------------------------------------------------------- */

void eng_ids_done(struct eng_ids *ids)
{
	free(ids->ids);
	*ids = (struct eng_ids){ 0 };
}

int eng_ids_push(struct eng_ids *ids, int32_t id)
{
	int r = tok_grow(&ids->ids, &ids->cap, ids->n + 1, sizeof(*ids->ids));

	if (r == 0)
		ids->ids[ids->n++] = id;
	return r;
}

static int push_all(struct eng_ids *ids, const struct eng_ids *more)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < more->n; i++)
		r = eng_ids_push(ids, more->ids[i]);
	return r;
}

struct encoding {
	const struct eng_tokenizer *tok;
	struct tok_scratch s;
	struct eng_ids *ids;
	bool parse_special;
	struct err *err;
};

static int encode_piece(struct encoding *e, const char *p, size_t n)
{
	switch (e->tok->model.kind) {
	case TOK_BPE:
	case TOK_SCORED_BPE:
		return tok_bpe_encode(e->tok, &e->s, p, n, e->ids);
	case TOK_UNIGRAM:
		return tok_unigram_encode(e->tok, &e->s, p, n, e->ids, e->err);
	case TOK_WORDPIECE:
		return tok_wordpiece_encode(e->tok, &e->s, p, n, e->ids, e->err);
	case TOK_WORDLEVEL:
		return tok_wordlevel_encode(e->tok, p, n, e->ids, e->err);
	}
	return -EINVAL;
}

/* Normalized text without added tokens. */
static int encode_stretch(struct encoding *e, const char *p, size_t n, bool first)
{
	const char *text;
	unsigned set;
	int r;

	if (n == 0)
		return 0;
	r = tok_pretokenize(e->tok->pretoks, e->tok->n_pretoks, &e->s, p, n, first, &text, &set, e->err);
	for (size_t i = 0; r == 0 && i < e->s.n_pieces[set]; i++) {
		const struct tok_piece *piece = &e->s.pieces[set][i];

		r = encode_piece(e, text + piece->begin, piece->end - piece->begin);
	}
	return r;
}

static int encode_normalized(struct encoding *e, const char *text, size_t n, bool first)
{
	struct tok_added_match m;
	size_t at = 0, done = 0;
	int r = 0;

	while (r == 0 && tok_added_next(e->tok, &e->tok->added.normalized, e->parse_special, text, n, done, &at, &m)) {
		r = encode_stretch(e, text + done, m.begin - done, first && done == 0);
		if (r == 0)
			r = eng_ids_push(e->ids, m.token->id);
		done = m.end > done ? m.end : done;
	}
	return r < 0 ? r : encode_stretch(e, text + done, n - done, first && done == 0);
}

static int encode_raw(struct encoding *e, const char *p, size_t n, bool first)
{
	const char *text;
	size_t len;
	int r;

	if (n == 0)
		return 0;
	r = tok_normalize(e->tok->norms, e->tok->n_norms, &e->s, p, n, &text, &len, &first, e->err);
	return r < 0 ? r : encode_normalized(e, text, len, first);
}

static int encode_text(struct encoding *e, const char *text, size_t n)
{
	struct tok_added_match m;
	size_t at = 0, done = 0;
	int r = 0;

	while (r == 0 && tok_added_next(e->tok, &e->tok->added.raw, e->parse_special, text, n, done, &at, &m)) {
		r = encode_raw(e, text + done, m.begin - done, done == 0);
		if (r == 0)
			r = eng_ids_push(e->ids, m.token->id);
		done = m.end > done ? m.end : done;
	}
	return r < 0 ? r : encode_raw(e, text + done, n - done, done == 0);
}

int eng_tokenizer_encode(const struct eng_tokenizer *tok, const char *text, size_t len, unsigned flags,
                         struct eng_ids *ids, struct err *err)
{
	struct err first = { 0 };
	struct encoding e = { .tok = tok, .ids = ids, .parse_special = flags & ENG_TOK_PARSE_SPECIAL, .err = &first };
	size_t before = ids->n;
	int r = 0;

	if (len > TOK_MAX_TEXT_BYTES)
		return err_set(err, -EFBIG, "tokenizer: the text is larger than %d bytes", TOK_MAX_TEXT_BYTES);
	tok_scratch_init(&e.s);
	if (!tok_utf8_is_valid(text, len)) {
		r = tok_utf8_append_lossy(&e.s.clean, text, len);
		text = base_buf_text(&e.s.clean);
		len = e.s.clean.len;
	}
	if (r == 0 && flags & ENG_TOK_ADD_SPECIAL)
		r = push_all(ids, &tok->prefix);
	if (r == 0)
		r = encode_text(&e, text, len);
	if (r == 0 && flags & ENG_TOK_ADD_SPECIAL)
		r = push_all(ids, &tok->suffix);
	tok_scratch_done(&e.s);
	if (r == 0)
		return 0;
	ids->n = before; /* outputs stay as they were */
	return err_set(err, r, "%s",
	               first.code    ? first.msg
	               : r == -EFBIG ? "tokenizer: the text is too large"
	                             : "tokenizer: out of memory");
}
