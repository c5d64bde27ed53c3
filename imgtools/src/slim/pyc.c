/* Byte code by the image's own interpreter, so that its version is right by construction. The interpreter runs once, in
 * the full root, over a list of sources; its hash seed is fixed, since sets of constants are written in hash order. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "runtime/runtime.h"
#include "slim/slim.h"

enum { LIST_MAX = 64 << 20, TIMEOUT_MS = 600000 };

#define PLACE "/.slimtrace"

/* Reads NUMBER PATH lines; writes NUMBER.pyc; prints the tag once, then the numbers of what could not be compiled. */
static const char script[] = "import sys, py_compile\n"
                             "print(sys.implementation.cache_tag)\n"
                             "for line in open('" PLACE "/list', encoding='utf-8', errors='surrogateescape'):\n"
                             "    number, path = line.rstrip('\\n').split(' ', 1)\n"
                             "    try:\n"
                             "        py_compile.compile(path, cfile='" PLACE "/' + number + '.pyc', dfile=path,\n"
                             "            doraise=True, optimize=0,\n"
                             "            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n"
                             "    except Exception:\n"
                             "        print(number)\n";

static bool is_source(const struct img_node *n)
{
	return n->type == IMG_FILE && n->size > 0 && fnmatch("*.py", n->path, 0) == 0 && !strchr(n->path, '\n') &&
	       (strstr(n->path, "/python3") || strstr(n->path, "-packages/"));
}

/* The first interpreter of the tree; NULL: none. */
static const char *find_python(struct img_tree *t)
{
	static const char *const paths[] = { "/usr/bin/python3", "/usr/local/bin/python3",
		                             "/usr/libexec/platform-python" };
	struct img_node *n;

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		if (img_tree_resolve(t, paths[i], true, &n, NULL, NULL) == 0 && n->type == IMG_FILE)
			return paths[i];
	}
	for (size_t i = 0; i < img_tree_count(t); i++) {
		n = img_tree_at(t, i);
		if (n->type == IMG_FILE && (n->mode & 0111) && fnmatch("*/bin/python3*", n->path, 0) == 0 &&
		    !strstr(n->path, "config"))
			return n->path;
	}
	return NULL;
}

static int write_list(struct img_tree *t, const char *dir)
{
	struct base_buf b = BASE_BUF_INIT(LIST_MAX);
	char path[IMG_PATH_MAX + 32];
	int r;

	for (size_t i = 0; i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);

		if (is_source(n))
			(void)base_buf_printf(&b, "%zu %s\n", i, n->path);
	}
	(void)snprintf(path, sizeof(path), "%s/list", dir);
	r = base_buf_error(&b);
	if (r == 0)
		r = base_write_file_atomic(path, base_buf_text(&b), b.len, 0644, NULL);
	r = r == 0 ? b.len > 0 : r;
	base_buf_done(&b);
	return r;
}

static int run_python(const char *python, const char *root, const char *dir, struct img_run_result *ret_result,
                      struct err *err)
{
	const char *argv[] = { python, "-I", "-B", "-c", script, NULL };
	const char *env[] = { "PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONHASHSEED=0", "LC_ALL=C.UTF-8", NULL };
	struct img_run_mount mount = { .source = dir, .target = PLACE };
	struct img_run run = { .argv = argv,
		               .env = env,
		               .roots = &root,
		               .n_roots = 1,
		               .mounts = &mount,
		               .n_mounts = 1,
		               .timeout_ms = TIMEOUT_MS,
		               .capture = true,
		               .null_stdin = true };

	return img_run(&run, ret_result, err);
}

/* "/a/b.py" -> "/a/__pycache__/b.TAG.pyc" */
static bool cached_path(const char *source, const char *tag, char ret[IMG_PATH_MAX])
{
	const char *slash = strrchr(source, '/');
	int dir = (int)(slash - source), base = (int)strlen(slash + 1) - 3;

	return snprintf(ret, IMG_PATH_MAX, "%.*s/__pycache__/%.*s.%s.pyc", dir, source, base, slash + 1, tag) <
	       IMG_PATH_MAX;
}

static int add_code(struct img_tree *t, struct img_node *source, const char *file, const char *tag, enum img_pyc mode,
                    struct img_pyc_result *res, struct err *err)
{
	struct img_node code = { .type = IMG_FILE,
		                 .mode = 0644,
		                 .uid = source->uid,
		                 .gid = source->gid,
		                 .mtime_s = source->mtime_s,
		                 .package = source->package,
		                 .layer = source->layer };
	char path[IMG_PATH_MAX];
	struct stat st;
	int r;

	if (stat(file, &st) < 0 || !cached_path(source->path, tag, path)) {
		res->n_failed++;
		return 0;
	}
	code.path = path;
	code.size = (uint64_t)st.st_size;
	code.source = (char *)(uintptr_t)file;
	r = img_tree_add(t, &code, NULL, err);
	if (r < 0)
		return r;
	res->n_compiled++;
	res->bytes_pyc += code.size;
	if (mode == IMG_PYC_ONLY && !source->link_group) {
		res->n_emptied++;
		res->bytes_emptied += source->size;
		free(source->source);
		free(source->data);
		source->source = NULL;
		source->data = NULL;
		source->size = 0;
	}
	return 0;
}

static int add_all(struct img_tree *t, const char *dir, const char *tag, enum img_pyc mode, struct img_pyc_result *res,
                   struct err *err)
{
	size_t n = img_tree_count(t), n_sources = 0;
	CLEANUP(freep) struct img_node **sources = calloc(n + 1, sizeof(*sources));
	CLEANUP(freep) size_t *numbers = calloc(n + 1, sizeof(*numbers));
	int r = 0;

	if (!sources || !numbers)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		if (!is_source(img_tree_at(t, i)))
			continue;
		numbers[n_sources] = i;
		sources[n_sources++] = img_tree_at(t, i);
	}
	for (size_t i = 0; r == 0 && i < n_sources; i++) {
		char file[IMG_PATH_MAX + 32];

		(void)snprintf(file, sizeof(file), "%s/%zu.pyc", dir, numbers[i]);
		r = add_code(t, sources[i], file, tag, mode, res, err);
	}
	return r;
}

int img_slim_compile(struct img_tree *slim, const char *root, const char *work, enum img_pyc mode,
                     struct img_pyc_result *ret_result, struct err *err)
{
	const char *python = find_python(slim);
	struct img_run_result run = { 0 };
	char dir[IMG_PATH_MAX], tag[64];
	int r;

	*ret_result = (struct img_pyc_result){ 0 };
	if (mode == IMG_PYC_NO || !python)
		return 0;
	(void)snprintf(dir, sizeof(dir), "%s/pyc", work);
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	r = write_list(slim, dir);
	if (r <= 0)
		return r < 0 ? err_set(err, r, "%s: %s", dir, strerror(-r)) : 0;
	r = run_python(python, root, dir, &run, err);
	if (r == 0 && run.exit_code != 0)
		r = err_set(err, -EIO, "%s: compiling ended with %d: %.200s", python, run.exit_code,
		            base_buf_text(&run.errors));
	if (r == 0) {
		(void)snprintf(tag, sizeof(tag), "%.*s", (int)strcspn(base_buf_text(&run.out), "\n"),
		               base_buf_text(&run.out));
		r = !tag[0] || strchr(tag, '/') ? err_set(err, -EBADMSG, "%s: \"%s\" is no tag", python, tag)
		                                : add_all(slim, dir, tag, mode, ret_result, err);
	}
	img_run_result_done(&run);
	return r;
}
