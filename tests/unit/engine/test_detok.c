/* Decoders and the streaming detokenizer: what text comes out, how early, and that parts make the whole. */
#include "test.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "tokenizer/tokenizer.h"

static void tok_freep(struct eng_tokenizer **tok)
{
	eng_tokenizer_free(*tok);
}

/* Ids 0, 1, 2 ... are the spellings given as JSON strings. */
static struct eng_tokenizer *with_decoder(const char *decoder, const char *const *spellings)
{
	CLEANUP(base_buf_done) struct base_buf json = BASE_BUF_INIT(1 << 16);
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };

	(void)base_buf_printf(&json,
	                      "{\"added_tokens\":[{\"id\":50,\"content\":\"<s>\",\"special\":true}],\"decoder\":%s,"
	                      "\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{",
	                      decoder);
	for (int i = 0; spellings[i]; i++)
		(void)base_buf_printf(&json, "%s\"%s\":%d", i ? "," : "", spellings[i], i);
	(void)base_buf_puts(&json, "}}}");
	if (eng_tokenizer_parse("t.json", base_buf_text(&json), json.len, &tok, &err) < 0)
		fail_msg("%s\n%s", err_text(&err), base_buf_text(&json));
	return tok;
}

/* Pushes ids; after each the text so far is compared with the next entry of `after`, at the end the last. */
static void expect_stream(const char *decoder, const char *const *spellings, const int32_t *ids, size_t n,
                          const char *const *after)
{
	CLEANUP(tok_freep) struct eng_tokenizer *tok = with_decoder(decoder, spellings);
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(4096);
	CLEANUP(base_buf_done) struct base_buf whole = BASE_BUF_INIT(4096);
	struct eng_detok *detok = NULL;

	assert_int_equal(eng_detok_new(tok, false, &detok), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(eng_detok_push(detok, ids[i], &out), 0);
		if (strcmp(base_buf_text(&out), after[i]) != 0)
			fail_msg("after id %zu: \"%s\", expected \"%s\"", i, base_buf_text(&out), after[i]);
	}
	assert_int_equal(eng_detok_flush(detok, &out), 0);
	eng_detok_free(detok);
	assert_string_equal(base_buf_text(&out), after[n]);
	assert_int_equal(eng_tokenizer_decode(tok, ids, n, false, &whole), 0);
	assert_string_equal(base_buf_text(&whole), after[n]);
}

#define STREAM(decoder, spellings, ids, ...) \
	expect_stream(decoder, spellings, ids, sizeof(ids) / sizeof(*(ids)), (const char *const[]){ __VA_ARGS__ })

#define LLAMA                                                                                                         \
	"{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},\"content\":" \
	"\" \"},"                                                                                                     \
	"{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "                         \
	"\",\"start\":1,\"stop\":0}]}"

static void byte_level_waits_for_whole_characters(void **state)
{
	static const char *const pieces[] = { "a", "\u00e4\u00b8", "\u0143", "\u0120b", "\u4e2d", NULL };
	static const int32_t ids[] = { 0, 1, 2, 3, 4 };

	/* e4 b8 ad is 中; the last piece has a character outside the alphabet and stands for itself. */
	STREAM("{\"type\":\"ByteLevel\"}", pieces, ids, "a", "a", "a中", "a中 b", "a中 b中", "a中 b中");
}

static void byte_level_replaces_broken_characters(void **state)
{
	static const char *const pieces[] = { "a", "\u00e4\u00b8", NULL };
	static const int32_t ids[] = { 1, 0, 1, 1 };

	STREAM("{\"type\":\"ByteLevel\"}", pieces, ids, "", "\ufffda", "\ufffda", "\ufffda\ufffd",
	       "\ufffda\ufffd\ufffd");
}

