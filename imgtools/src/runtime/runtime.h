/* Running a command in a root: a small runtime with mount, pid, uts and ipc namespaces of its own, good for trying an
 * image out. The root is never changed: the command sees an overlay whose upper directory is thrown away afterwards,
 * and what it changed there is told. It is no security boundary against a hostile image beyond what namespaces and a
 * container's usual set of capabilities give; the network is the host's.
 *
 * As root, or as an ordinary user in a user namespace, where the kernel allows that. */
#ifndef IMG_RUNTIME_H
#define IMG_RUNTIME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sha256.h"

struct img_run_mount {
	const char *source; /* a file or directory of the host */
	const char *target; /* absolute, in the root; made when it is missing */
	bool read_only;
};

/* Who looks over the command's shoulder (the tracer); every function may be NULL. */
struct img_run_watch {
	/* In the command's own process, right before it changes its user and is executed: system calls only, no
	 * memory. Returns 0 or a negative errno, which ends the start. */
	int (*prepare)(void *arg);
	/* In the caller: the process `pid` (the one that will start the command, or that is it) exists and waits;
	 * `root_fd` is the root that the command will see. */
	int (*attach)(void *arg, pid_t pid, int root_fd, struct err *err);
	/* In the caller, in place of waitpid(): returns when `pid` has ended. *must_end becomes true, and `pid` is
	 * killed, when the time is over. */
	int (*wait)(void *arg, pid_t pid, const atomic_bool *must_end, int *ret_status, struct rusage *ret_usage,
	            struct err *err);
};

struct img_run {
	/* What is run. argv[0] without '/' is looked up in PATH of env, within the root. */
	const char *const *argv;
	const char *const *env; /* NULL: the caller's */
	const char *cwd;        /* absolute, in the root; NULL: "/", or the caller's when there is no root */
	const char *user;       /* "name", "uid", "name:group", "uid:gid", by the files of the root; NULL: root */
	/* Where. No roots: the host's own, without namespaces. Several: an overlay, the lowest first. */
	const char *const *roots;
	size_t n_roots;
	const struct img_run_mount *mounts;
	size_t n_mounts;
	const char *hostname;   /* NULL: "slimtrace" */
	const char *scratch;    /* folder on disk for what the command writes; NULL: memory, if the kernel can */
	bool fresh_tmp;         /* an empty tmpfs on /tmp and one on /run */
	bool own_network_files; /* the root's own /etc/resolv.conf and /etc/hosts, not the host's */
	bool privileged;        /* keeps all capabilities */
	/* How. */
	uint64_t timeout_ms;  /* then all of it is killed; 0: never */
	bool capture;         /* standard output and error are kept, not passed through */
	size_t capture_bytes; /* of each at most, the rest is thrown away; 0: 16 MiB */
	bool null_stdin;      /* standard input is /dev/null, not the caller's */
	bool forward_signals; /* for programs: signals sent to this process go to the command (one run at a time) */
	bool want_changes;    /* result.changes */
	const struct img_run_watch *watch;
	void *watch_arg;
};

enum img_change_kind { IMG_CHANGE_ADDED, IMG_CHANGE_MODIFIED, IMG_CHANGE_DELETED };

struct img_change {
	char *path; /* in the root */
	enum img_change_kind kind;
	uint32_t mode;                    /* type and permissions, as st_mode; 0 when deleted */
	uint64_t size;                    /* of files */
	char *target;                     /* of symbolic links, else NULL */
	uint8_t sha256[BASE_SHA256_SIZE]; /* of files */
};

struct img_run_result {
	int exit_code; /* exit status; 128 + signal when it was killed */
	int signal;    /* that killed it, or 0 */
	bool timed_out;
	struct base_buf out, errors; /* with capture */
	bool out_was_cut, errors_was_cut;
	uint64_t wall_ns;
	struct rusage usage;        /* of all its processes that ended in time */
	struct img_change *changes; /* by path */
	size_t n_changes;
	/* What could not be had, a sentence each, separated by "; "; empty: all is as asked. */
	char notes[512];
};

/* 0 when the command was started, whatever became of it. A command that is not there, or that the kernel does not
 * execute: -ENOENT, -EACCES, -ENOEXEC, ... with its name in err. *ret_result is the caller's: img_run_result_done(). */
int img_run(const struct img_run *run, struct img_run_result *ret_result, struct err *err);
void img_run_result_done(struct img_run_result *result);

/* Removes a directory with all that is in it, as far as that is allowed; never follows a link. */
void img_run_remove_tree(const char *path);

const char *img_change_kind_name(enum img_change_kind kind); /* "added", "modified", "deleted" */

#endif
