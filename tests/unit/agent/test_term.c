/* Keys, widths, lines, and what may pass to a terminal. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../src/term/term.h"

/* ---- Keys ------------------------------------------------------------------------------------------------------- */

static struct ag_term_key one_key(const char *bytes, size_t len)
{
	struct ag_term_keys k;
	struct ag_term_key key = { .type = AG_KEY_RESIZE }, more;

	ag_term_keys_init(&k);
	assert_int_equal(ag_term_keys_feed(&k, bytes, len), 0);
	assert_int_equal(ag_term_keys_next(&k, true, &key), 1);
	assert_int_equal(ag_term_keys_next(&k, true, &more), 0);
	assert_false(ag_term_keys_is_waiting(&k));
	ag_term_keys_done(&k);
	key.text = NULL;
	return key;
}

static const struct {
	const char *bytes;
	enum ag_term_key_type type;
	unsigned mods;
	uint32_t ch;
} key_cases[] = {
	{ "a", AG_KEY_CHAR, 0, 'a' },
	{ "中", AG_KEY_CHAR, 0, 0x4E2D },
	{ "\xF0\x9F\x98\x80", AG_KEY_CHAR, 0, 0x1F600 },
	{ "\x01", AG_KEY_CHAR, AG_MOD_CTRL, 'a' },
	{ "\x1f", AG_KEY_CHAR, AG_MOD_CTRL, '_' },
	{ "\r", AG_KEY_ENTER, 0, 0 },
	{ "\n", AG_KEY_CHAR, AG_MOD_CTRL, 'j' },
	{ "\x7f", AG_KEY_BACKSPACE, 0, 0 },
	{ "\t", AG_KEY_TAB, 0, 0 },
	{ "\033", AG_KEY_ESCAPE, 0, 0 },
	{ "\033[A", AG_KEY_UP, 0, 0 },
	{ "\033OA", AG_KEY_UP, 0, 0 },
	{ "\033[1;5C", AG_KEY_RIGHT, AG_MOD_CTRL, 0 },
	{ "\033[1;3D", AG_KEY_LEFT, AG_MOD_ALT, 0 },
	{ "\033\033[D", AG_KEY_LEFT, AG_MOD_ALT, 0 },
	{ "\033Oc", AG_KEY_RIGHT, AG_MOD_CTRL, 0 },
	{ "\033[H", AG_KEY_HOME, 0, 0 },
	{ "\033OF", AG_KEY_END, 0, 0 },
	{ "\033[1~", AG_KEY_HOME, 0, 0 },
	{ "\033[7~", AG_KEY_HOME, 0, 0 },
	{ "\033[4~", AG_KEY_END, 0, 0 },
	{ "\033[3~", AG_KEY_DELETE, 0, 0 },
	{ "\033[3;5~", AG_KEY_DELETE, AG_MOD_CTRL, 0 },
	{ "\033[5~", AG_KEY_PAGE_UP, 0, 0 },
	{ "\033[6~", AG_KEY_PAGE_DOWN, 0, 0 },
	{ "\033[2~", AG_KEY_INSERT, 0, 0 },
	{ "\033[Z", AG_KEY_TAB, AG_MOD_SHIFT, 0 },
	{ "\033OP", AG_KEY_FUNCTION, 0, 1 },
	{ "\033[[B", AG_KEY_FUNCTION, 0, 2 },
	{ "\033[15~", AG_KEY_FUNCTION, 0, 5 },
	{ "\033[24~", AG_KEY_FUNCTION, 0, 12 },
	{ "\033b", AG_KEY_CHAR, AG_MOD_ALT, 'b' },
	{ "\033\r", AG_KEY_ENTER, AG_MOD_ALT, 0 },
	{ "\033\x7f", AG_KEY_BACKSPACE, AG_MOD_ALT, 0 },
	{ "\033中", AG_KEY_CHAR, AG_MOD_ALT, 0x4E2D },
	{ "\033[99;5u", AG_KEY_CHAR, AG_MOD_CTRL, 'c' },
	{ "\033[27;2;13~", AG_KEY_ENTER, AG_MOD_SHIFT, 0 },
	{ "\033[", AG_KEY_CHAR, AG_MOD_ALT, '[' },
	{ "\033[1;", AG_KEY_UNKNOWN, 0, 0 },
	{ "\033[?1;2c", AG_KEY_UNKNOWN, 0, 0 },
	{ "\033[201~", AG_KEY_UNKNOWN, 0, 0 },
	{ "\xff", AG_KEY_INVALID, 0, 0xff },
	{ "\xc0", AG_KEY_INVALID, 0, 0xc0 },
	{ "\xe4", AG_KEY_INVALID, 0, 0xe4 },
};

static void sequences_are_the_keys_they_stand_for(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(key_cases) / sizeof(key_cases[0]); i++) {
		struct ag_term_key key = one_key(key_cases[i].bytes, strlen(key_cases[i].bytes));

		if (key.type != key_cases[i].type || key.mods != key_cases[i].mods || key.ch != key_cases[i].ch)
			fail_msg("case %zu: type %d mods %u ch %x", i, key.type, key.mods, key.ch);
	}
}

