/* Between the files of this room: adding many records without keeping the order meanwhile, and the limits. */
#ifndef IMG_TRACE_INTERNAL_H
#define IMG_TRACE_INTERNAL_H

#include "base/buf.h"
#include "trace.h"

enum {
	IMG_TRACE_MAX_RECORDS = 1u << 24,
	IMG_TRACE_MAX_PROCESSES = 1u << 22,
	IMG_TRACE_CMDLINE_MAX = 4096, /* bytes of a command line, with its 0 */
};

/* What img_trace_append() did: nothing but count, a new record at the end, or an old one that is now earlier. */
enum { IMG_TRACE_ADDED = 1, IMG_TRACE_MOVED = 2 };

/* As img_trace_add(), but the order is right only after img_trace_sort(). */
int img_trace_append(struct img_trace *t, const struct img_trace_record *r);
void img_trace_sort(struct img_trace *t);

/* The text of the file, appended; -ENOMEM or -EFBIG. */
int img_trace_print(const struct img_trace *t, struct base_buf *b);

#endif
