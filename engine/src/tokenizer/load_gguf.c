/* The tokenizer inside a GGUF file (keys tokenizer.ggml.*, GGUF specification of ggml).
 *
 * Four kinds are in use, named by tokenizer.ggml.model, and each becomes the same parts that a tokenizer.json
 * of that family has:
 *   gpt2   byte-level BPE with merges; tokenizer.ggml.pre names the split (gguf_pre.c)
 *   llama  SentencePiece BPE: pairs merge by the score of what they make; bytes as <0xNN>
 *   bert   WordPiece, spelled the other way round: what begins a word has U+2581 in front, what continues
 *          one has nothing. It is turned back into "##" spelling here, so that ids and pieces read as usual
 *   t5     unigram, with SentencePiece's character map
 * Our own files also carry the tokenizer.json they were made from (docs/formats/gguf-keys.md): then that is read,
 * and none of the above.
 * Token types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Unknown and control tokens are
 * special added tokens, user-defined ones added tokens that are ordinary text. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tokenizer/tok_gguf.h"
#include "weights/weights.h"

#define WHERE "GGUF tokenizer"
#define MARK "\xe2\x96\x81"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

struct gguf {
	const struct eng_weights *w;
	struct eng_tokenizer *tok;
	struct err *err;
	int32_t *types;
	uint64_t n_types;
	bool phantom_space; /* bert's spelling */
	struct base_buf text;
	uint32_t n_merges;
	bool add_bos, add_eos, add_sep;
	int32_t bos, eos, sep;
};

static int no_memory(struct gguf *g)
{
	return err_set(g->err, -ENOMEM, WHERE ": out of memory");
}

/* ---- keys that may be missing ---------------------------------------------------------------- */

static int optional_bool(struct gguf *g, const char *key, bool *ret)
{
	struct err ignored;
	int r = eng_gguf_get_bool(g->w, key, ret, &ignored);

	return r == 0 || r == -ENOENT ? 0 : err_set(g->err, r, "%s", err_text(&ignored));
}

/* An id outside the vocabulary is refused; a missing key leaves *ret. */
static int optional_id(struct gguf *g, const char *key, int32_t *ret)
{
	struct err why = { 0 };
	uint32_t id = 0;
	int r = eng_gguf_get_u32(g->w, key, &id, &why);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return err_set(g->err, r, "%s", err_text(&why));
	if (id >= g->tok->vocab.n_ids)
		return err_set(g->err, -ERANGE, WHERE ": %s: %u is not in the vocabulary", key, id);
	*ret = (int32_t)id;
	return 0;
}

/* ---- tokens, types, scores ------------------------------------------------------------------- */

static int type_of(const struct gguf *g, uint64_t i)
{
	return g->types && i < g->n_types ? g->types[i] : TYPE_NORMAL;
}

/* "▁word" to "word", "rest" to "##rest"; what is no word ([CLS]) stays. */
static void word_spelling(struct gguf *g, uint64_t i, const char **text, size_t *n)
{
	int type = type_of(g, i);

	if (*n > 3 && memcmp(*text, MARK, 3) == 0) {
		*text += 3;
		*n -= 3;
		return;
	}
	if (type == TYPE_CONTROL || type == TYPE_UNKNOWN || type == TYPE_USER_DEFINED ||
	    (*n > 2 && **text == '[' && (*text)[*n - 1] == ']'))
		return;
	base_buf_reset(&g->text);
	(void)base_buf_append(&g->text, "##", 2);
	if (base_buf_append(&g->text, *text, *n) < 0)
		return;
	*text = base_buf_text(&g->text);
	*n = g->text.len;
}

/* What converters write for ids that the model has and the vocabulary does not: "[PAD123]" at 123, unused. No
 * text makes them, and they make none. */
static bool is_padding(const struct gguf *g, uint64_t i, const char *text, size_t n)
{
	char pad[32];
	int len;

	if (type_of(g, i) != TYPE_UNUSED)
		return false;
	len = snprintf(pad, sizeof(pad), "[PAD%llu]", (unsigned long long)i);
	return n == (size_t)len && memcmp(text, pad, n) == 0;
}

