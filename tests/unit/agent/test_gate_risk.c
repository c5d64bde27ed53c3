/* The table of tricky command lines: what the gate thinks of each. */
#include "test.h"

#include "gate/gate.h"

#define R AG_GATE_READ
#define C AG_GATE_CHANGE
#define D AG_GATE_DESTRUCTIVE
#define HARD AG_GATE_HARD
#define SEC AG_GATE_SECRET
#define UNK AG_GATE_UNKNOWN
#define NET AG_GATE_NETWORK

static const struct ag_gate_context context = {
	.home = "/home/me",
	.cwd = "/home/me/src",
	.mounts = "/dev/sda2 / xfs rw 0 0\n/dev/sda1 /boot ext4 rw 0 0\n/dev/nvme0n1p1 /data xfs rw 0 0\nproc /proc "
	          "proc rw 0 0\n",
};

struct row {
	const char *line;
	enum ag_gate_class class;
	unsigned flags;  /* that must be set */
	const char *why; /* part of the worst reason; NULL: any */
};

static const struct row rows[] = {
#include "gate_lines.inc"
};

static void the_line_table_is_judged_as_expected(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ag_gate_risk *risk = NULL;
		const char *why;

		assert_int_equal(ag_gate_assess(rows[i].line, strlen(rows[i].line), &context, &risk), 0);
		why = risk->n_findings ? risk->findings[0].why : "";
		if (risk->class != rows[i].class || (risk->flags & rows[i].flags) != rows[i].flags ||
		    (!(rows[i].flags & HARD) && (risk->flags & HARD)) || (rows[i].why && !strstr(why, rows[i].why))) {
			print_error("%s\n    is %s, flags %x (%s), expected %s, %x (%s)\n", rows[i].line,
			            ag_gate_class_name(risk->class), risk->flags, why,
			            ag_gate_class_name(rows[i].class), rows[i].flags, rows[i].why ? rows[i].why : "");
			wrong++;
		}
		ag_gate_risk_free(risk);
	}
	assert_int_equal(wrong, 0);
}

static void the_table_has_at_least_250_lines(void **state)
{
	(void)state;
	assert_true(sizeof(rows) / sizeof(rows[0]) >= 250);
}

static void commands_are_listed_after_wrappers_and_quotes(void **state)
{
	static const char line[] = "sudo -u root /usr/bin/systemctl \"restart\" ngi\\nx > out";
	struct ag_gate_risk *risk = NULL;

	(void)state;
	assert_int_equal(ag_gate_assess(line, strlen(line), &context, &risk), 0);
	assert_int_equal(risk->n_commands, 3);
	assert_string_equal(risk->commands[0].argv[0], ">");
	assert_string_equal(risk->commands[0].argv[1], "out");
	assert_true(risk->commands[1].wrapper);
	assert_string_equal(risk->commands[2].argv[0], "systemctl");
	assert_string_equal(risk->commands[2].argv[1], "restart");
	assert_string_equal(risk->commands[2].argv[2], "nginx");
	assert_true(risk->commands[2].flags & AG_GATE_ROOT);
	ag_gate_risk_free(risk);
}

static void the_worst_finding_stands_first(void **state)
{
	static const char line[] = "touch a; rm b; dnf install c; rm -rf /";
	struct ag_gate_risk *risk = NULL;

	(void)state;
	assert_int_equal(ag_gate_assess(line, strlen(line), &context, &risk), 0);
	assert_true(risk->n_findings >= 4);
	assert_true(risk->findings[0].flags & AG_GATE_HARD);
	assert_int_equal(risk->findings[1].class, AG_GATE_DESTRUCTIVE);
	assert_int_equal(risk->findings[risk->n_findings - 1].class, AG_GATE_CHANGE);
	ag_gate_risk_free(risk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_line_table_is_judged_as_expected),
		cmocka_unit_test(the_table_has_at_least_250_lines),
		cmocka_unit_test(commands_are_listed_after_wrappers_and_quotes),
		cmocka_unit_test(the_worst_finding_stands_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
