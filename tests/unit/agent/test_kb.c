/* The knowledge base: words, documents, passages, the database and its misfortunes. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kb/kb.h"

/* ---- Words ---------------------------------------------------------------------------------------------- */

static int join_token(void *arg, const char *token, size_t len, size_t begin, size_t end)
{
	struct base_buf *out = arg;

	(void)begin, (void)end;
	(void)base_buf_append(out, token, len);
	return base_buf_putc(out, ' ');
}

static void assert_tokens(const char *text, bool is_query, const char *expected)
{
	struct base_buf out = BASE_BUF_INIT(4096);

	assert_int_equal(ag_kb_tokenize(text, strlen(text), is_query, join_token, &out), 0);
	assert_string_equal(base_buf_text(&out), expected);
	base_buf_done(&out);
}

static void chinese_runs_become_pairs(void **state)
{
	(void)state;
	assert_tokens("磁盘空间", false, "磁盘 盘空 空间 间 ");
	assert_tokens("磁盘空间", true, "磁盘 盘空 空间 ");
	assert_tokens("盘", true, "盘 ");
	assert_tokens("查看nginx的日志", true, "查看 nginx 的日 日志 ");
}

static void words_are_folded(void **state)
{
	(void)state;
	assert_tokens("DISK Ｄｉｓｋ disk", false, "disk disk disk ");
	assert_tokens("Café STRASSE Straße", false, "cafe strasse strasse ");
	assert_tokens("--no-pager /etc/fstab", false, "no pager etc fstab ");
	assert_tokens("ｶﾞｽ ガス", false, "カス ス カス ス ");
}

static void bad_bytes_separate_words(void **state)
{
	(void)state;
	assert_tokens("ab\xff"
	              "cd\xe4\xb8",
	              false, "ab cd ");
}

static int check_offset(void *arg, const char *token, size_t len, size_t begin, size_t end)
{
	const char *text = arg;

	assert_true(begin < end && end <= strlen(text));
	assert_int_equal(len, end - begin);
	assert_memory_equal(text + begin, token, len);
	return 0;
}

static void offsets_point_into_the_text(void **state)
{
	char text[] = "df 查看磁盘 usage";

	(void)state;
	assert_int_equal(ag_kb_tokenize(text, strlen(text), false, check_offset, text), 0);
}

/* ---- Documents -------------------------------------------------------------------------------------------- */

static void assert_lines(enum ag_kb_format format, const char *in, const char *title, const char *expected)
{
	struct ag_kb_doc doc;
	struct base_buf out = BASE_BUF_INIT(1 << 16);

	ag_kb_doc_init(&doc, 1 << 16);
	assert_int_equal(ag_kb_extract(format, in, strlen(in), &doc), 0);
	for (size_t i = 0; i < doc.n_lines; i++)
		(void)base_buf_printf(&out, "%u%s%.*s|", (unsigned)doc.lines[i].line,
		                      doc.lines[i].heading ? "#"
		                      : doc.lines[i].para  ? "+"
		                                           : " ",
		                      (int)doc.lines[i].len, doc.text.data + doc.lines[i].offset);
	assert_string_equal(base_buf_text(&out), expected);
	assert_string_equal(doc.title, title);
	base_buf_done(&out);
	ag_kb_doc_done(&doc);
}

static void markdown_headings_are_found_outside_fences(void **state)
{
	(void)state;
	assert_lines(AG_KB_MARKDOWN, "# Top #\n\ntext\nmore\n```\n# no\n```\n\nUnder\n-----\nend\n", "Top",
	             "1#Top|3+text|4 more|5 ```|6 # no|7 ```|9#Under|11+end|");
}

static void html_tags_are_stripped(void **state)
{
	(void)state;
	assert_lines(AG_KB_HTML,
	             "<html><head><title>A &amp; B</title><style>p{}</style></head><body>\n<h1>Disks</h1>\n"
	             "<p>one\n <b>two</b>&nbsp;&#x4e2d;</p><script>var x = '<p>';</script><ul><li>item</ul>"
	             "<pre>a\n  b</pre> 1 < 2 <!-- <p>gone</p> --></body>",
	             "A & B", "2#Disks|3+one two 中|4+- item|4+a|5   b|5+1 < 2|");
}

