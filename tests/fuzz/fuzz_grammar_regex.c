/* Regular expressions: any bytes are compiled or refused, and what was compiled is walked along its masks. */
#include "grammar_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eng_grammar *g = NULL;
	struct err err = { 0 };

	if (gr_grammar_compile(fuzz_vocab(), ENG_GRAMMAR_REGEX, (const char *)data, size, &g, &err) < 0) {
		if (err.code == 0)
			abort();
		return 0;
	}
	fuzz_walk(g, data, size, 24);
	eng_grammar_unref(g);
	return 0;
}
