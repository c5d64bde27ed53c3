/* ocai and what it keeps on the disk: full disks, read-only and missing homes, damaged histories. The answer is given
 * all the same, what is wrong is named, and what was there is not lost. */
#include "e2e.h"

#include <glob.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>

/* ---- Disks ---- */

/* A small file system at this place, ours alone: it goes away with this process. */
static void mount_small(struct e2e *t, const char *rest, const char *options)
{
	char path[E2E_PATH];

	(void)snprintf(path, sizeof(path), "%s/%s", t->dir, rest);
	(void)mkdir(path, 0700);
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", path, "tmpfs", 0, options) < 0) {
		print_message("not allowed to mount a file system: %s\n", strerror(errno));
		skip();
	}
}

/* What a test that failed has left. */
static int tear_down(void **state)
{
	static const char *const places[] = { "full", "home" };
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		(void)umount2(e2e_path(t, places[i]), MNT_DETACH);
	return e2e_teardown(state);
}

#define MOUNT_TEST(f) cmocka_unit_test_setup_teardown(f, e2e_setup, tear_down)

static void unmount(struct e2e *t, const char *rest)
{
	assert_int_equal(umount2(e2e_path(t, rest), MNT_DETACH), 0);
}

static void fill(struct e2e *t, const char *rest)
{
	static const char zeros[4096];
	FILE *f = fopen(e2e_path(t, rest), "we");

	assert_non_null(f);
	while (fwrite(zeros, 1, sizeof(zeros), f) == sizeof(zeros) && fflush(f) == 0)
		;
	(void)fclose(f);
}

static void a_full_disk_costs_the_history_and_not_the_answer(void **state)
{
	struct e2e *t = *state;

	mount_small(t, "full", "size=256k");
	e2e_env_path(t, "XDG_DATA_HOME", "full/data");
	e2e_env_path(t, "XDG_STATE_HOME", "full/state");
	fill(t, "full/filler");
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	e2e_out_is(t, "The answer.\n");
	e2e_err_has(t, "ocai: no history is kept: ");
	e2e_err_has(t, "full");
	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say it"); /* runs, and says that the log of what ran is not complete */
	e2e_expect(t, "no history is kept: ");
	e2e_reply(t, "[r] run", "r");
	e2e_expect(t, "answer 42");
	e2e_expect(t, "ocai: not in the audit log: ");
	e2e_ends(t, 0);
	assert_true(e2e_saw(t, "No space left on device"));
	unmount(t, "full");
}

static void a_disk_that_fills_up_in_a_chat_keeps_what_was_there(void **state)
{
	struct e2e *t = *state;

	mount_small(t, "full", "size=512k");
	e2e_env_path(t, "XDG_DATA_HOME", "full/data");
	E2E_SERVE(t, E2E_SAY("One."), E2E_SAY("Two."), E2E_SAY("Three."));
	E2E_OCAI(t, "chat");
	e2e_reply(t, ">", "question one\r");
	e2e_expect(t, "One.");
	e2e_ask(t, ">");
	fill(t, "full/filler");
	e2e_reply(t, ">", "question two\r");
	e2e_expect(t, "Two.");
	e2e_expect(t, "ocai: no history is kept: ");
	e2e_reply(t, ">", "question three\r");
	e2e_expect(t, "Three.");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	e2e_request_has(t, 2, "question two"); /* the conversation goes on all the same */
	assert_int_equal(unlink(e2e_path(t, "full/filler")), 0);
	assert_int_equal(E2E_RUN(t, NULL, "history", "show", "1"), 0);
	assert_non_null(strstr(t->out, "question one"));
	assert_non_null(strstr(t->out, "One."));
	assert_string_equal(t->err, "");
	unmount(t, "full");
}

static void a_full_disk_keeps_the_old_file_of_code_and_save(void **state)
{
	struct e2e *t = *state;
	char *text;

	mount_small(t, "full", "size=64k");
	e2e_write_text(t, "full/old.c", "old");
	fill(t, "full/filler");
	E2E_SERVE(t, E2E_SAY("```c\\nint new;\\n```"));
	assert_int_equal(E2E_RUN(t, NULL, "code", "-o", "full/old.c", "write it"), 1);
	e2e_err_has(t, "full/old.c");
	e2e_err_has(t, "No space left on device");
	E2E_SERVE(t, E2E_SAY("An answer."));
	E2E_OCAI(t, "chat");
	e2e_reply(t, ">", "go\r");
	e2e_expect(t, "An answer.");
	e2e_reply(t, ">", "/save full/old.c\r");
	e2e_expect(t, "No space left on device");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	text = e2e_slurp(open(e2e_path(t, "full/old.c"), O_RDONLY | O_CLOEXEC));
	assert_string_equal(text, "old");
	free(text);
	unmount(t, "full");
}

