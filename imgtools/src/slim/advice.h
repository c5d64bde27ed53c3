/* Which package and slice a path belongs to, and the words that bring it back; the library cache of a slim tree. */
#ifndef IMG_ADVICE_H
#define IMG_ADVICE_H

#include "rpm/rpm.h"
#include "slim/policy.h"
#include "tree/tree.h"

/* "package libssl3, slice libssl3_libs" or "no package"; returns buf. */
const char *img_advice_origin(struct img_rpm_set *packages, const char *path, char *buf, size_t size);

/* /etc/ld.so.cache made anew when the tree has a dynamic linker of glibc and `wanted`. */
int img_advice_ldcache(struct img_tree *slim, struct err *err);

/* The package database of the slim tree, told truly: packages of which a file is there, their other files marked or
 * left out. mode: "short" or "marked". *ret_n: packages told. */
int img_advice_rpmdb(struct img_tree *slim, struct img_rpm_set *packages, const char *mode, int64_t epoch,
                     size_t *ret_n, struct err *err);

/* Keep patterns for the files of "package" or "package_role". -ENOENT: there is none. */
int img_advice_keep_slice(struct img_rpm_set *packages, const char *slice, struct img_policy *policy, struct err *err);

#endif
