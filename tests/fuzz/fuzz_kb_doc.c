/* Documents: the first byte picks the format; the lines are clean text, the passages cover them within their bounds,
 * and every word's place lies in the text. */
#include <stdint.h>
#include <stdlib.h>

#include "kb/kb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
	size_t n_bytes;
};

struct text {
	size_t len, last;
};

static int on_token(void *arg, const char *token, size_t len, size_t begin, size_t end)
{
	struct text *t = arg;

	(void)token;
	if (len == 0 || begin >= end || end > t->len || begin < t->last)
		abort();
	t->last = begin;
	return 0;
}

static int on_passage(void *arg, uint32_t line, const char *heading, const char *text, size_t len)
{
	struct sum *sum = arg;
	size_t chars = 0;

	(void)heading;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		chars += (c & 0xc0) != 0x80;
		if (c < 32 && c != '\n' && c != '\t')
			abort();
	}
	if (line == 0 || chars > 800 || len == 0)
		abort();
	sum->n_bytes += len;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct text t = { .len = size };
	struct sum sum = { 0 };
	struct ag_kb_doc doc;

	(void)ag_kb_tokenize((const char *)data, size, size & 1, on_token, &t);
	if (size == 0)
		return 0;
	ag_kb_doc_init(&doc, 1 << 20);
	if (ag_kb_extract((enum ag_kb_format)(data[0] & 3), (const char *)data + 1, size - 1, &doc) == 0 &&
	    ag_kb_split(&doc, on_passage, &sum) == 0 && sum.n_bytes > doc.text.len)
		abort();
	ag_kb_doc_done(&doc);
	return 0;
}