static void byte_fallback_decides_at_the_end_of_a_run(void **state)
{
	static const char *const pieces[] = { "\u2581a", "<0xE4>", "<0xB8>", "<0xAD>", "<0xFF>", NULL };
	static const int32_t good[] = { 0, 1, 2, 3, 0 };
	static const int32_t bad[] = { 0, 1, 2, 3, 4, 3, 0 };
	static const int32_t half[] = { 0, 1, 2 };

	STREAM(LLAMA, pieces, good, "a", "a", "a", "a", "a中 a", "a中 a");
	STREAM(LLAMA, pieces, bad, "a", "a", "a", "a", "a\ufffd\ufffd\ufffd\ufffd", "a\ufffd\ufffd\ufffd\ufffd\ufffd",
	       "a\ufffd\ufffd\ufffd\ufffd\ufffd a", "a\ufffd\ufffd\ufffd\ufffd\ufffd a");
	STREAM(LLAMA, pieces, half, "a", "a", "a", "a\ufffd\ufffd");
}

static void strip_after_fuse_takes_only_the_first_space(void **state)
{
	static const char *const pieces[] = { "\u2581", "\u2581\u2581a", "b", NULL };
	static const int32_t ids[] = { 0, 1, 2 };

	STREAM(LLAMA, pieces, ids, "", "  a", "  ab", "  ab");
}

static void strip_holds_back_what_may_be_the_end(void **state)
{
	static const char *const pieces[] = { "a_", "__", "b", NULL };
	static const int32_t inside[] = { 0, 1, 2 };
	static const int32_t at_end[] = { 2, 1 };
	static const char decoder[] = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
	                              "{\"type\":\"Strip\",\"content\":\"_\",\"start\":0,\"stop\":2}]}";

	STREAM(decoder, pieces, inside, "a", "a_", "a___b", "a___b");
	STREAM(decoder, pieces, at_end, "b", "b", "b");
}

static void replace_over_joined_text_holds_back_half_a_pattern(void **state)
{
	static const char *const pieces[] = { "xa", "b", "c", NULL };
	static const int32_t ids[] = { 0, 1, 0, 2 };
	static const char decoder[] = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
	                              "{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},\"content\":\"-\"}]}";

	STREAM(decoder, pieces, ids, "x", "x-", "x-x", "x-xac", "x-xac");
}

static void a_regex_replaces_too(void **state)
{
	static const char *const pieces[] = { "a1", "23", "b", NULL };
	static const int32_t ids[] = { 0, 1, 2 };
	static const char each[] = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[0-9]+\"},\"content\":\"N\"}";
	static const char joined[] = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
	                             "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[0-9]+\"},\"content\":\"N\"}]}";

	STREAM(each, pieces, ids, "aN", "aNN", "aNNb", "aNNb");
	STREAM(joined, pieces, ids, "", "", "", "aNb");
}

static void metaspace_drops_the_marks_of_the_first_token(void **state)
{
	static const char *const pieces[] = { "_a", "_b", NULL };
	static const int32_t ids[] = { 0, 1, 0 };

	STREAM("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}", pieces, ids, "a", "a b",
	       "a b a", "a b a");
	STREAM("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\"}", pieces, ids, " a", " a b",
	       " a b a", " a b a");
}

static void wordpiece_joins_and_cleans_up(void **state)
{
	static const char *const pieces[] = { "it", "##s", ",", "do not", NULL };
	static const int32_t ids[] = { 0, 1, 2, 3 };

	STREAM("{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", pieces, ids, "it", "its", "its,",
	       "its, don't", "its, don't");
	STREAM("{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":false}", pieces, ids, "it", "its", "its ,",
	       "its , do not", "its , do not");
}

static void bpe_suffixes_become_spaces_but_the_last(void **state)
{
	static const char *const pieces[] = { "a", "b</w>", NULL };
	static const int32_t ids[] = { 0, 1, 1 };

	STREAM("{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}", pieces, ids, "", "a", "ab ", "ab b");
}

static void ctc_drops_repeats_and_padding(void **state)
{
	static const char *const pieces[] = { "<pad>", "h", "|", "i", NULL };
	static const int32_t ids[] = { 1, 1, 0, 1, 2, 3 };

	STREAM("{\"type\":\"CTC\",\"pad_token\":\"<pad>\",\"word_delimiter_token\":\"|\",\"cleanup\":true}", pieces,
	       ids, "h", "h", "h", "hh", "hh ", "hh i", "hh i");
}

