/* The parsers of kernel text: good lines, lines of other kernels, torn and hostile ones. */
#include "sys/sys_internal.h"
#include "test.h"

static struct sys_span span(const char *text)
{
	return ag_sys_span(text, strlen(text));
}

static void numbers_that_do_not_fit_are_refused(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_false(ag_sys_number(span("18446744073709551616"), 10, &v));
	assert_false(ag_sys_number(span(""), 10, &v));
	assert_false(ag_sys_number(span("12a"), 10, &v));
	assert_int_equal(v, 7);
	assert_true(ag_sys_number(span("18446744073709551615"), 10, &v));
	assert_true(v == UINT64_MAX);
	assert_true(ag_sys_number(span("fF"), 16, &v));
	assert_int_equal(v, 255);
}

static void mount_points_with_blanks_are_unescaped(void **state)
{
	char text[] = "/a\\040b\\011c\\134d\\04";
	size_t n = ag_sys_unescape(text, strlen(text));

	(void)state;
	text[n] = '\0';
	assert_string_equal(text, "/a b\tc\\d\\04");
}

static void stat_of_an_old_kernel_lacks_columns(void **state)
{
	struct sys_stat s;

	(void)state;
	assert_true(ag_sys_parse_stat(span("cpu  1 2 3 4\ncpu1 1 1 1 1 1\nbtime 9\n"), &s));
	assert_int_equal(s.all.idle, 4);
	assert_int_equal(s.all.steal, 0);
	assert_int_equal(s.n_cpus, 2); /* processor 0 is offline: zeros */
	assert_int_equal(s.cpus[0].user, 0);
	assert_int_equal(s.boot_time, 9);
	ag_sys_stat_done(&s);
}

static void stat_with_an_absurd_processor_number_costs_that_line_only(void **state)
{
	struct sys_stat s;

	(void)state;
	assert_true(ag_sys_parse_stat(span("cpu 1 2 3 4\ncpu99999999999 1 1 1 1\ncpu4294967295 1 1 1 1\n"), &s));
	assert_int_equal(s.n_cpus, 0);
	ag_sys_stat_done(&s);
	assert_false(ag_sys_parse_stat(span("nothing here\n"), &s));
	ag_sys_stat_done(&s);
}

static void a_process_name_may_hold_parentheses_and_blanks(void **state)
{
	struct sys_pid_stat p;

	(void)state;
	assert_true(ag_sys_parse_pid_stat(span("42 (a) b (c)) R 1 1 1 0 -1 4194304 10 0 77 0 5 6 0 0 20 0 3 0 1000 "
	                                       "1000000 25 18446744073709551615"),
	                                  &p));
	assert_string_equal(p.comm, "a) b (c)");
	assert_int_equal(p.state, 'R');
	assert_int_equal(p.major_faults, 77);
	assert_int_equal(p.utime, 5);
	assert_int_equal(p.stime, 6);
	assert_int_equal(p.threads, 3);
	assert_int_equal(p.start_time, 1000);
	assert_int_equal(p.rss_pages, 25);
}

static void torn_process_lines_are_refused(void **state)
{
	static const char *const lines[] = { "",
		                             "42",
		                             "42 (a",
		                             "42 )a( R 1",
		                             "42 (a) R",
		                             "x (a) R 1 1 1 0 -1 1 1 0 1 0 1 1",
		                             "42 (a) R 1 1 1 0 -1 4194304 10 0 77 0 5 6 0 0 20 0 3 0 1000" };
	struct sys_pid_stat p;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_false(ag_sys_parse_pid_stat(span(lines[i]), &p));
}

static void pressure_gives_totals_and_averages(void **state)
{
	struct sys_pressure p;

	(void)state;
	assert_true(ag_sys_parse_pressure(span("some avg10=12.50 avg60=0.00 avg300=0.00 total=123456\n"), &p));
	assert_int_equal(p.some_us, 123456);
	assert_true(p.some_avg10 > 12.49 && p.some_avg10 < 12.51);
	assert_false(p.has_full); /* processor pressure before Linux 5.13 */
	assert_false(ag_sys_parse_pressure(span("some avg10=1.0\n"), &p));
}

static void an_interface_name_may_touch_its_counters(void **state)
{
	struct sys_netdev d;

	(void)state;
	assert_true(ag_sys_parse_netdev(span("eth0:1000 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0"), &d));
	assert_string_equal(d.name, "eth0");
	assert_int_equal(d.rx_drops, 4);
	assert_int_equal(d.tx_drops, 8);
	assert_true(ag_sys_parse_netdev(span("  eth0:1: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0"), &d));
	assert_string_equal(d.name, "eth0:1");
	assert_false(ag_sys_parse_netdev(span(" face |bytes    packets errs"), &d));
}

static void socket_addresses_are_read_in_both_families(void **state)
{
	struct sys_socket s;

	(void)state;
	assert_true(ag_sys_parse_socket(
	        span("0: 0100007F:0277 00000000:0000 0A 00000001:00000002 00:00000000 00000000 26 0 5002 1"), &s));
	assert_string_equal(s.address, "127.0.0.1");
	assert_int_equal(s.port, 0x277);
	assert_int_equal(s.rx_queue, 2);
	assert_int_equal(s.uid, 26);
	assert_int_equal(s.inode, 5002);
	assert_true(ag_sys_parse_socket(
	        span("0: 00000000000000000000000001000000:0143 00000000000000000000000000000000:0000 "
	             "07 0:0 00:0 0 0 0 9"),
	        &s));
	assert_string_equal(s.address, "::1");
	assert_false(ag_sys_parse_socket(span("0: 0100007F:FFFFF 00000000:0000 0A 0:0 0:0 0 0 0 1"), &s));
	assert_false(ag_sys_parse_socket(span("0: 0100007:1 00000000:0000 0A 0:0 0:0 0 0 0 1"), &s));
}

