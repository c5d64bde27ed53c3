/* GGUF: what the writer writes the reader reads, split sets, and hostile files as a table. */
#include "test.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mapfile.h"
#include "weights/gguf_write.h"
#include "weights/weights.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/ocai-test-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static const char *in_folder(const char *name)
{
	static char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static int drop_folder(void **state)
{
	static const char *const names[] = { "m.gguf", "m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
		                             "m-00003-of-00003.gguf" };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)unlink(in_folder(names[i]));
	return rmdir(folder);
}

static int collect(void *arg, uint64_t i, const char *text, size_t len)
{
	struct base_buf *b = arg;

	(void)base_buf_printf(b, "%llu:%.*s;", (unsigned long long)i, (int)len, text);
	return 0;
}

static int stop_at_second(void *arg, uint64_t i, const char *text, size_t len)
{
	(void)arg;
	(void)text;
	(void)len;
	return i == 1 ? 42 : 0;
}

static int make_bytes(void *arg, void *dst, uint64_t size, struct err *err)
{
	(void)err;
	memset(dst, *(const int *)arg, size);
	return 0;
}

static int refuse_to_make(void *arg, void *dst, uint64_t size, struct err *err)
{
	(void)arg;
	(void)dst;
	return err_set(err, -EDOM, "no %llu bytes today", (unsigned long long)size);
}

