/* What the tokenizer's own files share: the data a loaded tokenizer is made of, and the scratch one call
 * works in. Everything reachable from struct eng_tokenizer is read-only after loading; whatever a call
 * writes lives in its struct tok_scratch or in a detokenizer. That is why one tokenizer serves all threads. */
#ifndef ENG_TOK_INTERNAL_H
#define ENG_TOK_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "tokenizer/tokenizer.h"

enum {
	TOK_MAX_IDS = 1 << 22,          /* ids at or above this are refused: no vocabulary is that large */
	TOK_MAX_FILE_BYTES = 512 << 20, /* tokenizer.json */
	TOK_MAX_TEXT_BYTES = 256 << 20, /* one text, and every form it takes on its way to ids */
	TOK_MAX_PIECE_BYTES = 1 << 16,  /* one vocabulary entry */
	TOK_MAX_COMPONENTS = 64,        /* normalizers, pre-tokenizers, decoders after flattening sequences */
};

/* ---- text.c: UTF-8 and the character classes of the reference -------------------------------- */

/* What starts at p: 1 a character, 0 bytes that can never be one, -1 the beginning of one that the end of
 * the input cut off. *ret_len is how many bytes that takes (for 0 and -1: what one U+FFFD stands for). */
int tok_utf8_next(const unsigned char *p, size_t n, size_t *ret_len);
bool tok_utf8_is_valid(const char *text, size_t n);
/* The character at p of valid UTF-8, n > 0. */
uint32_t tok_utf8_get(const char *p, size_t n, size_t *ret_len);
/* The start of the character that ends before `at`, at > 0. */
size_t tok_utf8_back(const char *text, size_t at);
int tok_utf8_append(struct base_buf *buf, uint32_t cp);
/* Appends bytes as UTF-8 with U+FFFD for each part that is not. */
int tok_utf8_append_lossy(struct base_buf *buf, const char *bytes, size_t n);

bool tok_is_space(uint32_t cp);       /* White_Space */
bool tok_is_word(uint32_t cp);        /* \w of Unicode regexes */
bool tok_is_punctuation(uint32_t cp); /* P*, and all ASCII punctuation */
bool tok_is_numeric(uint32_t cp);     /* N* */
bool tok_is_mark(uint32_t cp);        /* M* */
bool tok_is_nonspacing_mark(uint32_t cp);
bool tok_is_control(uint32_t cp); /* Cc, Cf, Co, Cs */
bool tok_is_cjk(uint32_t cp);     /* BERT's "Chinese character" */
/* Lower case, one or two characters. */
size_t tok_lower(uint32_t cp, uint32_t ret[2]);

/* Byte-level vocabularies: the byte that a printable character stands for (-1: none), and a text in such characters. */
int tok_char_byte(uint32_t cp);
int tok_append_byte_level(struct base_buf *buf, const char *text, size_t n);

/* ---- vocab.c: spelling to id and back -------------------------------------------------------- */

struct tok_str {
	uint32_t off, len; /* len UINT32_MAX: the id is not used */
};

struct tok_slot {
	uint32_t hash, id1; /* id + 1; 0 is empty */
};

struct tok_vocab {
	char *pool;
	size_t pool_len, pool_cap;
	struct tok_str *by_id;
	uint32_t n_ids, cap_ids; /* highest id + 1 */
	struct tok_slot *slots;
	uint32_t mask, n_used;
	uint32_t max_len; /* of any spelling */
};

void tok_vocab_done(struct tok_vocab *v);
int tok_vocab_reserve(struct tok_vocab *v, uint32_t n_entries, size_t n_bytes);
/* 0 new, 1 the spelling was there and now means this id, -EEXIST the id has another spelling already,
 * -ERANGE the id or the spelling is too large, -ENOMEM. */
int tok_vocab_add(struct tok_vocab *v, const char *p, size_t n, uint32_t id);
int32_t tok_vocab_find(const struct tok_vocab *v, const char *p, size_t n);
/* NULL when the id is not used. */
const char *tok_vocab_get(const struct tok_vocab *v, int32_t id, size_t *ret_len);

