/* History: what is kept comes back, and no fault of the disk or of the file loses it or stops anything. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "history/history.h"

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/ocai-history-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[256];

	(void)state;
	(void)snprintf(command, sizeof(command), "chmod -R u+w %s && rm -rf %s", dir, dir);
	return system(command);
}

static struct ag_history *open_here(struct base_buf *note)
{
	struct ag_history *h = NULL;
	struct err err = { 0 };

	if (ag_history_open(dir, &h, note, &err) < 0)
		fail_msg("%s", err_text(&err));
	return h;
}

static int64_t add_session(struct ag_history *h, const char *title, const char *answer)
{
	struct err err = { 0 };
	int64_t id = 0;

	assert_int_equal(ag_history_begin(h, "chat", "m", title, &id, &err), 0);
	assert_int_equal(ag_history_add(h, id, "user", title, strlen(title), &err), 0);
	assert_int_equal(ag_history_add(h, id, "assistant", answer, strlen(answer), &err), 0);
	return id;
}

struct seen {
	int n;
	int64_t first;
	char text[4096];
};

static int see_session(void *arg, const struct ag_history_session *s)
{
	struct seen *seen = arg;

	if (seen->n++ == 0)
		seen->first = s->id;
	(void)snprintf(seen->text + strlen(seen->text), sizeof(seen->text) - strlen(seen->text), "%s/%s/%lld;", s->kind,
	               s->title, (long long)s->n_messages);
	return 0;
}

static int see_message(void *arg, const struct ag_history_message *m)
{
	struct seen *seen = arg;

	if (seen->n++ == 0)
		seen->first = m->session;
	(void)snprintf(seen->text + strlen(seen->text), sizeof(seen->text) - strlen(seen->text), "%s:%s;", m->role,
	               m->text);
	return 0;
}

static void what_was_said_is_there_when_opened_again(void **state)
{
	struct seen seen = { 0 };
	struct err err = { 0 };
	struct ag_history *h = open_here(NULL);
	int64_t id = add_session(h, "磁盘满了怎么办\n第二行", "删除旧日志");

	(void)state;
	ag_history_close(h);
	h = open_here(NULL);
	assert_int_equal(ag_history_list(h, 0, see_session, &seen, &err), 0);
	assert_string_equal(seen.text, "chat/磁盘满了怎么办/2;");
	seen = (struct seen){ 0 };
	assert_int_equal(ag_history_show(h, id, see_message, &seen, &err), 0);
	assert_string_equal(seen.text, "user:磁盘满了怎么办\n第二行;assistant:删除旧日志;");
	assert_int_equal(ag_history_show(h, id + 7, see_message, &seen, &err), -ENOENT);
	ag_history_close(h);
}

static void words_are_found_in_any_script_and_literally(void **state)
{
	struct seen seen = { 0 };
	struct err err = { 0 };
	struct ag_history *h = open_here(NULL);

	(void)state;
	(void)add_session(h, "show disk usage", "df -h is 100% right");
	(void)add_session(h, "查看磁盘", "df -h");
	assert_int_equal(ag_history_search(h, "磁盘", 0, see_message, &seen, &err), 0);
	assert_int_equal(seen.n, 1);
	seen = (struct seen){ 0 };
	assert_int_equal(ag_history_search(h, "DISK", 0, see_message, &seen, &err), 0);
	assert_int_equal(seen.n, 1);
	seen = (struct seen){ 0 };
	assert_int_equal(ag_history_search(h, "0%", 0, see_message, &seen, &err), 0);
	assert_int_equal(seen.n, 1);
	seen = (struct seen){ 0 };
	assert_int_equal(ag_history_search(h, "_", 0, see_message, &seen, &err), 0);
	assert_int_equal(seen.n, 0);
	ag_history_close(h);
}

static void removed_sessions_are_gone_with_their_messages(void **state)
{
	struct seen seen = { 0 };
	struct err err = { 0 };
	struct ag_history *h = open_here(NULL);
	int64_t a = add_session(h, "first", "x"), b = add_session(h, "second", "y"), last = 0;

	(void)state;
	assert_int_equal(ag_history_last(h, "chat", &last, &err), 0);
	assert_int_equal(last, b);
	assert_int_equal(ag_history_last(h, "code", &last, &err), -ENOENT);
	assert_int_equal(ag_history_remove(h, a, &err), 0);
	assert_int_equal(ag_history_remove(h, a, &err), -ENOENT);
	assert_int_equal(ag_history_search(h, "x", 0, see_message, &seen, &err), 0);
	assert_int_equal(seen.n, 0);
	assert_int_equal(ag_history_remove_all(h, &err), 0);
	assert_int_equal(ag_history_list(h, 0, see_session, &seen, &err), 0);
	assert_int_equal(seen.n, 0);
	ag_history_close(h);
}

static void an_export_is_one_json_object(void **state)
{
	struct err err = { 0 };
	struct ag_history *h = open_here(NULL);
	int64_t id = add_session(h, "q", "a");
	json_t *json = NULL;

	(void)state;
	assert_int_equal(ag_history_export(h, id, &json, &err), 0);
	assert_int_equal(json_array_size(json_object_get(json, "messages")), 2);
	assert_string_equal(
	        json_string_value(json_object_get(json_array_get(json_object_get(json, "messages"), 1), "content")),
	        "a");
	json_decref(json);
	assert_int_equal(ag_history_export(h, id + 1, &json, &err), -ENOENT);
	ag_history_close(h);
}

static void folder_and_files_are_private(void **state)
{
	static const char *const names[] = { "", "/history.db", "/history.db-wal", "/history.db-shm" };
	struct ag_history *h;
	char path[256];
	struct stat st;

	(void)state;
	assert_int_equal(chmod(dir, 0755), 0);
	h = open_here(NULL);
	(void)add_session(h, "q", "a");
	for (size_t i = 0; i < 4; i++) {
		(void)snprintf(path, sizeof(path), "%s%s", dir, names[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, i ? 0600 : 0700);
	}
	ag_history_close(h);
}

/* Damages the database in the given way, opens it, and expects a note, the old bytes and a working new one. */
static void expect_moved_aside(const char *command)
{
	struct base_buf note = BASE_BUF_INIT(4096);
	struct ag_history *h;
	char line[512];

	(void)snprintf(line, sizeof(line), "cd %s && %s", dir, command);
	assert_int_equal(system(line), 0);
	h = open_here(&note);
	assert_non_null(strstr(base_buf_text(&note), "the history was damaged"));
	assert_non_null(strstr(base_buf_text(&note), "history.db.damaged-"));
	(void)add_session(h, "after", "works");
	ag_history_close(h);
	(void)snprintf(line, sizeof(line), "ls %s/history.db.damaged-* >/dev/null", dir);
	assert_int_equal(system(line), 0);
	base_buf_done(&note);
}