static int add_token(void *arg, uint64_t i, const char *text, size_t n)
{
	struct gguf *g = arg;
	int r;

	if (i >= TOK_MAX_IDS)
		return err_set(g->err, -ERANGE, WHERE ": tokenizer.ggml.tokens: too many");
	if (n == 0 || is_padding(g, i, text, n))
		return 0; /* an id nobody can write */
	if (!tok_utf8_is_valid(text, n))
		return err_set(g->err, -EBADMSG, WHERE ": tokenizer.ggml.tokens[%llu]: not UTF-8",
		               (unsigned long long)i);
	if (g->phantom_space)
		word_spelling(g, i, &text, &n);
	r = tok_vocab_add(&g->tok->vocab, text, n, (uint32_t)i);
	if (r == 1)
		return err_set(g->err, -EBADMSG, WHERE ": tokenizer.ggml.tokens[%llu]: \"%.*s\" comes twice",
		               (unsigned long long)i, (int)(n < 60 ? n : 60), text);
	return r < 0 ? err_set(g->err, r, WHERE ": tokenizer.ggml.tokens[%llu]: cannot be added", (unsigned long long)i)
	             : 0;
}

static int read_tokens(struct gguf *g)
{
	struct err why = { 0 };
	int r;

	r = eng_gguf_get_i32_array(g->w, "tokenizer.ggml.token_type", &g->types, &g->n_types, &why);
	if (r < 0 && r != -ENOENT)
		return err_set(g->err, r, "%s", err_text(&why));
	r = eng_gguf_each_string(g->w, "tokenizer.ggml.tokens", add_token, g, g->err);
	if (r < 0)
		return r;
	if (g->tok->vocab.n_ids == 0)
		return err_set(g->err, -EBADMSG, WHERE ": tokenizer.ggml.tokens: empty");
	if (g->types && g->n_types < g->tok->vocab.n_ids)
		return err_set(g->err, -EBADMSG, WHERE ": tokenizer.ggml.token_type: fewer than tokens");
	return 0;
}

static int read_scores(struct gguf *g)
{
	struct eng_tokenizer *tok = g->tok;
	CLEANUP(freep) float *scores = NULL;
	uint64_t n = 0;
	int r;

	r = eng_gguf_get_f32_array(g->w, "tokenizer.ggml.scores", &scores, &n, g->err);
	if (r < 0)
		return r;
	if (n < tok->vocab.n_ids)
		return err_set(g->err, -EBADMSG, WHERE ": tokenizer.ggml.scores: fewer than tokens");
	tok->model.scores = calloc((size_t)tok->vocab.n_ids + 1, sizeof(double));
	if (!tok->model.scores)
		return no_memory(g);
	for (uint32_t i = 0; i < tok->vocab.n_ids; i++) {
		if (!isfinite(scores[i]))
			return err_set(g->err, -EBADMSG, WHERE ": tokenizer.ggml.scores[%u]: not a number", i);
		tok->model.scores[i] = (double)scores[i];
	}
	return 0;
}

static int add_added(struct gguf *g, uint32_t id, int type)
{
	struct tok_added_set *set = &g->tok->added;
	struct tok_added *a;
	const char *p;
	size_t n;

	p = tok_vocab_get(&g->tok->vocab, (int32_t)id, &n);
	if (!p)
		return 0;
	if (tok_grow(&set->items, &set->cap, set->n + 1, sizeof(*set->items)) < 0)
		return no_memory(g);
	a = &set->items[set->n];
	*a = (struct tok_added){ .id = (int32_t)id, .special = type != TYPE_USER_DEFINED, .n = n };
	a->content = malloc(n + 1);
	if (!a->content)
		return no_memory(g);
	memcpy(a->content, p, n);
	a->content[n] = '\0';
	set->n++;
	return 0;
}

static int read_added(struct gguf *g)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < g->tok->vocab.n_ids; i++) {
		int type = type_of(g, i);

		if (type == TYPE_UNKNOWN || type == TYPE_CONTROL || type == TYPE_USER_DEFINED)
			r = add_added(g, i, type);
	}
	return r;
}

/* ---- byte-level BPE -------------------------------------------------------------------------- */

static int count_one(void *arg, uint64_t i, const char *text, size_t n)
{
	struct gguf *g = arg;

	if (i >= 2 * TOK_MAX_IDS)
		return err_set(g->err, -E2BIG, WHERE ": tokenizer.ggml.merges: too many");
	g->n_merges++;
	return 0;
}

