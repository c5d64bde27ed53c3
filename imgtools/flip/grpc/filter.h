/* containerd's filters for lists, for snapshots:
 *
 *   filter    = selector *("," selector)              all must match
 *   selector  = path [("==" | "!=" | "~=") value]     without a value: whether the field is there
 *   path      = field *("." field)                    name, parent, kind, labels.NAME; names with dots are quoted
 *   field     = [A-Za-z0-9_]+ or a quoted string in Go's syntax
 *   value     = a quoted string, or anything without blanks and commas
 *
 * Of several filters one must match. A pattern of "~=" may also be quoted by / or |, and is one of PCRE2, found
 * anywhere in the value. */
#ifndef FLIP_GRPC_FILTER_H
#define FLIP_GRPC_FILTER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "store/store.h"

struct flip_filter; /* read-only once parsed: any thread */

/* -EINVAL with the place and reason; more than 256 selectors are refused. No texts: matches everything. */
int flip_filter_parse(const char *const *texts, size_t n_texts, struct flip_filter **ret_filter, struct err *err);
void flip_filter_free(struct flip_filter *f);
bool flip_filter_matches(const struct flip_filter *f, const struct flip_snapshot *s);

#endif
