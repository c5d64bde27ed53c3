/* What a path means to a process: its root directory and its mount namespace. Most live in those of the command; one
 * that has a mount namespace of its own (a sandbox, a container in the container) has a view of its own, whose paths
 * are told as paths of the traced root as far as they lie on the same file systems. */
#ifndef IMG_TRACE_VIEWS_H
#define IMG_TRACE_VIEWS_H

#include <sys/types.h>

#include "names.h"

struct img_mount; /* a line of mountinfo */

struct img_view {
	struct img_view *next;
	struct img_names *names;
	int root_fd; /* of names */
	/* Of views in other mount namespaces: */
	uint64_t namespace_inode;
	char *root_path; /* of the process, in its namespace */
	struct img_mount *mounts, *base_mounts;
	size_t n_mounts, n_base_mounts;
	bool is_retired; /* what was mounted has changed since */
};

struct img_views {
	struct img_view base;
	struct img_view *others;
	unsigned generation; /* changes with img_views_changed() */
	pid_t base_pid;      /* whose mountinfo is that of the traced root */
};

/* `pid` lives in the traced root, whose descriptor root_fd stays the caller's. NULL: out of memory. */
struct img_views *img_views_new(pid_t pid, int root_fd);
void img_views_free(struct img_views *v);

/* The view of a process, and the name of its root there. NULL when it cannot be found out (it has just ended). */
struct img_view *img_views_of(struct img_views *v, pid_t pid, struct img_name **ret_root);
/* A call that may change roots, mounts or namespaces is about to happen. */
void img_views_changed(struct img_views *v);

/* A path as /proc shows it (in the mount namespace) as one of the view; NULL: it lies outside. */
const char *img_view_strip(const struct img_view *view, const char *path);
/* The path of a name in the traced root; NULL: it is not there. Valid as long as the name. */
const char *img_view_map(struct img_view *view, struct img_name *name);

#endif