static void man_macros_become_text(void **state)
{
	(void)state;
	assert_lines(AG_KB_ROFF,
	             ".\\\" comment\n.TH LS 1 \"2020\"\n.SH NAME\nls \\- list\n.SH OPTIONS\n.TP\n\\fB\\-a\\fR, "
	             "\\fB\\-\\-all\\fR\n"
	             "do not \\(lqignore\\(rq\n.if t .ig\n.BR ls (1),\n.de XX\nhidden\n..\n.nf\nx\n  y\n.fi\n",
	             "ls(1)", "3#NAME|4+ls - list|5#OPTIONS|7+-a, --all do not “ignore” ls(1),|15 x|16   y|");
}

static void mdoc_macros_become_text(void **state)
{
	(void)state;
	assert_lines(AG_KB_ROFF,
	             ".Dt SSH 1\n.Sh NAME\n.Nm ssh\n.Nd a client\n.Sh SYNOPSIS\n.Nm\n.Op Fl 46A\n.Op Fl p Ar port\n"
	             ".Ar destination\n.Pp\nSee\n.Xr sshd 8 .\nUse\n.Dq Li quoted ,\nand\n.Pf ( Ev HOME ) .\n",
	             "ssh(1)",
	             "2#NAME|3+ssh - a client|5#SYNOPSIS|6+ssh [-46A] [-p port] destination|"
	             "11+See sshd(8). Use \"quoted\", and (HOME).|");
}

static void binary_data_is_refused(void **state)
{
	struct ag_kb_doc doc;

	(void)state;
	ag_kb_doc_init(&doc, 1 << 16);
	assert_int_equal(ag_kb_extract(AG_KB_TEXT, "ELF\0\1", 5, &doc), -EBADMSG);
	ag_kb_doc_done(&doc);
}

static void chinese_of_older_encodings_is_read(void **state)
{
	(void)state;
	assert_lines(AG_KB_TEXT, "\xb4\xc5\xc5\xcc\xbf\xd5\xbc\xe4\n", "", "1+磁盘空间|");
	assert_lines(AG_KB_TEXT, "caf\xe9 au lait\n", "", "1+café au lait|");
}

struct pieces {
	size_t n, shortest, longest;
	uint32_t last_line;
};

static int measure(void *arg, uint32_t line, const char *heading, const char *text, size_t len)
{
	struct pieces *p = arg;
	size_t chars = 0;

	(void)heading;
	for (size_t i = 0; i < len; i++)
		chars += ((unsigned char)text[i] & 0xc0) != 0x80;
	assert_true(((unsigned char)text[0] & 0xc0) != 0x80);
	p->shortest = p->n == 0 || chars < p->shortest ? chars : p->shortest;
	p->longest = chars > p->longest ? chars : p->longest;
	p->last_line = line;
	p->n++;
	return 0;
}

static void passages_have_200_to_800_characters(void **state)
{
	struct pieces p = { 0 };
	struct base_buf in = BASE_BUF_INIT(1 << 20);
	struct ag_kb_doc doc;

	(void)state;
	for (int i = 0; i < 100; i++)
		(void)base_buf_printf(&in, "%s这是第%d行，说明磁盘与网络的设置方法。Some words follow here.\n",
		                      i % 7 ? "" : "\n", i);
	for (int i = 0; i < 300; i++)
		(void)base_buf_puts(&in, "没有换行的长句子。");
	ag_kb_doc_init(&doc, 1 << 20);
	assert_int_equal(ag_kb_extract(AG_KB_TEXT, in.data, in.len, &doc), 0);
	assert_int_equal(ag_kb_split(&doc, measure, &p), 0);
	assert_true(p.n > 8);
	assert_in_range(p.longest, 200, 800);
	assert_int_equal(p.last_line, 116);
	ag_kb_doc_done(&doc);
	base_buf_done(&in);
}

/* ---- The database --------------------------------------------------------------------------------------------- */

struct room {
	char dir[64], db[128], docs[128];
	char notices[4096];
	struct ag_kb *kb;
};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void note(void *arg, const char *line)
{
	struct room *room = arg;
	size_t n = strlen(room->notices);

	(void)snprintf(room->notices + n, sizeof(room->notices) - n, "%s\n", line);
}

static int set_up(void **state)
{
	struct room *room = calloc(1, sizeof(*room));

	(void)snprintf(room->dir, sizeof(room->dir), "/tmp/test_kb.XXXXXX");
	assert_non_null(mkdtemp(room->dir));
	(void)snprintf(room->db, sizeof(room->db), "%s/data/kb.sqlite", room->dir);
	(void)snprintf(room->docs, sizeof(room->docs), "%s/docs", room->dir);
	assert_int_equal(mkdir(room->docs, 0700), 0);
	*state = room;
	return 0;
}