/* Spellings sorted by their bytes: walking it byte by byte is walking a trie, without building one. */
struct tok_prefix_entry {
	const char *p;
	uint32_t n, value;
};

struct tok_prefixes {
	struct tok_prefix_entry *entries; /* sorted, no two alike */
	uint32_t n;
	uint32_t first[257]; /* entries that begin with byte b are first[b] .. first[b + 1] */
};

struct tok_prefix_walk {
	uint32_t lo, hi;
	size_t depth;
};

/* Takes the array over (malloc'd), also on failure. Of equal spellings the highest value stays. */
int tok_prefixes_build(struct tok_prefixes *t, struct tok_prefix_entry *entries, size_t n);
void tok_prefixes_done(struct tok_prefixes *t);
void tok_prefix_start(const struct tok_prefixes *t, struct tok_prefix_walk *w);
/* Goes on by one byte. False: nothing begins like this. *ret_value >= 0: an entry ends here. */
bool tok_prefix_step(const struct tok_prefixes *t, struct tok_prefix_walk *w, uint8_t byte, int64_t *ret_value);

/* ---- scratch: what one call writes ----------------------------------------------------------- */

struct tok_span {
	uint32_t begin, end;
	bool match;
};

struct tok_piece {
	uint32_t begin, end;
	bool first; /* begins where the original text begins */
};

struct tok_symbol {
	int32_t id; /* -1: not in the vocabulary (scored merging only) */
	uint32_t begin, len;
	uint32_t prev, next; /* UINT32_MAX: none */
};

struct tok_viterbi {
	double score;
	uint32_t from; /* UINT32_MAX: not reached */
	int32_t id;
};

struct tok_scratch {
	struct base_buf clean;   /* the text with invalid bytes replaced */
	struct base_buf norm[2]; /* normalizers write one and read the other */
	struct base_buf pre[2];  /* the same for pre-tokenizers */
	struct base_buf word;    /* a piece with prefix or suffix */
	struct tok_span *spans;
	size_t n_spans, cap_spans;
	struct tok_piece *pieces[2];
	size_t n_pieces[2], cap_pieces[2];
	struct tok_symbol *symbols;
	size_t cap_symbols;
	uint64_t *heap;
	size_t n_heap, cap_heap;
	struct tok_viterbi *path;
	size_t cap_path;
	void *match_data, *match_context, *jit_stack; /* regex.c's */
};

void tok_scratch_init(struct tok_scratch *s);
void tok_scratch_done(struct tok_scratch *s);
/* Makes room for n elements; keeps what is there. */
int tok_grow(void *array_ptr, size_t *cap, size_t n, size_t elem_size);

/* ---- regex.c: Oniguruma's syntax run by PCRE2 ------------------------------------------------ */

struct tok_regex;

/* -ENOTSUP names what cannot be translated, -EINVAL what is wrong. `where` opens the message. */
int tok_regex_compile(const char *where, const char *pattern, size_t n, struct tok_regex **ret, struct err *err);
void tok_regex_free(struct tok_regex *re);
/* The PCRE2 pattern, for tests and error texts. */
const char *tok_regex_translated(const struct tok_regex *re);
/* Next match at or after `at`: 1 found, 0 none, negative: a limit was hit (err says so). */
int tok_regex_find(const struct tok_regex *re, struct tok_scratch *s, const char *text, size_t n, size_t at,
                   size_t *ret_begin, size_t *ret_end, struct err *err);
void tok_regex_scratch_done(struct tok_scratch *s);
/* Oniguruma's syntax to PCRE2's, appended. */
int tok_regex_translate(const char *where, const char *pattern, size_t n, struct base_buf *out, struct err *err);

/* A pattern is a regex or a literal text. */
struct tok_pattern {
	struct tok_regex *regex; /* NULL: literal */
	char *text;
	size_t n;
};

