/* Shared by the files of this room only. */
#ifndef IMG_SLICES_INTERNAL_H
#define IMG_SLICES_INTERNAL_H

#include "slices.h"

/* Where the role begins in "package_role": the underscore; NULL when there is none. */
const char *img_slice_split(const char *name);
extern const char img_builtin_rules[];

/* Needs of a file out of a parsed database: calls back with each line. */
struct img_slices_need {
	const char *kind, *what;
	bool is_weak, is_missing;
	const char *package, *path; /* path NULL: `slice` */
	const char *slice;
};
struct img_slices_file {
	const char *path;
	const char *slice; /* role */
	const struct img_slices_need *needs;
	size_t n_needs;
};
/* NULL: the database does not know the file (or the package). */
const struct img_slices_file *img_slices_file(const struct img_slices *s, const char *package, const char *path);
/* "epoch:version-release" that the database was made of; NULL: it does not know the package. */
const char *img_slices_evr(const struct img_slices *s, const char *package);

/* Inside the world. */
struct img_rpm_set *img_world_set(struct img_world *w);
const struct img_world_opts *img_world_options(const struct img_world *w);
const struct img_rpm_aliases *img_world_aliases(const struct img_world *w);
/* The slice (role) of a file, by rules or database; NULL: dropped. */
const char *img_world_slice(struct img_world *w, struct img_file_id id);
/* Is there a file in the slice "package_role"? */
bool img_world_has_slice(struct img_world *w, const char *name);
/* A path as someone may write it -> the file; package NULL: nobody has it. Links passed on the way go to `on_link`. */
int img_world_find(struct img_world *w, const char *path, struct img_file_id *ret_id,
                   int (*on_link)(struct img_file_id link, void *arg), void *arg, struct err *err);
/* A copy that lives as long as the world. */
const char *img_world_text(struct img_world *w, const char *s);

/* ---- Requests --------------------------------------------------------------------------------------------- */

bool img_request_is_glob(const char *s);                      /* or a module: several paths may fit */
bool img_request_fits(const char *pattern, const char *path); /* a glob or a module */
/* "package", "package_role"; NULL: no such package. *ret_role is NULL for the whole package. */
struct img_rpm *img_request_slice(struct img_world *w, const char *name, const char **ret_role);
/* The packages that requests and generators concern: from these the world is opened. *ret_packages is the caller's. */
int img_request_packages(struct img_world *w, const struct img_cut_opts *o, struct img_rpm ***ret_packages,
                         size_t *ret_n, struct err *err);

/* ---- Locales as something to generate: "locale" (C.UTF-8) or "locale:de_DE.UTF-8,..." ---------------------- */

struct img_locale {
	char name[64];    /* "de_DE.UTF-8@euro" */
	char dir[96];     /* "/usr/lib/locale/de_DE.utf8@euro", as glibc looks for it */
	char source[64];  /* "de_DE@euro": what it is made of, in /usr/share/i18n/locales */
	char charmap[64]; /* "UTF-8", in /usr/share/i18n/charmaps */
};
bool img_locale_is(const char *generator);
/* The next one: 1, 0 at the end, -EINVAL for what is no name of a locale. *cursor is NULL at first. */
int img_locale_next(const char *generator, const char **cursor, struct img_locale *ret_l, struct err *err);
/* Who has it compiled, by one of its files; NULL: nobody. */
struct img_rpm *img_locale_owner(struct img_rpm_set *set, const struct img_locale *l, struct err *err);

/* "epoch:version-release" without an epoch of 0. */
void img_slice_evr(const struct img_rpm *p, char buf[256]);

#endif
