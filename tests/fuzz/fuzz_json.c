/* base_json_parse() on any bytes, base_json_append_string() on the same; what the latter writes, and what the former
 * accepted and base_json_append() wrote again, must parse. */
#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_parse(struct base_buf *buf)
{
	json_t *v = NULL;

	if (base_buf_error(buf))
		abort();
	if (base_json_parse("again", base_buf_text(buf), buf->len, &v, NULL) < 0)
		abort();
	json_decref(v);
	base_buf_done(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf buf = BASE_BUF_INIT(64u << 20);
	struct err err = { 0 };
	json_t *v = NULL;

	if (base_json_parse("input", data, size, &v, &err) == 0) {
		/* Infinities cannot be written, so not read either. */
		if (base_json_append(&buf, v) < 0)
			abort();
		json_decref(v);
		must_parse(&buf);
	}
	(void)base_json_append_string(&buf, (const char *)data, size);
	must_parse(&buf);
	return 0;
}
