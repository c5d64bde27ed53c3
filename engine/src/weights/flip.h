/* Models that flip, another program of this project, brings: "flip://NAME" as a path. Nothing of flip is linked: it is
 * asked over its control socket, or its folder of models is looked into. */
#ifndef ENG_WEIGHTS_FLIP_H
#define ENG_WEIGHTS_FLIP_H

#include <stdbool.h>

#include "base/err.h"

bool eng_path_is_flip(const char *path);

/* "flip://NAME" or "flip://NAME/FILE" as a path of this host, the caller's: flip's daemon mounts the model, when it has
 * not, and fetches it in the order of its files from now on. It can be read while it arrives: who reads what is not
 * here waits for it. -ENOENT: there is no such model, or no flip; -EACCES: its socket is another user's, and the model
 * is not mounted; -EINVAL: not such a name. */
int eng_flip_path(const char *path, char **ret_path, struct err *err);

/* Whether what lies at the path may still be arriving: it is below the folder where flip mounts models. */
bool eng_flip_may_arrive(const char *path);

#endif
