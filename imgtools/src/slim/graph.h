/* The graph of all needs: nodes are the paths of a tree, edges say why one needs another, and the closure from the
 * roots is what stays. Edges come from five sources: what the caller names as roots (entry point, kept paths, policy),
 * what a trace saw, what files say of themselves (analyze/), what packages say per file, and what holds for every path
 * (parent folders, targets of links).
 *
 * Files are looked into only when they are reached, so the cost follows what stays, not what the image holds. Cycles
 * are no matter: the walk is breadth first, each node is entered once, by the edge that is nearest to a root. Edges
 * come in a fixed order, so the same input gives the same reasons. */
#ifndef IMG_GRAPH_H
#define IMG_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analyze/analyze.h"
#include "rpm/rpm.h"
#include "trace/trace.h"
#include "tree/tree.h"

enum { IMG_GRAPH_ROOT = UINT32_MAX }; /* where edges of roots begin */

/* Why: kinds of needs, then kinds of accesses, then our own. */
enum img_reason {
	IMG_REASON_NEED = 0,                                /* + enum img_need_kind */
	IMG_REASON_TRACE = IMG_N_NEED_KINDS,                /* + enum img_access */
	IMG_REASON_ENTRY = IMG_REASON_TRACE + IMG_N_ACCESS, /* entry point, command, health check of the image */
	IMG_REASON_KEEP,                                    /* the user said so */
	IMG_REASON_POLICY,                                  /* a rule */
	IMG_REASON_PARENT,                                  /* a folder above */
	IMG_REASON_SAME,                                    /* another name of the same file (hard link) */
	IMG_REASON_PACKAGE,                                 /* a dependency that the package records for this file */
	IMG_REASON_REPAIR,                                  /* a run of the slim image missed it */
	IMG_N_REASONS
};

struct img_edge {
	uint32_t from, to; /* indexes of img_tree_at(); `from` may be IMG_GRAPH_ROOT */
	uint32_t what;     /* img_graph_what() */
	uint8_t reason;    /* enum img_reason */
	bool is_weak;
};

struct img_graph;

struct img_graph_opts {
	struct img_rpm_set *packages; /* for dependencies that packages record; may be NULL; borrowed */
	bool follow_weak;             /* weak edges keep what they lead to */
	bool (*is_dropped)(const struct img_node *n, void *arg); /* never entered, whatever leads there; may be NULL */
	void *arg;
};

/* Borrows t, which must not change while the graph lives. node->user becomes the graph's. */
int img_graph_new(struct img_tree *t, const struct img_graph_opts *o, struct img_graph **ret_g, struct err *err);
void img_graph_free(struct img_graph *g);

/* A root: stays, and all it needs. `what`: words for `why` ("passwd", "python3 -c ..."). 0 or -ENOMEM. */
int img_graph_add_root(struct img_graph *g, const struct img_node *n, enum img_reason reason, const char *what);
/* The same by path: links on the way stay too. -ENOENT when there is nothing. */
int img_graph_add_path(struct img_graph *g, const char *path, enum img_reason reason, const char *what);
/* What a run touched: every path that is in the tree becomes a root, what it looked for in vain is remembered. */
int img_graph_add_trace(struct img_graph *g, const struct img_trace *trace, struct err *err);

/* Follows the edges. May be called again after more roots were added. */
int img_graph_close(struct img_graph *g, struct err *err);

/* ---- Answers, after img_graph_close() */

uint32_t img_graph_index(const struct img_graph *g, const struct img_node *n);
bool img_graph_keeps(const struct img_graph *g, uint32_t node);
/* How far from a root: 0 is a root itself; UINT32_MAX: not kept. */
uint32_t img_graph_depth(const struct img_graph *g, uint32_t node);
/* The edge by which a node was entered; NULL when it is not kept. Following `from` leads to a root. */
const struct img_edge *img_graph_via(const struct img_graph *g, uint32_t node);
size_t img_graph_n_edges(const struct img_graph *g);
const struct img_edge *img_graph_edge(const struct img_graph *g, size_t i);
const char *img_graph_what(const struct img_graph *g, const struct img_edge *e); /* valid until an edge is added */
struct img_node *img_graph_node(const struct img_graph *g, uint32_t node);

/* What was sought and is not there: by files (strong needs without a node) and by runs. */
struct img_sought {
	uint32_t from; /* who needs it; IMG_GRAPH_ROOT: a run */
	uint32_t what; /* img_graph_text() */
	uint8_t reason;
};
size_t img_graph_n_sought(const struct img_graph *g);
const struct img_sought *img_graph_sought(const struct img_graph *g, size_t i);
const char *img_graph_text(const struct img_graph *g, uint32_t what);

/* Notes on files that could not be read ("... : not an ELF file"), one per line. */
const char *img_graph_notes(const struct img_graph *g);

const char *img_reason_name(uint8_t reason); /* "needed", "opened", "entry point", ... */

#endif
