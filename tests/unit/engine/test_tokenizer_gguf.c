/* Tokenizers inside GGUF files: written to a file, opened and asked. */
#include "test.h"

#include <errno.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "tokenizer/tokenizer.h"
#include "weights/gguf_write.h"
#include "weights/weights.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

static void tok_freep(struct eng_tokenizer **tok)
{
	eng_tokenizer_free(*tok);
}

static char path[64];

static struct eng_gguf_writer *new_file(const char *model)
{
	struct eng_gguf_writer *w = NULL;

	assert_int_equal(eng_gguf_writer_new(&w), 0);
	assert_int_equal(eng_gguf_add_string(w, "general.architecture", "test", 4), 0);
	assert_int_equal(eng_gguf_add_string(w, "tokenizer.ggml.model", model, strlen(model)), 0);
	return w;
}

static void add_strings(struct eng_gguf_writer *w, const char *key, const char *const *texts)
{
	size_t lens[1024], n = 0;

	for (; texts[n]; n++)
		lens[n] = strlen(texts[n]);
	assert_int_equal(eng_gguf_add_strings(w, key, texts, lens, n), 0);
}

/* Writes, opens, reads the tokenizer; the file is gone afterwards. */
static int finish(struct eng_gguf_writer *w, struct eng_tokenizer **tok, struct err *err)
{
	struct eng_weights *weights = NULL;
	static const float one = 1.0f;
	static const uint64_t shape[] = { 1 };
	int r, fd;

	(void)snprintf(path, sizeof(path), "/tmp/test_tokenizer_gguf.XXXXXX.gguf");
	fd = mkstemps(path, 5);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(eng_gguf_add_tensor(w, "t", KN_F32, 1, shape, &one), 0);
	r = eng_gguf_write(w, path, err);
	eng_gguf_writer_free(w);
	if (r < 0)
		fail_msg("%s", err_text(err));
	if (eng_weights_open(path, &weights, err) < 0)
		fail_msg("%s", err_text(err));
	(void)unlink(path);
	r = eng_tokenizer_from_gguf(weights, tok, err);
	eng_weights_close(weights);
	return r;
}

static struct eng_tokenizer *open_file(struct eng_gguf_writer *w)
{
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };

	if (finish(w, &tok, &err) < 0)
		fail_msg("%s", err_text(&err));
	return tok;
}

static void expect_pieces(const struct eng_tokenizer *tok, const char *text, unsigned flags, const char *expected)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(1 << 16);
	CLEANUP(eng_ids_done) struct eng_ids ids = { 0 };
	struct err err = { 0 };
	const char *p;
	size_t n;

	if (eng_tokenizer_encode(tok, text, strlen(text), flags, &ids, &err) < 0)
		fail_msg("%s", err_text(&err));
	for (size_t i = 0; i < ids.n; i++) {
		p = eng_tokenizer_piece(tok, ids.ids[i], &n);
		(void)base_buf_printf(&out, "[%.*s]", (int)n, p);
	}
	assert_string_equal(base_buf_text(&out), expected);
}

static void expect_round_trip(const struct eng_tokenizer *tok, const char *text)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(1 << 16);
	CLEANUP(eng_ids_done) struct eng_ids ids = { 0 };

	assert_int_equal(eng_tokenizer_encode(tok, text, strlen(text), 0, &ids, NULL), 0);
	assert_int_equal(eng_tokenizer_decode(tok, ids.ids, ids.n, true, &out), 0);
	assert_string_equal(base_buf_text(&out), text);
}

/* ---- byte-level: a fixture's tokenizer.json, moved into a GGUF file, gives the same ids ---- */

struct moved {
	const char *texts[2048];
	size_t lens[2048];
	int32_t types[2048];
	char *merges[2048];
	size_t merge_lens[2048], n, n_merges;
};