static void a_full_run_time_folder_is_named_when_the_engine_starts(void **state)
{
	struct e2e *t = *state;

	mount_small(t, "full", "size=64k,nr_inodes=2"); /* its root and one more */
	e2e_env(t, "OCAI_URL", NULL);
	e2e_env(t, "OCAI_ENGINE", "/bin/true");
	e2e_env_path(t, "XDG_RUNTIME_DIR", "full");
	assert_int_equal(chmod(e2e_path(t, "full"), 0700), 0);
	assert_int_equal(mkdir(e2e_path(t, "full/ocai"), 0700), 0);
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "show it"), 1);
	e2e_err_has(t, "full/ocai/engine.lock: No space left on device");
	unmount(t, "full");
	mount_small(t, "full", "size=64k,nr_inodes=3,mode=0700"); /* and the lock */
	assert_int_equal(mkdir(e2e_path(t, "full/ocai"), 0700), 0);
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "show it"), 1);
	e2e_err_has(t, "full/ocai/engine.log: No space left on device");
	unmount(t, "full");
}

static void output_that_cannot_be_written_is_a_failure(void **state)
{
	static const char *const lines[] = {
		"\"$OCAI\" cmd 'show it' >/dev/full",   "\"$OCAI\" -q 'what is it?' >/dev/full",
		"\"$OCAI\" code 'write it' >/dev/full", "\"$OCAI\" cmd --json 'show it' >/dev/full",
		"\"$OCAI\" cmd 'show it' >&-",          "\"$OCAI\" -q 'what is it?' >&-",
	};
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		E2E_SERVE(t, E2E_SAY("uptime"));
		E2E_SHELL(t, lines[i]);
		e2e_ends(t, 1);
		if (!e2e_is_shown(t, i < 4 ? "No space left on device" : "standard output")) {
			e2e_show(t);
			fail_msg("%s: not said", lines[i]);
		}
		assert_false(e2e_is_shown(t, "(stopped)"));
	}
}

static void a_read_only_home_costs_the_history_and_not_the_answer(void **state)
{
	struct e2e *t = *state;
	const char *const unset[] = { "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME" };

	mount_small(t, "home", "size=64k");
	assert_int_equal(mount("tmpfs", e2e_path(t, "home"), "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64k"), 0);
	for (size_t i = 0; i < 3; i++)
		e2e_env(t, unset[i], NULL);
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	e2e_out_is(t, "The answer.\n");
	e2e_err_has(t, "ocai: no history is kept: ");
	e2e_err_has(t, "Read-only file system");
	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say it");
	e2e_reply(t, "[r] run", "r");
	e2e_expect(t, "answer 42");
	e2e_expect(t, "ocai: not in the audit log: ");
	e2e_ends(t, 0);
	unmount(t, "home");
}

static void an_unset_home_costs_the_history_and_not_the_answer(void **state)
{
	static const char *const names[] = { "HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME" };
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		e2e_env(t, names[i], NULL);
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	e2e_out_is(t, "The answer.\n");
	assert_string_equal(t->err, "ocai: no history is kept: neither XDG_DATA_HOME nor HOME is set\n");
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--no-history", "what is it?"), 0);
	assert_string_equal(t->err, "");
}

static void a_folder_that_is_gone_is_no_trouble(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_SHELL(t, "mkdir gone && cd gone && rmdir ../gone && exec \"$OCAI\" cmd 'say it'");
	e2e_reply(t, "[r] run", "r");
	e2e_expect(t, "answer 42");
	e2e_ends(t, 0);
}

/* ---- History ---- */