void tok_pattern_done(struct tok_pattern *p);
int tok_pattern_find(const struct tok_pattern *p, struct tok_scratch *s, const char *text, size_t n, size_t at,
                     size_t *ret_begin, size_t *ret_end, struct err *err);

/* ---- normalizers ----------------------------------------------------------------------------- */

enum tok_norm_kind {
	TOK_NORM_NFC,
	TOK_NORM_NFD,
	TOK_NORM_NFKC,
	TOK_NORM_NFKD,
	TOK_NORM_LOWERCASE,
	TOK_NORM_STRIP,
	TOK_NORM_STRIP_ACCENTS,
	TOK_NORM_REPLACE,
	TOK_NORM_PREPEND,
	TOK_NORM_BERT,
	TOK_NORM_CHARSMAP,
	TOK_NORM_NMT,
	TOK_NORM_BYTE_LEVEL,
	TOK_NORM_SQUEEZE_SPACES, /* SentencePiece's remove_extra_whitespaces, for GGUF */
};

struct tok_charsmap;

struct tok_norm {
	enum tok_norm_kind kind;
	bool left, right;                                   /* strip */
	bool clean_text, chinese, strip_accents, lowercase; /* BERT */
	struct tok_pattern pattern;                         /* replace */
	char *text;                                         /* replace, prepend */
	size_t n;
	struct tok_charsmap *charsmap;
};

void tok_norm_done(struct tok_norm *norm);
/* The result is in *ret_text, which is the input itself when nothing changes, else memory of s. *first is
 * cleared when characters at the beginning of the text went away. */
int tok_normalize(const struct tok_norm *norms, size_t n_norms, struct tok_scratch *s, const char *text, size_t n,
                  const char **ret_text, size_t *ret_n, bool *first, struct err *err);

/* SentencePiece's precompiled map: little-endian trie size, darts double array, NUL-terminated texts. */
int tok_charsmap_new(const void *data, size_t n, struct tok_charsmap **ret);
int tok_charsmap_from_base64(const char *text, size_t n, struct tok_charsmap **ret);
void tok_charsmap_free(struct tok_charsmap *map);
int tok_charsmap_apply(const struct tok_charsmap *map, const char *text, size_t n, struct base_buf *out);

/* ---- pre-tokenizers -------------------------------------------------------------------------- */

enum tok_behavior {
	TOK_REMOVED,
	TOK_ISOLATED,
	TOK_MERGED_WITH_PREVIOUS,
	TOK_MERGED_WITH_NEXT,
	TOK_CONTIGUOUS,
};

enum tok_pretok_kind {
	TOK_PRE_SPLIT,
	TOK_PRE_BYTE_LEVEL, /* the mapping only; its regex is a split of its own before it */
	TOK_PRE_PREFIX_SPACE,
	TOK_PRE_METASPACE,
	TOK_PRE_WHITESPACE, /* \w+|[^\w\s]+ */
	TOK_PRE_WHITESPACE_SPLIT,
	TOK_PRE_PUNCTUATION,
	TOK_PRE_DIGITS,
	TOK_PRE_CHAR_DELIMITER,
	TOK_PRE_FIXED_LENGTH,
};

enum tok_prepend { TOK_PREPEND_NEVER, TOK_PREPEND_FIRST, TOK_PREPEND_ALWAYS };

struct tok_pretok {
	enum tok_pretok_kind kind;
	enum tok_behavior behavior;
	bool invert;
	bool split;                 /* metaspace */
	enum tok_prepend prepend;   /* metaspace */
	uint32_t cp;                /* metaspace's replacement, the delimiter */
	uint32_t length;            /* fixed length, in characters */
	struct tok_pattern pattern; /* split */
};

void tok_pretok_done(struct tok_pretok *pre);
/* Pieces of *ret_text, in s->pieces[*ret_set]. */
int tok_pretokenize(const struct tok_pretok *pres, size_t n_pres, struct tok_scratch *s, const char *text, size_t n,
                    bool first, const char **ret_text, unsigned *ret_set, struct err *err);

