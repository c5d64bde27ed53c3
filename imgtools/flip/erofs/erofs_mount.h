/* The two ways to mount an image, for the mount itself and for the probe. 0 or a negative errno. */
#ifndef EROFS_MOUNT_H
#define EROFS_MOUNT_H

#include "erofs/erofs_internal.h"

int flip_erofs_mount_file(const char *source, const char *dir, bool with_acl);
int flip_erofs_mount_loop(const char *image, const char *dir, bool with_acl);

#endif
