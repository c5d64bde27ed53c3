/* Folders and small trees for the tests of the image tools. */
#ifndef TREE_TEST_H
#define TREE_TEST_H

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mapfile.h"
#include "test.h"
#include "tree/tree.h"

/* A new folder, of this test alone; its path is the caller's to free. */
static inline char *temp_dir(void)
{
	const char *base = getenv("TMPDIR");
	char *path = NULL;

	assert_true(asprintf(&path, "%s/img-test-XXXXXX", base ? base : "/tmp") > 0);
	assert_non_null(mkdtemp(path));
	return path;
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void remove_all(const char *path)
{
	(void)nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* The folder and all in it, and the memory of its name. */
static inline void drop_dir(char *path)
{
	remove_all(path);
	free(path);
}

/* "<dir>/<rest>" in one of sixteen static buffers that take turns. */
static inline const char *in_dir(const char *dir, const char *rest)
{
	static char paths[16][4096];
	static unsigned turn;
	char *path = paths[turn++ % 16];

	(void)snprintf(path, 4096, "%s/%s", dir, rest);
	return path;
}

static inline void write_text(const char *path, const char *text)
{
	assert_int_equal(base_write_file_atomic(path, text, strlen(text), 0644, NULL), 0);
}

/* The text of a file; the caller's to free. */
static inline char *read_text(const char *path)
{
	struct base_buf b = BASE_BUF_INIT(1u << 30);
	struct err err = { 0 };

	if (base_read_file(path, &b, &err) < 0)
		fail_msg("%s", err_text(&err));
	return base_buf_take(&b);
}

static inline struct img_node *add_node(struct img_tree *t, struct img_node n)
{
	struct img_node *added = NULL;
	struct err err = { 0 };

	if (n.layer == 0)
		n.layer = -1;
	n.package = -1;
	if (img_tree_add(t, &n, &added, &err) < 0)
		fail_msg("%s", err_text(&err));
	return added;
}

static inline struct img_node *add_file(struct img_tree *t, const char *path, const char *text)
{
	return add_node(t, (struct img_node){ .path = path,
	                                      .type = IMG_FILE,
	                                      .mode = 0644,
	                                      .size = strlen(text),
	                                      .data = (void *)text,
	                                      .mtime_s = 1000000000 });
}

static inline struct img_node *add_dir(struct img_tree *t, const char *path)
{
	return add_node(t, (struct img_node){ .path = path, .type = IMG_DIR, .mode = 0755, .mtime_s = 1000000000 });
}

static inline struct img_node *add_link(struct img_tree *t, const char *path, const char *target)
{
	return add_node(t, (struct img_node){ .path = path,
	                                      .type = IMG_SYMLINK,
	                                      .mode = 0777,
	                                      .target = (char *)target,
	                                      .mtime_s = 1000000000 });
}

/* A sink into a buffer. */
static inline int to_buf(const void *data, size_t size, void *arg, struct err *err)
{
	(void)err;
	return base_buf_append(arg, data, size);
}

#endif
