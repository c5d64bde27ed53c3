/* Markdown for the terminal: what it looks like, that it does not depend on the pieces it came in, and that nothing a
 * model writes can act on the terminal. */
#include "test.h"

#include <errno.h>

#include "../src/term/term.h"
#include "pty_test.h"

static const struct ag_term_look plain = { .columns = 41, .rows = 24 };
static const struct ag_term_look pretty = { .columns = 41, .rows = 24, .utf8 = true };

static int collect(void *ctx, const char *bytes, size_t len)
{
	return base_buf_append(ctx, bytes, len);
}

/* Rendered in pieces of `piece` bytes. */
static char *render_in(const struct ag_term_look *look, const char *text, size_t len, size_t piece)
{
	struct base_buf out = BASE_BUF_INIT(16 << 20);
	struct ag_term_md *md = NULL;

	assert_int_equal(ag_term_md_new(look, collect, &out, &md), 0);
	for (size_t at = 0; at < len; at += piece)
		assert_int_equal(ag_term_md_feed(md, text + at, len - at < piece ? len - at : piece), 0);
	assert_int_equal(ag_term_md_finish(md), 0);
	ag_term_md_free(md);
	(void)base_buf_append(&out, "", 0);
	return base_buf_take(&out);
}

static void expect(const struct ag_term_look *look, const char *text, const char *want)
{
	char *got = render_in(look, text, strlen(text), strlen(text));

	assert_string_equal(got, want);
	free(got);
}

static const char sample[] =
        "# 标题 Title\n"
        "\n"
        "一段**加粗**和*斜体*的中文，里面有`代码`，还有一个[链接](https://example.com/a)。这一段足够长，所以要换行。\n"
        "第二行\n"
        "- one\n"
        "- two\n"
        "  continued\n"
        "\n"
        "  paragraph of two\n"
        "\n"
        "1. 第一\n"
        "2. 第二\n"
        "   ```\n"
        "   inner\n"
        "\n"
        "   code\n"
        "   ```\n"
        "\n"
        "> 引用 quote\n"
        "lazy\n"
        "\n"
        "```bash\n"
        "dnf install -y nginx && systemctl enable --now nginx && echo 一行很长的代码\n"
        "\n"
        "\techo tab\n"
        "```\n"
        "Text before\n"
        "| 名称 | Value |\n"
        "|------|------:|\n"
        "| 内存 | 16 |\n"
        "| `x`  | **7** |\n"
        "\n"
        "Setext\n"
        "======\n"
        "---\n"
        "\n"
        "    indented\n"
        "\n"
        "<b>html</b> &amp; &#27;[31mred\n"
        "~~~\n"
        "unclosed 代码";

static void blocks_look_as_they_should(void **state)
{
	(void)state;
	expect(&plain, "# Head\ntext", "# Head\n\ntext\n");
	expect(&plain, "a\nb\n\nc", "a b\n\nc\n");
	expect(&plain, "中文\n接着", "中文接着\n");
	expect(&plain, "- a\n- b\n  - c\n", "- a\n- b\n  - c\n");
	expect(&pretty, "- a\n\n- b\n", "• a\n\n• b\n");
	expect(&plain, "3. a\n4. b\n", "3. a\n4. b\n");
	expect(&pretty, "> q\n> r\n", "│ q r\n");
	expect(&plain, "```sh\nls  -l\n\nx\n```\nend", "    ls  -l\n\n    x\n\nend\n");
	expect(&plain, "use `ls -l` **now**", "use `ls -l` now\n");
	expect(&plain, "[a](http://b) <http://c>", "a (http://b) http://c\n");
	expect(&plain, "![pic](http://b)", "[pic]\n");
	expect(&plain, "a<br>b", "a\nb\n");
	expect(&plain, "", "");
	expect(&plain, "\n\n", "");
}

static void code_is_not_wrapped(void **state)
{
	(void)state;
	expect(&plain, "```\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b\n```\n",
	       "    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b\n");
}

static void chinese_is_wrapped_by_width_and_punctuation(void **state)
{
	struct ag_term_look narrow = pretty;

	(void)state;
	narrow.columns = 11;
	expect(&narrow, "一二三四五，六七八", "一二三四\n五，六七八\n");
	expect(&narrow, "- 一二三四五六七", "• 一二三四\n  五六七\n");
}

static void tables_are_aligned(void **state)
{
	(void)state;
	expect(&pretty, "|名称|n|\n|--|--:|\n|内存|16|\n|a\\|b|`7`|\n",
	       "名称 │   n\n─────┼────\n内存 │  16\na|b  │ `7`\n");
	expect(&plain, "a|b\n-|-\n1|2\n", "a | b\n--+--\n1 | 2\n");
	expect(&plain, "head\na|b\n-|-\n1\n", "head\n\na | b\n--+--\n\n1\n");
	expect(&plain, "a|b\n-|-\n- x|# y\n", "a   | b\n----+----\n- x | # y\n");
}

static void wide_tables_are_narrowed_or_listed(void **state)
{
	struct ag_term_look narrow = plain;

	(void)state;
	narrow.columns = 24;
	expect(&narrow, "a|b\n-|-\nx|one two three four five\n",
	       "a | b\n--+--------------------\nx | one two three four\n  | five\n");
	narrow.columns = 16;
	expect(&narrow, "a|b|c\n-|-|-\nxxxxxxxxx|yyyyyyyyy|zzzzzzzzz\n", "a: xxxxxxxxx\nb: yyyyyyyyy\nc: zzzzzzzzz\n");
}