static void everything_written_reads_back(void **state)
{
	static const char *const texts[] = { "alpha", "", "g\0mma" };
	static const size_t lens[] = { 5, 0, 5 };
	static const int32_t ints[] = { -1, 0, 2147483647 };
	static const uint32_t uints[] = { 7, 4000000000u };
	static const float floats[] = { 1.5f, -0.25f };
	static const bool bools[] = { true, false, true };
	static const uint64_t shape_f32[] = { 2, 3 }, shape_q[] = { 3, 64 }, shape_one[] = { 5 };
	static const float f32[6] = { 0, 1, 2, 3, 4, 5 };
	int fill = 0x5a;
	CLEANUP(base_buf_done) struct base_buf all = BASE_BUF_INIT(1000);
	struct eng_gguf_writer *g = NULL;
	struct eng_weights *w = NULL;
	const struct eng_tensor *t;
	struct err err = { 0 };
	int32_t *i32s;
	float *f32s, f;
	const char *text;
	uint64_t n;
	uint32_t u;
	size_t len;
	bool b;

	(void)state;
	assert_int_equal(eng_gguf_writer_new(&g), 0);
	assert_int_equal(eng_gguf_add_u32(g, "u32", 4000000000u), 0);
	assert_int_equal(eng_gguf_add_u64(g, "u64", 1ull << 40), 0);
	assert_int_equal(eng_gguf_add_u64(g, "small", 12), 0);
	assert_int_equal(eng_gguf_add_f32(g, "f32", 0.75f), 0);
	assert_int_equal(eng_gguf_add_bool(g, "yes", 1), 0);
	assert_int_equal(eng_gguf_add_bool(g, "no", 0), 0);
	assert_int_equal(eng_gguf_add_string(g, "text", "h\xc3\xa9llo", 6), 0);
	assert_int_equal(eng_gguf_add_strings(g, "texts", texts, lens, 3), 0);
	assert_int_equal(eng_gguf_add_i32s(g, "ints", ints, 3), 0);
	assert_int_equal(eng_gguf_add_u32s(g, "uints", uints, 2), 0);
	assert_int_equal(eng_gguf_add_f32s(g, "floats", floats, 2), 0);
	assert_int_equal(eng_gguf_add_bools(g, "bools", bools, 3), 0);
	assert_int_equal(eng_gguf_add_i32s(g, "none", NULL, 0), 0);
	assert_int_equal(eng_gguf_add_u32(g, "u32", 1), -EEXIST);
	assert_int_equal(eng_gguf_add_tensor(g, "a", KN_F32, 2, shape_f32, f32), 0);
	assert_int_equal(eng_gguf_add_tensor_made(g, "q", KN_Q4_0, 2, shape_q, make_bytes, &fill), 0);
	assert_int_equal(eng_gguf_add_tensor(g, "one", KN_BF16, 1, shape_one, f32), 0);
	assert_int_equal(eng_gguf_add_tensor(g, "a", KN_F32, 2, shape_f32, f32), -EEXIST);
	assert_int_equal(eng_gguf_add_tensor(g, "bad", KN_Q6_K, 2, shape_q, f32), -EINVAL);
	if (eng_gguf_write(g, in_folder("m.gguf"), &err) < 0 || eng_weights_open(in_folder("m.gguf"), &w, &err) < 0)
		fail_msg("%s", err.msg);
	eng_gguf_writer_free(g);

	assert_true(eng_weights_is_gguf(w));
	assert_int_equal(eng_gguf_get_u32(w, "u32", &u, NULL), 0);
	assert_int_equal(u, 4000000000u);
	assert_int_equal(eng_gguf_get_u32(w, "u64", &u, NULL), -ERANGE);
	assert_int_equal(eng_gguf_get_u32(w, "small", &u, NULL), 0);
	assert_int_equal(u, 12);
	assert_int_equal(eng_gguf_get_u32(w, "f32", &u, NULL), -EINVAL);
	assert_int_equal(eng_gguf_get_u32(w, "missing", &u, NULL), -ENOENT);
	assert_int_equal(eng_gguf_get_f32(w, "f32", &f, NULL), 0);
	assert_float_equal(f, 0.75f, 0);
	assert_int_equal(eng_gguf_get_f32(w, "small", &f, NULL), 0);
	assert_float_equal(f, 12.0f, 0);
	assert_int_equal(eng_gguf_get_f32(w, "text", &f, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "'text': expected a number, got string"));
	assert_int_equal(eng_gguf_get_bool(w, "yes", &b, NULL), 0);
	assert_true(b);
	assert_int_equal(eng_gguf_get_bool(w, "no", &b, NULL), 0);
	assert_false(b);
	assert_int_equal(eng_gguf_get_bool(w, "u32", &b, NULL), -EINVAL);
	assert_int_equal(eng_gguf_get_string(w, "text", &text, &len, NULL), 0);
	assert_int_equal(len, 6);
	assert_memory_equal(text, "h\xc3\xa9llo", 6);
	assert_int_equal(eng_gguf_get_string(w, "texts", &text, &len, NULL), -EINVAL);
	assert_int_equal(eng_gguf_each_string(w, "texts", collect, &all, NULL), 0);
	assert_string_equal(base_buf_text(&all), "0:alpha;1:;2:g;"); /* printing ends at the NUL */
	assert_int_equal(eng_gguf_each_string(w, "texts", stop_at_second, NULL, NULL), 42);
	assert_int_equal(eng_gguf_each_string(w, "text", collect, &all, NULL), -EINVAL);
	assert_int_equal(eng_gguf_get_i32_array(w, "ints", &i32s, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_memory_equal(i32s, ints, sizeof(ints));
	free(i32s);
	assert_int_equal(eng_gguf_get_i32_array(w, "uints", &i32s, &n, &err), -ERANGE);
	assert_non_null(strstr(err.msg, "'uints': element 1"));
	assert_int_equal(eng_gguf_get_i32_array(w, "bools", &i32s, &n, NULL), 0);
	assert_true(n == 3 && i32s[0] == 1 && i32s[1] == 0 && i32s[2] == 1);
	free(i32s);
	assert_int_equal(eng_gguf_get_i32_array(w, "small", &i32s, &n, NULL), 0);
	assert_true(n == 1 && i32s[0] == 12);
	free(i32s);
	assert_int_equal(eng_gguf_get_i32_array(w, "none", &i32s, &n, NULL), 0);
	assert_int_equal(n, 0);
	free(i32s);
	assert_int_equal(eng_gguf_get_i32_array(w, "floats", &i32s, &n, NULL), -EINVAL);
	assert_int_equal(eng_gguf_get_f32_array(w, "floats", &f32s, &n, NULL), 0);
	assert_true(n == 2 && f32s[0] == 1.5f && f32s[1] == -0.25f);
	free(f32s);
	assert_int_equal(eng_gguf_get_f32_array(w, "texts", &f32s, &n, NULL), -EINVAL);

	assert_int_equal(eng_weights_count(w), 3);
	t = eng_weights_find(w, "a");
	assert_true(t->n_dims == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->dtype == KN_F32);
	assert_memory_equal(t->data, f32, sizeof(f32));
	t = eng_weights_find(w, "q");
	assert_true(t->shape[0] == 3 && t->shape[1] == 64 && t->dtype == KN_Q4_0 && t->size_bytes == 108);
	assert_string_equal(t->dtype_name, "Q4_0");
	assert_int_equal(((const uint8_t *)t->data)[107], 0x5a);
	assert_int_equal((uintptr_t)t->data % 32, 0);
	assert_int_equal(eng_weights_find(w, "one")->size_bytes, 10);
	eng_weights_close(w);
}

static void a_failing_source_leaves_no_file(void **state)
{
	static const uint64_t shape[] = { 4 };
	struct eng_gguf_writer *g = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(eng_gguf_writer_new(&g), 0);
	assert_int_equal(eng_gguf_add_tensor_made(g, "t", KN_F32, 1, shape, refuse_to_make, NULL), 0);
	assert_int_equal(eng_gguf_write(g, in_folder("m.gguf"), &err), -EDOM);
	assert_non_null(strstr(err.msg, "no 16 bytes today"));
	assert_int_equal(access(in_folder("m.gguf"), F_OK), -1);
	assert_int_equal(eng_gguf_write(g, "/nonexistent/m.gguf", &err), -ENOENT);
	eng_gguf_writer_free(g);
}

/* ---- Every value type, by hand -------------------------------------------------------------------------- */

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

/* ---- Split sets -------------------------------------------------------------------------------------------- */

static void write_part(unsigned no, unsigned claimed_no, unsigned count, unsigned tensors, const char *tensor)
{
	static const uint64_t shape[] = { 4 };
	static const float data[] = { 1, 2, 3, 4 };
	struct eng_gguf_writer *g = NULL;
	char name[64];

	(void)snprintf(name, sizeof(name), "m-%05u-of-00003.gguf", no);
	assert_int_equal(eng_gguf_writer_new(&g), 0);
	if (no == 1)
		assert_int_equal(eng_gguf_add_string(g, "general.architecture", "llama", 5), 0);
	assert_int_equal(eng_gguf_add_u32(g, "split.no", claimed_no), 0);
	assert_int_equal(eng_gguf_add_u32(g, "split.count", count), 0);
	assert_int_equal(eng_gguf_add_u32(g, "split.tensors.count", tensors), 0);
	if (tensor)
		assert_int_equal(eng_gguf_add_tensor(g, tensor, KN_F32, 1, shape, data), 0);
	assert_int_equal(eng_gguf_write(g, in_folder(name), NULL), 0);
	eng_gguf_writer_free(g);
}

static void a_split_set_opens_from_any_part(void **state)
{
	static const char *const names[] = { "m-00001-of-00003.gguf", "m-00003-of-00003.gguf", "." };
	const char *text;
	size_t len;

	(void)state;
	write_part(1, 0, 3, 2, NULL); /* metadata only, as gguf-split can do */
	write_part(2, 1, 3, 2, "a");
	write_part(3, 2, 3, 2, "b");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct eng_weights *w = NULL;

		assert_int_equal(eng_weights_open(in_folder(names[i]), &w, NULL), 0);
		assert_int_equal(eng_weights_count(w), 2);
		assert_non_null(eng_weights_find(w, "a"));
		assert_non_null(eng_weights_find(w, "b"));
		assert_int_equal(eng_gguf_get_string(w, "general.architecture", &text, &len, NULL), 0);
		eng_weights_close(w);
	}
}

static void a_broken_split_set_is_refused(void **state)
{
	struct eng_weights *w = NULL;
	struct err err = { 0 };

	(void)state;
	write_part(1, 0, 3, 3, "a");
	write_part(2, 1, 3, 3, "b");
	assert_int_equal(eng_weights_open(in_folder("m-00001-of-00003.gguf"), &w, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "m-00003-of-00003.gguf"));
	write_part(3, 1, 3, 3, "c");
	assert_int_equal(eng_weights_open(in_folder("m-00001-of-00003.gguf"), &w, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "split.no is 1"));
	write_part(3, 2, 4, 3, "c");
	assert_int_equal(eng_weights_open(in_folder("m-00001-of-00003.gguf"), &w, &err), -EBADMSG);
	write_part(3, 2, 3, 3, "b");
	assert_int_equal(eng_weights_open(in_folder("m-00001-of-00003.gguf"), &w, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "'b': appears twice"));
	write_part(3, 2, 3, 3, NULL);
	assert_int_equal(eng_weights_open(in_folder("m-00001-of-00003.gguf"), &w, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "2 tensors where split.tensors.count is 3"));
	assert_null(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(everything_written_reads_back, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(a_failing_source_leaves_no_file, make_folder, drop_folder),
		cmocka_unit_test(every_scalar_type_reads),
		cmocka_unit_test(hostile_files_are_refused_by_name),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(unknown_types_do_not_hide_the_rest),
		cmocka_unit_test_setup_teardown(a_split_set_opens_from_any_part, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(a_broken_split_set_is_refused, make_folder, drop_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
