/* Facts, findings and text, from the fixture trees (a machine with one of everything) and from this machine. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "sys/sys_sample.h"
#include "test.h"

static json_t *collect(unsigned sections, const char *tree)
{
	struct ag_sys_options options = { .root = tree ? test_fixture(tree) : NULL, .seconds = 0.1 };
	struct err err = { 0 };
	json_t *document = NULL;

	assert_int_equal(ag_sys_collect(sections, &options, &document, &err), 0);
	assert_non_null(document);
	return document;
}

static const char *text_at(const json_t *document, const char *path)
{
	const char *v = json_string_value(ag_sys_lookup(document, path));

	return v ? v : "";
}

static double number_at(const json_t *document, const char *path)
{
	return json_number_value(ag_sys_lookup(document, path));
}

/* The item of a list whose `key` is `value`. */
static const json_t *item(const json_t *document, const char *path, const char *key, const char *value)
{
	const json_t *v;
	size_t i;

	json_array_foreach(ag_sys_lookup(document, path), i, v)
	{
		if (strcmp(text_at(v, key), value) == 0)
			return v;
	}
	return NULL;
}

static void section_names_are_known_and_others_refused(void **state)
{
	struct err err = { 0 };
	unsigned bits = 0, n = 0;

	(void)state;
	while (ag_sys_section_name(n)) {
		assert_int_equal(ag_sys_section_parse(ag_sys_section_name(n), &bits, NULL), 0);
		assert_int_equal(bits, 1u << n++);
	}
	assert_int_equal(n, 10);
	assert_int_equal(ag_sys_section_parse("cpu", &bits, NULL), 0);
	assert_int_equal(bits, AG_SYS_HARDWARE);
	assert_int_equal(ag_sys_section_parse("nonsense", &bits, &err), -EINVAL);
	assert_non_null(strstr(err_text(&err), "nonsense"));
}

static void the_host_is_described(void **state)
{
	json_t *d = collect(AG_SYS_HOST, "sys/server");

	(void)state;
	assert_string_equal(text_at(d, "host.name"), "Example Server 24.03 (\"LTS\")");
	assert_string_equal(text_at(d, "host.hostname"), "db1.example.org");
	assert_string_equal(text_at(d, "host.virtualization"), "kvm/qemu");
	assert_int_equal(number_at(d, "host.uptime_s"), 93784);
	json_decref(d);
}

static void hardware_counts_threads_cores_and_memory(void **state)
{
	json_t *d = collect(AG_SYS_HARDWARE | AG_SYS_GPU, "sys/server");
	const json_t *card = json_array_get(ag_sys_lookup(d, "gpu.devices"), 0);

	(void)state;
	assert_string_equal(text_at(d, "hardware.cpu.model"), "Example CPU @ 2.50GHz");
	assert_int_equal(number_at(d, "hardware.cpu.cores"), 2);
	assert_int_equal(number_at(d, "hardware.cpu.sockets"), 1);
	assert_true(number_at(d, "hardware.memory.total_bytes") == 8000000.0 * 1024);
	assert_string_equal(text_at(card, "driver"), "amdgpu");
	assert_int_equal(number_at(card, "busy_percent"), 37);
	assert_int_equal(json_array_size(ag_sys_lookup(d, "gpu.devices")), 1); /* a bridge is none */
	json_decref(d);
}

static void listening_sockets_have_their_owners(void **state)
{
	json_t *d = collect(AG_SYS_NETWORK, "sys/server");
	const json_t *db = item(d, "network.listening", "process", "postgres");

	(void)state;
	assert_int_equal(json_array_size(ag_sys_lookup(d, "network.listening")), 3); /* a connection is none */
	assert_non_null(db);
	assert_int_equal(number_at(db, "port"), 5432);
	assert_int_equal(number_at(db, "pid"), 200);
	assert_string_equal(text_at(item(d, "network.routes", "destination", "default"), "gateway"), "192.0.2.1");
	assert_int_equal(json_array_size(ag_sys_lookup(d, "network.dns.servers")), 2);
	assert_non_null(item(d, "findings", "rule", "interface-drops"));
	json_decref(d);
}