static void move(struct moved *m, const json_t *doc)
{
	json_t *vocab = json_object_get(json_object_get(doc, "model"), "vocab"), *v;
	json_t *merges = json_object_get(json_object_get(doc, "model"), "merges");
	json_t *added = json_object_get(doc, "added_tokens");
	const char *key;
	size_t i, n;

	json_object_foreach(vocab, key, v)
	{
		i = (size_t)json_integer_value(v);
		assert_true(i < 2048);
		m->texts[i] = key;
		m->lens[i] = strlen(key);
		m->types[i] = NORMAL;
		m->n = i + 1 > m->n ? i + 1 : m->n;
	}
	json_array_foreach(added, i, v) m->types[json_integer_value(json_object_get(v, "id"))] = CONTROL;
	json_array_foreach(merges, i, v)
	{
		const char *a = json_string_value(json_array_get(v, 0)), *b = json_string_value(json_array_get(v, 1));

		n = strlen(a) + strlen(b) + 2;
		m->merges[i] = malloc(n);
		assert_non_null(m->merges[i]);
		(void)snprintf(m->merges[i], n, "%s %s", a, b);
		m->merge_lens[i] = n - 1;
		m->n_merges = i + 1;
	}
}

static void compare_with_fixture(const char *family, const char *pre)
{
	static struct moved m;
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;
	struct eng_gguf_writer *w = new_file("gpt2");
	json_t *doc = NULL, *cases = NULL, *c;
	char name[64];
	size_t i;

	memset(&m, 0, sizeof(m));
	(void)snprintf(name, sizeof(name), "tokenizers/%s.json", family);
	assert_int_equal(base_json_read_file(test_fixture(name), 1 << 24, &doc, NULL), 0);
	(void)snprintf(name, sizeof(name), "tokenizers/%s.expected.json", family);
	assert_int_equal(base_json_read_file(test_fixture(name), 1 << 24, &cases, NULL), 0);
	move(&m, doc);
	assert_int_equal(eng_gguf_add_string(w, "tokenizer.ggml.pre", pre, strlen(pre)), 0);
	assert_int_equal(eng_gguf_add_strings(w, "tokenizer.ggml.tokens", m.texts, m.lens, m.n), 0);
	assert_int_equal(eng_gguf_add_i32s(w, "tokenizer.ggml.token_type", m.types, m.n), 0);
	assert_int_equal(eng_gguf_add_strings(w, "tokenizer.ggml.merges", (const char *const *)m.merges, m.merge_lens,
	                                      m.n_merges),
	                 0);
	tok = open_file(w);
	json_array_foreach(cases, i, c)
	{
		const json_t *text = json_object_get(c, "text"), *expected = json_object_get(c, "ids");
		CLEANUP(eng_ids_done) struct eng_ids ids = { 0 };

		assert_int_equal(eng_tokenizer_encode(tok, json_string_value(text), json_string_length(text),
		                                      ENG_TOK_PARSE_SPECIAL, &ids, NULL),
		                 0);
		assert_int_equal(ids.n, json_array_size(expected));
		for (size_t k = 0; k < ids.n; k++)
			assert_int_equal(ids.ids[k], json_integer_value(json_array_get(expected, k)));
	}
	for (i = 0; i < m.n_merges; i++)
		free(m.merges[i]);
	json_decref(doc);
	json_decref(cases);
}

static void byte_level_vocabularies_give_the_ids_of_their_tokenizer_json(void **state)
{
	compare_with_fixture("qwen", "qwen2");
	compare_with_fixture("llama3", "llama-bpe");
	compare_with_fixture("gpt2", "gpt-2");
	compare_with_fixture("deepseek", "deepseek-v3");
}

static struct eng_gguf_writer *tiny_gpt2(const char *pre)
{
	static const char *const tokens[] = { "a", "b", "ab", "\u0120", "1", "<s>", "</s>", NULL };
	static const char *const merges[] = { "a b", NULL };
	static const int32_t types[] = { NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, CONTROL, CONTROL };
	struct eng_gguf_writer *w = new_file("gpt2");

	if (pre)
		assert_int_equal(eng_gguf_add_string(w, "tokenizer.ggml.pre", pre, strlen(pre)), 0);
	add_strings(w, "tokenizer.ggml.tokens", tokens);
	add_strings(w, "tokenizer.ggml.merges", merges);
	assert_int_equal(eng_gguf_add_i32s(w, "tokenizer.ggml.token_type", types, 7), 0);
	return w;
}

