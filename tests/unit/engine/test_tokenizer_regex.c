/* The regex translation, seen through splits: what Oniguruma's syntax means there is what pieces come out. */
#include "test.h"

#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

static void scratch_donep(struct tok_scratch *s)
{
	tok_scratch_done(s);
}

/* All matches of the pattern in the text, in brackets. */
static void expect_matches(const char *pattern, const char *text, const char *expected)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(4096);
	CLEANUP(scratch_donep) struct tok_scratch s;
	struct tok_regex *re = NULL;
	struct err err = { 0 };
	size_t at = 0, b, e, n = strlen(text);

	tok_scratch_init(&s);
	if (tok_regex_compile("test", pattern, strlen(pattern), &re, &err) < 0)
		fail_msg("%s: %s", pattern, err_text(&err));
	while (at <= n && tok_regex_find(re, &s, text, n, at, &b, &e, &err) == 1) {
		(void)base_buf_printf(&out, "[%.*s]", (int)(e - b), text + b);
		at = e > b ? e : e + 1;
	}
	if (strcmp(base_buf_text(&out), expected) != 0)
		fail_msg("%s on \"%s\": %s, expected %s (PCRE2: %s)", pattern, text, base_buf_text(&out), expected,
		         tok_regex_translated(re));
	tok_regex_free(re);
}

static void expect_refused(const char *pattern, int code, const char *word)
{
	struct tok_regex *re = NULL;
	struct err err = { 0 };
	int r = tok_regex_compile("test", pattern, strlen(pattern), &re, &err);

	if (r != code)
		fail_msg("%s: %d (%s), expected %d", pattern, r, err_text(&err), code);
	assert_null(re);
	if (!strstr(err.msg, word) || !strstr(err.msg, "test"))
		fail_msg("%s: \"%s\" does not say \"%s\"", pattern, err.msg, word);
}

static void white_space_is_unicodes(void **state)
{
	expect_matches("\\s+", "a \t\n\v\fb", "[ \t\n\v\f]");
	expect_matches("\\s", "\u00a0\u3000\xc2\x85\u2028", "[\u00a0][\u3000][\xc2\x85][\u2028]");
	expect_matches("\\s", "\u180e\u200b\ufeff", ""); /* PCRE2 alone would take the first */
	expect_matches("\\S+", "ab\u180ec d", "[ab\u180ec][d]");
	expect_matches("[^\\S\\n]+", "a \t\nb", "[ \t]");
	expect_matches("[\\s]+", "a \u3000b", "[ \u3000]");
}

static void word_characters_include_marks_and_connectors(void **state)
{
	expect_matches("\\w+", "e\u0301_x\u203fy-1\u0967", "[e\u0301_x\u203fy][1\u0967]");
	expect_matches("[^\\w\\s]+", "a+-\u0301 b", "[+-]");
	expect_matches("\\bn\u0303a\\b", "xn\u0303a n\u0303a", "[n\u0303a]");
	expect_matches("[\\W]", "a-b", "[-]");
}

static void h_is_a_hexadecimal_digit(void **state)
{
	expect_matches("\\h+", "xyz 1aF \t", "[1aF]");
	expect_matches("[\\H]", "a\tg", "[\t][g]");
}

static void contractions_ignore_case_as_the_reference_does(void **state)
{
	expect_matches("(?i:'s|'t|'ll)", "'S 'T 'Ll \'\u017f", "['S]['T]['Ll]['\u017f]");
}

static void nested_classes_are_unions(void **state)
{
	expect_matches("[a[bc]]+", "xabcx", "[abc]");
	expect_matches(" ?[^(\\s|[.,!?…。，、।۔،])]+", "(a b,c|d)e", "[a][ b][c][d][e]");
	expect_matches("[a[^b]]", "b", "");
	expect_matches("[a[^b]]+", "abcd", "[a][cd]");
}

static void intersections_are_taken(void **state)
{
	expect_matches("[a-z&&[^aeiou]]+", "hello", "[h][ll]");
	expect_matches("[\\p{L}&&[^\\p{Han}]]+", "abc中文def", "[abc][def]");
	expect_matches("[^a-z&&[aeiou]]+", "aXbe", "[Xb]");
}