static int add_merge(void *arg, uint64_t i, const char *text, size_t n)
{
	const char *space = n > 1 ? memchr(text + 1, ' ', n - 1) : NULL;
	struct gguf *g = arg;
	int32_t left, right, result;

	left = space ? tok_vocab_find(&g->tok->vocab, text, (size_t)(space - text)) : -1;
	right = space ? tok_vocab_find(&g->tok->vocab, space + 1, (size_t)(text + n - space - 1)) : -1;
	result = left >= 0 && right >= 0 ? tok_merge_result(g->tok, left, right) : -1;
	if (result < 0)
		return err_set(g->err, -EBADMSG, WHERE ": tokenizer.ggml.merges[%llu]: \"%.*s\" %s",
		               (unsigned long long)i, (int)(n < 60 ? n : 60), text,
		               space ? "is not of the vocabulary" : "is not two pieces with a space between");
	tok_merges_add(&g->tok->model, (uint32_t)left, (uint32_t)right, (uint32_t)i, (uint32_t)result);
	return 0;
}

static int read_merges(struct gguf *g)
{
	int r;

	r = eng_gguf_each_string(g->w, "tokenizer.ggml.merges", count_one, g, g->err);
	if (r < 0)
		return r;
	if (tok_merges_reserve(&g->tok->model, g->n_merges) < 0)
		return no_memory(g);
	return eng_gguf_each_string(g->w, "tokenizer.ggml.merges", add_merge, g, g->err);
}

static int load_gpt2(struct gguf *g)
{
	const struct tok_gguf_pre *pre;
	const char *name = "default";
	size_t n = 7;
	int r;

	/* Old files do not say; they were split in the default way. */
	r = eng_gguf_get_string(g->w, "tokenizer.ggml.pre", &name, &n, NULL);
	if (r < 0 && r != -ENOENT)
		return err_set(g->err, r, WHERE ": tokenizer.ggml.pre: expected a string");
	pre = tok_gguf_pre_find(name, n);
	if (!pre)
		return err_set(g->err, -ENOTSUP, WHERE ": tokenizer.ggml.pre: \"%.*s\" is not supported",
		               (int)(n < 60 ? n : 60), name);
	g->tok->model.kind = TOK_BPE;
	g->tok->model.ignore_merges = pre->flags & TOK_PRE_IGNORE_MERGES;
	g->add_bos = pre->flags & TOK_PRE_ADD_BOS;
	g->add_sep = pre->flags & TOK_PRE_ADD_SEP;
	if (pre->flags & TOK_PRE_NFC && !tok_add_norm(g->tok, TOK_NORM_NFC))
		return no_memory(g);
	for (size_t i = 0; pre->regexes[i]; i++) {
		r = tok_add_regex_split(g->tok, WHERE, pre->regexes[i], g->err);
		if (r < 0)
			return r;
	}
	if (!tok_add_pretok(g->tok, TOK_PRE_BYTE_LEVEL) || !tok_add_dec(g->tok, TOK_DEC_BYTE_LEVEL))
		return no_memory(g);
	r = read_tokens(g);
	return r < 0 ? r : read_merges(g);
}

/* ---- SentencePiece BPE ----------------------------------------------------------------------- */

static bool set_text(char **to, size_t *n, const char *text)
{
	*to = strdup(text);
	*n = strlen(text);
	return *to != NULL;
}

static int add_mark_normalizers(struct gguf *g, bool prefix)
{
	struct tok_norm *norm;

	if (prefix) {
		norm = tok_add_norm(g->tok, TOK_NORM_PREPEND);
		if (!norm || !set_text(&norm->text, &norm->n, MARK))
			return no_memory(g);
	}
	norm = tok_add_norm(g->tok, TOK_NORM_REPLACE);
	if (!norm || !set_text(&norm->pattern.text, &norm->pattern.n, " ") || !set_text(&norm->text, &norm->n, MARK))
		return no_memory(g);
	return 0;
}

static int add_mark_decoders(struct gguf *g, bool prefix)
{
	struct tok_dec *dec = tok_add_dec(g->tok, TOK_DEC_REPLACE);

	if (!dec || !set_text(&dec->pattern.text, &dec->pattern.n, MARK) || !set_text(&dec->text, &dec->n, " ") ||
	    !tok_add_dec(g->tok, TOK_DEC_BYTE_FALLBACK) || !tok_add_dec(g->tok, TOK_DEC_FUSE))
		return no_memory(g);
	if (!prefix)
		return 0;
	dec = tok_add_dec(g->tok, TOK_DEC_STRIP);
	if (!dec)
		return no_memory(g);
	dec->cp = ' ';
	dec->start = 1;
	return 0;
}

