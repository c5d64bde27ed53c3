/* GGUF: what the writer writes the reader reads, and split sets. test_gguf_hostile.c has files made by hand. */
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
		cmocka_unit_test_setup_teardown(a_split_set_opens_from_any_part, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(a_broken_split_set_is_refused, make_folder, drop_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
