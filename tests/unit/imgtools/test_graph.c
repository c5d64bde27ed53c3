/* The graph of needs: what stays, and the nearest reason for it. */
#include <errno.h>

#include "slim/graph.h"
#include "tree_test.h"

static struct img_graph *new_graph(struct img_tree *t, bool follow_weak)
{
	struct img_graph_opts o = { .follow_weak = follow_weak };
	struct img_graph *g = NULL;
	struct err err = { 0 };

	if (img_graph_new(t, &o, &g, &err) < 0)
		fail_msg("%s", err_text(&err));
	return g;
}

static bool stays(const struct img_graph *g, const struct img_tree *t, const char *path)
{
	return img_graph_keeps(g, img_graph_index(g, img_tree_find(t, path)));
}

static const struct img_edge *via(const struct img_graph *g, const struct img_tree *t, const char *path)
{
	return img_graph_via(g, img_graph_index(g, img_tree_find(t, path)));
}

static struct img_node *add_script(struct img_tree *t, const char *path, const char *text)
{
	struct img_node *n = add_file(t, path, text);

	n->mode = 0755;
	return n;
}

/* /start (sh) -> /usr/bin/sh -> dash; commands mkdir, rm. */
static struct img_tree *small_tree(void)
{
	struct img_tree *t = img_tree_new();

	(void)add_script(t, "/usr/bin/dash", "x");
	(void)add_link(t, "/usr/bin/sh", "dash");
	(void)add_link(t, "/bin", "usr/bin");
	(void)add_script(t, "/usr/bin/mkdir", "x");
	(void)add_script(t, "/usr/bin/unused", "x");
	(void)add_script(t, "/start", "#!/bin/sh\nmkdir /x\n");
	return t;
}