static void bytes_one_by_one_are_the_same_keys(void **state)
{
	static const char bytes[] = "a中\033[1;5C\033OA\033[3~\033[200~x\033[201~z";
	static const enum ag_term_key_type want[] = { AG_KEY_CHAR,   AG_KEY_CHAR,  AG_KEY_RIGHT, AG_KEY_UP,
		                                      AG_KEY_DELETE, AG_KEY_PASTE, AG_KEY_CHAR };
	struct ag_term_keys k;
	struct ag_term_key key;
	size_t n = 0;

	(void)state;
	ag_term_keys_init(&k);
	for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
		assert_int_equal(ag_term_keys_feed(&k, bytes + i, 1), 0);
		while (ag_term_keys_next(&k, false, &key)) {
			assert_true(n < sizeof(want) / sizeof(want[0]));
			assert_int_equal(key.type, want[n++]);
		}
	}
	assert_int_equal(n, sizeof(want) / sizeof(want[0]));
	ag_term_keys_done(&k);
}

static void escape_waits_for_time(void **state)
{
	struct ag_term_keys k;
	struct ag_term_key key;

	(void)state;
	ag_term_keys_init(&k);
	(void)ag_term_keys_feed(&k, "\033", 1);
	assert_int_equal(ag_term_keys_next(&k, false, &key), 0);
	assert_true(ag_term_keys_is_waiting(&k));
	assert_int_equal(ag_term_keys_next(&k, true, &key), 1);
	assert_int_equal(key.type, AG_KEY_ESCAPE);
	ag_term_keys_done(&k);
}

static void paste_is_one_event_without_controls(void **state)
{
	static const char bytes[] = "\033[200~a\r\nb\rc\033[Ad\x03 中\xff\033[201~";
	struct ag_term_keys k;
	struct ag_term_key key;

	(void)state;
	ag_term_keys_init(&k);
	(void)ag_term_keys_feed(&k, bytes, sizeof(bytes) - 1);
	assert_int_equal(ag_term_keys_next(&k, false, &key), 1);
	assert_int_equal(key.type, AG_KEY_PASTE);
	assert_int_equal(key.len, strlen("a\nb\nc[Ad 中\xEF\xBF\xBD"));
	assert_memory_equal(key.text, "a\nb\nc[Ad 中\xEF\xBF\xBD", key.len);
	ag_term_keys_done(&k);
}

static void interrupted_sequence_gives_way(void **state)
{
	static const char bytes[] = "\033[1\x03z";
	struct ag_term_keys k;
	struct ag_term_key key;

	(void)state;
	ag_term_keys_init(&k);
	(void)ag_term_keys_feed(&k, bytes, sizeof(bytes) - 1);
	do
		assert_int_equal(ag_term_keys_next(&k, false, &key), 1);
	while (key.type == AG_KEY_UNKNOWN);
	assert_true(key.ch == '1' || key.ch == 'c');
	ag_term_keys_done(&k);
}

/* ---- Width ---- */

static const struct {
	const char *text;
	size_t n_cells;
	unsigned columns;
} width_cases[] = {
	{ "", 0, 0 },
	{ "abc", 3, 3 },
	{ "中文", 2, 4 },
	{ "，", 1, 2 },
	{ "e\xCC\x81", 1, 1 },                                    /* e and an accent */
	{ "\xF0\x9F\x98\x80", 1, 2 },                             /* emoji */
	{ "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9", 1, 2 }, /* joined by ZWJ */
	{ "\xF0\x9F\x87\xA8\xF0\x9F\x87\xB3", 1, 2 },             /* a flag */
	{ "\xE2\x9D\xA4\xEF\xB8\x8F", 1, 2 },                     /* heart, emoji presentation */
	{ "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", 1, 2 },         /* Hangul in pieces */
	{ "\xE2\x80\x8B", 1, 0 },                                 /* zero width space */
	{ "\xff\xfe", 2, 2 },                                     /* no UTF-8 */
	{ "\xe4\xb8", 2, 2 },                                     /* half a character */
	{ "a\tb", 3, 9 },
};

static void width_is_by_grapheme(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(width_cases) / sizeof(width_cases[0]); i++) {
		const char *s = width_cases[i].text;
		size_t len = strlen(s), n = 0, back = 0;

		for (size_t at = 0; at < len; at += ag_term_cell_at(s + at, len - at).len)
			n++;
		for (size_t at = len; at; at -= ag_term_cell_before(s, at))
			back++;
		if (n != width_cases[i].n_cells || back != n || ag_term_columns(s, len, 0) != width_cases[i].columns)
			fail_msg("case %zu: %zu cells, %zu backwards, %u columns", i, n, back,
			         ag_term_columns(s, len, 0));
	}
}

