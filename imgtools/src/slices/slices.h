/* Slices: the files of a package by role, what each file needs, and roots cut to what was asked for.
 *
 *   packages (rpm.h) -> world: what can be chosen from, and the needs of each file
 *                    -> slices: text, published, diffable (docs/formats/slices.md), instead of looking again
 *                    -> cut: requests -> files with reasons -> a tree with database, caches and manifest
 *
 * Needs are between files, so cycles between packages (libc and its own libgcc) do no harm; a slice is a way to name
 * files, not a unit that is dragged along. */
#ifndef IMG_SLICES_H
#define IMG_SLICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "rpm/rpm.h"
#include "tree/tree.h"

/* ---- Roles ------------------------------------------------------------------------------------------------ */

/* "bins", "libs", "config", ...: the slice that a file belongs to when no rule says otherwise. Static. */
const char *img_slice_role(const struct img_rpm *p, const struct img_rpm_file *f);
/* Roles that a program may want when it runs; what a package's bare name stands for. */
bool img_slice_role_is_runtime(const char *role);
/* All roles in the order of the table, with a line of explanation; NULL at the end. */
const char *img_slice_role_at(size_t i, const char **ret_help);

/* ---- Rules by hand ---------------------------------------------------------------------------------------- */

struct img_rules; /* see docs/formats/slices.md, "Rules" */

int img_rules_new(struct img_rules **ret_rules); /* with the rules that come with the program */
void img_rules_free(struct img_rules *r);
/* Adds rules from text; later ones are looked at after earlier ones. Errors name the line. */
int img_rules_parse(struct img_rules *r, const char *name, const char *text, size_t size, struct err *err);
/* A file, or all *.rules of a folder in the order of their names. */
int img_rules_read(struct img_rules *r, const char *path, struct err *err);
/* The slice of a file after drop, keep, move and add; NULL: dropped from all. Borrowed. */
const char *img_rules_slice(const struct img_rules *r, const struct img_rpm *p, const struct img_rpm_file *f);
/* What rules add to the needs of a file (`want`: where it is to be had) or take from them. A target is a slice
 * ("libc6_gconv") or a path. */
size_t img_rules_needs(const struct img_rules *r, const char *path, bool want, const char **targets, size_t max);
bool img_rules_unneeds(const struct img_rules *r, const char *path, const char *target);
/* Of a whole slice: the values of "need", "want" or "generate". */
size_t img_rules_slice_lines(const struct img_rules *r, const char *slice, const char *key, const char **values,
                             size_t max);

/* ---- The world -------------------------------------------------------------------------------------------- */

struct img_world; /* a set of packages with the needs of their files */

enum img_world_kind {
	IMG_WORLD_HEADERS, /* needs from package headers only: nothing is unpacked to look into files */
	IMG_WORLD_FILES,   /* and from the files themselves (analyze.h) */
};

struct img_cut_progress { /* NULL functions: silent */
	void (*begin)(const char *what, uint64_t total_bytes, void *arg);
	void (*step)(uint64_t bytes, void *arg); /* from any thread */
	void (*end)(void *arg);
	void *arg;
};

struct img_slices; /* a parsed database */

struct img_world_opts {
	enum img_world_kind kind;
	const struct img_rules *rules;   /* may be NULL */
	const struct img_slices *slices; /* needs from here instead; may be NULL */
	const char *root;  /* the set is what is installed here: files are this folder's; NULL: package files */
	const char *spool; /* folder for large files; must outlive the world and trees made of it */
	const struct img_cut_progress *progress;
};

/* Takes nothing: set and options are borrowed until img_world_free(). */
int img_world_new(struct img_rpm_set *set, const struct img_world_opts *o, struct img_world **ret_w, struct err *err);
void img_world_free(struct img_world *w);

struct img_file_id {
	struct img_rpm *package;
	uint32_t file;
};

struct img_file_need {
	const char *kind; /* "rpm", "rule" or a word of img_need_kind_name() */
	const char *what; /* "libssl.so.3()(64bit)", "/bin/sh" */
	bool is_weak;
	bool is_missing; /* nobody has it; then `to` is empty */
	struct img_file_id to;
	const char *slice; /* instead of `to`: a whole slice (of rules, of provides without a file) */
};
typedef int (*img_file_need_sink)(const struct img_file_need *n, void *arg, struct err *err);