static void mounts_are_listed_once_and_remote_ones_not_asked(void **state)
{
	json_t *d = collect(AG_SYS_STORAGE, "sys/server");

	(void)state;
	assert_int_equal(json_array_size(ag_sys_lookup(d, "storage.mounts")), 3);
	assert_non_null(item(d, "storage.mounts", "point", "/mnt/with blank"));
	assert_true(json_is_true(json_object_get(item(d, "storage.mounts", "type", "nfs4"), "remote")));
	assert_string_equal(text_at(item(d, "storage.block_devices", "name", "dm-0"), "mapped_name"), "vg-root");
	assert_string_equal(text_at(item(d, "findings", "rule", "raid-degraded"), "severity"), "critical");
	json_decref(d);
}

static void an_empty_tree_gives_notes_and_no_failure(void **state)
{
	char dir[] = "/tmp/ocai-sys-XXXXXX";
	struct ag_sys_options options = { .root = dir, .seconds = 0.1, .owns = "/bin/sh", .verify = "bash" };
	struct ag_sys_style style = { .width = 80 };
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	json_t *d = NULL;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(ag_sys_collect(AG_SYS_QUICK | AG_SYS_PERF, &options, &d, NULL), 0);
	assert_int_equal(json_object_size(d), 11);
	assert_non_null(ag_sys_lookup(d, "perf.notes"));
	assert_non_null(ag_sys_lookup(d, "packages.notes"));
	assert_int_equal(json_array_size(ag_sys_lookup(d, "findings")), 0);
	assert_int_equal(ag_sys_render(d, &style, &out), 0);
	base_buf_done(&out);
	json_decref(d);
	assert_int_equal(rmdir(dir), 0);
}

static void a_root_that_is_not_there_is_refused(void **state)
{
	struct ag_sys_options options = { .root = "/nonexistent/tree" };
	struct err err = { 0 };
	json_t *d = NULL;

	(void)state;
	assert_int_equal(ag_sys_collect(AG_SYS_HOST, &options, &d, &err), -ENOENT);
	assert_null(d);
	options = (struct ag_sys_options){ .seconds = -1 };
	assert_int_equal(ag_sys_collect(AG_SYS_HOST, &options, &d, &err), -EINVAL);
	assert_null(d);
}

static void deleted_files_of_this_process_are_found(void **state)
{
	char path[] = "/tmp/ocai-deleted-XXXXXX", real[4096], block[65536];
	int fd = mkstemp(path);
	json_t *d;

	(void)state;
	assert_true(fd >= 0);
	assert_non_null(realpath(path, real));
	memset(block, 1, sizeof(block));
	assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(unlink(path), 0);
	d = collect(AG_SYS_STORAGE, NULL);
	assert_non_null(item(d, "storage.deleted_open_files", "path", real));
	assert_int_equal(number_at(item(d, "storage.deleted_open_files", "path", real), "pid"), getpid());
	assert_true(number_at(d, "storage.deleted_open.bytes") >= sizeof(block));
	assert_int_equal(close(fd), 0);
	json_decref(d);
}

static void this_machine_can_be_read_whole(void **state)
{
	struct ag_sys_style style = { .width = 60, .chinese = true, .color = true };
	struct base_buf out = BASE_BUF_INIT(8 << 20);
	json_t *d = collect(AG_SYS_QUICK | AG_SYS_PERF, NULL);

	(void)state;
	assert_true(number_at(d, "perf.seconds") >= 0.1);
	assert_true(number_at(d, "perf.processes.total") >= 1);
	assert_true(number_at(d, "hardware.memory.total_bytes") > 0);
	assert_int_equal(ag_sys_render(d, &style, &out), 0);
	base_buf_done(&out);
	json_decref(d);
}

/* ---- Performance ------------------------------------------------------------------------------------------------ */

static struct sys_sample *sample(const char *tree, double time_s)
{
	char root[4096], proc[4200];
	struct ag_sys_options options = { 0 };
	struct sys_ctx ctx = { .opt = &options, .root = root };
	struct sys_sample *s = NULL;

	(void)snprintf(root, sizeof(root), "%s", test_fixture(tree));
	(void)snprintf(proc, sizeof(proc), "%s/proc", root);
	ctx.proc_fd = open(proc, O_RDONLY | O_DIRECTORY);
	assert_true(ctx.proc_fd >= 0);
	assert_int_equal(ag_sys_sample_take(&ctx, &s), 0);
	assert_int_equal(close(ctx.proc_fd), 0);
	s->time_s = time_s;
	return s;
}

