/* What a run touched: records, and the file they are kept in (docs/formats/trace.md). slimtrace writes it, slim reads
 * it to keep what was touched, flip reads it as its prefetch list. */
#ifndef IMG_TRACE_H
#define IMG_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum img_access {
	IMG_ACCESS_OPEN,     /* opened for reading (and perhaps writing) */
	IMG_ACCESS_CREATE,   /* opened or made new: written, not part of the image's needs */
	IMG_ACCESS_EXEC,     /* executed by a process */
	IMG_ACCESS_KERNEL,   /* opened by the kernel itself for an exec: PT_INTERP, #! interpreter */
	IMG_ACCESS_STAT,     /* looked at, exists: stat, access, statx */
	IMG_ACCESS_READLINK, /* a symbolic link was read, or passed on the way */
	IMG_ACCESS_READDIR,  /* a directory was listed */
	IMG_ACCESS_MISS,     /* a look-up that failed with ENOENT or ENOTDIR */
	IMG_ACCESS_CONNECT,  /* a unix socket */
	IMG_N_ACCESS
};

struct img_trace_record {
	const char *path; /* absolute within the traced root, normal, bytes; for MISS as it was asked for, resolved as
	                     far as it exists */
	enum img_access access;
	uint32_t pid;      /* number of the process within the trace, 1 is the command itself */
	uint32_t count;    /* how often this process did this to this path */
	uint64_t first_ns; /* since the start of the command; records are in this order */
	uint64_t last_ns;
	uint64_t size; /* bytes of the file when it was first touched, 0 when not known */
	int32_t error; /* MISS: the errno; else 0 */
};

struct img_trace_process {
	uint32_t pid, parent; /* numbers within the trace */
	const char *program;  /* path of the last exec */
	const char *cmdline;  /* arguments, separated by spaces, quoted for a shell; cut at 4096 bytes */
	int32_t exit_code;    /* exit status, or 128 + signal; -1: still there at the end */
};

/* Opaque; owned by whoever opened or made it. */
struct img_trace;

struct img_trace *img_trace_new(void);
void img_trace_free(struct img_trace *t);
/* Copies. The same (path, access, pid) again adds to count and last_ns. -EINVAL for a path that is not normal. */
int img_trace_add(struct img_trace *t, const struct img_trace_record *r);
/* Copies. The same number again replaces what was known of it. */
int img_trace_add_process(struct img_trace *t, const struct img_trace_process *p);

size_t img_trace_count(const struct img_trace *t);
const struct img_trace_record *img_trace_at(const struct img_trace *t, size_t i); /* by first_ns */
size_t img_trace_n_processes(const struct img_trace *t);
const struct img_trace_process *img_trace_process_at(const struct img_trace *t, size_t i);

/* The file: text, one record a line, versioned; see docs/formats/trace.md. Reading names file and line of what is
 * wrong. */
int img_trace_read(const char *path, struct img_trace **ret_trace, struct err *err);
int img_trace_parse(const char *text, size_t size, const char *name, struct img_trace **ret_trace, struct err *err);
int img_trace_write(const struct img_trace *t, const char *path, struct err *err); /* atomically */
/* All of `from` added to `t`; its processes get new numbers, its times are kept. */
int img_trace_merge(struct img_trace *t, const struct img_trace *from);

const char *img_access_name(enum img_access a); /* "open", "exec", ... */

#endif
