/* Shared by policy*.c. */
#ifndef IMG_POLICY_INTERNAL_H
#define IMG_POLICY_INTERNAL_H

#include "slim/policy.h"

enum { IMG_POLICY_PATTERNS_MAX = 65536, IMG_POLICY_VALUE_MAX = 4096 };

struct img_patterns {
	char **v;
	size_t n;
};

struct img_policy {
	char *values[IMG_N_POLICY_KEYS];
	struct img_patterns keep, drop;
};

#endif
