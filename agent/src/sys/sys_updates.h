/* What an update would bring (sys_updates.c), and the reader of repositories' metadata that finds it out
 * (sys_updates_xml.c). */
#ifndef AG_SYS_UPDATES_H
#define AG_SYS_UPDATES_H

#include "sys/sys_rpm.h"

enum { SYS_MAX_CACHES = 256 };

struct evr {
	uint64_t epoch;
	char *version, *release;
};

struct installed {
	char *name, *arch;
	struct evr has, best; /* best.version NULL: nothing newer */
	uint64_t download_bytes;
	const char *repository; /* borrowed from the cache list */
	json_t *advisories;
};

struct cache { /* one repository's folder */
	char *dir, *id;
	int64_t time_s;
};

struct updates {
	const struct rpm *rpm;
	const struct xml *xml;
	struct installed *list; /* by name, then architecture */
	size_t n, cap;
	struct cache caches[SYS_MAX_CACHES];
	size_t n_caches;
};

void ag_sys_evr_done(struct evr *e);
int ag_sys_evr_compare(const struct updates *u, const struct evr *a, const struct evr *b);
int ag_sys_evr_copy(struct evr *to, const struct evr *from);                                  /* -ENOMEM */
struct installed *ag_sys_updates_find(struct updates *u, const char *name, const char *arch); /* or NULL */

/* expat; NULL when it is not here or too different. */
const struct xml *ag_sys_xml(void);
/* The file of a repository whose name holds "primary.xml" or "updateinfo.xml", into the list of what is installed;
 * false when it was there and broken. */
bool ag_sys_updates_read(struct updates *u, const struct cache *cache, const char *kind, bool is_primary);

#endif
