/* Each component of tokenizer.json by itself, in documents small enough to check by hand, and what a broken
 * document is answered with. */
#include "test.h"

#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "tokenizer/tokenizer.h"

static void tok_freep(struct eng_tokenizer **tok)
{
	eng_tokenizer_free(*tok);
}

static struct eng_tokenizer *parse(const char *json)
{
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };
	int r = eng_tokenizer_parse("t.json", json, strlen(json), &tok, &err);

	if (r < 0)
		fail_msg("%s\n%s", err_text(&err), json);
	return tok;
}

/* Pieces of the ids, in brackets: what the text became. */
static void pieces_of(const struct eng_tokenizer *tok, const char *text, size_t n, unsigned flags, struct base_buf *out)
{
	CLEANUP(eng_ids_done) struct eng_ids ids = { 0 };
	struct err err = { 0 };
	const char *p;
	size_t len;

	if (eng_tokenizer_encode(tok, text, n, flags, &ids, &err) < 0)
		fail_msg("\"%s\": %s", text, err_text(&err));
	for (size_t i = 0; i < ids.n; i++) {
		p = eng_tokenizer_piece(tok, ids.ids[i], &len);
		assert_non_null(p);
		(void)base_buf_printf(out, "[%.*s]", (int)len, p);
	}
}

static void expect_pieces_n(const char *json, const char *text, size_t n, unsigned flags, const char *expected)
{
	CLEANUP(tok_freep) struct eng_tokenizer *tok = parse(json);
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(1 << 16);

	pieces_of(tok, text, n, flags, &out);
	if (strcmp(base_buf_text(&out), expected) != 0)
		fail_msg("\"%s\": %s, expected %s\n%s", text, base_buf_text(&out), expected, json);
}

static void expect_pieces(const char *json, const char *text, const char *expected)
{
	expect_pieces_n(json, text, strlen(text), ENG_TOK_PARSE_SPECIAL, expected);
}

/* A document whose model knows exactly the words given as JSON members, everything else is "?". */
#define WORDS(parts, vocab) \
	"{" parts "\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0," vocab "}}}"
#define NORM(n) "\"normalizer\":" n ","
#define PRE(p) "\"pre_tokenizer\":" p ","

/* ---- normalizers ---- */

static void normalizers_change_the_text_as_their_names_say(void **state)
{
	static const struct {
		const char *normalizer, *vocab, *text, *expected;
	} cases[] = {
		{ "{\"type\":\"NFC\"}", "\"\\u00e9\":1", "e\u0301", "[\u00e9]" },
		{ "{\"type\":\"NFC\"}", "\"\\uac00\":1", "\u1100\u1161", "[\uac00]" },
		{ "{\"type\":\"NFD\"}", "\"e\\u0301\":1", "\u00e9", "[e\u0301]" },
		{ "{\"type\":\"NFKC\"}", "\"fi1\":1", "\ufb01\uff11", "[fi1]" },
		{ "{\"type\":\"NFKD\"}", "\"e\\u03012\":1", "\u00e9\u00b2", "[e\u03012]" },
		{ "{\"type\":\"Lowercase\"}", "\"\\u00e4i\\u0307\":1", "\u00c4\u0130", "[\u00e4i\u0307]" },
		{ "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", "\"a b\":1", " \t\u3000a b\n",
		  "[a b]" },
		{ "{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true}", "\" a\":1", " a ", "[ a]" },
		{ "{\"type\":\"StripAccents\"}", "\"e\":1", "e\u0301\u0302", "[e]" },
		{ "{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},\"content\":\"x\"}", "\"xcx\":1", "abcab",
		  "[xcx]" },
		{ "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[0-9]+\"},\"content\":\"N\"}", "\"aNbN\":1", "a12b3",
		  "[aNbN]" },
		{ "{\"type\":\"Prepend\",\"prepend\":\"_\"}", "\"_a\":1", "a", "[_a]" },
		{ "{\"type\":\"Nmt\"}", "\"a b\":1", "a\u200bb\x01", "[a b]" },
		{ "{\"type\":\"ByteLevel\"}", "\"\\u0120a\":1", " a", "[\u0120a]" },
		{ "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},{\"type\":\"Prepend\",\"prepend\":"
		  "\"X\"}]}",
		  "\"Xa\":1", "A", "[Xa]" },
		{ "{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":"
		  "null,"
		  "\"lowercase\":true}",
		  "\" \\u4e2d  \\u6587 e\":1", "\u4e2d\u6587\u00c9\x01", "[ \u4e2d  \u6587 e]" },
		{ "{\"type\":\"BertNormalizer\",\"clean_text\":false,\"handle_chinese_chars\":false,\"strip_accents\":"
		  "false,"
		  "\"lowercase\":true}",
		  "\"\\u00e9\":1", "\u00c9", "[\u00e9]" },
		{ "null", "\"A\":1", "A", "[A]" },
	};
	char json[1024];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		(void)snprintf(json, sizeof(json), WORDS("\"normalizer\":%s,", "%s"), cases[i].normalizer,
		               cases[i].vocab);
		expect_pieces(json, cases[i].text, cases[i].expected);
	}
}