static void make_history(struct e2e *t)
{
	E2E_SERVE(t, E2E_SAY("An answer that is kept."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is kept?"), 0);
	assert_string_equal(t->err, "");
	assert_true(e2e_exists(t, "data/ocai/history.db"));
}

/* One question is answered, with this remark; true when the old file was kept aside. */
static bool ask_with_damage(struct e2e *t, const char *remark)
{
	glob_t found = { 0 };
	bool is_aside;

	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is new?"), 0);
	e2e_out_is(t, "The answer.\n");
	if (remark)
		e2e_err_has(t, remark);
	else
		assert_string_equal(t->err, "");
	is_aside = glob(e2e_path(t, "data/ocai/history.db.damaged-*[0-9]"), 0, NULL, &found) == 0;
	globfree(&found);
	return is_aside;
}

static void new_history_works(struct e2e *t)
{
	assert_int_equal(E2E_RUN(t, NULL, "history", "search", "what is new?"), 0);
	assert_string_equal(t->err, "");
	assert_non_null(strstr(t->out, "what is new?"));
}

static void garbage_in_place_of_the_history_is_kept_aside(void **state)
{
	struct e2e *t = *state;
	glob_t found = { 0 };
	char *text;

	e2e_write_text(t, "data/ocai/history.db", "this is no database, but somebody may want it back");
	assert_true(ask_with_damage(t, "the history was damaged"));
	e2e_err_has(t, "history.db.damaged-");
	new_history_works(t);
	assert_int_equal(glob(e2e_path(t, "data/ocai/history.db.damaged-*"), 0, NULL, &found), 0);
	text = e2e_slurp(open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC));
	assert_string_equal(text, "this is no database, but somebody may want it back");
	free(text);
	globfree(&found);
}

static void a_truncated_history_is_kept_aside(void **state)
{
	struct e2e *t = *state;

	make_history(t);
	assert_int_equal(truncate(e2e_path(t, "data/ocai/history.db"), 5000), 0);
	assert_true(ask_with_damage(t, "the history was damaged"));
	new_history_works(t);
}

static void a_history_with_broken_pages_is_kept_aside(void **state)
{
	struct e2e *t = *state;
	char junk[6000];
	int fd;

	make_history(t);
	memset(junk, 0xA5, sizeof(junk));
	fd = open(e2e_path(t, "data/ocai/history.db"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, junk, sizeof(junk), 4096), sizeof(junk));
	(void)close(fd);
	assert_true(ask_with_damage(t, "the history was damaged"));
	new_history_works(t);
}

static void another_programs_database_is_kept_aside(void **state)
{
	static const char *const schemas[] = {
		"CREATE TABLE message(x); CREATE TABLE session(y); INSERT INTO message VALUES('keep me')",
		"CREATE TABLE session(id INTEGER PRIMARY KEY, name TEXT); PRAGMA user_version = 1",
		"CREATE VIEW message AS SELECT 1 AS id, 2 AS session",
	};
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(schemas) / sizeof(*schemas); i++) {
		char command[E2E_PATH];
		sqlite3 *db = NULL;

		(void)snprintf(command, sizeof(command), "rm -rf '%s'/ocai", e2e_path(t, "data"));
		assert_int_equal(system(command), 0);
		e2e_write(t, "data/ocai/history.db", "", 0);
		assert_int_equal(sqlite3_open(e2e_path(t, "data/ocai/history.db"), &db), SQLITE_OK);
		assert_int_equal(sqlite3_exec(db, schemas[i], NULL, NULL, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_close(db), SQLITE_OK);
		if (!ask_with_damage(t, "the history was damaged"))
			fail_msg("case %zu is not kept aside: %s", i, t->err);
		new_history_works(t);
	}
}

static void an_empty_history_is_a_new_one(void **state)
{
	struct e2e *t = *state;

	e2e_write(t, "data/ocai/history.db", "", 0);
	assert_false(ask_with_damage(t, NULL));
	new_history_works(t);
}

static void a_newer_history_is_left_alone(void **state)
{
	struct e2e *t = *state;
	sqlite3 *db = NULL;
	char *before, *after;

	make_history(t);
	assert_int_equal(sqlite3_open(e2e_path(t, "data/ocai/history.db"), &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	before = e2e_slurp(open(e2e_path(t, "data/ocai/history.db"), O_RDONLY | O_CLOEXEC));
	assert_false(ask_with_damage(t, "written by a newer ocai (format 99)"));
	after = e2e_slurp(open(e2e_path(t, "data/ocai/history.db"), O_RDONLY | O_CLOEXEC));
	assert_string_equal(before, after);
	free(before);
	free(after);
	assert_int_equal(E2E_RUN(t, NULL, "history", "list"), 1);
	e2e_err_has(t, "written by a newer ocai");
}

static void a_damaged_history_does_not_keep_a_chat_from_beginning(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "data/ocai/history.db", "no database");
	E2E_SERVE(t, E2E_SAY("Hello."));
	E2E_OCAI(t, "chat");
	e2e_expect(t, "the history was damaged");
	e2e_reply(t, ">", "hi\r");
	e2e_expect(t, "Hello.");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	assert_int_equal(E2E_RUN(t, NULL, "history", "list"), 0);
	assert_non_null(strstr(t->out, "hi"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MOUNT_TEST(a_full_disk_costs_the_history_and_not_the_answer),
		MOUNT_TEST(a_disk_that_fills_up_in_a_chat_keeps_what_was_there),
		MOUNT_TEST(a_full_disk_keeps_the_old_file_of_code_and_save),
		MOUNT_TEST(a_full_run_time_folder_is_named_when_the_engine_starts),
		E2E_TEST(output_that_cannot_be_written_is_a_failure),
		MOUNT_TEST(a_read_only_home_costs_the_history_and_not_the_answer),
		E2E_TEST(an_unset_home_costs_the_history_and_not_the_answer),
		E2E_TEST(a_folder_that_is_gone_is_no_trouble),
		E2E_TEST(garbage_in_place_of_the_history_is_kept_aside),
		E2E_TEST(a_truncated_history_is_kept_aside),
		E2E_TEST(a_history_with_broken_pages_is_kept_aside),
		E2E_TEST(another_programs_database_is_kept_aside),
		E2E_TEST(an_empty_history_is_a_new_one),
		E2E_TEST(a_newer_history_is_left_alone),
		E2E_TEST(a_damaged_history_does_not_keep_a_chat_from_beginning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