static void closure_takes_links_targets_and_folders(void **state)
{
	struct img_tree *t = small_tree();
	struct img_graph *g = new_graph(t, false);

	(void)state;
	assert_int_equal(img_graph_add_path(g, "/start", IMG_REASON_ENTRY, "command"), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_true(stays(g, t, "/start"));
	assert_true(stays(g, t, "/bin"));
	assert_true(stays(g, t, "/usr/bin/sh"));
	assert_true(stays(g, t, "/usr/bin/dash"));
	assert_true(stays(g, t, "/usr/bin"));
	assert_true(stays(g, t, "/usr"));
	assert_true(stays(g, t, "/"));
	assert_false(stays(g, t, "/usr/bin/unused"));
	assert_int_equal(via(g, t, "/usr/bin/dash")->reason, IMG_NEED_SHEBANG);
	assert_int_equal(via(g, t, "/start")->reason, IMG_REASON_ENTRY);
	img_graph_free(g);
	img_tree_free(t);
}

static void weak_needs_keep_only_when_asked(void **state)
{
	struct img_tree *t = small_tree();
	struct img_graph *g = new_graph(t, false);

	(void)state;
	assert_int_equal(img_graph_add_path(g, "/start", IMG_REASON_ENTRY, "command"), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_false(stays(g, t, "/usr/bin/mkdir"));
	img_graph_free(g);
	g = new_graph(t, true);
	assert_int_equal(img_graph_add_path(g, "/start", IMG_REASON_ENTRY, "command"), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_true(stays(g, t, "/usr/bin/mkdir"));
	assert_int_equal(via(g, t, "/usr/bin/mkdir")->reason, IMG_NEED_COMMAND);
	img_graph_free(g);
	img_tree_free(t);
}

static void cycles_end_and_the_nearest_reason_counts(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_graph *g;
	const struct img_edge *e;

	(void)state;
	(void)add_script(t, "/a", "#!/b\n");
	(void)add_script(t, "/b", "#!/c\n");
	(void)add_script(t, "/c", "#!/a\n");
	g = new_graph(t, false);
	assert_int_equal(img_graph_add_path(g, "/a", IMG_REASON_KEEP, "/a"), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_int_equal(img_graph_depth(g, img_graph_index(g, img_tree_find(t, "/a"))), 0);
	assert_int_equal(img_graph_depth(g, img_graph_index(g, img_tree_find(t, "/c"))), 2);
	e = via(g, t, "/c");
	assert_string_equal(img_graph_node(g, e->from)->path, "/b");
	assert_string_equal(img_graph_what(g, e), "/c");
	img_graph_free(g);
	img_tree_free(t);
}

static void roots_can_be_added_after_closing(void **state)
{
	struct img_tree *t = small_tree();
	struct img_graph *g = new_graph(t, false);

	(void)state;
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_false(stays(g, t, "/start"));
	assert_int_equal(img_graph_add_path(g, "/start", IMG_REASON_POLICY, "rule"), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_true(stays(g, t, "/usr/bin/dash"));
	img_graph_free(g);
	img_tree_free(t);
}

static struct img_trace_record record(const char *path, enum img_access access)
{
	return (struct img_trace_record){ .path = path, .access = access, .pid = 1, .count = 1 };
}

static void what_a_run_touched_stays(void **state)
{
	struct img_tree *t = small_tree();
	struct img_trace *trace = img_trace_new();
	struct img_trace_record records[] = {
		record("/usr/bin/mkdir", IMG_ACCESS_STAT), record("/bin", IMG_ACCESS_READLINK),
		record("/nowhere/x", IMG_ACCESS_MISS),     record("/usr/bin/new/file", IMG_ACCESS_CREATE),
		record("/gone", IMG_ACCESS_OPEN),
	};
	struct img_trace_process process = { .pid = 1, .program = "/usr/bin/tool", .cmdline = "tool" };
	struct img_graph *g = new_graph(t, false);

	(void)state;
	assert_int_equal(img_trace_add_process(trace, &process), 0);
	for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++)
		assert_int_equal(img_trace_add(trace, &records[i]), 0);
	assert_int_equal(img_graph_add_trace(g, trace, NULL), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_true(stays(g, t, "/usr/bin/mkdir"));
	assert_int_equal(via(g, t, "/usr/bin/mkdir")->reason, IMG_REASON_TRACE + IMG_ACCESS_STAT);
	assert_string_equal(img_graph_what(g, via(g, t, "/usr/bin/mkdir")), "/usr/bin/tool");
	assert_true(stays(g, t, "/bin"));
	assert_true(stays(g, t, "/usr/bin")); /* something was made below it */
	assert_false(stays(g, t, "/usr/bin/dash"));
	assert_int_equal(img_graph_n_sought(g), 1);
	assert_string_equal(img_graph_text(g, img_graph_sought(g, 0)->what), "/nowhere/x");
	img_graph_free(g);
	img_trace_free(trace);
	img_tree_free(t);
}

/* A run used a.py and did not touch b.py, which it imports: the import did not happen. */
static void imports_that_a_run_did_not_make_are_weak(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_trace *trace = img_trace_new();
	struct img_trace_record r = record("/app/a.py", IMG_ACCESS_OPEN);
	struct img_graph *g;

	(void)state;
	(void)add_file(t, "/app/a.py", "import b\n");
	(void)add_file(t, "/app/b.py", "x = 1\n");
	assert_int_equal(img_trace_add(trace, &r), 0);
	g = new_graph(t, false);
	assert_int_equal(img_graph_add_trace(g, trace, NULL), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_false(stays(g, t, "/app/b.py"));
	img_graph_free(g);
	g = new_graph(t, false);
	assert_int_equal(img_graph_add_path(g, "/app/a.py", IMG_REASON_KEEP, "asked"), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_true(stays(g, t, "/app/b.py"));
	img_graph_free(g);
	img_trace_free(trace);
	img_tree_free(t);
}

static bool drops_dash(const struct img_node *n, void *arg)
{
	(void)arg;
	return strcmp(n->path, "/usr/bin/dash") == 0;
}

static void dropped_nodes_are_never_entered(void **state)
{
	struct img_tree *t = small_tree();
	struct img_graph_opts o = { .is_dropped = drops_dash };
	struct img_graph *g = NULL;

	(void)state;
	assert_int_equal(img_graph_new(t, &o, &g, NULL), 0);
	assert_int_equal(img_graph_add_path(g, "/start", IMG_REASON_ENTRY, "command"), 0);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_true(stays(g, t, "/usr/bin/sh"));
	assert_false(stays(g, t, "/usr/bin/dash"));
	img_graph_free(g);
	img_tree_free(t);
}

static void links_that_lead_nowhere_can_stay(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_graph *g;

	(void)state;
	(void)add_link(t, "/l", "/gone");
	g = new_graph(t, false);
	assert_int_equal(img_graph_add_path(g, "/l", IMG_REASON_KEEP, "/l"), 0);
	assert_int_equal(img_graph_add_path(g, "/none", IMG_REASON_KEEP, "/none"), -ENOENT);
	assert_int_equal(img_graph_close(g, NULL), 0);
	assert_true(stays(g, t, "/l"));
	assert_int_equal(img_graph_n_sought(g), 1);
	img_graph_free(g);
	img_tree_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(closure_takes_links_targets_and_folders),
		cmocka_unit_test(weak_needs_keep_only_when_asked),
		cmocka_unit_test(cycles_end_and_the_nearest_reason_counts),
		cmocka_unit_test(roots_can_be_added_after_closing),
		cmocka_unit_test(what_a_run_touched_stays),
		cmocka_unit_test(imports_that_a_run_did_not_make_are_weak),
		cmocka_unit_test(dropped_nodes_are_never_entered),
		cmocka_unit_test(links_that_lead_nowhere_can_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
