/* Shared by analyze*.c. */
#ifndef IMG_ANALYZE_INTERNAL_H
#define IMG_ANALYZE_INTERNAL_H

#include "analyze/analyze.h"

struct img_words { /* a growing list of owned strings */
	char **v;
	size_t n, cap;
};

int img_words_add(struct img_words *l, const char *s, size_t len);
bool img_words_has(const struct img_words *l, const char *s);
void img_words_done(struct img_words *l);

struct img_analyze {
	struct img_tree *tree;
	struct img_words library_dirs; /* as ld.so would look: /etc/ld.so.conf, then the built-in ones */
	struct img_words python_dirs;  /* sys.path of the interpreters in the tree, without scripts' own folders */
	char note[ERR_MSG_SIZE];
};

/* One run of img_analyze_file(): where needs go. */
struct img_look {
	struct img_analyze *a;
	struct img_node *n;
	img_need_sink sink;
	void *arg;
	const char *note; /* why nothing, or not all, could be found out; NULL: all well */
	int stopped;      /* the sink's negative return, or -ENOMEM */
};

/* Tells of a need. `to` may be NULL. Returns 0, or look->stopped. */
int img_look_need(struct img_look *k, enum img_need_kind kind, const char *what, struct img_node *to, bool is_weak);

/* Finds a path in the tree as the kernel would; the links passed are reported as IMG_NEED_LINK. NULL: not there. */
struct img_node *img_look_resolve(struct img_look *k, const char *path, bool is_weak);

/* Looks a command up in PATH; NULL when the tree has none of that name, or when it has a slash and is not there. */
struct img_node *img_look_command(struct img_look *k, const char *name, bool is_weak);

/* A file of at most max_size bytes, NULL when it is larger, empty or cannot be read (then look->note says why).
 * The caller's (free); 0-terminated. */
char *img_look_text(struct img_look *k, size_t max_size, size_t *ret_size);

/* The analyzers: each looks at one file of its kind. Return 0 or look->stopped. */
int img_analyze_elf(struct img_look *k);
int img_analyze_script(struct img_look *k);
int img_analyze_python(struct img_look *k);
int img_analyze_config(struct img_look *k);

/* The shell's commands in a script, each as often as it stands there. */
int img_shell_commands(const char *text, size_t size, int (*on_command)(const char *name, void *arg), void *arg);

struct img_python_import {
	const char *module; /* "os.path", "" for `from . import x` */
	const char *name;   /* of `from module import name`; NULL for `import module` */
	unsigned int level; /* dots in front */
	bool is_weak;       /* in try, if, with, or in a function: may never run */
};

/* The import statements of a source text. Stops at a negative return of the callback and returns it. */
int img_python_imports(const char *text, size_t size, int (*on_import)(const struct img_python_import *i, void *arg),
                       void *arg);

/* Fills a->python_dirs, a->library_dirs. 0 or -ENOMEM. */
int img_python_find_dirs(struct img_analyze *a);
int img_elf_find_dirs(struct img_analyze *a);

/* A Python module by its dotted name: reports its files (packages above it, byte code, landmarks). Returns 0 or
 * look->stopped; *ret_found tells whether it exists. `beside`: a folder looked at first, NULL for none. */
int img_python_need(struct img_look *k, const char *module, const char *beside, bool is_weak, bool *ret_found);

#endif
