/* Ranks: the devices of a group, and what passes between them.
 *
 * Small messages go through memory that all devices of the group reach, in one launch of our own (comm.cu); large ones
 * through NCCL or RCCL (nccl.h), which is opened when it is there. Without the library all of them go our way; where
 * devices cannot read each other's memory, all go the library's. Everything is launched on the rank's stream and safe
 * under capture. */
#ifndef GPU_COMM_H
#define GPU_COMM_H

#include "gpu/backend.h"

/* Makes a group of n open backends, each of which gets its part of it (gpu_backend.comm). -ENOTSUP with the reason:
 * there is no way between them. note, if not NULL, is told of what could be faster. The group is given back by the
 * first rank, while all are open. */
int gpu_comm_new(struct gpu_backend *const *ranks, uint32_t n, void (*note)(const char *kind, const char *text),
                 struct err *err);
void gpu_comm_free(struct gpu_comm *comm);

/* Before a program with messages is launched, when all memory for it was taken: until the other ranks are as far.
 * Taking memory may wait for what runs on a device, and that for what was not launched yet. */
void gpu_comm_meet(struct gpu_backend *be);

/* From any thread: whoever waits for another rank goes on, everything afterwards fails. */
void gpu_comm_break(struct gpu_comm *comm);

/* Onto be's stream. -EIO: the group is broken; -ENOTSUP while a graph is captured: memory is missing, which the next
 * call outside of a capture takes. */
int gpu_comm_issue(struct gpu_backend *be, const struct rec_comm *r, struct gk_view x, struct gk_rows rows);

#endif