/* The ten seconds between the two fixture trees, judged. */
static json_t *ten_seconds(const char *from, const char *to)
{
	char root[4096];
	struct ag_sys_options options = { 0 };
	struct sys_ctx ctx = { .opt = &options, .root = root, .proc_fd = -1 };
	struct sys_sample *a = sample(from, 100), *b = sample(to, 110);
	json_t *d = json_object();

	(void)snprintf(root, sizeof(root), "%s", test_fixture(to));
	ag_sys_perf_between(&ctx, a, b, ag_sys_object(d, "perf"));
	ag_sys_sample_free(a);
	ag_sys_sample_free(b);
	assert_int_equal(ag_sys_judge(d), 0);
	return d;
}

static void assert_near(double got, double want)
{
	if (got < want - 0.011 || got > want + 0.011)
		fail_msg("got %f, expected %f", got, want);
}

static void rates_and_shares_are_those_of_the_window(void **state)
{
	json_t *d = ten_seconds("sys/server", "sys/later");
	const json_t *disk = item(d, "perf.disks", "name", "sda"),
	             *group = json_array_get(ag_sys_lookup(d, "perf.cgroups"), 0);

	(void)state;
	assert_near(number_at(d, "perf.seconds"), 10);
	assert_near(number_at(d, "perf.cpu.busy_percent"), 97.5);  /* 1950 of 2000 ticks */
	assert_near(number_at(d, "perf.cpu.iowait_percent"), 2.5); /* 50 of 2000 */
	assert_int_equal(number_at(d, "perf.cpu.busiest_cpu"), 0);
	assert_near(number_at(d, "perf.cpu.context_switches_per_s"), 2000);
	assert_near(number_at(d, "perf.pressure.cpu_some_percent"), 50);
	assert_near(number_at(d, "perf.pressure.memory_full_percent"), 20);
	assert_near(number_at(d, "perf.run_queue.waiting_tasks"), 2);
	assert_near(number_at(d, "perf.memory.available_percent"), 3);
	assert_near(number_at(d, "perf.memory.swap_in_pages_per_s"), 3000);
	assert_near(number_at(d, "perf.memory.direct_reclaim_pages_per_s"), 9000);
	assert_near(number_at(d, "perf.memory.alloc_stalls_per_s"), 2);
	assert_int_equal(json_array_size(ag_sys_lookup(d, "perf.disks")), 1); /* no partition, no loop device */
	assert_near(number_at(disk, "util_percent"), 99);
	assert_near(number_at(disk, "queue"), 10);
	assert_near(number_at(disk, "read_ms"), 100);
	assert_near(number_at(disk, "write_ms"), 80);
	assert_near(number_at(disk, "write_bytes_per_s"), 8000 * 512 / 10.0);
	assert_near(number_at(item(d, "perf.networks", "name", "eth0"), "drops_per_s"), 200);
	assert_near(number_at(d, "perf.network_stack.softnet_drops_per_s"), 1);
	assert_near(number_at(d, "perf.network_stack.tcp_retransmitted_percent"), 5);
	assert_near(number_at(group, "throttled_percent"), 60);
	assert_near(number_at(group, "throttled_ms"), 2500);
	assert_near(number_at(group, "cpu_percent"), 50);
	json_decref(d);
}

static void the_busiest_process_comes_first_and_a_reused_number_counts_as_new(void **state)
{
	json_t *d = ten_seconds("sys/server", "sys/later");
	const json_t *top = json_array_get(ag_sys_lookup(d, "perf.top_cpu"), 0);
	double tick = (double)sysconf(_SC_CLK_TCK);

	(void)state;
	assert_string_equal(text_at(top, "name"), "post) gres");
	assert_near(number_at(top, "cpu_percent"), 100 * 1700 / tick / 10);
	assert_near(number_at(top, "read_bytes_per_s"), 100000);
	assert_null(item(d, "perf.top_cpu", "name", "new"));
	assert_int_equal(number_at(d, "perf.processes.total"), 3);
	json_decref(d);
}

