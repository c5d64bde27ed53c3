/* What a file needs, found without running it: the sources of edges that are not in package metadata and not in a
 * trace. An analyzer is a row of a table (ELF, script, Python, configuration, ...): it looks at one file of a tree and
 * reports needs. */
#ifndef IMG_ANALYZE_H
#define IMG_ANALYZE_H

#include "base/err.h"
#include "tree/tree.h"

enum img_need_kind {
	IMG_NEED_INTERP,   /* PT_INTERP of an ELF file: opened by the kernel */
	IMG_NEED_SONAME,   /* DT_NEEDED, found by the search rules of ld.so */
	IMG_NEED_DLOPEN,   /* a string that names a library and is passed to dlopen, as far as can be told */
	IMG_NEED_SHEBANG,  /* #! interpreter, and what `env` would find */
	IMG_NEED_COMMAND,  /* a command that a script runs, found by PATH */
	IMG_NEED_IMPORT,   /* a Python import: the module's files, packages above it, its landmarks */
	IMG_NEED_DATA,     /* data that a module reads beside itself */
	IMG_NEED_CONFIG,   /* a file named in a configuration file (include, module path) */
	IMG_NEED_LINK,     /* the target of a symbolic link */
	IMG_NEED_LANDMARK, /* must exist, is not read */
	IMG_N_NEED_KINDS
};

struct img_need {
	const struct img_node *from;
	enum img_need_kind kind;
	const char *what;    /* what the file says: "libssl.so.3", "numpy.linalg", "/bin/sh" */
	struct img_node *to; /* the node that satisfies it (links that lead there are reported apart, as IMG_NEED_LINK);
	                        NULL: not in the tree */
	bool is_weak;        /* inside try:, `if`, an optional plugin: good to have, not an error when absent */
};

typedef int (*img_need_sink)(const struct img_need *need, void *arg);

struct img_analyze; /* a tree with the indexes that analyzers share: sonames, library path, PATH, Python paths */

int img_analyze_new(struct img_tree *t, struct img_analyze **ret_a,
                    struct err *err); /* borrows t, which must not change meanwhile */
void img_analyze_free(struct img_analyze *a);

/* Reports every need of one file to the sink, in a fixed order; a broken file (bad ELF, bad encoding) has none and is
 * no error: what was wrong is put into *ret_note (static or owned by `a`; may be NULL). Returns 0, the sink's negative
 * return, or -ENOMEM, -EIO. A sink that fails may put its own words into the same `err`: they stay. */
int img_analyze_file(struct img_analyze *a, struct img_node *n, img_need_sink sink, void *arg, const char **ret_note,
                     struct err *err);

const char *img_need_kind_name(enum img_need_kind kind); /* "needed", "interpreter", ...: the words of `why` */

#endif
