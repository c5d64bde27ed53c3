/* Text to token ids and back, exactly as tokenizer.json (or GGUF's embedded vocabulary) describes.
 * Immutable after load and safe to share between threads. */
#ifndef ENG_TOKENIZER_H
#define ENG_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct eng_tokenizer;
struct eng_weights;

/* Reads DIR/tokenizer.json. An unknown component (model, normalizer, ...) is -ENOTSUP naming it. */
int eng_tokenizer_open(const char *tokenizer_json_path, struct eng_tokenizer **ret_tok, struct err *err);
/* The same from memory; `where` names the source in errors. */
int eng_tokenizer_parse(const char *where, const void *data, size_t len, struct eng_tokenizer **ret_tok,
                        struct err *err);
/* From tokenizer.ggml.* keys. */
int eng_tokenizer_from_gguf(const struct eng_weights *weights, struct eng_tokenizer **ret_tok, struct err *err);
void eng_tokenizer_free(struct eng_tokenizer *tok);

/* Highest id + 1 over vocabulary and added tokens. */
uint32_t eng_tokenizer_n_vocab(const struct eng_tokenizer *tok);

enum {
	ENG_TOK_ADD_SPECIAL = 1u << 0,   /* run the post-processor (BOS, EOS, [CLS] ...) */
	ENG_TOK_PARSE_SPECIAL = 1u << 1, /* added tokens spelled in the text become their ids; off: special
	                                  * ones are plain text, non-special added tokens still match */
};

struct eng_ids {
	int32_t *ids; /* malloc'd, grows; the caller frees with eng_ids_done() */
	size_t n, cap;
};

void eng_ids_done(struct eng_ids *ids);
int eng_ids_push(struct eng_ids *ids, int32_t id);

/* Appends the ids of text (UTF-8; invalid bytes are replaced by U+FFFD first) to *ids. */
int eng_tokenizer_encode(const struct eng_tokenizer *tok, const char *text, size_t len, unsigned flags,
                         struct eng_ids *ids, struct err *err);

/* Appends the text of ids. With skip_special, special tokens give nothing. Ids out of range give
 * nothing. Bytes that do not form UTF-8 become U+FFFD, as the reference decoder does. */
int eng_tokenizer_decode(const struct eng_tokenizer *tok, const int32_t *ids, size_t n, bool skip_special,
                         struct base_buf *out);

/* Id of a token's exact spelling, or -1. */
int32_t eng_tokenizer_find(const struct eng_tokenizer *tok, const char *piece, size_t len);
/* The spelling as stored (byte-level pieces in their printable form); NULL when the id is not used. */
const char *eng_tokenizer_piece(const struct eng_tokenizer *tok, int32_t id, size_t *ret_len);
bool eng_tokenizer_is_special(const struct eng_tokenizer *tok, int32_t id);
/* The raw bytes a token stands for in the middle of a text (for logprobs and grammars), appended. */
int eng_tokenizer_token_bytes(const struct eng_tokenizer *tok, int32_t id, struct base_buf *out);

/* ---- Streaming detokenizer: one per output stream ----------------------------------------------
 * Emits text as soon as it is final: never half a UTF-8 sequence; the concatenation of everything it
 * emits, the final flush included, equals eng_tokenizer_decode() of all ids. */
struct eng_detok;

int eng_detok_new(const struct eng_tokenizer *tok, bool skip_special, struct eng_detok **ret_detok);
void eng_detok_free(struct eng_detok *detok);
/* Appends what became final with this token to out (possibly nothing). */
int eng_detok_push(struct eng_detok *detok, int32_t id, struct base_buf *out);
/* Appends what was held back. */
int eng_detok_flush(struct eng_detok *detok, struct base_buf *out);

#endif