static void every_known_split_loads(void **state)
{
	static const char *const names[] = {
		"default",        "llama3",        "llama-bpe",        "qwen2",      "qwen35",    "deepseek-llm",
		"deepseek-coder", "deepseek-v3",   "deepseek-r1-qwen", "falcon",     "mpt",       "starcoder",
		"gpt-2",          "refact",        "command-r",        "olmo",       "dbrx",      "smaug-bpe",
		"glm4",           "chatglm-bpe",   "tekken",           "smollm",     "codeshell", "bloom",
		"exaone",         "exaone4",       "exaone-moe",       "gpt-4o",     "llama4",    "kimi-k2",
		"hunyuan",        "hunyuan-dense", "bailingmoe",       "seed-coder", "viking",    "poro-chat",
		"minerva-7b",     "stablelm2",     "roberta-bpe",      "trillion",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		CLEANUP(tok_freep) struct eng_tokenizer *tok = open_file(tiny_gpt2(names[i]));

		expect_round_trip(tok, "ab a1 b");
	}
}

static void bos_and_eos_follow_the_flags(void **state)
{
	struct eng_gguf_writer *w = tiny_gpt2("gpt-2");
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;

	assert_int_equal(eng_gguf_add_u32(w, "tokenizer.ggml.bos_token_id", 5), 0);
	assert_int_equal(eng_gguf_add_u32(w, "tokenizer.ggml.eos_token_id", 6), 0);
	assert_int_equal(eng_gguf_add_bool(w, "tokenizer.ggml.add_bos_token", 1), 0);
	assert_int_equal(eng_gguf_add_bool(w, "tokenizer.ggml.add_eos_token", 1), 0);
	tok = open_file(w);
	expect_pieces(tok, "ab", ENG_TOK_ADD_SPECIAL, "[<s>][ab][</s>]");
	expect_pieces(tok, "ab", 0, "[ab]");
	expect_pieces(tok, "a</s>", ENG_TOK_PARSE_SPECIAL, "[a][</s>]");
	assert_true(eng_tokenizer_is_special(tok, 6));
}

/* ---- the others ---- */

static void sentencepiece_merges_by_score(void **state)
{
	static const char *const tokens[] = { "<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>",  "<0xA9>", "\u2581", "a",
		                              "b",     "c",   "ab",   "bc",     "\u2581a", "<user>", NULL };
	static const int32_t types[] = { UNKNOWN, CONTROL, CONTROL, BYTE,   BYTE,   BYTE,   NORMAL,
		                         NORMAL,  NORMAL,  NORMAL,  NORMAL, NORMAL, NORMAL, USER };
	static const float scores[] = { 0, 0, 0, 0, 0, 0, -5, -6, -7, -8, -2, -1, -3, 0 };
	struct eng_gguf_writer *w = new_file("llama");
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;

	add_strings(w, "tokenizer.ggml.tokens", tokens);
	assert_int_equal(eng_gguf_add_i32s(w, "tokenizer.ggml.token_type", types, 14), 0);
	assert_int_equal(eng_gguf_add_f32s(w, "tokenizer.ggml.scores", scores, 14), 0);
	assert_int_equal(eng_gguf_add_u32(w, "tokenizer.ggml.bos_token_id", 1), 0);
	assert_int_equal(eng_gguf_add_u32(w, "tokenizer.ggml.unknown_token_id", 0), 0);
	tok = open_file(w);
	expect_pieces(tok, "abc", ENG_TOK_ADD_SPECIAL, "[<s>][\u2581a][bc]"); /* bc scores higher than ab */
	expect_pieces(tok, "ab", 0, "[\u2581][ab]");                          /* and ab higher than \u2581a */
	expect_pieces(tok, "a\u00e9\n", 0, "[\u2581a][<0xC3>][<0xA9>][<0x0A>]");
	expect_pieces(tok, "a<user>a", 0, "[\u2581a][<user>][\u2581a]");
	expect_round_trip(tok, "abc ab\n\u00e9 a");
	expect_round_trip(tok, " a");
}