static void clipping_never_splits_a_character(void **state)
{
	struct base_buf out = BASE_BUF_INIT(100);

	(void)state;
	assert_int_equal(ag_term_clip(&out, "中文字符", 12, 6, true), 0);
	assert_string_equal(base_buf_text(&out), "中文…");
	base_buf_reset(&out);
	assert_int_equal(ag_term_clip(&out, "中文字符", 12, 6, false), 0);
	assert_string_equal(base_buf_text(&out), "中...");
	base_buf_reset(&out);
	assert_int_equal(ag_term_clip(&out, "中文", 6, 4, true), 0);
	assert_string_equal(base_buf_text(&out), "中文");
	base_buf_done(&out);
}

static const struct {
	unsigned columns;
	const char *text, *lines; /* joined by | */
} wrap_cases[] = {
	{ 10, "the quick brown fox", "the quick|brown fox" },
	{ 10, "一二三四五六", "一二三四五|六" },
	{ 10, "一二三四五。六", "一二三四|五。六" },
	{ 10, "一二三四《五六》", "一二三四|《五六》" },
	{ 10, "一二三四五……六", "一二三四|五……六" },
	{ 10, "一二three四五", "一二three|四五" },
	{ 10, "abcdefghijklmn", "abcdefghij|klmn" },
	{ 10, "使用 dnf install 安装", "使用 dnf|install 安|装" },
	{ 4, "a  b    c", "a  b|c" },
	{ 1, "中文", "中|文" },
	{ 10, "", "" },
};

static void lines_break_where_the_language_allows(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(wrap_cases) / sizeof(wrap_cases[0]); i++) {
		struct base_buf got = BASE_BUF_INIT(1000);
		const char *s = wrap_cases[i].text;
		size_t len = strlen(s), next;

		do {
			size_t n = ag_term_wrap(s, len, wrap_cases[i].columns, &next);

			if (s != wrap_cases[i].text)
				(void)base_buf_putc(&got, '|');
			(void)base_buf_append(&got, s, n);
			assert_true(next > 0 || !len);
			s += next;
			len -= next;
		} while (len);
		assert_string_equal(base_buf_text(&got), wrap_cases[i].lines);
		base_buf_done(&got);
	}
}

static void harmful_characters_do_not_pass(void **state)
{
	static const char text[] = "a\033[31m\x07\b\r\nb\tc\x7f\xc2\x9b\xe2\x80\xae\xff中";
	struct base_buf out = BASE_BUF_INIT(100);

	(void)state;
	assert_int_equal(ag_term_sanitize(&out, text, sizeof(text) - 1, false), 0);
	assert_string_equal(base_buf_text(&out), "a[31m\nb\tc\xEF\xBF\xBD中");
	base_buf_reset(&out);
	assert_int_equal(ag_term_sanitize(&out, text, sizeof(text) - 1, true), 0);
	assert_string_equal(base_buf_text(&out), "a[31m\nb\tc??");
	base_buf_done(&out);
}

/* ---- What a place can show ---- */

static void environment(const char *lang, const char *no_color)
{
	(void)unsetenv("LC_ALL");
	(void)unsetenv("LC_CTYPE");
	(void)setenv("LANG", lang, 1);
	if (no_color)
		(void)setenv("NO_COLOR", no_color, 1);
	else
		(void)unsetenv("NO_COLOR");
}

static void pipe_has_colour_only_when_forced(void **state)
{
	struct ag_term_look look;
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	environment("zh_CN.UTF-8", NULL);
	ag_term_look_at(ends[1], "auto", &look);
	assert_false(look.is_terminal || look.color || look.can_move);
	assert_true(look.utf8);
	assert_string_equal(ag_term_sgr(&look, AG_TERM_BOLD), "");
	environment("C", "1");
	ag_term_look_at(ends[1], "always", &look);
	assert_true(look.color);
	assert_false(look.utf8 || look.ascii_only);
	environment("zh_CN.GBK", NULL);
	ag_term_look_at(-1, NULL, &look);
	assert_true(look.ascii_only);
	assert_int_equal(look.columns > 0, 1);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void file_is_no_terminal_to_ask_on(void **state)
{
	struct ag_term *t = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ag_term_open("/dev/null", NULL, &t, &err), -ENOTTY);
	assert_null(t);
	assert_non_null(strstr(err.msg, "/dev/null"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sequences_are_the_keys_they_stand_for),
		cmocka_unit_test(bytes_one_by_one_are_the_same_keys),
		cmocka_unit_test(escape_waits_for_time),
		cmocka_unit_test(paste_is_one_event_without_controls),
		cmocka_unit_test(interrupted_sequence_gives_way),
		cmocka_unit_test(width_is_by_grapheme),
		cmocka_unit_test(clipping_never_splits_a_character),
		cmocka_unit_test(lines_break_where_the_language_allows),
		cmocka_unit_test(harmful_characters_do_not_pass),
		cmocka_unit_test(pipe_has_colour_only_when_forced),
		cmocka_unit_test(file_is_no_terminal_to_ask_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
