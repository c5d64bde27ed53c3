/* Between issue.c and issue_linear.c, which make launches of a compiled program's records. All return 0 or what
 * launch.h's functions do. */
#ifndef GPU_ISSUE_H
#define GPU_ISSUE_H

#include "gpu/backend.h"

/* Where an activation lies in this program, and of which type it is there. */
struct gk_view gpu_view_of(const struct gpu_backend *be, const struct gpu_program *p, const struct gpu_act *a);
int gpu_issue_norm(struct gpu_backend *be, const struct gpu_program *p, const struct rec_norm *n);
/* A norm or an activation that was to be a part of a product which is done another way. */
int gpu_issue_maker(struct gpu_backend *be, const struct gpu_program *p, const union gpu_rec *rec);

/* issue_linear.c */
int gpu_issue_matmul(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch);
/* Memory of the backend's own that a launch needs. -ENOTSUP while a graph is captured: the launches before it would be
 * lost. */
int gpu_room(struct gpu_backend *be, char **p, size_t *have, size_t bytes);
/* A product for each head. */
int gpu_issue_batch(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch);

#endif
