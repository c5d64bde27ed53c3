/* Arbitrary text through the tokenizers of the fixtures ($TESTS_DIR/fixtures/tokenizers). The first byte picks the
 * family and the flags. Byte-level families must give valid text back, and every stream must add up. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const families[] = { "gpt2", "llama3", "deepseek", "qwen", "llama2", "gemma", "xlmr" };
enum { N_FAMILIES = 7, N_EXACT = 3 /* the first ones change nothing in valid text */ };

static struct eng_tokenizer *toks[N_FAMILIES];

static void open_all(void)
{
	const char *dir = getenv("TESTS_DIR");
	struct err err = { 0 };
	char path[4096];

	for (size_t i = 0; i < N_FAMILIES; i++) {
		(void)snprintf(path, sizeof(path), "%s/fixtures/tokenizers/%s.json", dir ? dir : "tests", families[i]);
		if (eng_tokenizer_open(path, &toks[i], &err) < 0) {
			(void)fprintf(stderr, "%s\n", err_text(&err));
			exit(1);
		}
	}
}

static void check_stream(const struct eng_tokenizer *tok, const struct eng_ids *ids, const struct base_buf *whole)
{
	struct base_buf parts = BASE_BUF_INIT(1 << 24);
	struct eng_detok *detok = NULL;

	if (eng_detok_new(tok, false, &detok) < 0)
		return;
	for (size_t i = 0; i < ids->n; i++) {
		if (eng_detok_push(detok, ids->ids[i], &parts) < 0)
			abort();
	}
	if (eng_detok_flush(detok, &parts) < 0 || parts.len != whole->len ||
	    memcmp(base_buf_text(&parts), base_buf_text(whole), parts.len) != 0)
		abort();
	eng_detok_free(detok);
	base_buf_done(&parts);
}

/* The text as the tokenizer is to see it: U+FFFD found in the output means that bytes may have been broken. */
static void check_exact(const char *text, size_t n, const struct base_buf *whole)
{
	if (memmem(base_buf_text(whole), whole->len, "\xef\xbf\xbd", 3))
		return;
	if (whole->len != n || (n && memcmp(base_buf_text(whole), text, n) != 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf whole = BASE_BUF_INIT(1 << 24);
	struct eng_ids ids = { 0 };
	struct err err = { 0 };
	size_t f;

	if (!toks[0])
		open_all();
	if (size == 0)
		return 0;
	f = data[0] % N_FAMILIES;
	if (eng_tokenizer_encode(toks[f], (const char *)data + 1, size - 1, data[0] / N_FAMILIES % 4, &ids, &err) < 0 ||
	    eng_tokenizer_decode(toks[f], ids.ids, ids.n, false, &whole) < 0)
		abort();
	check_stream(toks[f], &ids, &whole);
	if (f < N_EXACT)
		check_exact((const char *)data + 1, size - 1, &whole);
	eng_ids_done(&ids);
	base_buf_done(&whole);
	return 0;
}