static void mount_lines_have_any_number_of_optional_fields(void **state)
{
	struct sys_mount m;

	(void)state;
	assert_true(ag_sys_parse_mount(span("1 2 8:1 / /a rw,noatime shared:1 master:2 - ext4 /dev/sda1 rw"), &m));
	assert_true(ag_sys_is(m.type, "ext4"));
	assert_true(ag_sys_is(m.source, "/dev/sda1"));
	assert_true(ag_sys_parse_mount(span("1 2 8:1 / /a rw - ext4 none rw"), &m));
	assert_false(ag_sys_parse_mount(span("1 2 8:1 / /a rw shared:1"), &m));
}

static void snmp_values_are_found_below_their_names(void **state)
{
	const char *text = "Ip: A B\nIp: 1 2\nTcp: OutSegs RetransSegs\nTcp: 10 20\nTcpExt: OutSegs\nTcpExt: 9\n";
	uint64_t v = 0;

	(void)state;
	assert_true(ag_sys_parse_snmp(span(text), "Tcp", "RetransSegs", &v));
	assert_int_equal(v, 20);
	assert_false(ag_sys_parse_snmp(span(text), "Udp", "RetransSegs", &v));
	assert_false(ag_sys_parse_snmp(span("Tcp: OutSegs"), "Tcp", "OutSegs", &v));
}

static void quotes_of_os_release_are_taken_off(void **state)
{
	char value[32];

	(void)state;
	assert_true(ag_sys_parse_assignment(span("XNAME=1\nNAME=\"a \\\"b\\\"\"\n"), "NAME", value, sizeof(value)));
	assert_string_equal(value, "a \"b\"");
	assert_true(ag_sys_parse_assignment(span("NAME=0123456789"), "NAME", value, 5));
	assert_string_equal(value, "0123");
	assert_false(ag_sys_parse_assignment(span("NAME"), "NAME", value, sizeof(value)));
}

static void kernel_records_have_a_priority_a_time_and_a_line(void **state)
{
	uint64_t priority = 9, usec = 9;
	struct sys_span message;

	(void)state;
	assert_true(ag_sys_parse_kmsg(span("3,1234,5678901,-;I/O error; sector 5\n DEVICE=b8:0\n"), &priority, &usec,
	                              &message));
	assert_int_equal(priority, 3);
	assert_int_equal(usec, 5678901);
	assert_true(ag_sys_is(message, "I/O error; sector 5"));
	assert_true(ag_sys_parse_kmsg(span("6,1,2;"), &priority, &usec, &message));
	assert_int_equal(message.n, 0);
	assert_false(ag_sys_parse_kmsg(span("3,1;x"), &priority, &usec, &message));
	assert_false(ag_sys_parse_kmsg(span("3,1,2 no end"), &priority, &usec, &message));
}

static void text_of_unknown_origin_loses_control_characters(void **state)
{
	json_t *a = ag_sys_string("a\033[2Jb\n", 7), *b = ag_sys_string("\xff\xfe中", 5),
	       *c = ag_sys_string("x\xc2\x9b", 3);

	(void)state;
	assert_string_equal(json_string_value(a), "a?[2Jb?");
	assert_string_equal(json_string_value(b), "?????");
	assert_string_equal(json_string_value(c), "x??");
	json_decref(a);
	json_decref(b);
	json_decref(c);
}

static void templates_take_values_with_their_units(void **state)
{
	struct base_buf out = BASE_BUF_INIT(1000);
	json_t *first = json_pack("{s:I, s:s}", "used_bytes", (json_int_t)1536, "name", "sda");
	json_t *second = json_pack("{s:{s:f}}", "a", "b", 0.5);

	(void)state;
	assert_int_equal(ag_sys_expand("{name}: {used_bytes}, {a.b}, {gone} {", first, second, &out), 0);
	assert_string_equal(base_buf_text(&out), "sda: 1.5 KiB, 0.50, ? {");
	base_buf_done(&out);
	json_decref(first);
	json_decref(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_that_do_not_fit_are_refused),
		cmocka_unit_test(mount_points_with_blanks_are_unescaped),
		cmocka_unit_test(stat_of_an_old_kernel_lacks_columns),
		cmocka_unit_test(stat_with_an_absurd_processor_number_costs_that_line_only),
		cmocka_unit_test(a_process_name_may_hold_parentheses_and_blanks),
		cmocka_unit_test(torn_process_lines_are_refused),
		cmocka_unit_test(pressure_gives_totals_and_averages),
		cmocka_unit_test(an_interface_name_may_touch_its_counters),
		cmocka_unit_test(socket_addresses_are_read_in_both_families),
		cmocka_unit_test(mount_lines_have_any_number_of_optional_fields),
		cmocka_unit_test(snmp_values_are_found_below_their_names),
		cmocka_unit_test(quotes_of_os_release_are_taken_off),
		cmocka_unit_test(kernel_records_have_a_priority_a_time_and_a_line),
		cmocka_unit_test(text_of_unknown_origin_loses_control_characters),
		cmocka_unit_test(templates_take_values_with_their_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
