/* Numbers in an answer against the facts. */
#include "test.h"

#include "flow/flow.h"

static void a_number_must_be_in_the_facts(void **state)
{
	static const char facts[] =
	        "The processors are 90.23 % busy; memory 15.5 GiB of 31.2 GiB; /data is 97 % full.\n"
	        "read 1610612736 bytes, latency 12.4 ms, 42 units, pid 1234, load 3.72, 10.0.0.7:8080\n"
	        "1,234,567 packets, uptime 7200 s, CPU 0";
	static const struct {
		const char *answer, *unknown;
	} cases[] = {
		{ "CPU is 90.23% busy, and /data is 97% full.", "" },
		{ "About 90 % busy, 90.2 to be exact.", "" }, /* rounded */
		{ "It read 1.5 GiB, that is 1536 MiB.", "" }, /* another unit */
		{ "Uptime is 2 hours (120 minutes).", "2" },  /* one digit is too little to convert */
		{ "CPU is 91% busy.", "91%" },
		{ "内存使用了95%,共31.2 GiB", "95%" },
		{ "load 3.7, latency 12 ms", "" },
		{ "load 4.7", "4.7" },
		{ "1. look\n2. think\n 3) act\n- 42 units", "" },             /* ordinals */
		{ "第3步:运行 `kill -9 1234`,再看 /dev/sda5 和 x86_64", "" }, /* code and words */
		{ "it is `88%` full", "88%" },                                /* code of a number alone is none */
		{ "```\nsleep 77\n```\nthen 55 more", "55" },
		{ "1234567 packets, 1,234,567 packets", "" },
		{ "at 10.0.0.7, not 10.0.0.8", "10.0.0.8" },
		{ "see [2] and #5", "" },
		{ "0 errors, 1 warning", "" },
		{ "91% and 91% again", "91%" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf out = BASE_BUF_INIT(1024);
		int n = ag_numbers_unknown(cases[i].answer, strlen(cases[i].answer), facts, strlen(facts), &out);

		if (strcmp(base_buf_text(&out), cases[i].unknown) != 0)
			print_error("%s -> %s\n", cases[i].answer, base_buf_text(&out));
		assert_string_equal(base_buf_text(&out), cases[i].unknown);
		assert_int_equal(n, cases[i].unknown[0] != '\0');
		base_buf_done(&out);
	}
}

static void any_bytes_are_taken(void **state)
{
	static const char bytes[] =
	        "`` ` ``` 9 \xff\xfe 1.2.3.4.5.6 99999999999999999999999999999999999999999999999999999999"
	        "99999999999999999999999999 7,777,7 ,,, ... 1..2 `5";

	(void)state;
	for (size_t len = 0; len < sizeof(bytes); len++) {
		struct base_buf out = BASE_BUF_INIT(4096);

		assert_true(ag_numbers_unknown(bytes, len, bytes, len / 2, &out) >= 0);
		base_buf_done(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_number_must_be_in_the_facts),
		cmocka_unit_test(any_bytes_are_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
