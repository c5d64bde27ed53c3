/* Any Markdown, cut by its own first byte: no control character comes out, the output does not depend on the cut, and
 * the preview of a terminal does not crash. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../src/term/term.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int collect(void *ctx, const char *bytes, size_t len)
{
	return base_buf_append(ctx, bytes, len);
}

static void render(const struct ag_term_look *look, const uint8_t *data, size_t size, size_t piece,
                   struct base_buf *out)
{
	struct ag_term_md *md = NULL;

	if (ag_term_md_new(look, collect, out, &md) < 0)
		return;
	for (size_t at = 0; at < size; at += piece)
		(void)ag_term_md_feed(md, (const char *)data + at, size - at < piece ? size - at : piece);
	(void)ag_term_md_finish(md);
	ag_term_md_free(md);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf whole = BASE_BUF_INIT(64 << 20), cut = BASE_BUF_INIT(64 << 20);
	struct ag_term_look look = { .utf8 = true, .rows = 10 };
	size_t piece = size ? 1 + data[0] % 16 : 1;

	look.columns = size > 1 ? 4 + data[1] % 80 : 80;
	render(&look, data, size, size ? size : 1, &whole);
	render(&look, data, size, piece, &cut);
	if (whole.len != cut.len || memcmp(base_buf_text(&whole), base_buf_text(&cut), whole.len) != 0)
		abort();
	for (size_t i = 0; i < whole.len; i++) {
		unsigned char c = (unsigned char)whole.data[i];

		if ((c < 0x20 && c != '\n') || c == 0x7F)
			abort();
	}
	base_buf_reset(&cut);
	look.can_move = look.color = true;
	if (size < 4096)
		render(&look, data, size, piece, &cut);
	base_buf_done(&whole);
	base_buf_done(&cut);
	return 0;
}