/* The needs of one file, in a fixed order, each target once. */
int img_world_needs(struct img_world *w, struct img_file_id id, img_file_need_sink sink, void *arg, struct err *err);
/* All packages that these need by name, and those again: what there is to choose from; headers only. */
int img_world_load(struct img_world *w, struct img_rpm *const *packages, size_t n, struct err *err);
/* The same, and unpacks them. */
int img_world_open(struct img_world *w, struct img_rpm *const *packages, size_t n, struct err *err);
struct img_tree *img_world_tree(struct img_world *w); /* what was unpacked; NULL before img_world_open() */

/* ---- The database ----------------------------------------------------------------------------------------- */

/* Appends the slices of these packages (which img_world_open() has seen) as text. */
int img_slices_write(struct img_world *w, struct img_rpm *const *packages, size_t n, struct base_buf *out,
                     struct err *err);
int img_slices_parse(const char *name, const char *text, size_t size, struct img_slices **ret_s, struct err *err);
int img_slices_read(const char *path, struct img_slices **ret_s, struct err *err);
void img_slices_free(struct img_slices *s);

/* ---- Cut -------------------------------------------------------------------------------------------------- */

struct img_cut_opts {
	const struct img_rules *rules;
	const char *const *requests; /* "bash_bins", "bash", "/usr/bin/bash", "/usr/share/zoneinfo/Europe/Berlin" */
	size_t n_requests;
	const char *const *excludes; /* globs of paths that are left out whatever needs them */
	size_t n_excludes;
	const char *const *generate; /* "users", "user:web:80", "tmp", "dir:/data:0755:80", "ca-bundle",
	                              * "locale:de_DE.UTF-8", beside what rules want made */
	size_t n_generate;
	bool with_weak;      /* follow weak needs too */
	bool with_requires;  /* follow requirements of packages that no file is the reason for */
	bool ignore_missing; /* an unmet need is counted instead of an error */
	const struct img_cut_progress *progress;
};

struct img_cut_reason {
	const char *kind, *what;
	struct img_file_id from; /* package NULL: asked for, `what` is the request */
};

struct img_cut_item {
	struct img_file_id id;
	const char *path; /* in the tree */
	struct img_cut_reason why;
};

struct img_cut {
	struct img_cut_item *items; /* by path */
	size_t n_items;
	struct img_rpm **packages; /* with at least one file, by name */
	size_t n_packages;
	size_t n_missing;
	char first_missing[512];
	const char **generate; /* what is to be made: "ld.so.cache", ... */
	size_t n_generate;
	void *priv;
};

/* Which files, and why. -ENOENT when a request or a need cannot be met: the error names what, and who needs it. */
int img_cut_resolve(struct img_world *w, const struct img_cut_opts *o, struct img_cut **ret_cut, struct err *err);
void img_cut_free(struct img_cut *c);

struct img_cut_write_opts {
	bool no_db;
	enum img_rpmdb_mode db;
	const char *db_path; /* NULL: where the packages or the root have it, else /var/lib/rpm */
	bool no_manifest;
	int64_t epoch; /* SOURCE_DATE_EPOCH; -1: none */
	const struct img_cut_progress *progress;
};

struct img_cut_stats {
	size_t n_files, n_links, n_dirs;
	uint64_t bytes; /* of files, hard links once, with what was generated */
	size_t n_unknown_owners;
	char unknown_owner[64];
};

/* The tree: chosen files with their folders, generated files, database, manifest. */
int img_cut_tree(struct img_world *w, const struct img_cut *c, const struct img_cut_write_opts *o,
                 struct img_tree **ret_tree, struct img_cut_stats *ret_stats, struct err *err);

/* Sets node->layer of every node: layer k holds what requests of layer k reach and no lower one has, layer n what else
 * packages have, n + 1 what belongs to no package (database, caches, accounts). Layer k depends on nothing but the
 * requests of layers 0..k and on the packages: images that ask alike share it bit for bit, so folders get times that
 * come from their lowest layer alone. `o` as for the whole cut; its requests are not looked at. */
struct img_cut_layer {
	const char *const *requests;
	size_t n_requests;
};
int img_cut_layers(struct img_world *w, const struct img_cut_opts *o, const struct img_cut_layer *layers, size_t n,
                   struct img_tree *t, struct err *err);

/* /etc/ld.so.cache for a tree, in glibc's new format, over the folders that its ldconfig would look in. 0: made,
 * 1: there is no dynamic linker in the tree. */
int img_ldcache_add(struct img_tree *t, struct err *err);

/* Groups of a graph in which each reaches each (Tarjan 1972, without recursion): ret_group[i] is the number of i's
 * group; groups are numbered so that edges lead to lower or equal numbers. edges[first[i] .. first[i + 1]) are i's
 * targets. */
int img_scc(size_t n, const size_t *first, const uint32_t *edges, uint32_t *ret_group, uint32_t *ret_n_groups);

#endif
