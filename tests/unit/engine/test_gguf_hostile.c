/* GGUF put together byte by byte: every value type, what is not known, and hostile files as a table. */
#include "test.h"

#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "weights/weights.h"

static void put_uint(struct base_buf *b, uint64_t v, size_t size)
{
	for (size_t i = 0; i < size; i++)
		(void)base_buf_putc(b, (char)(v >> (8 * i)));
}

static void put_text(struct base_buf *b, const char *text)
{
	put_uint(b, strlen(text), 8);
	(void)base_buf_puts(b, text);
}

static void put_head(struct base_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
	(void)base_buf_puts(b, "GGUF");
	put_uint(b, version, 4);
	put_uint(b, n_tensors, 8);
	put_uint(b, n_kv, 8);
}

static void put_kv(struct base_buf *b, const char *key, uint32_t type, uint64_t value, size_t size)
{
	put_text(b, key);
	put_uint(b, type, 4);
	put_uint(b, value, size);
}

static void put_tensor(struct base_buf *b, const char *name, uint32_t n_dims, uint64_t dim, uint32_t type,
                       uint64_t offset)
{
	put_text(b, name);
	put_uint(b, n_dims, 4);
	for (uint32_t i = 0; i < n_dims; i++)
		put_uint(b, i ? 1 : dim, 8);
	put_uint(b, type, 4);
	put_uint(b, offset, 8);
}

static void every_scalar_type_reads(void **state)
{
	static const struct {
		const char *key;
		uint32_t type;
		uint64_t bits;
		size_t size;
		float value;
	} cases[] = {
		{ "u8", 0, 200, 1, 200.0f },
		{ "i8", 1, 0xff, 1, -1.0f },
		{ "u16", 2, 60000, 2, 60000.0f },
		{ "i16", 3, 0x8000, 2, -32768.0f },
		{ "u32", 4, 0x80000000u, 4, 2147483648.0f },
		{ "i32", 5, 0xfffffffe, 4, -2.0f },
		{ "f32", 6, 0x3fc00000, 4, 1.5f },
		{ "u64", 10, 1ull << 63, 8, 9223372036854775808.0f },
		{ "i64", 11, ~0ull, 8, -1.0f },
		{ "f64", 12, 0x3ff8000000000000ull, 8, 1.5f },
	};
	enum { N = sizeof(cases) / sizeof(cases[0]) };
	CLEANUP(base_buf_done) struct base_buf b = BASE_BUF_INIT(10000);
	struct eng_weights *w = NULL;
	float *values;
	uint64_t n;

	(void)state;
	put_head(&b, 2, 0, N + 1);
	for (size_t i = 0; i < N; i++)
		put_kv(&b, cases[i].key, cases[i].type, cases[i].bits, cases[i].size);
	put_text(&b, "nested"); /* [[u8 1, 2], ["x"]] */
	put_uint(&b, 9, 4), put_uint(&b, 9, 4), put_uint(&b, 2, 8);
	put_uint(&b, 0, 4), put_uint(&b, 2, 8), put_uint(&b, 0x0201, 2);
	put_uint(&b, 8, 4), put_uint(&b, 1, 8), put_text(&b, "x");
	assert_int_equal(eng_weights_parse("v2", b.data, b.len, &w, NULL), 0);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(eng_gguf_get_f32_array(w, cases[i].key, &values, &n, NULL), 0);
		assert_int_equal(n, 1);
		assert_float_equal(values[0], cases[i].value, 0);
		free(values);
	}
	assert_int_equal(eng_gguf_get_f32_array(w, "nested", &values, &n, NULL), -EINVAL);
	eng_weights_close(w);
}

/* ---- Hostile files ---------------------------------------------------------------------------------------- */

static void bad_magic(struct base_buf *b)
{
	(void)base_buf_puts(b, "GGUf");
	put_uint(b, 3, 4), put_uint(b, 0, 8), put_uint(b, 0, 8);
}

static void big_endian(struct base_buf *b)
{
	put_head(b, 3u << 24, 0, 0);
}

static void version_1(struct base_buf *b)
{
	put_head(b, 1, 0, 0);
}

