/* Arbitrary bytes as a GGUF file with a tokenizer inside. What loads must then work: encode, decode whole and in
 * parts alike, and answer questions about each id. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/tokenizer.h"
#include "weights/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stream(const struct eng_tokenizer *tok, const struct eng_ids *ids)
{
	struct base_buf whole = BASE_BUF_INIT(1 << 22), parts = BASE_BUF_INIT(1 << 22);
	struct eng_detok *detok = NULL;
	int r = eng_tokenizer_decode(tok, ids->ids, ids->n, false, &whole);

	if (r == 0 && eng_detok_new(tok, false, &detok) == 0) {
		for (size_t i = 0; r == 0 && i < ids->n; i++)
			r = eng_detok_push(detok, ids->ids[i], &parts);
		if (r == 0)
			r = eng_detok_flush(detok, &parts);
		if (r == 0 && (parts.len != whole.len ||
		               (whole.len && memcmp(base_buf_text(&parts), base_buf_text(&whole), whole.len) != 0)))
			abort();
	}
	eng_detok_free(detok);
	base_buf_done(&whole);
	base_buf_done(&parts);
}

static void use(const struct eng_tokenizer *tok, const char *text, size_t n)
{
	struct eng_ids ids = { 0 };

	if (eng_tokenizer_encode(tok, text, n, ENG_TOK_ADD_SPECIAL | ENG_TOK_PARSE_SPECIAL, &ids, NULL) == 0)
		stream(tok, &ids);
	eng_ids_done(&ids);
}

static void ask(const struct eng_tokenizer *tok)
{
	struct base_buf bytes = BASE_BUF_INIT(1 << 22);
	uint32_t n = eng_tokenizer_n_vocab(tok);
	struct eng_ids ids = { 0 };
	size_t len = 0;

	for (uint32_t i = 0; i < n && i < 64; i++) {
		(void)eng_tokenizer_token_bytes(tok, (int32_t)i, &bytes);
		(void)eng_tokenizer_piece(tok, (int32_t)i, &len);
		(void)eng_ids_push(&ids, (int32_t)i);
	}
	stream(tok, &ids);
	eng_ids_done(&ids);
	base_buf_done(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] = "Hello  ab abc, it's 123 \xe4\xb8\xad\xe6\x96\x87\n<s>\xf0\x9f\x99\x82 \xff a##x";
	struct eng_weights *weights = NULL;
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };
	int r;

	if (eng_weights_parse("fuzz.gguf", data, size, &weights, &err) < 0)
		return 0;
	r = eng_weights_is_gguf(weights) ? eng_tokenizer_from_gguf(weights, &tok, &err) : 0;
	/* Words exactly when there is an error. */
	if (err.code != r || (r < 0) != (err.msg[0] != '\0'))
		abort();
	if (tok) {
		use(tok, text, sizeof(text) - 1);
		use(tok, (const char *)data, size < 300 ? size : 300);
		ask(tok);
	}
	eng_tokenizer_free(tok);
	eng_weights_close(weights);
	return 0;
}