static void wordpiece_spelling_is_turned_round(void **state)
{
	static const char *const tokens[] = { "[UNK]", "[CLS]", "[SEP]", "\u2581un", "able", "\u2581,", NULL };
	static const int32_t types[] = { UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, NORMAL };
	struct eng_gguf_writer *w = new_file("bert");
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;

	add_strings(w, "tokenizer.ggml.tokens", tokens);
	assert_int_equal(eng_gguf_add_i32s(w, "tokenizer.ggml.token_type", types, 6), 0);
	tok = open_file(w);
	expect_pieces(tok, "UNABLE, x", ENG_TOK_ADD_SPECIAL, "[[CLS]][un][##able][,][[UNK]][[SEP]]");
	expect_round_trip(tok, "unable, un");
}

static void unigram_keeps_control_tokens_out_of_texts(void **state)
{
	static const char *const tokens[] = { "<pad>", "</s>", "<unk>", "\u2581", "a", "\u2581a", "</", "s>", NULL };
	static const int32_t types[] = { CONTROL, CONTROL, UNKNOWN, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL };
	static const float scores[] = { 0, 0, 0, -2, -2, -3, -4, -4 };
	struct eng_gguf_writer *w = new_file("t5");
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;

	add_strings(w, "tokenizer.ggml.tokens", tokens);
	assert_int_equal(eng_gguf_add_i32s(w, "tokenizer.ggml.token_type", types, 8), 0);
	assert_int_equal(eng_gguf_add_f32s(w, "tokenizer.ggml.scores", scores, 8), 0);
	assert_int_equal(eng_gguf_add_u32(w, "tokenizer.ggml.eos_token_id", 1), 0);
	assert_int_equal(eng_gguf_add_u32(w, "tokenizer.ggml.unknown_token_id", 2), 0);
	assert_int_equal(eng_gguf_add_bool(w, "tokenizer.ggml.remove_extra_whitespaces", 1), 0);
	tok = open_file(w);
	expect_pieces(tok, "  a   a ", ENG_TOK_ADD_SPECIAL, "[\u2581a][\u2581a][</s>]");
	expect_pieces(tok, "</s>", 0, "[\u2581][</][s>]");
	expect_pieces(tok, "axy", 0, "[\u2581a][<unk>]");
}

/* ---- what our own files add ---- */

static void ids_beyond_the_vocabulary_are_no_text(void **state)
{
	static const char *const tokens[] = { "a", "[PAD1]", "[PAD2]", "[PAD9]", NULL }, *const none[] = { NULL };
	static const int32_t types[] = { NORMAL, NORMAL, UNUSED, UNUSED }, ids[] = { 2, 0, 2 };
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(1 << 16);
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;
	struct eng_gguf_writer *w = new_file("gpt2");

	add_strings(w, "tokenizer.ggml.tokens", tokens);
	add_strings(w, "tokenizer.ggml.merges", none);
	assert_int_equal(eng_gguf_add_i32s(w, "tokenizer.ggml.token_type", types, 4), 0);
	tok = open_file(w);
	assert_int_equal(eng_tokenizer_find(tok, "[PAD2]", 6), -1);
	assert_int_equal(eng_tokenizer_find(tok, "[PAD1]", 6), 1); /* a token like any other */
	assert_int_equal(eng_tokenizer_find(tok, "[PAD9]", 6), 3); /* unused, but not a filler for 3 */
	assert_int_equal(eng_tokenizer_decode(tok, ids, 3, false, &out), 0);
	assert_string_equal(base_buf_text(&out), "a");
}

static struct eng_gguf_writer *with_json(const void *json, size_t len)
{
	struct eng_gguf_writer *w = tiny_gpt2("gpt-2");

	assert_int_equal(eng_gguf_add_string(w, "ocai.tokenizer_json", json, len), 0);
	return w;
}