static void the_precompiled_map_replaces_what_its_trie_finds(void **state)
{
	/* A double array by hand: 'A' (0x41) -> "a". Root offset 0x100 puts the unit of 'A' at 0x141; its leaf
	 * is at 0x141 ^ 2 = 0x143 and holds the value 0. */
	static unsigned char map[4 + 0x144 * 4 + 2];
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	CLEANUP(base_buf_done) struct base_buf json = BASE_BUF_INIT(1 << 16);
	size_t n = sizeof(map);

	memset(map, 0, n);
	map[0] = 0x10;
	map[1] = 0x05;     /* 0x144 * 4 = 0x510 bytes of trie */
	map[4 + 2] = 0x04; /* root: offset 0x100 << 10 = 0x40000 */
	map[4 + 0x141 * 4] = 0x41;
	map[4 + 0x141 * 4 + 1] = 0x01 | 2 << 2; /* has a leaf, offset 2 */
	map[n - 2] = 'a';
	(void)base_buf_puts(&json, "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
	for (size_t i = 0; i < n; i += 3) {
		unsigned v = map[i] << 16 | (i + 1 < n ? map[i + 1] << 8 : 0) | (i + 2 < n ? map[i + 2] : 0);

		(void)base_buf_putc(&json, digits[v >> 18]);
		(void)base_buf_putc(&json, digits[v >> 12 & 63]);
		(void)base_buf_putc(&json, i + 1 < n ? digits[v >> 6 & 63] : '=');
		(void)base_buf_putc(&json, i + 2 < n ? digits[v & 63] : '=');
	}
	(void)base_buf_puts(
	        &json, "\"},\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"aBa\":1}}}");
	expect_pieces(base_buf_text(&json), "ABA", "[aBa]");
}

/* ---- pre-tokenizers ---- */

static void splits_follow_their_behaviour(void **state)
{
	static const struct {
		const char *behavior, *invert, *expected;
	} cases[] = {
		{ "Removed", "false", "[a][b]" },
		{ "Isolated", "false", "[a][-][-][b][-]" },
		{ "MergedWithPrevious", "false", "[a-][-][b-]" },
		{ "MergedWithNext", "false", "[a][-][-b][-]" },
		{ "Contiguous", "false", "[a][--][b][-]" },
		{ "Removed", "true", "[-][-][-]" },
		{ "Isolated", "true", "[a][-][-][b][-]" },
	};
	char json[1024];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		for (int regex = 0; regex < 2; regex++) {
			(void)snprintf(json, sizeof(json),
			               WORDS("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"%s\":\"-\"},"
			                     "\"behavior\":\"%s\",\"invert\":%s},",
			                     "\"a\":1,\"b\":2,\"-\":3,\"--\":4,\"a-\":5,\"b-\":6,\"-b\":7"),
			               regex ? "Regex" : "String", cases[i].behavior, cases[i].invert);
			expect_pieces(json, "a--b-", cases[i].expected);
		}
	}
}

