/* A slim tree out of a full one: which files stay and why (plan), the tree of them (build), what was dropped (sums).
 *
 *   tree + configuration + packages + traces + policy -> plan (graph, closed) -> tree -> extras: byte code, stubs, GPU
 *   code by architecture, library cache, package database
 *
 * Same input, same plan, same tree. */
#ifndef IMG_SLIM_H
#define IMG_SLIM_H

#include "slim/graph.h"
#include "slim/policy.h"

struct img_config;
struct img_gpu_archs; /* elf/fatbin.h */

struct img_slim_opts {
	struct img_tree *tree;           /* borrowed; gets a few empty folders, and its `user` fields are the plan's */
	const struct img_config *config; /* NULL: none */
	struct img_rpm_set *packages;    /* NULL: none */
	const struct img_policy *policy;
	struct img_trace *const *traces;
	size_t n_traces;
	const char *const *entries; /* further programs that must run: paths, or names in PATH */
	size_t n_entries;
	const char *const *repairs; /* paths that a run of the slim image missed */
	size_t n_repairs;
};

struct img_slim_plan {
	struct img_graph *graph;
	bool follows_weak;
	struct img_slim_opts o;
};

int img_slim_plan_new(const struct img_slim_opts *o, struct img_slim_plan **ret_plan, struct err *err);
void img_slim_plan_free(struct img_slim_plan *p);

/* The tree of what stays: nodes are copies with the same bytes behind them (source of the full tree must stay).
 * Hard-link groups of one remaining name become plain files. */
int img_slim_tree(const struct img_slim_plan *p, struct img_tree **ret_tree, struct err *err);

/* ---- Sums ---------------------------------------------------------------------------------------------------- */

struct img_slim_sum {
	const char *name; /* category, or package; borrowed */
	uint64_t kept_bytes,
	        dropped_bytes;      /* of files, hard links once; bytes of a changed file (stub) count as both */
	uint64_t n_kept, n_dropped; /* files and links */
};

struct img_slim_sums {
	struct img_slim_sum *categories, *packages; /* by dropped bytes, largest first */
	size_t n_categories, n_packages;
	struct img_slim_sum all;
	uint64_t n_dirs; /* that stay */
};

/* `slim`: what was made of the plan (img_slim_tree() and what was done to it since). */
int img_slim_sums(const struct img_slim_plan *p, struct img_tree *slim, struct img_slim_sums *ret_sums);
void img_slim_sums_done(struct img_slim_sums *s);

/* "documentation", "translations", ...: what kind of file a path is; static. */
const char *img_slim_category(const struct img_node *n);

/* Bytes of the files of a tree, hard links once; *ret_n_files counts files, *ret_n_links symbolic links. */
uint64_t img_tree_bytes(struct img_tree *t, uint64_t *ret_n_files, uint64_t *ret_n_links);

/* ---- Extras -------------------------------------------------------------------------------------------------- */

/* Bindings that a run made (LD_DEBUG=bindings): which library's symbols which file used. */
struct img_bindings;

struct img_bindings *img_bindings_new(void);
void img_bindings_free(struct img_bindings *b);
/* The text that ld.so wrote; adds to what is there. */
int img_bindings_parse(struct img_bindings *b, const char *text, size_t size);
/* All files of a folder that begin with `prefix`. */
int img_bindings_read_dir(struct img_bindings *b, const char *dir, const char *prefix, struct err *err);
/* What could be bound, without a run: the references between the ELF files of a tree. Adds to what is there. */
int img_bindings_of_tree(struct img_bindings *b, struct img_tree *t, struct err *err);
size_t img_bindings_count(const struct img_bindings *b); /* pairs of files */

struct img_stub_result {
	uint64_t n_loaded, n_bound, n_stubs; /* libraries */
	uint64_t bytes_before, bytes_after;  /* of those replaced */
	char first_refused[ERR_MSG_SIZE];    /* a library that no stub can be written of, and why; "" */
	uint64_t n_refused;
};

/* Replaces libraries of the slim tree that no file reachable from a program or an opened module binds to by stubs.
 * `is_kept`: libraries that must stay whatever (may be NULL). */
int img_slim_stub_unbound(struct img_tree *slim, const struct img_bindings *b,
                          bool (*is_kept)(const struct img_node *n, void *arg), void *arg,
                          struct img_stub_result *ret_result, struct err *err);

enum img_pyc { IMG_PYC_NO, IMG_PYC_BESIDE, IMG_PYC_ONLY };

struct img_pyc_result {
	uint64_t n_compiled, n_failed, n_emptied;
	uint64_t bytes_pyc, bytes_emptied;
};

/* Byte code for every Python source that stays, compiled by the image's own interpreter (run in `root`, where the full
 * tree is) as unchecked-hash .pyc in __pycache__; with IMG_PYC_ONLY the sources become empty files, which is what
 * Python wants to see beside it. `work`: a folder whose files must outlive the tree. */
int img_slim_compile(struct img_tree *slim, const char *root, const char *work, enum img_pyc mode,
                     struct img_pyc_result *ret_result, struct err *err);

/* Drops code for other GPUs from every file that has some; copies lie in `work`. */
int img_slim_gpu(struct img_tree *slim, const struct img_gpu_archs *archs, const char *work,
                 uint64_t *ret_dropped_bytes, uint64_t *ret_n_files, struct err *err);

/* ---- Layers -------------------------------------------------------------------------------------------------- */

enum img_layers { IMG_LAYERS_KEEP, IMG_LAYERS_PLAN, IMG_LAYERS_ONE };

struct img_slim_layers {
	char **names; /* "packages that all images have", "torch 1.13.1-4", ... */
	size_t n;
};

/* Sets node->layer of every node. KEEP: as in the image, which has n_full_layers; what was added goes into the last.
 * PLAN: a layer for the C library, one for packages that all images have, one for each large package (so that images of
 * one family share them), one for the small ones, one for what belongs to no package and changes with every build. */
int img_slim_layers(struct img_tree *slim, struct img_rpm_set *packages, enum img_layers mode, size_t n_full_layers,
                    struct img_slim_layers *ret_layers, struct err *err);
void img_slim_layers_done(struct img_slim_layers *l);

#endif