static void properties_have_long_names(void **state)
{
	expect_matches("\\p{Letter}+", "ab1", "[ab]");
	expect_matches("\\p{uppercase_letter}\\p{Ll}", "aBc", "[Bc]");
	expect_matches("\\p{^L}+", "a12b", "[12]");
	expect_matches("\\P{L}+", "a12b", "[12]");
	expect_matches("\\p{Han}+", "a漢字ー", "[漢字]"); /* by Script, not Script_Extensions */
	expect_matches("\\p{Alnum}+", "a1-", "[a1]");
	expect_matches("[[:alpha:][:digit:]]+", "-a1-", "[a1]");
	expect_matches("[[:^space:]]+", "a b", "[a][b]");
	expect_refused("\\p{Nonsense}", -ENOTSUP, "Nonsense");
}

static void quantifiers_mean_what_they_mean_there(void **state)
{
	expect_matches("\\p{N}{1,2}+", "12345", "[12345]"); /* a repeat of a repeat, not possessive */
	expect_matches("a++b", "aab", "[aab]");
	expect_matches("[^b]?+b", "bab", "[b][ab]");
	expect_matches("a{,2}b", "aaab", "[aab]");
	expect_matches("a{2}?b", "b aab", "[b][aab]"); /* optional, not lazy */
	expect_matches("a{x}", "a{x}", "[a{x}]");
	expect_matches("ab**", "abb", "[abb]");
	expect_refused("*a", -EINVAL, "nothing to repeat");
}

static void lines_and_options(void **state)
{
	expect_matches("^a", "a\na", "[a][a]");
	expect_matches("a$", "a\na", "[a][a]");
	expect_matches("(?m:.)+", "a\nb", "[a\nb]"); /* m lets the dot match newlines */
	expect_matches(".+", "a\nb", "[a][b]");
	expect_matches("(?i)ab", "AB", "[AB]");
	expect_matches("(?<name>a)b", "ab", "[ab]");
	expect_matches("a(?#comment)b", "ab", "[ab]");
	expect_refused("a(?i)b", -ENOTSUP, "option");
	expect_refused("(?x: a)", -ENOTSUP, "group");
	expect_refused("(?~ab)", -ENOTSUP, "group");
}

static void escapes_are_characters(void **state)
{
	expect_matches("\\u4e2d", "中", "[中]");
	expect_matches("\\x{4e2d}\\x41", "中A", "[中A]");
	expect_matches("[\\u4e00-\\u9fa5]+", "a中文b", "[中文]");
	expect_matches("[\\-\\]\\[\\\\^]+", "a-]b[\\^", "[-]][[\\^]");
	expect_matches("[a-]+", "b-a", "[-a]");
	expect_matches("[]a]+", "b]a", "[]a]");
	expect_matches("\\v\\t", "\v\t", "[\v\t]");
	expect_refused("\\xff", -ENOTSUP, "byte");
	expect_refused("\\y", -ENOTSUP, "escape");
}

static void broken_patterns_are_refused(void **state)
{
	expect_refused("[a", -EINVAL, "without ]");
	expect_refused("(a", -EINVAL, "without )");
	expect_refused("a)", -EINVAL, "without (");
	expect_refused("\\", -EINVAL, "backslash");
	expect_refused("\\p{L", -EINVAL, "without }");
	expect_refused("(?<=a*)b", -ENOTSUP, "lookbehind");
}

static void a_runaway_pattern_is_an_error_not_a_hang(void **state)
{
	CLEANUP(scratch_donep) struct tok_scratch s;
	struct tok_regex *re = NULL;
	struct err err = { 0 };
	size_t b, e;

	tok_scratch_init(&s);
	assert_int_equal(tok_regex_compile("test", "(?:(a+)+)+$|b\\1", 16, &re, NULL), 0);
	assert_true(tok_regex_find(re, &s, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", 55, 0, &b, &e,
	                           &err) < 0);
	assert_non_null(strstr(err.msg, "limit"));
	tok_regex_free(re);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(white_space_is_unicodes),
		cmocka_unit_test(word_characters_include_marks_and_connectors),
		cmocka_unit_test(h_is_a_hexadecimal_digit),
		cmocka_unit_test(contractions_ignore_case_as_the_reference_does),
		cmocka_unit_test(nested_classes_are_unions),
		cmocka_unit_test(intersections_are_taken),
		cmocka_unit_test(properties_have_long_names),
		cmocka_unit_test(quantifiers_mean_what_they_mean_there),
		cmocka_unit_test(lines_and_options),
		cmocka_unit_test(escapes_are_characters),
		cmocka_unit_test(broken_patterns_are_refused),
		cmocka_unit_test(a_runaway_pattern_is_an_error_not_a_hang),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
