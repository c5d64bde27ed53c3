/* A root being put together (assemble.c) and what is made for it beside the files of packages
 * (generate.c, locale.c). */
#ifndef IMG_SLICES_ASSEMBLY_H
#define IMG_SLICES_ASSEMBLY_H

#include "slices_internal.h"

struct img_assembly {
	struct img_world *w;
	const struct img_cut *cut;
	const struct img_cut_write_opts *o;
	struct img_tree *from; /* unpacked packages: the world's, or own */
	struct img_tree *own;
	struct img_rpm_aliases *aliases;
	struct img_tree *to;
	int64_t time; /* of generated files */
	struct err *err;
};

/* The folders above a path, as packages have them. */
int img_cut_add_parents(struct img_assembly *a, const char *path);
/* A generated file, 0644 of root. */
int img_cut_add_text(struct img_assembly *a, const char *path, const char *text, size_t size);
/* /etc/passwd and /etc/group from what is unpacked, or from whichever package has them; NULL for none. */
int img_cut_read_tables(struct img_assembly *a, char **ret_passwd, char **ret_group);

/* All that the cut wants made, and ld.so.cache. */
int img_cut_generate(struct img_assembly *a);
/* Locales that no package has compiled, by the packages' own localedef: "locale:NAME,...". */
int img_cut_make_locale(struct img_assembly *a, const char *generator);

/* "user:NAME:UID[:HOME]": a line in /etc/passwd and /etc/group, and the home. "dir:PATH:MODE[:UID[:GID]]": a folder. */
int img_cut_make_user(struct img_assembly *a, const char *generator);
int img_cut_make_folder(struct img_assembly *a, const char *generator);

#endif