static int load_llama(struct gguf *g)
{
	bool prefix = true;
	int r;

	g->add_bos = true;
	g->tok->model.kind = TOK_SCORED_BPE;
	g->tok->model.byte_fallback = true;
	r = optional_bool(g, "tokenizer.ggml.add_space_prefix", &prefix);
	if (r == 0)
		r = add_mark_normalizers(g, prefix);
	if (r == 0)
		r = add_mark_decoders(g, prefix);
	if (r == 0)
		r = read_tokens(g);
	if (r == 0)
		r = read_scores(g);
	if (r < 0)
		return r;
	return tok_scored_index(g->tok) < 0 ? no_memory(g) : 0;
}

/* ---- WordPiece ------------------------------------------------------------------------------- */

static int load_bert(struct gguf *g)
{
	struct tok_norm *norm = tok_add_norm(g->tok, TOK_NORM_BERT);
	struct tok_pretok *space = tok_add_pretok(g->tok, TOK_PRE_WHITESPACE_SPLIT);
	struct tok_pretok *punctuation = tok_add_pretok(g->tok, TOK_PRE_PUNCTUATION);
	struct tok_dec *dec = tok_add_dec(g->tok, TOK_DEC_WORDPIECE);
	int r;

	/* Adding the second pre-tokenizer may have moved the first. */
	space = punctuation ? &g->tok->pretoks[0] : space;
	if (!norm || !space || !punctuation || !dec || !set_text(&dec->text, &dec->n, "##") ||
	    !set_text(&g->tok->model.prefix, &g->tok->model.prefix_len, "##"))
		return no_memory(g);
	norm->clean_text = norm->chinese = norm->lowercase = true;
	space->behavior = TOK_REMOVED;
	punctuation->behavior = TOK_ISOLATED;
	dec->cleanup = true;
	g->tok->model.kind = TOK_WORDPIECE;
	g->tok->model.max_word_chars = 100;
	g->add_bos = g->add_sep = true;
	g->phantom_space = true;
	r = optional_bool(g, "tokenizer.ggml.normalizer.lowercase", &norm->lowercase);
	norm->strip_accents = norm->lowercase;
	if (r == 0)
		r = optional_bool(g, "tokenizer.ggml.normalizer.strip_accents", &norm->strip_accents);
	if (r == 0)
		r = read_tokens(g);
	if (r < 0)
		return r;
	g->tok->model.unk_id = tok_vocab_find(&g->tok->vocab, "[UNK]", 5);
	g->bos = tok_vocab_find(&g->tok->vocab, "[CLS]", 5);
	g->sep = tok_vocab_find(&g->tok->vocab, "[SEP]", 5);
	return optional_id(g, "tokenizer.ggml.cls_token_id", &g->bos);
}

/* ---- unigram --------------------------------------------------------------------------------- */

static int read_charsmap(struct gguf *g)
{
	CLEANUP(freep) int32_t *values = NULL;
	CLEANUP(freep) unsigned char *bytes = NULL;
	struct tok_norm *norm;
	struct err why = { 0 };
	uint64_t n = 0;
	int r;

	r = eng_gguf_get_i32_array(g->w, "tokenizer.ggml.precompiled_charsmap", &values, &n, &why);
	if (r == -ENOENT || (r == 0 && n == 0))
		return 0;
	if (r < 0)
		return err_set(g->err, r, "%s", err_text(&why));
	bytes = malloc(n);
	norm = tok_add_norm(g->tok, TOK_NORM_CHARSMAP);
	if (!bytes || !norm)
		return no_memory(g);
	for (uint64_t i = 0; i < n; i++)
		bytes[i] = (unsigned char)values[i];
	r = tok_charsmap_new(bytes, n, &norm->charsmap);
	return r < 0 ? err_set(g->err, r, WHERE ": tokenizer.ggml.precompiled_charsmap: not a valid character map") : 0;
}

/* Control tokens and the like are never made from text: out of the model they go. */
static void hide_special_pieces(struct gguf *g)
{
	for (uint32_t i = 0; i < g->tok->vocab.n_ids; i++) {
		int type = type_of(g, i);

		if (type == TYPE_UNKNOWN || type == TYPE_CONTROL || type == TYPE_BYTE)
			g->tok->model.scores[i] = -INFINITY;
		if (type == TYPE_BYTE)
			g->tok->model.byte_fallback = true;
	}
}