static void pretokenizers_cut_where_their_names_say(void **state)
{
	static const struct {
		const char *pre, *vocab, *text, *expected;
	} cases[] = {
		{ "{\"type\":\"Whitespace\"}", "\"a_1\":1,\"+-\":2,\"b\":3", "a_1+- \nb", "[a_1][+-][b]" },
		{ "{\"type\":\"WhitespaceSplit\"}", "\"a+\":1,\"b\":2", " a+\u3000b ", "[a+][b]" },
		{ "{\"type\":\"BertPreTokenizer\"}", "\"a\":1,\",\":2,\"$\":3,\"\\u3002\":4", "a,, $a\u3002",
		  "[a][,][,][$][a][\u3002]" },
		{ "{\"type\":\"Punctuation\"}", "\"a\":1,\"!\":2", "a!!", "[a][!][!]" },
		{ "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "\"a\":1,\"!?\":2", "a!?", "[a][!?]" },
		{ "{\"type\":\"Digits\",\"individual_digits\":true}", "\"a\":1,\"1\":2,\"\\u00bd\":3", "a1\u00bd",
		  "[a][1][\u00bd]" },
		{ "{\"type\":\"Digits\",\"individual_digits\":false}", "\"a\":1,\"12\":2", "a12a", "[a][12][a]" },
		{ "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"|\"}", "\"a\":1,\"b\":2", "a||b", "[a][b]" },
		{ "{\"type\":\"FixedLength\",\"length\":2}", "\"a\\u4e2d\":1,\"b\":2", "a\u4e2db", "[a\u4e2d][b]" },
		{ "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}",
		  "\"\\u0120it\":1,\"'s\":2,\"\\u00c3\\u00a9\":3,\"\\u0120\":4", "it's \u00e9", "[\u0120it]['s][?]" },
		{ "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", "\"a\\u0120b\":1", "a b",
		  "[a\u0120b]" },
		{ "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}", "\"_a\":1,\"_\":2",
		  "a  a", "[_a][_][_a]" },
		{ "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":true}", "\"_a\":1", "a a",
		  "[_a][_a]" },
		{ "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false,\"prepend_scheme\":"
		  "\"never\"}",
		  "\"_a\":1,\"a\":2", "a a", "[a][_a]" },
		{ "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\",\"split\":false}",
		  "\"_a_a\":1", " a a", "[_a_a]" },
		{ "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":\"Digits\","
		  "\"individual_digits\":true}]}",
		  "\"a\":1,\"1\":2", "a1 1", "[a][1][1]" },
	};
	char json[1024];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		(void)snprintf(json, sizeof(json), WORDS("\"pre_tokenizer\":%s,", "%s"), cases[i].pre, cases[i].vocab);
		expect_pieces(json, cases[i].text, cases[i].expected);
	}
}

static void metaspace_first_marks_only_the_beginning_of_the_text(void **state)
{
	static const char json[] =
	        WORDS("\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"special\":true}]," PRE(
	                      "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}"),
	              "\"_a\":1,\"a\":2");

	expect_pieces(json, "a<s>a", "[_a][<s>][a]");
	expect_pieces(json, "<s>a", "[<s>][a]");
}

/* ---- models ---- */

#define BPE(opts, vocab, merges) "{\"model\":{\"type\":\"BPE\"," opts "\"vocab\":{" vocab "},\"merges\":[" merges "]}}"