static void without_a_decoder_tokens_stand_apart(void **state)
{
	static const char *const pieces[] = { "a", "b", NULL };
	static const int32_t ids[] = { 0, 1 };

	STREAM("null", pieces, ids, "a", "a b", "a b");
}

static void ids_that_are_not_used_give_nothing(void **state)
{
	static const char *const pieces[] = { "a", "b", NULL };
	static const int32_t ids[] = { 0, -1, 7, 2000000000, 1 };

	STREAM("{\"type\":\"Fuse\"}", pieces, ids, "a", "a", "a", "a", "ab", "ab");
}

static void special_tokens_can_be_left_out(void **state)
{
	static const char *const pieces[] = { "a", NULL };
	static const int32_t ids[] = { 50, 0, 50 };
	CLEANUP(tok_freep) struct eng_tokenizer *tok = with_decoder("{\"type\":\"Fuse\"}", pieces);
	CLEANUP(base_buf_done) struct base_buf with = BASE_BUF_INIT(64);
	CLEANUP(base_buf_done) struct base_buf without = BASE_BUF_INIT(64);

	assert_int_equal(eng_tokenizer_decode(tok, ids, 3, false, &with), 0);
	assert_int_equal(eng_tokenizer_decode(tok, ids, 3, true, &without), 0);
	assert_string_equal(base_buf_text(&with), "<s>a<s>");
	assert_string_equal(base_buf_text(&without), "a");
}

static void expect_bytes(const char *decoder, const char *spelling, const char *bytes, size_t n)
{
	const char *const pieces[] = { "first", spelling, NULL };
	CLEANUP(tok_freep) struct eng_tokenizer *tok = with_decoder(decoder, pieces);
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(64);

	assert_int_equal(eng_tokenizer_token_bytes(tok, 1, &out), 0);
	assert_int_equal(out.len, n);
	assert_memory_equal(base_buf_text(&out), bytes, n);
}

static void token_bytes_are_those_in_the_middle_of_a_text(void **state)
{
	expect_bytes("{\"type\":\"ByteLevel\"}", "\u0120\u00e4\u00b8", " \xe4\xb8", 3);
	expect_bytes(LLAMA, "\u2581a", " a", 2);
	expect_bytes(LLAMA, "<0xE4>", "\xe4", 1);
	expect_bytes("{\"type\":\"Metaspace\",\"replacement\":\"\u2581\"}", "\u2581a", " a", 2);
	expect_bytes("{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", "##s", "s", 1);
	expect_bytes("{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", "x", " x", 2);
	expect_bytes("{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}", "b</w>", "b ", 2);
}

static void an_output_that_is_full_is_an_error(void **state)
{
	static const char *const pieces[] = { "abcdef", NULL };
	static const int32_t ids[] = { 0, 0 };
	CLEANUP(tok_freep) struct eng_tokenizer *tok = with_decoder("{\"type\":\"ByteLevel\"}", pieces);
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(8);

	assert_true(eng_tokenizer_decode(tok, ids, 2, false, &out) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_level_waits_for_whole_characters),
		cmocka_unit_test(byte_level_replaces_broken_characters),
		cmocka_unit_test(byte_fallback_decides_at_the_end_of_a_run),
		cmocka_unit_test(strip_after_fuse_takes_only_the_first_space),
		cmocka_unit_test(strip_holds_back_what_may_be_the_end),
		cmocka_unit_test(replace_over_joined_text_holds_back_half_a_pattern),
		cmocka_unit_test(a_regex_replaces_too),
		cmocka_unit_test(metaspace_drops_the_marks_of_the_first_token),
		cmocka_unit_test(wordpiece_joins_and_cleans_up),
		cmocka_unit_test(bpe_suffixes_become_spaces_but_the_last),
		cmocka_unit_test(ctc_drops_repeats_and_padding),
		cmocka_unit_test(without_a_decoder_tokens_stand_apart),
		cmocka_unit_test(ids_that_are_not_used_give_nothing),
		cmocka_unit_test(special_tokens_can_be_left_out),
		cmocka_unit_test(token_bytes_are_those_in_the_middle_of_a_text),
		cmocka_unit_test(an_output_that_is_full_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
