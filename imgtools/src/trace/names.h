/* The names in a root, as a tracer needs them: paths are followed through symbolic links the way the kernel follows
 * them, for a process with its own root and working directory, and what was learnt about directories and links on the
 * way is kept. One system call (lstat of the last component) is what a look-up costs then.
 *
 * A look-up happens while the process waits before its system call, so what is found is what the call will find, unless
 * another process is quicker; img_names_changed() is told of every call that changes names. */
#ifndef IMG_TRACE_NAMES_H
#define IMG_TRACE_NAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

enum img_name_kind { IMG_NAME_UNKNOWN, IMG_NAME_DIR, IMG_NAME_LINK, IMG_NAME_OTHER, IMG_NAME_MISSING };

/* One path; lives as long as its struct img_names. */
struct img_name {
	struct img_name *parent; /* NULL: the root */
	struct img_name *next;   /* in its bucket */
	const char *path;        /* absolute and normal */
	char *target;            /* of a link */
	uint64_t dev;
	uint32_t hash;
	uint32_t epoch; /* when `kind` was learnt */
	uint8_t kind;
	bool is_proc;       /* a procfs is mounted here */
	bool is_outside;    /* here or above: procfs, sysfs and the like, no part of any image */
	bool is_created;    /* made by the traced command */
	const char *mapped; /* for who keeps the names: its path in the traced root; see has_mapped */
	bool has_mapped;
};

struct img_names;

/* root_fd stays the caller's and must be open until the names are freed or detached. NULL: out of memory. */
struct img_names *img_names_new(int root_fd);
void img_names_detach(struct img_names *n); /* root_fd is used no more; look-ups fail */
void img_names_free(struct img_names *n);

struct img_name *img_names_root(struct img_names *n);

struct img_lookup {
	struct img_name *root, *start; /* of the process: for '/' and for relative paths */
	const char *text;
	bool follow;     /* a link in the last component */
	pid_t tid, tgid; /* for /proc/self */
	/* Each link that was passed; may be NULL. */
	void (*on_link)(struct img_name *link, void *arg);
	void *arg;
};

struct img_found {
	struct img_name *name; /* what is there, or the first component that is not */
	struct stat st;        /* valid when error is 0 */
	int error;             /* 0, ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, ENOMEM */
	bool is_last;          /* ENOENT: only the last component is missing */
	bool is_ignored;       /* led to what is no file of the root: a pipe, /proc */
	char rest[4096];       /* of a miss: "/what/was/behind/name", normal, or "" */
};

void img_names_lookup(struct img_names *n, const struct img_lookup *l, struct img_found *ret);

/* A call that changes what is at `name` is about to happen; a directory or link changes what is below it. */
void img_names_forget(struct img_names *n, struct img_name *name);
/* Anything may have changed (mounts). */
void img_names_forget_all(struct img_names *n);
/* The command makes it: until it is forgotten, it and all below it is its own work. */
void img_names_set_created(struct img_names *n, struct img_name *name);
bool img_names_is_created(const struct img_names *n, const struct img_name *name);

#endif