static void a_tokenizer_json_inside_is_what_counts(void **state)
{
	CLEANUP(base_buf_done) struct base_buf json = BASE_BUF_INIT(1 << 24);
	CLEANUP(tok_freep) struct eng_tokenizer *direct = NULL, *moved = NULL;
	CLEANUP(eng_ids_done) struct eng_ids a = { 0 }, b = { 0 };
	static const char text[] = "Hello  \u4f60\u597d <|im_end|>\n123";
	struct err err = { 0 };

	assert_int_equal(base_read_file(test_fixture("tokenizers/qwen.json"), &json, NULL), 0);
	if (eng_tokenizer_parse("qwen.json", base_buf_text(&json), json.len, &direct, &err) < 0)
		fail_msg("%s", err_text(&err));
	moved = open_file(with_json(base_buf_text(&json), json.len));
	assert_int_equal(eng_tokenizer_n_vocab(moved), eng_tokenizer_n_vocab(direct));
	assert_int_equal(eng_tokenizer_encode(direct, text, strlen(text), ENG_TOK_PARSE_SPECIAL, &a, NULL), 0);
	assert_int_equal(eng_tokenizer_encode(moved, text, strlen(text), ENG_TOK_PARSE_SPECIAL, &b, NULL), 0);
	assert_int_equal(a.n, b.n);
	assert_memory_equal(a.ids, b.ids, a.n * sizeof(*a.ids));
}

/* ---- errors ---- */

static void expect_refused(struct eng_gguf_writer *w, int code, const char *word)
{
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };
	int r = finish(w, &tok, &err);

	assert_null(tok);
	if (r != code || !strstr(err.msg, word))
		fail_msg("%d \"%s\", expected %d and \"%s\"", r, err.msg, code, word);
}

static void what_cannot_be_right_is_refused_by_name(void **state)
{
	static const char *const twice[] = { "a", "a", NULL }, *const one[] = { "a", NULL },
	                         *const bad[] = { "\xff", NULL };
	static const char *const merge[] = { "a x", NULL }, *const none[] = { NULL };
	static const float nan_score[] = { 0.0f / 0.0f };
	struct eng_gguf_writer *w;

	expect_refused(new_file("rwkv"), -ENOTSUP, "rwkv");
	expect_refused(tiny_gpt2("nonsense"), -ENOTSUP, "nonsense");
	expect_refused(new_file("gpt2"), -ENOENT, "tokenizer.ggml.tokens");
	w = new_file("gpt2");
	add_strings(w, "tokenizer.ggml.tokens", twice);
	expect_refused(w, -EBADMSG, "twice");
	w = new_file("gpt2");
	add_strings(w, "tokenizer.ggml.tokens", bad);
	expect_refused(w, -EBADMSG, "UTF-8");
	w = new_file("gpt2");
	add_strings(w, "tokenizer.ggml.tokens", one);
	add_strings(w, "tokenizer.ggml.merges", merge);
	expect_refused(w, -EBADMSG, "tokenizer.ggml.merges[0]");
	w = new_file("gpt2");
	add_strings(w, "tokenizer.ggml.tokens", none);
	expect_refused(w, -EBADMSG, "empty");
	w = new_file("llama");
	add_strings(w, "tokenizer.ggml.tokens", one);
	expect_refused(w, -ENOENT, "tokenizer.ggml.scores");
	w = new_file("llama");
	add_strings(w, "tokenizer.ggml.tokens", one);
	assert_int_equal(eng_gguf_add_f32s(w, "tokenizer.ggml.scores", nan_score, 1), 0);
	expect_refused(w, -EBADMSG, "tokenizer.ggml.scores[0]");
	w = tiny_gpt2("gpt-2");
	assert_int_equal(eng_gguf_add_u32(w, "tokenizer.ggml.bos_token_id", 99), 0);
	expect_refused(w, -ERANGE, "bos_token_id");
	expect_refused(with_json("{]", 2), -EBADMSG, "ocai.tokenizer_json");
	expect_refused(with_json("{}", 2), -ENOENT, "ocai.tokenizer_json");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_level_vocabularies_give_the_ids_of_their_tokenizer_json),
		cmocka_unit_test(every_known_split_loads),
		cmocka_unit_test(bos_and_eos_follow_the_flags),
		cmocka_unit_test(sentencepiece_merges_by_score),
		cmocka_unit_test(wordpiece_spelling_is_turned_round),
		cmocka_unit_test(unigram_keeps_control_tokens_out_of_texts),
		cmocka_unit_test(ids_beyond_the_vocabulary_are_no_text),
		cmocka_unit_test(a_tokenizer_json_inside_is_what_counts),
		cmocka_unit_test(what_cannot_be_right_is_refused_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
