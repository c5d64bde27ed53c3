/* Arbitrary bytes as tokenizer.json. What loads must then work: encode, decode whole and in parts. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct eng_tokenizer *tok, const char *text, size_t n)
{
	struct base_buf whole = BASE_BUF_INIT(1 << 22), parts = BASE_BUF_INIT(1 << 22);
	struct eng_detok *detok = NULL;
	struct eng_ids ids = { 0 };
	struct err err = { 0 };

	if (eng_tokenizer_encode(tok, text, n, ENG_TOK_ADD_SPECIAL | ENG_TOK_PARSE_SPECIAL, &ids, &err) == 0 &&
	    eng_tokenizer_decode(tok, ids.ids, ids.n, false, &whole) == 0 && eng_detok_new(tok, false, &detok) == 0) {
		int r = 0;

		for (size_t i = 0; r == 0 && i < ids.n; i++)
			r = eng_detok_push(detok, ids.ids[i], &parts);
		if (r == 0)
			r = eng_detok_flush(detok, &parts);
		if (r == 0 && (parts.len != whole.len ||
		               (whole.len && memcmp(base_buf_text(&parts), base_buf_text(&whole), whole.len) != 0)))
			abort();
	}
	eng_detok_free(detok);
	eng_ids_done(&ids);
	base_buf_done(&whole);
	base_buf_done(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] =
	        "Hello  world, it's 123 \xe4\xb8\xad\xe6\x96\x87\n<s>\xf0\x9f\x99\x82 e\xcc\x81\xff aaaaaa\t##x";
	struct eng_tokenizer *tok = NULL;
	struct base_buf bytes = BASE_BUF_INIT(1 << 22);
	struct err err = { 0 };
	uint32_t n;

	if (eng_tokenizer_parse("fuzz", data, size, &tok, &err) < 0)
		return 0;
	use(tok, text, sizeof(text) - 1);
	/* The document itself is a text too. */
	use(tok, (const char *)data, size < 300 ? size : 300);
	n = eng_tokenizer_n_vocab(tok);
	for (uint32_t i = 0; i < n && i < 64; i++)
		(void)eng_tokenizer_token_bytes(tok, (int32_t)i, &bytes);
	base_buf_done(&bytes);
	eng_tokenizer_free(tok);
	return 0;
}
