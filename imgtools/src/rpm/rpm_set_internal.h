/* The inside of a set, for rpm_set.c, rpm_repo.c and rpm_db.c. */
#ifndef IMG_RPM_SET_INTERNAL_H
#define IMG_RPM_SET_INTERNAL_H

#include "rpm_internal.h"

struct rpm_index_entry {
	const char *key; /* borrowed */
	struct img_rpm *package;
	uint32_t next; /* in its bucket, + 1; 0 ends it */
};

struct rpm_index {
	struct rpm_index_entry *entries;
	size_t n, cap;
	uint32_t *buckets;
	size_t n_buckets;
};

struct img_rpm_set {
	char *arch;
	bool is_installed; /* from a database: several versions of one name may be there */
	bool is_sealed;    /* sorted and indexed */
	struct img_rpm **packages;
	size_t n, cap;
	struct rpm_index names; /* names and provides */
	struct rpm_index paths;
	char **lists; /* filelists files of repositories */
	size_t n_lists;
	bool has_lists; /* and their paths are indexed */
	char *db_path;
	struct img_rpm_keys *keys; /* borrowed */
};

int img_rpm_index_add(struct rpm_index *ix, const char *key, struct img_rpm *p);
/* Adds what the filelists say to the index of paths, once. */
int img_rpm_repo_lists(struct img_rpm_set *s, struct err *err);

#endif