static void version_4(struct base_buf *b)
{
	put_head(b, 4, 0, 0);
}

static void many_keys(struct base_buf *b)
{
	put_head(b, 3, 0, 1ull << 60);
}

static void many_tensors(struct base_buf *b)
{
	put_head(b, 3, 1ull << 60, 0);
}

static void long_key(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_uint(b, ~0ull, 8), put_uint(b, 0, 8);
}

static void empty_key(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "", 0, 0, 8);
}

static void unknown_value_type(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "key", 13, 0, 8);
}

static void key_twice(struct base_buf *b)
{
	put_head(b, 3, 0, 2);
	put_kv(b, "key", 4, 0, 4);
	put_kv(b, "key", 4, 0, 4);
}

static void long_string(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "key", 8, 100, 8);
}

static void long_array(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "key", 9, 4, 4);
	put_uint(b, (1ull << 62) + 1, 8), put_uint(b, 0, 8);
}

static void long_string_array(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "key", 9, 8, 4);
	put_uint(b, 1ull << 61, 8), put_uint(b, 0, 8);
}

static void deep_array(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_text(b, "key");
	put_uint(b, 9, 4);
	for (int i = 0; i < 1000; i++)
		put_uint(b, 9, 4), put_uint(b, 1, 8);
}

static void bad_alignment(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "general.alignment", 4, 24, 4);
}

static void zero_alignment(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "general.alignment", 4, 0, 4);
}

static void text_alignment(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "general.alignment", 8, 0, 8);
}

static void five_dimensions(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 5, 1, 0, 0);
}

static void unknown_tensor_type(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 1, 99, 0);
}

static void given_up_tensor_type(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 32, 4, 0);
}

static void partial_block(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 31, 2, 0);
}

static void shape_overflow(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 1ull << 63, 0, 0);
}

static void odd_offset(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 1, 0, 4);
	put_uint(b, 0, 8);
}

static void far_offset(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 1, 0, ~31ull);
}

static void no_data(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 8, 0, 0);
}

static void short_data(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t", 1, 100, 0, 0);
	for (int i = 0; i < 40; i++)
		put_uint(b, 0, 8);
}

static void overlap(struct base_buf *b)
{
	put_head(b, 3, 2, 0);
	put_tensor(b, "t", 1, 16, 0, 0);
	put_tensor(b, "u", 1, 8, 0, 32);
	for (int i = 0; i < 40; i++)
		put_uint(b, 0, 8);
}

static void tensor_twice(struct base_buf *b)
{
	put_head(b, 3, 2, 0);
	put_tensor(b, "t", 1, 8, 0, 0);
	put_tensor(b, "t", 1, 8, 0, 32);
	for (int i = 0; i < 40; i++)
		put_uint(b, 0, 8);
}

static void name_with_newline(struct base_buf *b)
{
	put_head(b, 3, 1, 0);
	put_tensor(b, "t\nerror: forged line", 1, 8, 0, 0);
}

static void lone_split(struct base_buf *b)
{
	put_head(b, 3, 0, 2);
	put_kv(b, "split.no", 2, 0, 2);
	put_kv(b, "split.count", 2, 3, 2);
}

static void negative_split(struct base_buf *b)
{
	put_head(b, 3, 0, 1);
	put_kv(b, "split.count", 3, 0xffff, 2);
}