static void merges_come_as_texts_or_as_pairs(void **state)
{
	expect_pieces(BPE("", "\"a\":0,\"b\":1,\"ab\":2", "\"a b\""), "abab", "[ab][ab]");
	expect_pieces(BPE("", "\"a\":0,\"b\":1,\"ab\":2", "[\"a\",\"b\"]"), "abab", "[ab][ab]");
	expect_pieces(BPE("", "\"a\":0,\" \":1,\"a \":2", "[\"a\",\" \"]"), "a a", "[a ][a]");
	expect_pieces(BPE("", "\"a\":0,\"b\":1,\"ab\":2", "\"#version: 0.2\",\"a b\""), "ab", "[ab]");
}

static void the_lowest_rank_merges_first_and_the_leftmost_of_equals(void **state)
{
	expect_pieces(BPE("", "\"a\":0,\"b\":1,\"c\":2,\"bc\":3,\"ab\":4", "\"b c\",\"a b\""), "abc", "[a][bc]");
	expect_pieces(BPE("", "\"a\":0,\"aa\":1", "\"a a\""), "aaa", "[aa][a]");
}

static void unknown_characters_vanish_or_become_the_unknown_token(void **state)
{
	expect_pieces(BPE("", "\"a\":0", ""), "axya", "[a][a]");
	expect_pieces(BPE("\"unk_token\":\"?\",", "\"?\":1,\"a\":0", ""), "axya", "[a][?][?][a]");
	expect_pieces(BPE("\"unk_token\":\"?\",\"fuse_unk\":true,", "\"?\":1,\"a\":0", ""), "axya", "[a][?][a]");
	expect_pieces(
	        BPE("\"unk_token\":\"?\",\"byte_fallback\":true,", "\"?\":1,\"a\":0,\"<0xC3>\":2,\"<0xA9>\":3", ""),
	        "a\u00e9\u00e8", "[a][<0xC3>][<0xA9>][?]");
}

static void ignore_merges_takes_whole_words_first(void **state)
{
	expect_pieces(BPE("\"ignore_merges\":true,", "\"a\":0,\"b\":1,\"c\":2,\"abc\":3", ""), "abc", "[abc]");
	expect_pieces(BPE("\"ignore_merges\":false,", "\"a\":0,\"b\":1,\"c\":2,\"abc\":3", ""), "abc", "[a][b][c]");
}

static void prefixes_and_suffixes_spell_the_place_in_the_word(void **state)
{
	expect_pieces(BPE("\"continuing_subword_prefix\":\"##\",", "\"a\":0,\"##b\":1,\"##c\":2,\"ab\":3", "\"a ##b\""),
	              "abc", "[ab][##c]");
	expect_pieces(
	        BPE("\"end_of_word_suffix\":\"</w>\",", "\"a\":0,\"b\":1,\"b</w>\":2,\"ab</w>\":3", "\"a b</w>\""),
	        "ab", "[ab</w>]");
}

#define UNIGRAM(opts, vocab) "{\"model\":{\"type\":\"Unigram\"," opts "\"vocab\":[" vocab "]}}"

static void unigram_takes_the_best_sum_of_scores(void **state)
{
	static const char vocab[] =
	        UNIGRAM("\"unk_id\":0,", "[\"?\",0],[\"a\",-1],[\"b\",-1],[\"ab\",-1.5],[\"abc\",-9],[\"c\",-1]");

	expect_pieces(vocab, "abc", "[ab][c]");
	expect_pieces(vocab, "aba", "[ab][a]");
	expect_pieces(vocab, "xya", "[?][a]"); /* unknowns next to each other are one */
	expect_pieces(UNIGRAM("\"unk_id\":0,\"byte_fallback\":true,", "[\"?\",0],[\"<0x78>\",-1],[\"a\",-1]"), "xa",
	              "[<0x78>][a]");
}

static void unigram_without_an_unknown_token_says_so(void **state)
{
	static const char json[] = UNIGRAM("", "[\"a\",-1]");
	CLEANUP(tok_freep) struct eng_tokenizer *tok = parse(json);
	struct eng_ids ids = { 0 };
	struct err err = { 0 };

	assert_int_equal(eng_tokenizer_encode(tok, "ab", 2, 0, &ids, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "unknown token"));
	assert_int_equal(ids.n, 0);
	eng_ids_done(&ids);
}

