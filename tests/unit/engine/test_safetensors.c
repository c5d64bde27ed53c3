/* safetensors: a good file, a sharded folder, and every way a hostile one can lie. */
#include "test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "weights/weights.h"

/* Length field, header, data_bytes of 0, 1, 2, ... */
static uint8_t *build(const char *header, size_t data_bytes, size_t *ret_size)
{
	size_t n = strlen(header);
	uint8_t *p = malloc(8 + n + data_bytes);

	assert_non_null(p);
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)((uint64_t)n >> (8 * i));
	memcpy(p + 8, header, n);
	for (size_t i = 0; i < data_bytes; i++)
		p[8 + n + i] = (uint8_t)i;
	*ret_size = 8 + n + data_bytes;
	return p;
}

static int parse(const char *header, size_t data_bytes, struct eng_weights **w, uint8_t **bytes, struct err *err)
{
	size_t size;

	*bytes = build(header, data_bytes, &size);
	return eng_weights_parse("x.safetensors", *bytes, size, w, err);
}

static void tensors_are_found_with_type_shape_and_bytes(void **state)
{
	static const char header[] = " {\"__metadata__\":{\"format\":\"pt\"},\n"
	                             "\"b\" : {\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
	                             "\"a\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\"},"
	                             "\"f8\":{\"dtype\":\"F8_E4M3\",\"shape\":[0],\"data_offsets\":[16,16]},"
	                             "\"z\\u00e9\":{\"dtype\":\"I64\",\"shape\":[1,1,1,1,1],\"data_offsets\":[16,24],"
	                             "\"extra\":[1,{\"x\":null}]}}   ";
	CLEANUP(freep) uint8_t *bytes = NULL;
	struct eng_weights *w = NULL;
	const struct eng_tensor *t;
	struct err err = { 0 };

	(void)state;
	if (parse(header, 24, &w, &bytes, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(eng_weights_count(w), 4);
	assert_int_equal(eng_weights_bytes(w), 24);
	assert_false(eng_weights_is_gguf(w));
	t = eng_weights_find(w, "b");
	assert_ptr_equal(t, eng_weights_at(w, 0));
	assert_int_equal(t->dtype, KN_BF16);
	assert_string_equal(t->dtype_name, "BF16");
	assert_int_equal(t->n_dims, 2);
	assert_int_equal(t->shape[0], 2);
	assert_int_equal(t->shape[1], 3);
	assert_int_equal(t->size_bytes, 12);
	assert_int_equal(*(const uint8_t *)t->data, 4);
	assert_int_equal(eng_weights_find(w, "a")->n_dims, 0);
	assert_int_equal(eng_weights_find(w, "f8")->dtype, KN_N_DTYPES);
	assert_string_equal(eng_weights_find(w, "f8")->dtype_name, "F8_E4M3");
	assert_int_equal(eng_weights_find(w, "z\xc3\xa9")->n_dims, 5);
	assert_null(eng_weights_find(w, "c"));
	assert_null(eng_weights_find(w, "__metadata__"));
	assert_null(eng_weights_at(w, 4));
	assert_int_equal(eng_gguf_get_u32(w, "k", NULL, NULL), -ENOENT);
	eng_weights_close(w);
}

#define T(dtype, shape, offsets) "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

/* Each is refused with -EBADMSG and a message that contains the words. */
static const struct hostile {
	const char *header;
	size_t data_bytes;
	const char *words;
} hostile[] = {
	{ "", 0, "expected '{'" },
	{ "[]", 0, "expected '{'" },
	{ "{", 0, "expected" },
	{ "{}x", 0, "follows" },
	{ "{}", 4, "4 bytes at the end" },
	{ "{\"t\"}", 0, "expected ':'" },
	{ "{\"t\":1}", 0, "expected '{'" },
	{ "{\"t\":{}}", 0, "'t': dtype is missing" },
	{ "{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "'t': shape is missing" },
	{ "{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "'t': data_offsets is missing" },
	{ "{\"t\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "appears twice" },
	{ T("F33", "[1]", "[0,4]"), 4, "'t': unknown dtype 'F33'" },
	{ T("F32", "[1]", "[0,4]"), 3, "'t': data_offsets [0, 4] outside" },
	{ T("F32", "[1]", "[4,0]"), 4, "'t': data_offsets [4, 0] outside" },
	{ T("F32", "[2]", "[0,4]"), 4, "'t': 4 bytes where its shape needs 8" },
	{ T("F32", "[1]", "[0,4]"), 8, "belong to no tensor" },
	{ T("F32", "[1]", "[4,8]"), 8, "'t': 4 bytes before it belong to no tensor" },
	{ T("F32", "[4294967296,4294967296]", "[0,4]"), 4, "'t': shape overflows" },
	{ T("F32", "[4611686018427387904]", "[0,0]"), 0, "'t': shape overflows" },
	{ T("F32", "[18446744073709551616]", "[0,4]"), 4, "too large" },
	{ T("F32", "[-1]", "[0,4]"), 4, "whole number" },
	{ T("F32", "[1.0]", "[0,4]"), 4, "whole number" },
	{ T("F32", "[01]", "[0,4]"), 4, "leading zero" },
	{ T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "too many dimensions" },
	{ T("F32", "[1", "[0,4]"), 4, "expected" },
	{ T("F32", "[1]", "[0]"), 4, "expected ','" },
	{ T("F32", "[1]", "[0,4,5]"), 4, "expected ']'" },
	{ T("F4", "[3]", "[0,1]"), 1, "shape overflows" },
	{ "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no name" },
	{ "{\"a\\u0000b\":{}}", 0, "printable" },
	{ "{\"a\\n\":{}}", 0, "printable" },
	{ "{\"\xff\":{}}", 0, "printable" },
	{ "{\"\\ud800\":{}}", 0, "surrogate" },
	{ "{\"\\ud800\\u0041\":{}}", 0, "surrogate" },
	{ "{\"\\udc00\":{}}", 0, "surrogate" },
	{ "{\"\\u12\":{}}", 0, "escape" },
	{ "{\"\\q\":{}}", 0, "escape" },
	{ "{\"t\\", 0, "unfinished" },
	{ "{\"__metadata__\":", 0, "expected a value" },
	{ "{\"__metadata__\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 0, "nested too deeply" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
	  "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
	  8, "'a': appears twice" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
	  "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
	  6, "'b': shares bytes with tensor 'a'" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"
	  "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
	  8, "expected ','" },
};

static void hostile_headers_are_refused_by_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
		const struct hostile *h = &hostile[i];
		CLEANUP(freep) uint8_t *bytes = NULL;
		struct eng_weights *w = NULL;
		struct err err = { 0 };

		assert_int_equal(parse(h->header, h->data_bytes, &w, &bytes, &err), -EBADMSG);
		assert_null(w);
		if (!strstr(err.msg, h->words) || strncmp(err.msg, "x.safetensors: ", 15) != 0)
			fail_msg("'%s': message '%s' lacks '%s'", h->header, err.msg, h->words);
	}
}

static void length_field_is_checked_against_the_file(void **state)
{
	static const struct {
		uint64_t length;
		size_t size;
		const char *words;
	} cases[] = {
		{ 0, 0, "too few" },   { 0, 7, "too few" },         { 3, 10, "truncated" },
		{ 2, 9, "truncated" }, { 100000001, 64, "100 MB" }, { UINT64_MAX, 64, "100 MB" },
	};
	uint8_t bytes[64] = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct eng_weights *w = NULL;
		struct err err = { 0 };

		for (int b = 0; b < 8; b++)
			bytes[b] = (uint8_t)(cases[i].length >> (8 * b));
		assert_int_equal(eng_weights_parse("x", bytes, cases[i].size, &w, &err), -EBADMSG);
		assert_non_null(strstr(err.msg, cases[i].words));
	}
}

static void every_truncation_of_a_real_file_is_refused(void **state)
{
	struct base_mapfile map;
	struct eng_weights *w = NULL;
	size_t header;

	(void)state;
	assert_int_equal(base_mapfile_open(test_fixture("models/qwen3/model.safetensors"), &map, NULL), 0);
	header = 8 + (map.data[0] | (size_t)map.data[1] << 8);
	for (size_t n = 0; n < map.size_bytes; n += n < header + 64 ? 1 : 1021) {
		assert_int_equal(eng_weights_parse("cut", map.data, n, &w, NULL), -EBADMSG);
		assert_null(w);
	}
	assert_int_equal(eng_weights_parse("whole", map.data, map.size_bytes, &w, NULL), 0);
	eng_weights_close(w);
	base_mapfile_close(&map);
}

/* ---- Folders -------------------------------------------------------------------------------------------- */

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

static void put(const char *name, const void *data, size_t size)
{
	assert_int_equal(base_write_file_atomic(in_folder(name), data, size, 0644, NULL), 0);
}

static void put_shard(const char *name, const char *header, size_t data_bytes)
{
	CLEANUP(freep) uint8_t *bytes = NULL;
	size_t size;

	bytes = build(header, data_bytes, &size);
	put(name, bytes, size);
}

static int drop_folder(void **state)
{
	static const char *const names[] = { "1.safetensors", "2.safetensors", "model.safetensors.index.json",
		                             "model.safetensors" };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)unlink(in_folder(names[i]));
	return rmdir(folder);
}

#define SHARD(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static int open_index(const char *index, struct eng_weights **w, struct err *err)
{
	put_shard("1.safetensors", SHARD("a"), 4);
	put_shard("2.safetensors", SHARD("b"), 4);
	put("model.safetensors.index.json", index, strlen(index));
	return eng_weights_open(folder, w, err);
}

static void a_sharded_folder_opens_as_one(void **state)
{
	struct eng_weights *w = NULL;
	struct err err = { 0 };

	(void)state;
	if (open_index("{\"metadata\":{\"total_size\":8.5e3,\"x\":[true,null,\"\\\"}\"]},"
	               "\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}",
	               &w, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(eng_weights_count(w), 2);
	assert_non_null(eng_weights_find(w, "a"));
	assert_non_null(eng_weights_find(w, "b"));
	eng_weights_close(w);
}

static void a_lying_index_is_refused_by_name(void **state)
{
	static const struct {
		const char *index;
		int code;
		const char *words;
	} cases[] = {
		{ "{\"weight_map\":{\"a\":\"3.safetensors\"}}", -ENOENT, "'a': " },
		{ "{\"weight_map\":{\"c\":\"1.safetensors\"}}", -EBADMSG, "1.safetensors: tensor 'c': not in" },
		{ "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\",\"a\":\"2.safetensors\"}}",
		  -EBADMSG, "'a': appears twice" },
		{ "{\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"2.safetensors\"}}", -EBADMSG, "'a': not in" },
		{ "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}", -EBADMSG, "'b': not in" },
		{ "{\"weight_map\":{\"a\":\"../x.safetensors\"}}", -EBADMSG, "not a plain file name" },
		{ "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", -EBADMSG, "not a plain file name" },
		{ "{\"weight_map\":{\"a\":\"..\"}}", -EBADMSG, "not a plain file name" },
		{ "{\"weight_map\":{\"a\":\"\"}}", -EBADMSG, "not a plain file name" },
		{ "{\"weight_map\":{\"a\":1}}", -EBADMSG, "expected '\"'" },
		{ "{\"weight_map\":[]}", -EBADMSG, "expected '{'" },
		{ "{\"weight_map\":{},\"weight_map\":{}}", -EBADMSG, "weight_map appears twice" },
		{ "{\"metadata\":{}}", -EBADMSG, "no weight_map" },
		{ "{\"weight_map\":{\"a\":\"1.safetensors\"}", -EBADMSG, "expected" },
		{ "", -EBADMSG, "expected '{'" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct eng_weights *w = NULL;
		struct err err = { 0 };

		assert_int_equal(open_index(cases[i].index, &w, &err), cases[i].code);
		assert_null(w);
		if (!strstr(err.msg, cases[i].words))
			fail_msg("'%s': message '%s' lacks '%s'", cases[i].index, err.msg, cases[i].words);
	}
}

static void a_tensor_in_another_shard_than_the_index_says_is_refused(void **state)
{
	struct eng_weights *w = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(open_index("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\","
	                            "\"c\":\"1.safetensors\"}}",
	                            &w, &err),
	                 -EBADMSG);
	put_shard("2.safetensors",
	          "{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
	          "\"c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
	          8);
	assert_int_equal(eng_weights_open(folder, &w, &err), -EBADMSG);
	assert_null(w);
	assert_non_null(strstr(err.msg, "1.safetensors: tensor 'c': the index has it here, but it is in"));
	assert_non_null(strstr(err.msg, "2.safetensors"));
}

static void a_tensor_in_two_shards_is_refused(void **state)
{
	static const char index[] = "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}";
	struct eng_weights *w = NULL;
	struct err err = { 0 };

	(void)state;
	put_shard("1.safetensors", SHARD("a"), 4);
	put_shard("2.safetensors", SHARD("a"), 4);
	put("model.safetensors.index.json", index, strlen(index));
	assert_int_equal(eng_weights_open(folder, &w, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "2.safetensors: tensor 'a': appears twice"));
}

static void a_folder_without_weights_says_what_was_looked_for(void **state)
{
	struct eng_weights *w = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(eng_weights_open(folder, &w, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "model.safetensors"));
	assert_int_equal(eng_weights_open("/nonexistent/x", &w, &err), -ENOENT);
	put("model.safetensors", "", 0);
	assert_int_equal(eng_weights_open(folder, &w, &err), -EBADMSG);
	assert_null(w);
}

static void ten_thousand_tensors_are_all_found(void **state)
{
	enum { N = 10000 };
	CLEANUP(base_buf_done) struct base_buf header = BASE_BUF_INIT(8u << 20);
	CLEANUP(freep) uint8_t *bytes = NULL;
	struct eng_weights *w = NULL;
	char name[64];
	size_t size;

	(void)state;
	for (int i = 0; i < N; i++)
		(void)base_buf_printf(&header,
		                      "%c\"model.layers.%d.mlp.experts.%d.up_proj.weight\":{\"dtype\":\"BF16\","
		                      "\"shape\":[1,2],\"data_offsets\":[%d,%d]}",
		                      i ? ',' : '{', i / 100, i % 100, (N - 1 - i) * 4, (N - i) * 4);
	(void)base_buf_putc(&header, '}');
	bytes = build(base_buf_text(&header), N * 4, &size);
	assert_int_equal(eng_weights_parse("big", bytes, size, &w, NULL), 0);
	for (int i = 0; i < N; i++) {
		(void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts.%d.up_proj.weight", i / 100, i % 100);
		assert_ptr_equal(eng_weights_find(w, name), eng_weights_at(w, (size_t)i));
	}
	eng_weights_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tensors_are_found_with_type_shape_and_bytes),
		cmocka_unit_test(hostile_headers_are_refused_by_name),
		cmocka_unit_test(length_field_is_checked_against_the_file),
		cmocka_unit_test(every_truncation_of_a_real_file_is_refused),
		cmocka_unit_test_setup_teardown(a_sharded_folder_opens_as_one, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(a_lying_index_is_refused_by_name, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(a_tensor_in_another_shard_than_the_index_says_is_refused, make_folder,
		                                drop_folder),
		cmocka_unit_test_setup_teardown(a_tensor_in_two_shards_is_refused, make_folder, drop_folder),
		cmocka_unit_test_setup_teardown(a_folder_without_weights_says_what_was_looked_for, make_folder,
		                                drop_folder),
		cmocka_unit_test(ten_thousand_tensors_are_all_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