static void a_file_that_is_no_database_is_moved_aside(void **state)
{
	(void)state;
	expect_moved_aside("head -c 9000 /dev/zero | tr '\\0' x >history.db");
}

static void a_damaged_database_is_moved_aside(void **state)
{
	struct ag_history *h = open_here(NULL);

	(void)state;
	for (int i = 0; i < 200; i++)
		(void)add_session(h, "a title that fills pages", "and an answer that fills more of them");
	ag_history_close(h);
	expect_moved_aside("head -c 6000 /dev/zero | tr '\\0' y | dd of=history.db bs=1 seek=4100 conv=notrunc "
	                   "status=none && rm -f history.db-wal");
}

static void an_empty_file_is_a_new_database(void **state)
{
	struct base_buf note = BASE_BUF_INIT(256);
	char path[256];
	int fd;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/history.db", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	(void)close(fd);
	ag_history_close(open_here(&note));
	assert_int_equal(note.len, 0);
}

static void what_cannot_be_opened_is_an_error_with_its_path(void **state)
{
	struct ag_history *h = NULL;
	struct err err = { 0 };
	char path[256];

	(void)state;
	assert_true(ag_history_open("/proc/nonexistent/ocai", &h, NULL, &err) < 0);
	assert_non_null(strstr(err_text(&err), "/proc/nonexistent"));
	(void)snprintf(path, sizeof(path), "%s/history.db", dir);
	assert_int_equal(symlink("/tmp/elsewhere", path), 0);
	assert_int_equal(ag_history_open(dir, &h, NULL, &err), -ELOOP);
	assert_null(h);
}

static void a_newer_format_is_refused_and_kept(void **state)
{
	struct ag_history *h = open_here(NULL);
	struct err err = { 0 };
	char line[256];

	(void)state;
	ag_history_close(h);
	/* user_version is a big-endian number at offset 60 of the file (SQLite's file format, section 1.3). */
	(void)snprintf(line, sizeof(line),
	               "printf '\\0\\0\\0\\11' | dd of=%s/history.db bs=1 seek=60 conv=notrunc "
	               "status=none",
	               dir);
	assert_int_equal(system(line), 0);
	h = NULL;
	assert_int_equal(ag_history_open(dir, &h, NULL, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "newer ocai"));
	assert_null(h);
}

static void a_full_disk_is_an_error_and_what_was_there_stays(void **state)
{
	const struct rlimit small = { 256 << 10, RLIM_INFINITY };
	static char big[1 << 20];
	struct seen seen = { 0 };
	struct err err = { 0 };
	struct ag_history *h = open_here(NULL);
	int64_t id = add_session(h, "q", "a");
	struct rlimit old;

	(void)state;
	memset(big, 'x', sizeof(big));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	(void)signal(SIGXFSZ, SIG_IGN); /* writes beyond the limit fail, as on a full disk */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_true(ag_history_add(h, id, "user", big, sizeof(big), &err) < 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	ag_history_close(h);
	h = open_here(NULL);
	assert_int_equal(ag_history_show(h, id, see_message, &seen, &err), 0);
	assert_string_equal(seen.text, "user:q;assistant:a;");
	ag_history_close(h);
}

static void a_message_needs_its_session(void **state)
{
	struct ag_history *h = open_here(NULL);
	struct err err = { 0 };

	(void)state;
	assert_true(ag_history_add(h, 99, "user", "orphan", 6, &err) < 0);
	ag_history_close(h);
}

#define T(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_was_said_is_there_when_opened_again),
		T(words_are_found_in_any_script_and_literally),
		T(removed_sessions_are_gone_with_their_messages),
		T(an_export_is_one_json_object),
		T(folder_and_files_are_private),
		T(a_file_that_is_no_database_is_moved_aside),
		T(a_damaged_database_is_moved_aside),
		T(an_empty_file_is_a_new_database),
		T(what_cannot_be_opened_is_an_error_with_its_path),
		T(a_newer_format_is_refused_and_kept),
		T(a_full_disk_is_an_error_and_what_was_there_stays),
		T(a_message_needs_its_session),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
