/* ELF files: whatever is read holds together: names are text, counts are what the arrays hold; a stub can be written
 * of what was read, and reads again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "elf/elf.h"
#include "elf/elf_stub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool want_some(const struct img_elf_symbol *s, void *arg)
{
	(void)arg;
	return s->type != 6 && s->size < 4096;
}

static int on_string(const char *s, void *arg)
{
	*(size_t *)arg += strlen(s);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_node n = { .path = "/fuzz", .type = IMG_FILE, .size = size, .data = (void *)(uintptr_t)data };
	struct base_buf out = BASE_BUF_INIT(1 << 26);
	struct img_elf *e = NULL, *again = NULL;
	struct err err = { 0 };
	size_t sum = 0;

	(void)img_elf_library_strings(&n, on_string, &sum, NULL);
	if (img_elf_parse(data, size, "fuzz", IMG_ELF_SYMBOLS, &e, &err) < 0)
		return 0;
	for (size_t i = 0; i < e->n_needed; i++)
		sum += strlen(e->needed[i]);
	for (size_t i = 0; i < e->n_versions; i++)
		sum += strlen(e->versions[i]);
	for (size_t i = 0; i < e->n_symbols; i++)
		sum += strlen(e->symbols[i].name) + (e->symbols[i].version ? strlen(e->symbols[i].version) : 0);
	struct img_elf_stub stub = {
		.original = e, .name = "libfuzz.so", .is_wanted = want_some, .message = "left out: "
	};
	if (sum < 1 << 20 && img_elf_stub_write(&stub, &out, &err) == 0 &&
	    (img_elf_parse(out.data, out.len, "stub", IMG_ELF_SYMBOLS, &again, &err) < 0 ||
	     !img_elf_is_stub(out.data, out.len)))
		abort();
	img_elf_free(again);
	img_elf_free(e);
	base_buf_done(&out);
	return 0;
}
