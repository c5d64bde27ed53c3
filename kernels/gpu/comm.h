/* Ranks: the devices of a group, and what passes between them.
 *
 * Small messages go through memory that all devices of the group reach, in one launch of our own (comm.cu); large ones
 * through NCCL or RCCL (nccl.h), which is opened when it is there. Without the library all of them go our way; where
 * devices cannot read each other's memory, all go the library's. Everything is launched on the rank's stream and safe
 * under capture. */
#ifndef GPU_COMM_H
#define GPU_COMM_H

#include "gpu/backend.h"
#include "gpu/open.h"

/* Makes a group of n open backends, each of which gets its part of it (gpu_backend.comm). -ENOTSUP with the reason:
 * there is no way between them. o, if not NULL, says who is told of what could be faster, and of ranks that wait for
 * each other in vain. The group is given back by the first rank, while all are open. */
int gpu_comm_new(struct gpu_backend *const *ranks, uint32_t n, const struct gpu_open *o, struct err *err);
void gpu_comm_free(struct gpu_comm *comm);

/* Of a program that was compiled, with the bounds of the step at hand: its messages, and which way they take. That
 * follows from the program alone, so that all ranks come to the same. -ENOMEM. */
int gpu_comm_plan(struct gpu_backend *be, struct gpu_program *p);

/* Before a program with messages is launched, when all memory for it was taken and its graph was made: until the other
 * ranks are as far. Taking memory may wait for what runs on a device, and that for what was not launched yet.
 * *ret_is_first: one of them launches it for the first time, so that a library may load code on the way, which may wait
 * likewise. Then all go step by step: launched one by one, they meet before each message, with nothing left on their
 * devices, and behind its launch. -EPROTO: they have come with other messages. */
int gpu_comm_meet(struct gpu_backend *be, const struct gpu_program *p, bool *ret_is_first);

/* For whoever looks when nobody goes on (comm_watch.c): what this rank's thread does from now on, and that it is about
 * to launch p. Without a group, nothing. */
enum gpu_comm_doing { COMM_IDLE, COMM_MEETS, COMM_LAUNCHES, COMM_WAITS };
void gpu_comm_says(struct gpu_backend *be, enum gpu_comm_doing what);
void gpu_comm_runs(struct gpu_backend *be, const struct gpu_program *p);

/* From any thread: whoever waits for another rank goes on, everything afterwards fails. */
void gpu_comm_break(struct gpu_comm *comm);

/* Onto be's stream. -EIO: the group is broken. */
int gpu_comm_issue(struct gpu_backend *be, const struct gpu_program *p, const struct rec_comm *r, struct gk_view x,
                   struct gk_rows rows);

#endif