static void every_cut_gives_the_same_output(void **state)
{
	struct ag_term_look color = pretty;
	char *whole, *cut;

	(void)state;
	color.color = true;
	whole = render_in(&color, sample, sizeof(sample) - 1, sizeof(sample));
	for (size_t piece = 1; piece < 40; piece++) {
		cut = render_in(&color, sample, sizeof(sample) - 1, piece);
		assert_string_equal(cut, whole);
		free(cut);
	}
	free(whole);
}

/* On a terminal: the screen at the end is that of the plain output, however the text was cut. */
static void preview_leaves_the_same_screen(void **state)
{
	struct ag_term_look look = pretty;
	struct screen want, got;
	char *final, *drawn;

	(void)state;
	look.rows = 12;
	look.color = true;
	final = render_in(&look, sample, sizeof(sample) - 1, sizeof(sample));
	screen_init(&want, look.columns, 200);
	for (const char *p = final; *p; p++)
		screen_feed(&want, *p == '\n' ? "\r\n" : p, *p == '\n' ? 2 : 1);
	look.can_move = true;
	for (size_t piece = 1; piece < 30; piece += 3) {
		drawn = render_in(&look, sample, sizeof(sample) - 1, piece);
		screen_init(&got, look.columns, 200);
		for (const char *p = drawn; *p; p++)
			screen_feed(&got, *p == '\n' ? "\r\n" : p, *p == '\n' ? 2 : 1);
		for (unsigned row = 0; row < 200; row++)
			assert_string_equal(screen_row(&got, row), screen_row(&want, row));
		free(drawn);
		screen_done(&got);
	}
	screen_done(&want);
	free(final);
}

static void growing_block_is_shown_before_it_is_final(void **state)
{
	struct ag_term_look look = pretty;
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	struct ag_term_md *md = NULL;

	(void)state;
	look.can_move = true;
	assert_int_equal(ag_term_md_new(&look, collect, &out, &md), 0);
	assert_int_equal(ag_term_md_feed(md, "你好\xe4\xb8", strlen("你好") + 2), 0);
	assert_non_null(strstr(base_buf_text(&out), "你好"));
	assert_null(strstr(base_buf_text(&out), "\xEF\xBF\xBD")); /* half a character is waited for */
	ag_term_md_free(md);
	base_buf_done(&out);
}

static void nothing_of_a_model_reaches_the_terminal_as_a_command(void **state)
{
	static const char hostile[] = "\033[2J\033]0;title\a &#27;[31m \x9b"
	                              "31m `\033[5m`\n```\n\033]52;c;AAAA\a\r\x7f\n```\n[x](<http://\033[1m>)\n\n"
	                              "|\033[1m|\n|-|\n|&#155;2J|\n\n\xc2\x9b"
	                              "2J \xe2\x80\xae"
	                              "abc\n# \033c";
	char *got;

	(void)state;
	got = render_in(&plain, hostile, sizeof(hostile) - 1, 7);
	for (const char *p = got; *p; p++)
		assert_true(((unsigned char)*p >= 0x20 && *p != 0x7F) || *p == '\n');
	assert_null(strstr(got, "\xc2\x9b"));
	assert_null(strstr(got, "\xe2\x80\xae"));
	free(got);
}

static void other_charsets_get_ascii_only(void **state)
{
	struct ag_term_look look = plain;

	(void)state;
	look.ascii_only = true;
	expect(&look, "- 你好 a", "- ?? a\n");
}

static void deep_nesting_is_survived(void **state)
{
	size_t n = 60000;
	char *text = malloc(n), *got;

	(void)state;
	assert_non_null(text);
	memset(text, '>', n);
	got = render_in(&plain, text, n, n);
	free(got);
	memset(text, '*', n);
	got = render_in(&plain, text, n, n);
	free(got);
	memset(text, 'x', n);
	got = render_in(&plain, text, n, 1000);
	assert_int_equal(strspn(got, "x\n"), strlen(got));
	free(got);
	free(text);
}

static int refuse(void *ctx, const char *bytes, size_t len)
{
	(void)ctx;
	(void)bytes;
	(void)len;
	return -EPIPE;
}

static void writers_error_comes_back(void **state)
{
	struct ag_term_md *md = NULL;

	(void)state;
	assert_int_equal(ag_term_md_new(&plain, refuse, NULL, &md), 0);
	assert_int_equal(ag_term_md_feed(md, "# a\n", 4), -EPIPE);
	ag_term_md_free(md);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_look_as_they_should),
		cmocka_unit_test(code_is_not_wrapped),
		cmocka_unit_test(chinese_is_wrapped_by_width_and_punctuation),
		cmocka_unit_test(tables_are_aligned),
		cmocka_unit_test(wide_tables_are_narrowed_or_listed),
		cmocka_unit_test(every_cut_gives_the_same_output),
		cmocka_unit_test(preview_leaves_the_same_screen),
		cmocka_unit_test(growing_block_is_shown_before_it_is_final),
		cmocka_unit_test(nothing_of_a_model_reaches_the_terminal_as_a_command),
		cmocka_unit_test(other_charsets_get_ascii_only),
		cmocka_unit_test(deep_nesting_is_survived),
		cmocka_unit_test(writers_error_comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
