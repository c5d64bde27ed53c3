/* Any bytes, in two pieces, become keys: each is one of the known kinds, pastes and characters are clean, and every
 * byte is used up in the end. */
#include <stdint.h>
#include <stdlib.h>

#include "../src/term/term.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct ag_term_key *key)
{
	if (key->type > AG_KEY_RESIZE || (key->type == AG_KEY_CHAR && key->ch > 0x10FFFF))
		abort();
	for (size_t i = 0; key->type == AG_KEY_PASTE && i < key->len; i++) {
		unsigned char c = (unsigned char)key->text[i];

		if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ag_term_keys k;
	struct ag_term_key key;
	size_t cut = size ? data[0] % size : 0;

	ag_term_keys_init(&k);
	if (ag_term_keys_feed(&k, data, cut) == 0) {
		while (ag_term_keys_next(&k, false, &key))
			check(&key);
	}
	if (ag_term_keys_feed(&k, data + cut, size - cut) == 0) {
		while (ag_term_keys_next(&k, true, &key))
			check(&key);
		if (ag_term_keys_is_waiting(&k))
			abort();
	}
	ag_term_keys_done(&k);
	return 0;
}
