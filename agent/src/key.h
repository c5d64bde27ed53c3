/* Keys in files: the one place that reads them. */
#ifndef AGENT_KEY_H
#define AGENT_KEY_H

#include "base/err.h"

/* *ret_header is "Authorization: Bearer KEY" with the first line of the file, the caller's. A regular file that others
 * can read or write is refused with -EPERM: a key that others can read is no secret any more. */
int ag_key_header(const char *path, char **ret_header, struct err *err);

#endif