static void hostile_files_are_refused_by_name(void **state)
{
	static const struct {
		void (*make)(struct base_buf *b);
		const char *words;
	} cases[] = {
		{ bad_magic, "x.gguf" },
		{ big_endian, "big-endian" },
		{ version_1, "version 1 is not supported" },
		{ version_4, "version 4 is not supported" },
		{ many_keys, "keys in 0 bytes" },
		{ many_tensors, "tensors in 0 bytes" },
		{ long_key, "truncated" },
		{ empty_key, "key 0: bad name" },
		{ unknown_value_type, "'key': unknown value type" },
		{ key_twice, "'key': appears twice" },
		{ long_string, "truncated" },
		{ long_array, "truncated" },
		{ long_string_array, "truncated" },
		{ deep_array, "'key': arrays nested too deeply" },
		{ bad_alignment, "'general.alignment': not a power of two" },
		{ zero_alignment, "'general.alignment': not a power of two" },
		{ text_alignment, "'general.alignment': expected an integer" },
		{ five_dimensions, "'t': more than four" },
		{ unknown_tensor_type, "'t': unknown type 99" },
		{ given_up_tensor_type, "'t': unknown type 4" },
		{ partial_block, "'t': rows of 31 values are not whole Q4_0 blocks" },
		{ shape_overflow, "'t': shape overflows" },
		{ odd_offset, "'t': offset 4 is outside the file or not aligned" },
		{ far_offset, "'t': offset" },
		{ no_data, "'t': its 32 bytes" },
		{ short_data, "'t': its 400 bytes" },
		{ overlap, "'u': shares bytes with tensor 't'" },
		{ tensor_twice, "'t': appears twice" },
		{ name_with_newline, "tensor 0: bad name" },
		{ lone_split, "one of a set of 3" },
		{ negative_split, "'split.count': negative" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(base_buf_done) struct base_buf b = BASE_BUF_INIT(100000);
		struct eng_weights *w = NULL;
		struct err err = { 0 };

		cases[i].make(&b);
		assert_int_equal(eng_weights_parse("x.gguf", b.data, b.len, &w, &err), -EBADMSG);
		assert_null(w);
		if (!strstr(err.msg, cases[i].words) || strncmp(err.msg, "x.gguf: ", 8) != 0)
			fail_msg("case %zu: message '%s' lacks '%s'", i, err.msg, cases[i].words);
	}
}

static void every_truncation_is_refused(void **state)
{
	CLEANUP(base_buf_done) struct base_buf b = BASE_BUF_INIT(10000);
	struct eng_weights *w = NULL;
	size_t whole;

	(void)state;
	put_head(&b, 3, 2, 3);
	put_kv(&b, "a", 4, 1, 4);
	put_kv(&b, "texts", 9, 8, 4);
	put_uint(&b, 2, 8), put_text(&b, "one"), put_text(&b, "two");
	put_kv(&b, "c", 12, 0, 8);
	put_tensor(&b, "t", 1, 8, 0, 0);
	put_tensor(&b, "u", 2, 32, 8, 32);
	while (b.len % 32)
		(void)base_buf_putc(&b, 0);
	for (int i = 0; i < 66; i++)
		(void)base_buf_putc(&b, 1);
	whole = b.len;
	for (size_t n = 0; n < whole; n++) {
		uint8_t *copy = malloc(n ? n : 1);

		assert_non_null(copy);
		memcpy(copy, b.data, n);
		assert_int_equal(eng_weights_parse("cut", copy, n, &w, NULL), -EBADMSG);
		free(copy);
	}
	assert_int_equal(eng_weights_parse("whole", b.data, whole, &w, NULL), 0);
	assert_int_equal(eng_weights_find(w, "u")->size_bytes, 34);
	eng_weights_close(w);
}

static void unknown_types_do_not_hide_the_rest(void **state)
{
	CLEANUP(base_buf_done) struct base_buf b = BASE_BUF_INIT(10000);
	struct eng_weights *w = NULL;

	(void)state;
	put_head(&b, 3, 2, 1);
	put_kv(&b, "general.alignment", 4, 64, 4);
	put_tensor(&b, "m", 1, 32, 39, 0);
	put_tensor(&b, "i", 1, 4, 26, 64);
	for (int i = 0; i < 40; i++)
		put_uint(&b, 0, 8);
	assert_int_equal(eng_weights_parse("x", b.data, b.len, &w, NULL), 0);
	assert_int_equal(eng_weights_find(w, "m")->dtype, KN_N_DTYPES);
	assert_string_equal(eng_weights_find(w, "m")->dtype_name, "MXFP4");
	assert_string_equal(eng_weights_find(w, "i")->dtype_name, "I32");
	eng_weights_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_scalar_type_reads),
		cmocka_unit_test(hostile_files_are_refused_by_name),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(unknown_types_do_not_hide_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