static void wordpiece_takes_the_longest_pieces_or_gives_up(void **state)
{
	static const char json[] =
	        "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\","
	        "\"max_input_chars_per_word\":8,\"vocab\":{\"[UNK]\":0,\"un\":1,\"##aff\":2,\"##able\":3,\"u\":4,"
	        "\"##\u00e9\":5}}}";

	expect_pieces(json, "unaffab", "[[UNK]]");
	expect_pieces(json, "unaffable", "[[UNK]]"); /* more than 8 characters */
	expect_pieces(json, "unable", "[un][##able]");
	expect_pieces(json, "un\u00e9aff", "[un][##\u00e9][##aff]");
}

/* ---- added tokens ---- */

#define ADDED(list) "\"added_tokens\":[" list "],"
#define TOKEN(id, content, more) "{\"id\":" #id ",\"content\":\"" content "\"" more "}"

static void added_tokens_match_longest_first(void **state)
{
	expect_pieces(WORDS(ADDED(TOKEN(5, "<a>", "") "," TOKEN(6, "<a><b>", "") "," TOKEN(7, "<b>", "")), "\"x\":1"),
	              "<a><b><a>x<b>", "[<a><b>][<a>][x][<b>]");
}

static void added_tokens_may_take_spaces_and_want_word_borders(void **state)
{
	expect_pieces(WORDS(ADDED(TOKEN(5, "m", ",\"lstrip\":true")), "\"a\":1,\"b\":2,\" b\":3"), "a \tm b",
	              "[a][m][ b]");
	expect_pieces(WORDS(ADDED(TOKEN(5, "m", ",\"rstrip\":true")), "\"a \":1,\"b\":2"), "a m\n b", "[a ][m][b]");
	expect_pieces(WORDS(ADDED(TOKEN(5, "m", ",\"single_word\":true")), "\"xm\":1,\" \":2"), "xm m", "[?][m]");
	expect_pieces(WORDS(ADDED(TOKEN(5, "m", ",\"single_word\":true")), "\"xm\":1"), "xm", "[xm]");
}

static void normalized_added_tokens_match_in_normalized_text(void **state)
{
	expect_pieces(WORDS(ADDED(TOKEN(5, "YES", ",\"normalized\":true") "," TOKEN(6, "NO", ",\"normalized\":false"))
	                            NORM("{\"type\":\"Lowercase\"}"),
	                    "\"a\":1,\"no\":2"),
	              "aYesAnoNO", "[a][YES][?][NO]");
}

static void special_tokens_are_text_unless_asked_for(void **state)
{
	static const char json[] =
	        WORDS(ADDED(TOKEN(5, "<s>", ",\"special\":true") "," TOKEN(6, "<n>", "")), "\"<s>x\":1");

	expect_pieces_n(json, "<s>x<n>", 7, ENG_TOK_PARSE_SPECIAL, "[<s>][?][<n>]");
	expect_pieces_n(json, "<s>x<n>", 7, 0, "[<s>x][<n>]");
}

/* ---- post-processors ---- */

static void post_processors_put_ids_around_the_text(void **state)
{
	static const char bert[] =
	        WORDS("\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],\"cls\":[\"[CLS]\",1]},",
	              "\"[CLS]\":1,\"[SEP]\":2,\"a\":3");
	static const char template[] =
	        WORDS("\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
	              "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\",\"type_id\":0}},"
	              "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"E\",\"type_id\":0}}],"
	              "\"pair\":[],"
	              "\"special_tokens\":{\"B\":{\"id\":\"B\",\"ids\":[1,1],\"tokens\":[\"b\",\"b\"]},"
	              "\"E\":{\"id\":\"E\",\"ids\":[2],\"tokens\":[\"e\"]}}}]},",
	              "\"b\":1,\"e\":2,\"a\":3");

	expect_pieces_n(bert, "a", 1, ENG_TOK_ADD_SPECIAL, "[[CLS]][a][[SEP]]");
	expect_pieces_n(bert, "a", 1, 0, "[a]");
	expect_pieces_n(template, "a", 1, ENG_TOK_ADD_SPECIAL, "[b][b][a][e]");
	expect_pieces_n(template, "", 0, ENG_TOK_ADD_SPECIAL, "[b][b][e]");
}

