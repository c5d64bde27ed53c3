/* A GGUF file: parsed, every tensor touched and its first rows decoded, metadata read in every way. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "weights/weights_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static int touch(void *arg, uint64_t i, const char *text, size_t len)
{
	(void)arg;
	(void)i;
	if (len)
		sink = (uint8_t)(text[0] ^ text[len - 1]);
	return 0;
}

static void read_key(const struct eng_weights *w, const char *key)
{
	const char *text;
	int32_t *i32s;
	float *f32s, f;
	uint32_t u;
	uint64_t n;
	size_t len;
	bool b;

	(void)eng_gguf_get_u32(w, key, &u, NULL);
	(void)eng_gguf_get_f32(w, key, &f, NULL);
	(void)eng_gguf_get_bool(w, key, &b, NULL);
	if (eng_gguf_get_string(w, key, &text, &len, NULL) == 0)
		(void)touch(NULL, 0, text, len);
	(void)eng_gguf_each_string(w, key, touch, NULL, NULL);
	if (eng_gguf_get_i32_array(w, key, &i32s, &n, NULL) == 0)
		free(i32s);
	if (eng_gguf_get_f32_array(w, key, &f32s, &n, NULL) == 0)
		free(f32s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eng_weights *w;
	float values[256];

	if (size < 4 || memcmp(data, "GGUF", 4) != 0)
		return 0;
	if (eng_weights_parse("fuzz", data, size, &w, NULL) < 0)
		return 0;
	for (size_t i = 0; i < w->n_kvs; i++) {
		char key[1025] = "";

		memcpy(key, w->kvs[i].key, w->kvs[i].key_len);
		read_key(w, key);
	}
	for (size_t i = 0; i < eng_weights_count(w); i++) {
		const struct eng_tensor *t = eng_weights_at(w, i);
		const uint8_t *p = t->data;

		if (eng_weights_find(w, t->name) != t)
			abort();
		if (t->size_bytes)
			sink = (uint8_t)(p[0] ^ p[t->size_bytes - 1]);
		if (t->dtype < KN_N_DTYPES && t->size_bytes)
			kn_dequantize(t->dtype, p, values, kn_dtype_info(t->dtype)->block_elems);
	}
	eng_weights_close(w);
	return 0;
}