/* GPT-2's split, which ByteLevel with use_regex runs. */
extern const char tok_gpt2_pattern[];

/* ---- models ---------------------------------------------------------------------------------- */

enum tok_model_kind { TOK_BPE, TOK_SCORED_BPE, TOK_UNIGRAM, TOK_WORDPIECE, TOK_WORDLEVEL };

struct tok_merge {
	uint32_t left, right; /* left UINT32_MAX: empty slot */
	uint32_t rank, result;
};

struct tok_model {
	enum tok_model_kind kind;
	int32_t unk_id; /* -1: none */
	bool fuse_unk, byte_fallback, ignore_merges;
	char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix; NULL: none */
	size_t prefix_len, suffix_len;
	int32_t byte_ids[256];    /* <0x00> .. <0xFF>; -1 where missing */
	int32_t char_ids[512];    /* BPE: ids of the first characters, which hold the whole byte-level alphabet */
	struct tok_merge *merges; /* BPE: hash table by pair */
	uint32_t merge_mask, n_merges;
	uint32_t *ranks; /* scored BPE: by id, lowest first; equal scores share one */
	double *scores;  /* unigram, by id */
	double min_score;
	struct tok_prefixes prefixes; /* unigram */
	uint32_t max_word_chars;      /* WordPiece */
};

struct eng_tokenizer;

void tok_model_done(struct tok_model *m);
/* After the vocabulary is complete: what the models look up often. */
void tok_model_index(struct eng_tokenizer *tok);
int tok_merges_reserve(struct tok_model *m, uint32_t n);
void tok_merges_add(struct tok_model *m, uint32_t left, uint32_t right, uint32_t rank, uint32_t result);
/* What two pieces make together, the right one without its continuing prefix; -1: not in the vocabulary. */
int32_t tok_merge_result(const struct eng_tokenizer *tok, int32_t left, int32_t right);
int tok_unigram_index(struct eng_tokenizer *tok);
int tok_scored_index(struct eng_tokenizer *tok);

int tok_bpe_encode(const struct eng_tokenizer *tok, struct tok_scratch *s, const char *p, size_t n,
                   struct eng_ids *ids);
int tok_unigram_encode(const struct eng_tokenizer *tok, struct tok_scratch *s, const char *p, size_t n,
                       struct eng_ids *ids, struct err *err);
int tok_wordpiece_encode(const struct eng_tokenizer *tok, struct tok_scratch *s, const char *p, size_t n,
                         struct eng_ids *ids, struct err *err);
int tok_wordlevel_encode(const struct eng_tokenizer *tok, const char *p, size_t n, struct eng_ids *ids,
                         struct err *err);

/* ---- added tokens ---------------------------------------------------------------------------- */

struct tok_added {
	int32_t id;
	bool single_word, lstrip, rstrip, normalized, special;
	char *content;
	size_t n;
	char *decoded; /* its normalized form, which decoding gives; NULL: the content */
	size_t decoded_n;
};

struct tok_added_set {
	struct tok_added *items; /* sorted by id once loaded */
	size_t n, cap;
	struct tok_prefixes raw, normalized; /* values are indices of items */
};

struct tok_added_match {
	size_t begin, end;
	const struct tok_added *token;
};

void tok_added_done(struct tok_added_set *set);
/* Sorts, checks and indexes the set; computes normalized forms; fills the tokenizer's special flags. */
int tok_added_index(struct eng_tokenizer *tok, const char *where, struct err *err);
/* Next match at or after *at, which moves on behind it; text before ret->begin is ordinary. False: no more.
 * `floor` is where ordinary text not yet handed out begins. */
bool tok_added_next(const struct eng_tokenizer *tok, const struct tok_prefixes *index, bool parse_special,
                    const char *text, size_t n, size_t floor, size_t *at, struct tok_added_match *ret);
const struct tok_added *tok_added_by_id(const struct tok_added_set *set, int32_t id);