/* ---- questions ---- */

static void pieces_and_ids_answer_each_other(void **state)
{
	CLEANUP(tok_freep)
	struct eng_tokenizer *tok = parse(WORDS(ADDED(TOKEN(9, "<s>", ",\"special\":true")), "\"a\":3,\"\\u0000\":4"));
	size_t n;

	assert_int_equal(eng_tokenizer_n_vocab(tok), 10);
	assert_int_equal(eng_tokenizer_find(tok, "a", 1), 3);
	assert_int_equal(eng_tokenizer_find(tok, "<s>", 3), 9);
	assert_int_equal(eng_tokenizer_find(tok, "\0", 1), 4);
	assert_int_equal(eng_tokenizer_find(tok, "nope", 4), -1);
	assert_memory_equal(eng_tokenizer_piece(tok, 9, &n), "<s>", 3);
	assert_null(eng_tokenizer_piece(tok, 5, &n));
	assert_null(eng_tokenizer_piece(tok, -1, &n));
	assert_null(eng_tokenizer_piece(tok, INT32_MAX, &n));
	assert_true(eng_tokenizer_is_special(tok, 9));
	assert_false(eng_tokenizer_is_special(tok, 3));
	assert_false(eng_tokenizer_is_special(tok, -5));
	assert_false(eng_tokenizer_is_special(tok, 1 << 30));
}

static void invalid_bytes_are_replaced_before_anything_else(void **state)
{
	expect_pieces_n(WORDS("", "\"a\\ufffdb\":1"),
	                "a\xff"
	                "b",
	                3, 0, "[a\ufffdb]");
	expect_pieces_n(WORDS("", "\"\\ufffd\\ufffdb\":1"),
	                "\xe4\xb8\xf0"
	                "b",
	                4, 0, "[\ufffd\ufffdb]");
}

/* ---- errors ---- */

static void expect_error(const char *json, int code, const char *const words[4])
{
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };
	int r = eng_tokenizer_parse("t.json", json, strlen(json), &tok, &err);

	if (r != code)
		fail_msg("%s: %d (%s), expected %d", json, r, err.msg, code);
	assert_null(tok);
	for (size_t i = 0; i < 4 && words[i]; i++) {
		if (!strstr(err.msg, words[i]))
			fail_msg("\"%s\" does not say \"%s\"\n%s", err.msg, words[i], json);
	}
}