static void findings_are_ranked_and_carry_their_numbers(void **state)
{
	json_t *d = ten_seconds("sys/server", "sys/later"), *found = json_object_get(d, "findings"), *f;
	static const char *const expected[] = {
		"oom-kill-now",  "memory-low", "memory-pressure",  "swapping",          "direct-reclaim",  "cpu-busy",
		"cpu-pressure",  "run-queue",  "disk-busy",        "disk-read-slow",    "disk-write-slow", "net-drops",
		"softnet-drops", "tcp-resent", "cgroup-throttled", "cgroup-memory-high"
	};
	double last = 1e9;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		if (!item(d, "findings", "rule", expected[i]))
			fail_msg("no finding %s", expected[i]);
	}
	json_array_foreach(found, i, f)
	{
		assert_true(number_at(f, "score") <= last);
		last = number_at(f, "score");
		assert_null(strchr(text_at(f, "en"), '{'));
		assert_null(strchr(text_at(f, "zh"), '{'));
		assert_true(json_array_size(json_object_get(f, "next")) > 0);
	}
	assert_string_equal(
	        text_at(item(d, "findings", "rule", "disk-busy"), "en"),
	        "Disk sda is 99.0 % busy with 10.0 requests waiting on average (read 100.0 ms, write 80.0 ms).");
	assert_non_null(strstr(text_at(item(d, "findings", "rule", "cpu-busy"), "en"), "by post) gres (200) with"));
	assert_string_equal(text_at(item(d, "findings", "rule", "cgroup-memory-high"), "zh"),
	                    "控制组 /web.slice 触及 memory.high 12 次(正在使用 100.0 MiB)。");
	json_decref(d);
}

static void counters_that_stand_still_or_go_back_find_nothing_new(void **state)
{
	json_t *still = ten_seconds("sys/server", "sys/server"), *back = ten_seconds("sys/later", "sys/server");

	(void)state;
	assert_null(item(still, "findings", "rule", "disk-busy"));
	assert_null(item(still, "findings", "rule", "cpu-busy"));
	assert_null(item(back, "findings", "rule", "disk-busy"));
	assert_near(number_at(back, "perf.cpu.busy_percent"), 0);
	assert_near(number_at(back, "perf.cpu.context_switches_per_s"), 0);
	json_decref(still);
	json_decref(back);
}

/* ---- Text ---- */

static void hostile_names_reach_neither_commands_nor_the_terminal(void **state)
{
	struct ag_sys_style style = { .width = 80 };
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	json_t *d = json_pack("{s:{s:[{s:s, s:f, s:i, s:s}]}}", "storage", "mounts", "point", "/a; rm -rf /\033[2J",
	                      "used_percent", 99.0, "size_bytes", 100, "source", "x");
	const json_t *f;

	(void)state;
	assert_int_equal(ag_sys_judge(d), 0);
	f = item(d, "findings", "rule", "mount-full");
	assert_non_null(f);
	assert_int_equal(json_array_size(json_object_get(f, "next")), 1); /* the one without the name */
	assert_int_equal(ag_sys_render(d, &style, &out), 0);
	assert_null(strchr(base_buf_text(&out), '\033'));
	assert_null(strstr(base_buf_text(&out), "du -xh"));
	base_buf_done(&out);
	json_decref(d);
}

static void text_fits_the_width_and_ascii_terminals(void **state)
{
	struct ag_sys_style style = { .width = 60, .ascii = true };
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	json_t *d = collect(AG_SYS_NETWORK | AG_SYS_STORAGE, "sys/server");
	struct sys_span text, line;

	(void)state;
	json_object_del(d, "findings");
	assert_int_equal(ag_sys_render(d, &style, &out), 0);
	assert_non_null(strstr(base_buf_text(&out), "["));
	text = ag_sys_buf_span(&out);
	while (ag_sys_next_line(&text, &line)) {
		assert_true(line.n <= 60);
		for (size_t i = 0; i < line.n; i++)
			assert_true((unsigned char)line.p[i] < 128);
	}
	base_buf_done(&out);
	json_decref(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(section_names_are_known_and_others_refused),
		cmocka_unit_test(the_host_is_described),
		cmocka_unit_test(hardware_counts_threads_cores_and_memory),
		cmocka_unit_test(listening_sockets_have_their_owners),
		cmocka_unit_test(mounts_are_listed_once_and_remote_ones_not_asked),
		cmocka_unit_test(an_empty_tree_gives_notes_and_no_failure),
		cmocka_unit_test(a_root_that_is_not_there_is_refused),
		cmocka_unit_test(deleted_files_of_this_process_are_found),
		cmocka_unit_test(this_machine_can_be_read_whole),
		cmocka_unit_test(rates_and_shares_are_those_of_the_window),
		cmocka_unit_test(the_busiest_process_comes_first_and_a_reused_number_counts_as_new),
		cmocka_unit_test(findings_are_ranked_and_carry_their_numbers),
		cmocka_unit_test(counters_that_stand_still_or_go_back_find_nothing_new),
		cmocka_unit_test(hostile_names_reach_neither_commands_nor_the_terminal),
		cmocka_unit_test(text_fits_the_width_and_ascii_terminals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
