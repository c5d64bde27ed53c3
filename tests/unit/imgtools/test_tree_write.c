/* Trees read from roots and written as roots and as tar archives. */
#include <errno.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "tree_test.h"

static const struct img_write_opts exact = { .clamp_mtime = -1, .numeric_only = true };

static struct img_tree *scan(const char *root)
{
	struct img_tree *t = NULL;
	struct err err = { 0 };

	if (img_tree_scan(root, &t, &err) < 0)
		fail_msg("%s", err_text(&err));
	return t;
}

static void write_dir(struct img_tree *t, const char *root)
{
	struct err err = { 0 };
	size_t n_skipped = 0;

	if (img_tree_write_dir(t, root, &exact, &n_skipped, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static void write_tar(struct img_tree *t, const struct img_write_opts *o, struct base_buf *b)
{
	struct err err = { 0 };

	if (img_tree_write_tar(t, o, to_buf, b, &err) < 0)
		fail_msg("%s", err_text(&err));
}

/* Of everything a little: what the tests read back. */
static struct img_tree *sample(void)
{
	static char cap[] = { 1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
	struct img_xattr x[] = { { "security.capability", cap, sizeof(cap) }, { "user.note", "a\0=\nb", 5 } };
	struct img_tree *t = img_tree_new();
	struct img_node *n;
	char deep[700] = "";

	assert_non_null(t);
	add_file(t, "/etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/false\n");
	add_file(t, "/etc/group", "root:x:0:\nwww:x:33:\n");
	n = add_file(t, "/usr/bin/ping", "ping");
	n->mode = 0755;
	n = add_node(t, (struct img_node){ .path = "/usr/bin/capable",
	                                   .mode = 0755,
	                                   .size = 4,
	                                   .data = "ping",
	                                   .mtime_s = 1000000000,
	                                   .xattrs = geteuid() == 0 ? x : x + 1,
	                                   .n_xattrs = geteuid() == 0 ? 2 : 1 });
	n = add_file(t, "/usr/bin/su", "su");
	n->mode = 06755;
	n->mtime_ns = 123456700;
	add_file(t, "/usr/bin/one", "same")->link_group = 7;
	add_file(t, "/usr/lib/two", "same")->link_group = 7;
	add_file(t, "/empty", "");
	add_dir(t, "/closed")->mode = 0555;
	add_file(t, "/closed/in", "x");
	add_dir(t, "/var/lib/nothing");
	add_link(t, "/bin", "usr/bin");
	add_link(t, "/tmp/abs", "/nowhere/at/all");
	add_node(t, (struct img_node){ .path = "/fifo", .type = IMG_FIFO, .mode = 0622, .mtime_s = 5 });
	for (size_t i = 0; i < 60; i++)
		(void)snprintf(deep + 10 * i, 11, "/component");
	add_file(t, deep, "deep");
	add_file(t, "/b\xfftes \xe2\x82\xac", "names are bytes");
	if (geteuid() == 0) {
		n = add_node(t, (struct img_node){
		                        .path = "/dev/null", .type = IMG_CHAR, .mode = 0666, .major = 1, .minor = 3 });
		n = img_tree_find(t, "/usr/bin/ping");
		n->uid = 33;
		n->gid = 3000000; /* more than seven octal digits hold */
	}
	return t;
}

static void assert_same_node(const struct img_node *a, const struct img_node *b)
{
	char x[64], y[64];

	assert_string_equal(a->path, b->path);
	assert_int_equal(a->type, b->type);
	if (a->type != IMG_SYMLINK)
		assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->mtime_s, b->mtime_s);
	assert_int_equal(a->mtime_ns, b->mtime_ns);
	assert_int_equal(a->major, b->major);
	assert_int_equal(a->minor, b->minor);
	if (geteuid() == 0) {
		assert_int_equal(a->uid, b->uid);
		assert_int_equal(a->gid, b->gid);
	}
	if (a->type == IMG_SYMLINK)
		assert_string_equal(a->target, b->target);
	if (a->type == IMG_FILE) {
		assert_int_equal(img_node_read(a, x, sizeof(x), 0, NULL), img_node_read(b, y, sizeof(y), 0, NULL));
		assert_memory_equal(x, y, a->size < 64 ? a->size : 64);
	}
	assert_int_equal(a->n_xattrs, b->n_xattrs);
	for (size_t i = 0; i < a->n_xattrs; i++) {
		assert_string_equal(a->xattrs[i].name, b->xattrs[i].name);
		assert_int_equal(a->xattrs[i].size, b->xattrs[i].size);
		assert_memory_equal(a->xattrs[i].value, b->xattrs[i].value, a->xattrs[i].size);
	}
}

static void a_tree_written_and_scanned_is_the_same_tree(void **state)
{
	char *dir = temp_dir(), *root = strdup(in_dir(dir, "root"));
	struct img_tree *t = sample(), *back;

	(void)state;
	write_dir(t, root);
	back = scan(root);
	assert_int_equal(img_tree_count(t), img_tree_count(back));
	for (size_t i = 0; i < img_tree_count(t); i++)
		assert_same_node(img_tree_at(t, i), img_tree_at(back, i));
	assert_int_equal(img_tree_find(back, "/usr/bin/one")->link_group, 1);
	assert_int_equal(img_tree_find(back, "/usr/lib/two")->link_group, 1);
	assert_int_equal(img_tree_find(back, "/empty")->link_group, 0);
	img_tree_free(t);
	img_tree_free(back);
	free(root);
	drop_dir(dir);
}

static void a_root_that_is_not_empty_is_refused(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = sample();
	struct err err = { 0 };

	(void)state;
	write_text(in_dir(dir, "there"), "x");
	assert_int_equal(img_tree_write_dir(t, dir, &exact, NULL, &err), -ENOTEMPTY);
	assert_non_null(strstr(err_text(&err), dir));
	assert_int_equal(img_tree_write_dir(t, in_dir(dir, "no/parent"), &exact, NULL, NULL), -ENOENT);
	img_tree_free(t);
	drop_dir(dir);
}

static void times_are_clamped(void **state)
{
	struct img_write_opts o = { .clamp_mtime = 999999999 };
	char *dir = temp_dir();
	struct img_tree *t = sample(), *back;

	(void)state;
	assert_int_equal(img_tree_write_dir(t, in_dir(dir, "root"), &o, NULL, NULL), 0);
	back = scan(in_dir(dir, "root"));
	assert_int_equal(img_tree_find(back, "/usr/bin/su")->mtime_s, 999999999);
	assert_int_equal(img_tree_find(back, "/usr/bin/su")->mtime_ns, 0);
	assert_int_equal(img_tree_find(back, "/fifo")->mtime_s, 5);
	img_tree_free(t);
	img_tree_free(back);
	drop_dir(dir);
}

static void holes_stay_holes(void **state)
{
	char *dir = temp_dir(), *path = strdup(in_dir(dir, "sparse"));
	uint64_t size = 5ull << 30; /* beyond what an octal field of a plain tar can say, too */
	struct img_tree *t = img_tree_new();
	struct stat st;
	int fd = open(path, O_CREAT | O_RDWR, 0600);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(pwrite(fd, "middle", 6, 3ll << 30), 6);
	assert_int_equal(close(fd), 0);
	add_node(t, (struct img_node){ .path = "/big", .mode = 0644, .size = size, .source = path });
	write_dir(t, in_dir(dir, "root"));
	assert_int_equal(stat(in_dir(dir, "root/big"), &st), 0);
	assert_int_equal(st.st_size, size);
	assert_true(st.st_blocks < 2048);
	fd = open(in_dir(dir, "root/big"), O_RDONLY);
	{
		char buf[6];

		assert_int_equal(pread(fd, buf, 6, 3ll << 30), 6);
		assert_memory_equal(buf, "middle", 6);
	}
	(void)close(fd);
	img_tree_free(t);
	free(path);
	drop_dir(dir);
}

static void a_source_that_became_shorter_is_an_error(void **state)
{
	char *dir = temp_dir(), *path = strdup(in_dir(dir, "f"));
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	struct img_tree *t = img_tree_new();
	struct err err = { 0 };

	(void)state;
	write_text(path, "short");
	add_node(t, (struct img_node){ .path = "/f", .mode = 0644, .size = 100000, .source = path });
	assert_int_equal(img_tree_write_dir(t, in_dir(dir, "root"), &exact, NULL, &err), -EIO);
	assert_non_null(strstr(err_text(&err), path));
	assert_int_equal(img_tree_write_tar(t, &exact, to_buf, &b, NULL), -EIO);
	base_buf_done(&b);
	img_tree_free(t);
	free(path);
	drop_dir(dir);
}

/* Runs a program, all its output thrown away; its exit status. */
static int run(const char *const argv[])
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		(void)dup2(null, 1);
		(void)execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void gnu_tar_reads_what_is_written(void **state)
{
	char *dir = temp_dir(), *root = strdup(in_dir(dir, "root")), *tar = strdup(in_dir(dir, "t.tar"));
	const char *const argv[] = { "tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tar, "-C",
		                     root,  NULL };
	struct base_buf b = BASE_BUF_INIT(64 << 20);
	struct img_tree *t = sample(), *back;

	(void)state;
	write_tar(t, &exact, &b);
	assert_int_equal(base_write_file_atomic(tar, b.data, b.len, 0644, NULL), 0);
	assert_int_equal(mkdir(root, 0755), 0);
	if (run(argv) == 127) {
		skip(); /* no tar */
	}
	assert_int_equal(run((const char *const[]){ "tar", "-tf", tar, NULL }), 0);
	back = scan(root);
	assert_int_equal(img_tree_count(t), img_tree_count(back));
	for (size_t i = 1; i < img_tree_count(t); i++)
		assert_same_node(img_tree_at(t, i), img_tree_at(back, i));
	assert_int_equal(img_tree_find(back, "/usr/bin/one")->link_group, 1);
	base_buf_done(&b);
	img_tree_free(t);
	img_tree_free(back);
	free(root);
	free(tar);
	drop_dir(dir);
}

static void the_same_tree_gives_the_same_tar(void **state)
{
	struct base_buf a = BASE_BUF_INIT(64 << 20), b = BASE_BUF_INIT(64 << 20);
	char *dir = temp_dir(), *root = strdup(in_dir(dir, "root"));
	struct img_tree *t = sample(), *back;

	(void)state;
	write_tar(t, &exact, &a);
	write_dir(t, root);
	back = scan(root); /* other order of adding, other sources, other group numbers */
	for (size_t i = 0; i < img_tree_count(back) && geteuid() != 0; i++) /* all of it is ours then */
		img_tree_at(back, i)->uid = img_tree_at(back, i)->gid = 0;
	write_tar(back, &exact, &b);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	assert_int_equal(a.len % 512, 0);
	base_buf_done(&a);
	base_buf_done(&b);
	img_tree_free(t);
	img_tree_free(back);
	free(root);
	drop_dir(dir);
}

static void names_of_owners_are_those_of_the_tree(void **state)
{
	struct img_write_opts o = { .clamp_mtime = -1 };
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	struct img_tree *t = img_tree_new();
	const char *header;

	(void)state;
	add_file(t, "/etc/passwd", "web:x:33:33::/:/bin/false\nbroken\n:x:1:\n");
	add_file(t, "/etc/group", "www:x:44:\n");
	add_file(t, "/zz", "")->uid = 33;
	img_tree_find(t, "/zz")->gid = 44;
	write_tar(t, &o, &b);
	header = b.data + b.len - 1536;
	assert_string_equal(header, "zz");
	assert_string_equal(header + 265, "web");
	assert_string_equal(header + 297, "www");
	base_buf_done(&b);
	img_tree_free(t);
}

static void a_scan_does_not_follow_links(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t;

	(void)state;
	assert_int_equal(mkdir(in_dir(dir, "root"), 0755), 0);
	assert_int_equal(mkdir(in_dir(dir, "outside"), 0755), 0);
	write_text(in_dir(dir, "outside/secret"), "x");
	assert_int_equal(symlink("../outside", in_dir(dir, "root/link")), 0);
	assert_int_equal(link(in_dir(dir, "outside/secret"), in_dir(dir, "root/half")), 0);
	t = scan(in_dir(dir, "root"));
	assert_int_equal(img_tree_count(t), 3);
	assert_int_equal(img_tree_find(t, "/link")->type, IMG_SYMLINK);
	assert_int_equal(img_tree_find(t, "/half")->link_group, 0); /* its other name is not in the root */
	img_tree_free(t);
	drop_dir(dir);
}

static void a_root_that_is_not_there_is_named(void **state)
{
	struct img_tree *t = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(img_tree_scan("/no/such/root", &t, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "/no/such/root"));
	assert_null(t);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tree_written_and_scanned_is_the_same_tree),
		cmocka_unit_test(a_root_that_is_not_empty_is_refused),
		cmocka_unit_test(times_are_clamped),
		cmocka_unit_test(holes_stay_holes),
		cmocka_unit_test(a_source_that_became_shorter_is_an_error),
		cmocka_unit_test(gnu_tar_reads_what_is_written),
		cmocka_unit_test(the_same_tree_gives_the_same_tar),
		cmocka_unit_test(names_of_owners_are_those_of_the_tree),
		cmocka_unit_test(a_scan_does_not_follow_links),
		cmocka_unit_test(a_root_that_is_not_there_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