/* ---- decoders -------------------------------------------------------------------------------- */

enum tok_dec_kind {
	TOK_DEC_BYTE_LEVEL,
	TOK_DEC_METASPACE,
	TOK_DEC_WORDPIECE,
	TOK_DEC_BYTE_FALLBACK,
	TOK_DEC_FUSE,
	TOK_DEC_STRIP,
	TOK_DEC_REPLACE,
	TOK_DEC_BPE,
	TOK_DEC_CTC,
};

struct tok_dec {
	enum tok_dec_kind kind;
	struct tok_pattern pattern; /* replace */
	char *text;                 /* replace: content; WordPiece: prefix; BPE: suffix; CTC: pad token */
	size_t n;
	char *text2; /* CTC: word delimiter */
	size_t n2;
	uint32_t cp; /* metaspace, strip */
	uint32_t start, stop;
	bool cleanup;
	bool keep_first; /* metaspace: the first token's mark is a space too */
	bool fragments;  /* a decoder before this one joins tokens, so text comes in parts */
};

void tok_dec_done(struct tok_dec *dec);

/* ---- the whole ------------------------------------------------------------------------------- */

struct eng_tokenizer {
	struct tok_vocab vocab; /* the model's */
	struct tok_model model;
	struct tok_added_set added;
	struct tok_norm *norms;
	size_t n_norms;
	struct tok_pretok *pretoks;
	size_t n_pretoks;
	struct tok_dec *decs;
	size_t n_decs;
	struct eng_ids prefix, suffix; /* what the post-processor puts around a text */
	uint32_t n_vocab;
	uint8_t *special; /* by id, one byte each */
};

struct eng_tokenizer *tok_new(void);
/* Appends one zeroed component; NULL when out of memory or over TOK_MAX_COMPONENTS. */
struct tok_norm *tok_add_norm(struct eng_tokenizer *tok, enum tok_norm_kind kind);
struct tok_pretok *tok_add_pretok(struct eng_tokenizer *tok, enum tok_pretok_kind kind);
struct tok_dec *tok_add_dec(struct eng_tokenizer *tok, enum tok_dec_kind kind);
/* A regex split that isolates its matches. */
int tok_add_regex_split(struct eng_tokenizer *tok, const char *where, const char *pattern, struct err *err);
/* Everything that follows from the parts: indexes, flags, n_vocab. */
int tok_finish(struct eng_tokenizer *tok, const char *where, struct err *err);
/* What decoding starts from for an id, or NULL. */
const char *tok_decode_piece(const struct eng_tokenizer *tok, int32_t id, size_t *ret_n);
/* What decoding a text and the bytes of one token share (token_bytes.c). */
/* A token of which every character stands for a byte is those bytes; any other is taken as it is spelled. */
void tok_undo_byte_level(const char *p, size_t n, struct base_buf *out);
/* The byte of "<0xNN>", or -1. */
int tok_byte_of_spelling(const char *p, size_t n);
/* Every occurrence in buf. */
int tok_replace_all(struct base_buf *buf, const char *from, size_t from_n, const char *to, size_t to_n);

/* ---- bulk.c: the two large members of tokenizer.json ----------------------------------------- */

struct tok_bulk {
	const char *where;
	const char *data;
	size_t len;
	size_t vocab_begin, vocab_end;   /* the value of model.vocab; equal when absent */
	size_t merges_begin, merges_end; /* of model.merges */
};

/* Finds both and appends the document without them (null in their place). */
int tok_bulk_cut(struct tok_bulk *bulk, struct base_buf *rest);
int tok_bulk_vocab_map(const struct tok_bulk *bulk, struct tok_vocab *vocab, struct err *err);
int tok_bulk_vocab_scores(const struct tok_bulk *bulk, struct eng_tokenizer *tok, struct err *err);
int tok_bulk_merges(const struct tok_bulk *bulk, struct eng_tokenizer *tok, struct err *err);

#endif