static int tear_down(void **state)
{
	struct room *room = *state;

	ag_kb_close(room->kb);
	(void)nftw(room->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(room);
	return 0;
}

static void open_room(struct room *room, const volatile sig_atomic_t *cancel)
{
	struct ag_kb_options options = { .path = room->db,
		                         .max_file_bytes = 4096,
		                         .max_total_bytes = 20000,
		                         .cancel = cancel,
		                         .on_notice = note,
		                         .on_notice_arg = room };
	struct err err = { 0 };

	ag_kb_close(room->kb);
	room->kb = NULL;
	if (ag_kb_open(&options, &room->kb, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static void put_file(struct room *room, const char *name, const char *text, size_t len)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", room->docs, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static struct ag_kb_counts add(struct room *room)
{
	struct ag_kb_counts c;
	struct err err = { 0 };

	if (ag_kb_add(room->kb, room->docs, &c, &err) < 0)
		fail_msg("%s", err_text(&err));
	return c;
}

static size_t count_hits(struct room *room, const char *question, char *first_path, size_t size)
{
	struct ag_kb_hits hits = { 0 };
	struct err err = { 0 };
	size_t n;

	if (ag_kb_search(room->kb, question, 10, &hits, &err) < 0)
		fail_msg("%s", err_text(&err));
	n = hits.n;
	if (n && first_path)
		(void)snprintf(first_path, size, "%s", hits.items[0].path);
	ag_kb_hits_done(&hits);
	return n;
}

static const char disk[] = "# 磁盘\n\n用 df 查看磁盘剩余空间。\n",
                  net[] = "# 网络\n\n用 ss 查看监听端口。 Listening PORTS.\n";

static void chinese_and_english_words_are_found(void **state)
{
	struct room *room = *state;
	struct ag_kb_hits hits = { 0 };
	struct base_buf cited = BASE_BUF_INIT(4096);
	char path[256];

	open_room(room, NULL);
	put_file(room, "disk.md", disk, strlen(disk));
	put_file(room, "net.md", net, strlen(net));
	assert_int_equal(add(room).n_new, 2);
	assert_int_equal(count_hits(room, "怎么看剩余空间", path, sizeof(path)), 1);
	assert_non_null(strstr(path, "disk.md"));
	assert_int_equal(count_hits(room, "listening port PORTS?", path, sizeof(path)), 1);
	assert_non_null(strstr(path, "net.md"));
	assert_int_equal(count_hits(room, "盘", NULL, 0), 1);
	assert_int_equal(count_hits(room, "kubernetes", NULL, 0), 0);
	assert_int_equal(count_hits(room, "\"' OR * NEAR( ^", NULL, 0), 0);
	assert_int_equal(ag_kb_search(room->kb, "监听", 3, &hits, NULL), 0);
	assert_int_equal(hits.n, 1);
	assert_string_equal(hits.items[0].title, "网络");
	assert_int_equal(hits.items[0].line, 1);
	assert_string_equal(hits.items[0].snippet, "网络 用 ss 查看\x01监听\x02端口。 Listening PORTS.");
	assert_int_equal(ag_kb_cite(&hits, 4096, &cited), 1);
	assert_non_null(strstr(base_buf_text(&cited), "net.md:1 (网络)\n"));
	assert_int_equal(ag_kb_cite(&hits, 10, &cited), 0);
	base_buf_done(&cited);
	ag_kb_hits_done(&hits);
}

static void only_changed_files_are_read_again(void **state)
{
	struct room *room = *state;
	struct ag_kb_counts c;
	char path[256];

	open_room(room, NULL);
	put_file(room, "disk.md", disk, strlen(disk));
	put_file(room, "net.md", net, strlen(net));
	(void)add(room);
	put_file(room, "disk.md", "# Neu\n\nganz anders\n", 19);
	c = add(room);
	assert_int_equal(c.n_new, 1);
	assert_int_equal(c.n_unchanged, 1);
	assert_int_equal(count_hits(room, "磁盘", NULL, 0), 0);
	assert_int_equal(count_hits(room, "anders", NULL, 0), 1);
	(void)snprintf(path, sizeof(path), "%s/net.md", room->docs);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ag_kb_update(room->kb, &c, NULL), 0);
	assert_int_equal(c.n_removed, 1);
	assert_int_equal(count_hits(room, "端口", NULL, 0), 0);
	assert_int_equal(ag_kb_remove(room->kb, room->docs, NULL), 0);
	assert_int_equal(count_hits(room, "anders", NULL, 0), 0);
	assert_int_equal(ag_kb_remove(room->kb, room->docs, NULL), -ENOENT);
}

static void what_does_not_fit_is_skipped_and_told(void **state)
{
	struct room *room = *state;
	struct ag_kb_counts c;
	char big[5000], path[256];

	memset(big, 'x', sizeof(big));
	open_room(room, NULL);
	put_file(room, "big.txt", big, sizeof(big));
	put_file(room, "binary", "a\0b", 3);
	put_file(room, "id_ed25519.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", 40);
	put_file(room, "server.key", "secret", 6);
	put_file(room, "disk.md", disk, strlen(disk));
	(void)snprintf(path, sizeof(path), "%s/loop", room->docs);
	assert_int_equal(symlink("..", path), 0);
	(void)snprintf(path, sizeof(path), "%s/self", room->docs);
	assert_int_equal(symlink("self", path), 0);
	(void)snprintf(path, sizeof(path), "%s/pipe", room->docs);
	assert_int_equal(mkfifo(path, 0600), 0);
	c = add(room);
	assert_int_equal(c.n_new, 1);
	assert_non_null(strstr(room->notices, "big.txt: larger than max-file-size"));
	assert_non_null(strstr(room->notices, "id_ed25519.txt: it holds a private key"));
	assert_non_null(strstr(room->notices, "server.key: it may hold secrets"));
	assert_non_null(strstr(room->notices, "self: symbolic links in a circle"));
}

static void the_budget_of_all_text_is_kept(void **state)
{
	struct room *room = *state;
	char text[3000], name[32];

	memset(text, 'y', sizeof(text));
	open_room(room, NULL);
	for (int i = 0; i < 10; i++) {
		(void)snprintf(name, sizeof(name), "f%d.txt", i);
		text[0] = (char)('a' + i);
		put_file(room, name, text, sizeof(text));
	}
	assert_int_equal(add(room).n_new, 6);
	assert_non_null(strstr(room->notices, "the knowledge base is full"));
}

static void a_damaged_database_is_moved_aside(void **state)
{
	struct room *room = *state;
	struct stat st;
	FILE *f;

	open_room(room, NULL);
	assert_int_equal(stat(room->db, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	ag_kb_close(room->kb);
	room->kb = NULL;
	f = fopen(room->db, "w");
	assert_non_null(f);
	for (int i = 0; i < 500; i++)
		(void)fputs("this is no database ", f);
	(void)fclose(f);
	open_room(room, NULL);
	assert_non_null(strstr(room->notices, "damaged and was moved to"));
	put_file(room, "disk.md", disk, strlen(disk));
	assert_int_equal(add(room).n_new, 1);
}

static void an_interrupted_walk_leaves_whole_files(void **state)
{
	struct room *room = *state;
	volatile sig_atomic_t cancel = 1;
	struct ag_kb_counts c;

	open_room(room, &cancel);
	put_file(room, "disk.md", disk, strlen(disk));
	assert_int_equal(ag_kb_add(room->kb, room->docs, &c, NULL), -ECANCELED);
	cancel = 0;
	assert_int_equal(ag_kb_update(room->kb, &c, NULL), 0);
	assert_int_equal(c.n_new, 1);
}

static void what_is_not_there_is_not_added(void **state)
{
	struct room *room = *state;
	struct ag_kb_options options = { .path = room->db, .must_exist = true };
	struct ag_kb_counts c;
	struct ag_kb *kb = NULL;

	assert_int_equal(ag_kb_open(&options, &kb, NULL), -ENOENT);
	assert_null(kb);
	open_room(room, NULL);
	assert_int_equal(ag_kb_add(room->kb, "/does/not/exist", &c, NULL), -ENOENT);
	assert_int_equal(ag_kb_add(room->kb, "doc:../etc", &c, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chinese_runs_become_pairs),
		cmocka_unit_test(words_are_folded),
		cmocka_unit_test(bad_bytes_separate_words),
		cmocka_unit_test(offsets_point_into_the_text),
		cmocka_unit_test(markdown_headings_are_found_outside_fences),
		cmocka_unit_test(html_tags_are_stripped),
		cmocka_unit_test(man_macros_become_text),
		cmocka_unit_test(mdoc_macros_become_text),
		cmocka_unit_test(binary_data_is_refused),
		cmocka_unit_test(chinese_of_older_encodings_is_read),
		cmocka_unit_test(passages_have_200_to_800_characters),
		cmocka_unit_test_setup_teardown(chinese_and_english_words_are_found, set_up, tear_down),
		cmocka_unit_test_setup_teardown(only_changed_files_are_read_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_does_not_fit_is_skipped_and_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_budget_of_all_text_is_kept, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_damaged_database_is_moved_aside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_interrupted_walk_leaves_whole_files, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_there_is_not_added, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
