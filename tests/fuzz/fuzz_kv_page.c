/* A page of K and V from the prompt cache: whatever is accepted reads back the same when it is sealed again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "promptcache/page_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Where the payload begins if the header says the truth; else nothing of it is a payload. */
static size_t header_of(const uint8_t *data, size_t size)
{
	uint32_t n_tokens = 0;
	size_t n;

	if (size >= 16)
		memcpy(&n_tokens, data + 12, sizeof(n_tokens));
	n = eng_pc_header_bytes(n_tokens);
	return n < size ? n : size;
}

static int parse(const uint8_t *data, size_t size, struct eng_pc_page *ret_page)
{
	size_t header = header_of(data, size);

	return eng_pc_page_parse(data, header, data + header, size - header, ret_page, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eng_pc_page page, again;
	size_t header;
	int32_t *ids;
	uint8_t *copy;

	if (parse(data, size, &page) < 0)
		return 0;
	header = eng_pc_header_bytes(page.n_tokens);
	if (page.n_tokens == 0 || header + page.payload_bytes != size)
		abort();
	ids = malloc(page.n_tokens * sizeof(*ids));
	copy = malloc(size);
	if (ids && copy) {
		memcpy(ids, data + 192, page.n_tokens * sizeof(*ids));
		memcpy(copy, data, size);
		again = page;
		if (eng_pc_page_seal(&again, ids, copy) < 0 || memcmp(&again.key, &page.key, sizeof(page.key)) != 0 ||
		    parse(copy, size, &again) < 0)
			abort();
	}
	free(ids);
	free(copy);
	return 0;
}