static int load_t5(struct gguf *g)
{
	bool prefix = true, squeeze = false;
	struct tok_pretok *pre;
	struct tok_dec *dec;
	int r;

	g->add_eos = true;
	g->tok->model.kind = TOK_UNIGRAM;
	g->tok->model.fuse_unk = true;
	r = read_charsmap(g);
	if (r == 0)
		r = optional_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &squeeze);
	if (r == 0)
		r = optional_bool(g, "tokenizer.ggml.add_space_prefix", &prefix);
	if (r < 0)
		return r;
	pre = tok_add_pretok(g->tok, TOK_PRE_METASPACE);
	if (!pre || (squeeze && !tok_add_norm(g->tok, TOK_NORM_SQUEEZE_SPACES)) ||
	    !tok_add_dec(g->tok, TOK_DEC_BYTE_FALLBACK))
		return no_memory(g);
	dec = tok_add_dec(g->tok, TOK_DEC_METASPACE);
	if (!dec)
		return no_memory(g);
	pre->cp = dec->cp = 0x2581;
	pre->split = true;
	pre->prepend = prefix ? TOK_PREPEND_ALWAYS : TOK_PREPEND_NEVER;
	dec->keep_first = !prefix;
	r = read_tokens(g);
	if (r == 0)
		r = read_scores(g);
	if (r < 0)
		return r;
	hide_special_pieces(g);
	return tok_unigram_index(g->tok) < 0 ? no_memory(g) : 0;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int read_special_ids(struct gguf *g)
{
	struct eng_tokenizer *tok = g->tok;
	int r;

	r = optional_id(g, "tokenizer.ggml.bos_token_id", &g->bos);
	if (r == 0)
		r = optional_id(g, "tokenizer.ggml.eos_token_id", &g->eos);
	if (r == 0) /* so spelled in the specification */
		r = optional_id(g, "tokenizer.ggml.seperator_token_id", &g->sep);
	if (r == 0)
		r = optional_id(g, "tokenizer.ggml.unknown_token_id", &tok->model.unk_id);
	if (r == 0)
		r = optional_bool(g, "tokenizer.ggml.add_bos_token", &g->add_bos);
	if (r == 0)
		r = optional_bool(g, "tokenizer.ggml.add_eos_token", &g->add_eos);
	if (r == 0)
		r = optional_bool(g, "tokenizer.ggml.add_sep_token", &g->add_sep);
	if (r == 0 && g->add_bos && g->bos >= 0)
		r = eng_ids_push(&tok->prefix, g->bos);
	if (r == 0 && g->add_sep && g->sep >= 0)
		r = eng_ids_push(&tok->suffix, g->sep);
	if (r == 0 && g->add_eos && g->eos >= 0)
		r = eng_ids_push(&tok->suffix, g->eos);
	return r == -ENOMEM ? no_memory(g) : r;
}

static int load(struct gguf *g)
{
	static const struct {
		const char *name;
		int (*load)(struct gguf *g);
	} kinds[] = { { "gpt2", load_gpt2 }, { "llama", load_llama }, { "bert", load_bert }, { "t5", load_t5 } };
	const char *name;
	size_t n;
	int r;

	r = eng_gguf_get_string(g->w, "tokenizer.ggml.model", &name, &n, g->err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strlen(kinds[i].name) != n || memcmp(kinds[i].name, name, n) != 0)
			continue;
		r = kinds[i].load(g);
		if (r == 0)
			r = read_added(g);
		if (r == 0)
			r = read_special_ids(g);
		return r < 0 ? r : tok_finish(g->tok, WHERE, g->err);
	}
	return err_set(g->err, -ENOTSUP, WHERE ": tokenizer.ggml.model: \"%.*s\" is not supported",
	               (int)(n < 60 ? n : 60), name);
}

static int from_keys(const struct eng_weights *weights, struct eng_tokenizer **ret_tok, struct err *err)
{
	struct gguf g = { .w = weights, .tok = tok_new(), .err = err, .bos = -1, .eos = -1, .sep = -1 };
	int r;

	if (!g.tok)
		return no_memory(&g);
	base_buf_init(&g.text, TOK_MAX_PIECE_BYTES);
	r = load(&g);
	base_buf_done(&g.text);
	free(g.types);
	if (r < 0) {
		eng_tokenizer_free(g.tok);
		return r;
	}
	*ret_tok = g.tok;
	return 0;
}

int eng_tokenizer_from_gguf(const struct eng_weights *weights, struct eng_tokenizer **ret_tok, struct err *err)
{
	static const char key[] = "ocai.tokenizer_json";
	struct err why = { 0 };
	const char *text;
	size_t n;
	int r = eng_gguf_get_string(weights, key, &text, &n, &why);

	if (r == 0)
		return eng_tokenizer_parse(key, text, n, ret_tok, err);
	return r == -ENOENT ? from_keys(weights, ret_tok, err) : err_set(err, r, "%s", err_text(&why));
}
