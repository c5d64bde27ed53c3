/* Shared by job*.c. */
#ifndef IMG_JOB_INTERNAL_H
#define IMG_JOB_INTERNAL_H

#include "slim/job.h"

void img_job_say(const struct img_job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* -ECANCELED when the caller's progress function says so: asked between the steps. */
int img_job_go_on(const struct img_job *j, const char *what, struct err *err);
void img_job_remove_dir(const char *path);

/* The full tree as a folder, in j->full_root. */
int img_job_need_root(struct img_job *j, struct err *err);
const char **img_job_env(const struct img_job *j);
struct img_trial_place img_job_place(const struct img_job *j, const char *root, const char *const *env);

#endif
