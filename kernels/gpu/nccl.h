/* NCCL, or RCCL, which has the same interface: opened at run time from $OCAI_GPU_LIBS or wherever the dynamic linker
 * looks. */
#ifndef GPU_NCCL_H
#define GPU_NCCL_H

#include <stddef.h>
#include <stdint.h>

#include "gpu/launch.h"

struct gpu_nccl;

/* For ranks on these devices. NULL with the reason. */
struct gpu_nccl *gpu_nccl_open(const char *kind, const int *devices, uint32_t n, char *reason, size_t reason_bytes);
void gpu_nccl_close(struct gpu_nccl *nccl);
/* Lets whoever waits in it go. It is of no use afterwards. Any thread. */
void gpu_nccl_abort(struct gpu_nccl *nccl);

/* n values in place, elem GK_F32 or GK_BF16. 0 or -EIO. */
int gpu_nccl_all_reduce(struct gpu_nccl *nccl, uint32_t rank, void *p, size_t n, uint32_t elem, void *stream);
/* n values of each rank behind each other in `to`. */
int gpu_nccl_all_gather(struct gpu_nccl *nccl, uint32_t rank, const void *from, void *to, size_t n, uint32_t elem,
                        void *stream);

#endif