static void broken_documents_are_refused_with_file_field_and_reason(void **state)
{
	static const struct {
		const char *json;
		int code;
		const char *words[4];
	} cases[] = {
		{ "", -EBADMSG, { "t.json" } },
		{ "[]", -EINVAL, { "t.json", "an object" } },
		{ "{}", -ENOENT, { "t.json", "model", "missing" } },
		{ "{\"version\":\"2.0\",\"model\":{}}", -ENOTSUP, { "version", "2.0" } },
		{ "{\"model\":7}", -EINVAL, { "model", "an object" } },
		{ "{\"model\":{\"type\":\"Magic\"}}", -ENOTSUP, { "t.json", "model", "Magic" } },
		{ "{\"model\":{\"type\":\"BPE\"}}", -EINVAL, { "model", "vocab", "missing" } },
		{ "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", -EINVAL, { "merges" } },
		{ "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", -EINVAL, { "model.vocab", "object" } },
		{ BPE("", "\"a\":-1", ""), -ERANGE, { "model.vocab", "negative" } },
		{ BPE("", "\"a\":1.5", ""), -EINVAL, { "model.vocab", "integer" } },
		{ BPE("", "\"a\":\"1\"", ""), -EINVAL, { "model.vocab", "integer" } },
		{ BPE("", "\"a\":99999999999999999999", ""), -ERANGE, { "model.vocab", "too large" } },
		{ BPE("", "\"a\":4194304", ""), -ERANGE, { "model.vocab", "too large" } },
		{ BPE("", "\"a\":1,\"b\":1", ""), -EBADMSG, { "model.vocab", "\"b\"", "id 1" } },
		{ BPE("", "\"a\":1,\"a\":2", ""), -EBADMSG, { "model.vocab", "\"a\"", "twice" } },
		{ BPE("", "\"a\":0", "\"a b\""), -EBADMSG, { "model.merges", "\"b\"", "not in the vocabulary" } },
		{ BPE("", "\"a\":0,\"b\":1", "\"a b\""), -EBADMSG, { "model.merges", "together" } },
		{ BPE("", "\"a\":0", "\"aa\""), -EBADMSG, { "model.merges", "space" } },
		{ BPE("", "\"a\":0", "[\"a\"]"), -EBADMSG, { "model.merges", "two pieces" } },
		{ BPE("", "\"a\":0", "[\"a\",\"a\",\"a\"]"), -EBADMSG, { "model.merges" } },
		{ BPE("", "\"a\":0", "7"), -EINVAL, { "model.merges", "string" } },
		{ BPE("", "\"\\ud800\":0", ""), -EBADMSG, { "model.vocab", "surrogate" } },
		{ BPE("", "\"\\q\":0", ""), -EBADMSG, { "model.vocab", "escape" } },
		{ BPE("", "\"a\":0,", ""), -EINVAL, { "model.vocab", "string" } },
		{ BPE("", "\"\xff\":0", ""), -EBADMSG, { "model.vocab", "UTF-8" } },
		{ BPE("\"dropout\":0.1,", "\"a\":0", ""), -ENOTSUP, { "dropout" } },
		{ BPE("\"fuse_unk\":7,", "\"a\":0", ""), -EINVAL, { "model", "fuse_unk" } },
		{ UNIGRAM("\"unk_id\":7,", "[\"a\",0]"), -ERANGE, { "unk_id", "7" } },
		{ UNIGRAM("", "[\"a\",\"x\"]"), -EINVAL, { "model.vocab", "number" } },
		{ UNIGRAM("", "[\"a\"]"), -EBADMSG, { "model.vocab" } },
		{ WORDS(NORM("{\"type\":\"Rot13\"}"), "\"a\":1"), -ENOTSUP, { "t.json", "normalizer", "Rot13" } },
		{ WORDS(NORM("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Nope\"}]}"),
		        "\"a\":1"),
		  -ENOTSUP,
		  { "normalizer.normalizers[1]", "Nope" } },
		{ WORDS(NORM("{}"), "\"a\":1"), -ENOENT, { "normalizer", "type" } },
		{ WORDS(NORM("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}"), "\"a\":1"),
		  -EINVAL,
		  { "normalizer" } },
		{ WORDS(NORM("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"////\"}"), "\"a\":1"),
		  -EBADMSG,
		  { "charsmap" } },
		{ WORDS(PRE("{\"type\":\"UnicodeScripts\"}"), "\"a\":1"),
		  -ENOTSUP,
		  { "pre_tokenizer", "UnicodeScripts" } },
		{ WORDS(PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Odd\"}"), "\"a\":1"),
		  -ENOTSUP,
		  { "Odd" } },
		{ WORDS(PRE("{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"), "\"a\":1"),
		  -EINVAL,
		  { "replacement" } },
		{ WORDS("\"decoder\":{\"type\":\"Nope\"},", "\"a\":1"), -ENOTSUP, { "decoder", "Nope" } },
		{ WORDS("\"post_processor\":{\"type\":\"Nope\"},", "\"a\":1"), -ENOTSUP, { "post_processor", "Nope" } },
		{ WORDS("\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"s\",99],\"cls\":[\"c\",0]},",
		        "\"a\":1"),
		  -ERANGE,
		  { "post_processor", "99" } },
		{ WORDS(ADDED(TOKEN(-1, "x", "")), "\"a\":1"), -ERANGE, { "added_tokens[0]", "-1" } },
		{ WORDS(ADDED(TOKEN(99999999, "x", "")), "\"a\":1"), -ERANGE, { "added_tokens[0]" } },
		{ WORDS(ADDED(TOKEN(5, "x", "") "," TOKEN(5, "y", "")), "\"a\":1"),
		  -EBADMSG,
		  { "added_tokens", "same id 5" } },
		{ WORDS(ADDED("{\"id\":5}"), "\"a\":1"), -ENOENT, { "added_tokens[0]", "content" } },
		{ WORDS(ADDED("{\"content\":\"x\"}"), "\"a\":1"), -ENOENT, { "added_tokens[0]", "id" } },
		{ WORDS(ADDED("7"), "\"a\":1"), -EINVAL, { "added_tokens[0]" } },
		{ "{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{}}}", -EBADMSG, { "empty" } },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		expect_error(cases[i].json, cases[i].code, cases[i].words);
}

static void every_truncation_of_a_document_is_refused(void **state)
{
	static const char json[] = WORDS(ADDED(TOKEN(5, "<s>", ",\"special\":true")) NORM("{\"type\":\"NFC\"}")
	                                         PRE("{\"type\":\"Whitespace\"}"),
	                                 "\"a\":1,\"\\u4e2d\":2");
	struct eng_tokenizer *tok = NULL;

	for (size_t n = 0; n < sizeof(json) - 1; n++) {
		struct err err = { 0 };

		assert_true(eng_tokenizer_parse("t.json", json, n, &tok, &err) < 0);
		assert_null(tok);
		assert_non_null(strstr(err.msg, "t.json"));
	}
}

static void a_missing_file_is_named(void **state)
{
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };

	assert_int_equal(eng_tokenizer_open("/nonexistent/tokenizer.json", &tok, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nonexistent/tokenizer.json"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(normalizers_change_the_text_as_their_names_say),
		cmocka_unit_test(the_precompiled_map_replaces_what_its_trie_finds),
		cmocka_unit_test(splits_follow_their_behaviour),
		cmocka_unit_test(pretokenizers_cut_where_their_names_say),
		cmocka_unit_test(metaspace_first_marks_only_the_beginning_of_the_text),
		cmocka_unit_test(merges_come_as_texts_or_as_pairs),
		cmocka_unit_test(the_lowest_rank_merges_first_and_the_leftmost_of_equals),
		cmocka_unit_test(unknown_characters_vanish_or_become_the_unknown_token),
		cmocka_unit_test(ignore_merges_takes_whole_words_first),
		cmocka_unit_test(prefixes_and_suffixes_spell_the_place_in_the_word),
		cmocka_unit_test(unigram_takes_the_best_sum_of_scores),
		cmocka_unit_test(unigram_without_an_unknown_token_says_so),
		cmocka_unit_test(wordpiece_takes_the_longest_pieces_or_gives_up),
		cmocka_unit_test(added_tokens_match_longest_first),
		cmocka_unit_test(added_tokens_may_take_spaces_and_want_word_borders),
		cmocka_unit_test(normalized_added_tokens_match_in_normalized_text),
		cmocka_unit_test(special_tokens_are_text_unless_asked_for),
		cmocka_unit_test(post_processors_put_ids_around_the_text),
		cmocka_unit_test(pieces_and_ids_answer_each_other),
		cmocka_unit_test(invalid_bytes_are_replaced_before_anything_else),
		cmocka_unit_test(broken_documents_are_refused_with_file_field_and_reason),
		cmocka_unit_test(every_truncation_of_a_document_is_refused),
		cmocka_unit_test(a_missing_file_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
