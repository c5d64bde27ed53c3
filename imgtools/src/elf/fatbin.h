/* CUDA fat binaries: which GPU architectures a file carries code for, and which bytes of it no chosen GPU can use.
 *
 * A fat binary is a container of entries, one per architecture and kind; a library holds thousands of them, in
 * .nv_fatbin and in data sections of its own. They are found by their magic number anywhere in the file and taken only
 * when their entries fill them exactly. Pruning zeroes the payload of entries and nothing else: every offset, size and
 * header stays, so the loader and the driver see the same file, in which code for other GPUs is empty. As holes the
 * zeroes take no disk, and they compress to nothing.
 *
 * Which entries stay, per container and chosen architecture: machine code of that architecture; when there is none,
 * that of lower ones of the same major version, which it can run; PTX and intermediate code by enum img_gpu_ptx. */
#ifndef IMG_FATBIN_H
#define IMG_FATBIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { IMG_GPU_MAX_ARCHS = 32 };

enum img_gpu_ptx {
	/* The highest PTX (and intermediate code) of each container that a chosen GPU can compile: also later GPUs run.
	 */
	IMG_GPU_PTX_ONE,
	/* The same, but only where a chosen architecture has no machine code. */
	IMG_GPU_PTX_NEEDED,
	/* None at all: what has no machine code for a chosen GPU cannot be used on it (cuFFT's kernels of rare sizes).
	 */
	IMG_GPU_PTX_NONE,
};

struct img_gpu_archs {
	uint32_t arch[IMG_GPU_MAX_ARCHS]; /* 90: compute capability 9.0; ascending, each once */
	size_t n;
	enum img_gpu_ptx ptx;
	bool drop_ir; /* intermediate code for linking at run time goes too: cuFFT's callbacks then fail */
};

enum img_fatbin_kind { /* numbers of the format */
	               IMG_FATBIN_PTX = 1,
	               IMG_FATBIN_CUBIN = 2,
	               IMG_FATBIN_LTO_IR = 8,
};

struct img_fatbin_entry {
	uint64_t container;  /* offset of the container in the file */
	uint16_t kind;       /* enum img_fatbin_kind, or a number not known here */
	uint32_t arch;       /* 90 */
	uint64_t offset;     /* of the payload in the file, bytes */
	uint64_t size_bytes; /* of the payload as it is stored */
	bool is_kept;        /* by the choice given; true without one */
};

struct img_range {
	uint64_t offset, size_bytes;
};

struct img_fatbin_plan {
	struct img_range *zero; /* what to zero, ascending, disjoint; free() by img_fatbin_plan_done() */
	size_t n_zero;
	uint64_t n_containers, n_entries, n_dropped;
	uint64_t payload_bytes, dropped_bytes;
};

/* "sm_90,sm_100a", "90,100", "9.0": suffixes (a, f) name variants of one architecture and are all kept. -EINVAL names
 * the word. */
int img_gpu_archs_parse(const char *text, struct img_gpu_archs *ret_archs, struct err *err);

/* What to zero in a file's bytes. `archs` NULL: nothing, only the counts. `on_entry`, when not NULL, is told of each
 * entry in order and may stop by a negative return. */
int img_fatbin_plan(const void *bytes, size_t size, const struct img_gpu_archs *archs,
                    int (*on_entry)(const struct img_fatbin_entry *e, void *arg), void *arg,
                    struct img_fatbin_plan *ret_plan, struct err *err);
void img_fatbin_plan_done(struct img_fatbin_plan *p);

/* Copies a file without the planned ranges: they become holes. `to` appears whole or not at all; mode and times are
 * those of `from`. */
int img_fatbin_copy(const char *from, const char *to, const struct img_fatbin_plan *plan, struct err *err);

#endif
