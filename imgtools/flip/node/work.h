/* A queue of jobs and the threads that do them, urgent ones first. */
#ifndef FLIP_WORK_H
#define FLIP_WORK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct flip_work;

int flip_work_new(unsigned n_threads, struct flip_work **ret_work, struct err *err);
/* Does what is queued, then ends the threads. */
void flip_work_free(struct flip_work *w);
/* Never blocks; -ENOMEM. Whoever adds bounds how much there can be. */
int flip_work_add(struct flip_work *w, void (*fn)(void *arg), void *arg, bool urgent);

#endif
