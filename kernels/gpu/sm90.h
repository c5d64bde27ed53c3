/* Hopper's own instructions under names of ours: barriers in shared memory that count bytes, copies of boxes by the
 * tensor engine, to several blocks of a cluster at once, products of warpgroups (128 threads), registers handed from
 * one to another. For files that are compiled for sm_90a alone (*_sm90.cu); device code stands behind SM90_CODE.
 *
 * On the host each is a model (sm90_model.h) after the manual (PTX ISA 9.0: mbarrier, cp.async.bulk.tensor, wgmma with
 * its descriptors and 128-byte swizzle), so that tests run the same kernels there. The model computes when an
 * instruction is issued: it sees wrong addresses and barriers that nobody completes, not what is read too early.
 *
 * Of products of e4m3 the manual does not say how they are summed up. As others have found (DeepSeek-V3's report,
 * section 3.3.2, 2024), an instruction keeps some 14 bits: the model cuts all terms off 13 bits below the greatest of
 * the 32 products and the sum before them, and adds what is left exactly. The device's bits may be others.
 *
 * A tile is rows of 128 bytes (64 bfloat16, 128 e4m3) at a multiple of 1,024 bytes, swizzled as gpu_tile_at() of 8
 * chunks. */
#ifndef GPU_SM90_H
#define GPU_SM90_H

#include "gpu/gpu.h"

#if defined(GPU_CUDA)
#include <cuda.h>
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(GPU_HOST)
#define SM90_CODE 1
#else
#define SM90_CODE 0
#endif

enum { SM90_GROUP = 128, SM90_TILE_ROW = 128 /* bytes */, SM90_ALIGN = 1024 };

/* A matrix in memory, of which boxes of 128 bytes a row are copied; what lies beyond it is zeros. */
#if defined(GPU_CUDA)
typedef CUtensorMap sm90_map;
#else
struct sm90_map {
	const uint8_t *base;
	size_t row_bytes;
	uint32_t box_rows, elem_bytes = 2, rows = UINT32_MAX, cols = UINT32_MAX;
};
#endif

#if defined(GPU_HOST)
struct sm90_bar {
	uint32_t count, pending, phase;
	int32_t bytes;
};
struct sm90_desc {
	const uint8_t *at;
	uint32_t leading, stride;
};
#else
typedef uint64_t sm90_bar;
typedef uint64_t sm90_desc;
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

GPU_FN uint32_t sm90_shared(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* An address in shared memory that stays where it is: the compiler makes it of pointers anew for each use (some twenty
 * instructions a step of a ring, and more to move what depends on it to where products take it from). It is the same
 * in all lanes of a wave. */
struct sm90_place {
	uint32_t at;

	__device__ __forceinline__ explicit sm90_place(uint32_t address) : at(address)
	{
	}
	__device__ __forceinline__ sm90_place(const void *p) : at(sm90_shared(p))
	{
	}
	__device__ __forceinline__ sm90_place operator+(uint32_t bytes) const
	{
		return sm90_place(at + bytes);
	}
};

GPU_FN sm90_place sm90_place_of(const void *p)
{
	uint32_t at = __shfl_sync(0xffffffffu, sm90_shared(p), 0);

	asm volatile("" : "+r"(at));
	return sm90_place(at);
}

/* ---- Barriers ---------------------------------------------------------------------------------------------------- */

GPU_FN void sm90_bar_init(sm90_bar *bar, uint32_t arrivals)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sm90_shared(bar)), "r"(arrivals) : "memory");
}

/* Behind the last of sm90_bar_init(), before __syncthreads(). */
GPU_FN void sm90_bars_ready()
{
	asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

GPU_FN void sm90_bar_arrive(sm90_bar *bar)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(sm90_shared(bar)) : "memory");
}

/* Arrives; the phase lasts until copies have brought so many bytes, too. */
GPU_FN void sm90_bar_expect(sm90_place bar, uint32_t bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar.at), "r"(bytes) : "memory");
}

/* Until the phase of this parity is over; of a fresh barrier the one of parity 1 is. */
GPU_FN void sm90_bar_wait(sm90_place bar, uint32_t parity)
{
	uint32_t over;

	do {
		asm volatile("{\n"
		             ".reg .pred p;\n"
		             "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
		             "selp.b32 %0, 1, 0, p;\n"
		             "}"
		             : "=r"(over)
		             : "r"(bar.at), "r"(parity)
		             : "memory");
	} while (!over);
}

/* The same barrier of block `rank` of the cluster, from a thread that has only read: whoever waits there need not see
 * what this one stored. (To arrive with .release.cluster is a fence of the whole device, some 1,000 cycles.) */
GPU_FN void sm90_bar_arrive_at(sm90_place bar, uint32_t rank)
{
	asm volatile("{\n"
	             ".reg .b32 there;\n"
	             "mapa.shared::cluster.u32 there, %0, %1;\n"
	             "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
	             "}" ::"r"(bar.at),
	             "r"(rank)
	             : "memory");
}

/* sm90_bar_wait() for what other blocks of the cluster sent. */
GPU_FN void sm90_bar_wait_for_all(sm90_bar *bar, uint32_t parity)
{
	uint32_t over;

	do {
		asm volatile("{\n"
		             ".reg .pred p;\n"
		             "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
		             "selp.b32 %0, 1, 0, p;\n"
		             "}"
		             : "=r"(over)
		             : "r"(sm90_shared(bar)), "r"(parity)
		             : "memory");
	} while (!over);
}

/* Into the same place of block `rank` of the cluster, where the 16 bytes count at that block's own barrier. */
GPU_FN void sm90_send(float4 *to, uint32_t rank, const float4 &v, sm90_bar *bar)
{
	asm volatile(
	        "{\n"
	        ".reg .b32 there, bar;\n"
	        "mapa.shared::cluster.u32 there, %0, %2;\n"
	        "mapa.shared::cluster.u32 bar, %1, %2;\n"
	        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], {%3, %4, %5, %6}, [bar];\n"
	        "}" ::"r"(sm90_shared(to)),
	        "r"(sm90_shared(bar)), "r"(rank), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
	        : "memory");
}

GPU_FN uint32_t sm90_cluster_rank()
{
	uint32_t rank;

	asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
	return rank;
}

/* All threads of all blocks of the cluster; what they did to memory before is seen behind it. */
GPU_FN void sm90_cluster_sync()
{
	asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}

/* The same, of which nobody sees more than that the others have come. Behind sm90_bars_ready() barriers are seen, too.
 */
GPU_FN void sm90_cluster_meet()
{
	asm volatile("barrier.cluster.arrive.relaxed;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}

/* Barrier `id` (1 to 15) of `threads` threads; those that only arrive do not wait. */
GPU_FN void sm90_named_sync(uint32_t id, uint32_t threads)
{
	asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

GPU_FN void sm90_named_arrive(uint32_t id, uint32_t threads)
{
	asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* What this thread stored into shared memory is there for products, and what it read may be copied over. */
GPU_FN void sm90_publish()
{
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* By all threads of a warpgroup. */
template <int N> GPU_FN void sm90_fewer_registers()
{
	asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> GPU_FN void sm90_more_registers()
{
	asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- Copies ------------------------------------------------------------------------------------------------------ */

/* The map is there when the first copy by it is asked for. */
GPU_FN void sm90_ask_for_map(const sm90_map *map)
{
	asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* The map's box at column `col` and row `row`, to a tile; its bytes count at bar. One thread. */
GPU_FN void sm90_copy_box(sm90_place tile, const sm90_map *map, uint32_t col, uint32_t row, sm90_place bar)
{
	asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
	             "%4}], "
	             "[%2];" ::"r"(tile.at),
	             "l"(map), "r"(bar.at), "r"(col), "r"(row)
	             : "memory");
}

/* To the same place of each block of the cluster whose bit is set in `ranks`, where the bytes count at that block's own
 * barrier. */
GPU_FN void sm90_copy_box_to(sm90_place tile, const sm90_map *map, uint32_t col, uint32_t row, sm90_place bar,
                             uint32_t ranks)
{
	asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::"
	             "cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(tile.at),
	             "l"(map), "r"(bar.at), "r"(col), "r"(row), "h"((uint16_t)ranks)
	             : "memory");
}

/* Bytes that lie behind each other; both ends and their number are multiples of 16. */
GPU_FN void sm90_copy_bytes(sm90_place to, const void *from, uint32_t bytes, sm90_place bar)
{
	asm volatile(
	        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to.at),
	        "l"(from), "r"(bytes), "r"(bar.at)
	        : "memory");
}

/* gpu_copy16(); the second-level cache asks memory for the whole line, whose other half follows at once. */
GPU_FN void sm90_copy16(void *to, const void *from)
{
	asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
	             "l"(from)
	             : "memory");
}

/* A float of block `rank` of the cluster, which lies there as p does here. */
GPU_FN float sm90_load_of(const float *p, uint32_t rank)
{
	uint32_t at;
	float f;

	asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(sm90_shared(p)), "r"(rank));
	asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(f) : "r"(at) : "memory");
	return f;
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* leading, stride: bytes. Columns of the product along a tile's rows (the sum goes along the 128 bytes): stride is from
 * eight rows to the next eight, leading means nothing. Across them (the sum goes over the tile's rows): stride the
 * same, leading from a tile of 64 columns to the next one. */
GPU_FN sm90_desc sm90_desc_of(const void *tile, uint32_t leading, uint32_t stride)
{
	return (uint64_t)(sm90_shared(tile) >> 4 & 0x3fff) | (uint64_t)(leading >> 4) << 16 |
	       (uint64_t)(stride >> 4) << 32 | 1ull << 62;
}

GPU_FN sm90_desc sm90_desc_add(sm90_desc d, uint32_t bytes)
{
	return d + (bytes >> 4);
}

/* A tile at a place, and `bytes` behind it, which are a multiple of 16: its lower half is all that changes. */
struct sm90_tiles {
	uint32_t low, high;

	__device__ __forceinline__ sm90_desc operator[](uint32_t bytes) const
	{
		return (uint64_t)high << 32 | (low + (bytes >> 4));
	}
};

GPU_FN sm90_tiles sm90_tiles_of(sm90_place tile, uint32_t leading, uint32_t stride)
{
	return { (tile.at >> 4 & 0x3fff) | (leading >> 4) << 16, (stride >> 4) | 1u << 30 };
}

GPU_FN float sm90_read(sm90_place p)
{
	float f;

	asm volatile("ld.shared.f32 %0, [%1];" : "=f"(f) : "r"(p.at) : "memory");
	return f;
}

#define SM90_F8(a, i)                                                                                               \
	"+f"(a[i]), "+f"(a[i + 1]), "+f"(a[i + 2]), "+f"(a[i + 3]), "+f"(a[i + 4]), "+f"(a[i + 5]), "+f"(a[i + 6]), \
	        "+f"(a[i + 7])
#define SM90_F32(a, i) SM90_F8(a, i), SM90_F8(a, i + 8), SM90_F8(a, i + 16), SM90_F8(a, i + 24)
#define SM90_R8(a, i)                                                                                               \
	"+r"(a[i]), "+r"(a[i + 1]), "+r"(a[i + 2]), "+r"(a[i + 3]), "+r"(a[i + 4]), "+r"(a[i + 5]), "+r"(a[i + 6]), \
	        "+r"(a[i + 7])
#define SM90_D32                                                                                                  \
	"{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27," \
	"%28,%29,%30,%31}"
#define SM90_D64                                                                                                       \
	"{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"      \
	"%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54," \
	"%55,%56,%57,%58,%59,%60,%61,%62,%63}"

/* The compiler keeps what it does with these registers on its side of this place. */
GPU_FN void sm90_pin(float (&d)[64])
{
	asm volatile("" : SM90_F32(d, 0), SM90_F32(d, 32)::"memory");
}

GPU_FN void sm90_pin(float (&d)[128])
{
	asm volatile("" : SM90_F32(d, 0), SM90_F32(d, 32), SM90_F32(d, 64), SM90_F32(d, 96)::"memory");
}

GPU_FN void sm90_pin(float (&d)[32])
{
	asm volatile("" : SM90_F32(d, 0)::"memory");
}

GPU_FN void sm90_pin(uint32_t (&d)[32])
{
	asm volatile("" : SM90_R8(d, 0), SM90_R8(d, 8), SM90_R8(d, 16), SM90_R8(d, 24)::"memory");
}

GPU_FN void sm90_pin(uint32_t (&d)[16])
{
	asm volatile("" : SM90_R8(d, 0), SM90_R8(d, 8)::"memory");
}

/* Before the first product behind other uses of its registers. */
GPU_FN void sm90_products_begin()
{
	asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* Products since the last call are a group. */
GPU_FN void sm90_products_end()
{
	asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* All groups but the N newest are over. Registers of those that are want sm90_pin() behind it. */
template <int N> GPU_FN void sm90_products_wait()
{
	asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* d [64 x 128 or 64] = (ADD: +=) A [64 x 16] B [128 or 64 x 16]^T, bfloat16 or (HALF) binary16. In elements: thread t
 * holds of d rows t / 32 * 16 + t % 32 / 4 and 8 more, i / 4 * 8 + t % 4 * 2 + i % 2 is the column of d[i], i / 2 % 2
 * says which row. */
template <bool ADD, bool HALF = false> GPU_FN void sm90_product(float (&d)[64], sm90_desc a, sm90_desc b)
{
	if (HALF)
		asm volatile("{\n"
		             ".reg .pred p;\n"
		             "setp.ne.b32 p, %66, 0;\n"
		             "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 " SM90_D64
		             ", %64, %65, p, 1, 1, 0, 0;\n"
		             "}"
		             : SM90_F32(d, 0), SM90_F32(d, 32)
		             : "l"(a), "l"(b), "r"(ADD ? 1 : 0));
	else
		asm volatile("{\n"
		             ".reg .pred p;\n"
		             "setp.ne.b32 p, %66, 0;\n"
		             "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " SM90_D64
		             ", %64, %65, p, 1, 1, 0, 0;\n"
		             "}"
		             : SM90_F32(d, 0), SM90_F32(d, 32)
		             : "l"(a), "l"(b), "r"(ADD ? 1 : 0));
}

template <bool ADD, bool HALF = false> GPU_FN void sm90_product(float (&d)[32], sm90_desc a, sm90_desc b)
{
	if (HALF)
		asm volatile("{\n"
		             ".reg .pred p;\n"
		             "setp.ne.b32 p, %34, 0;\n"
		             "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " SM90_D32
		             ", %32, %33, p, 1, 1, 0, 0;\n"
		             "}"
		             : SM90_F32(d, 0)
		             : "l"(a), "l"(b), "r"(ADD ? 1 : 0));
	else
		asm volatile("{\n"
		             ".reg .pred p;\n"
		             "setp.ne.b32 p, %34, 0;\n"
		             "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SM90_D32
		             ", %32, %33, p, 1, 1, 0, 0;\n"
		             "}"
		             : SM90_F32(d, 0)
		             : "l"(a), "l"(b), "r"(ADD ? 1 : 0));
}

/* [64 x 128] of e4m3 likewise, 32 columns of A and B: as many bytes. */
template <bool ADD> GPU_FN void sm90_product8(float (&d)[64], sm90_desc a, sm90_desc b)
{
	asm volatile("{\n"
	             ".reg .pred p;\n"
	             "setp.ne.b32 p, %66, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 " SM90_D64 ", %64, %65, p, 1, 1;\n"
	             "}"
	             : SM90_F32(d, 0), SM90_F32(d, 32)
	             : "l"(a), "l"(b), "r"(ADD ? 1 : 0));
}

/* d [64 x 128 or 64] += A [64 x 16] B [16 x 128 or 64]. A's registers, each two neighbours of a row: row t % 32 / 4 and
 * columns t % 4 * 2, the row 8 below, both again 8 columns on. */
template <bool HALF = false> GPU_FN void sm90_product_across(float (&d)[64], const uint32_t *a, sm90_desc b)
{
	if (HALF)
		asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 " SM90_D64
		             ", {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
		             : SM90_F32(d, 0), SM90_F32(d, 32)
		             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
	else
		asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " SM90_D64
		             ", {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
		             : SM90_F32(d, 0), SM90_F32(d, 32)
		             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

template <bool HALF = false> GPU_FN void sm90_product_across(float (&d)[32], const uint32_t *a, sm90_desc b)
{
	if (HALF)
		asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " SM90_D32
		             ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
		             : SM90_F32(d, 0)
		             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
	else
		asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SM90_D32
		             ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
		             : SM90_F32(d, 0)
		             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/* d [64 x 32, 64 or 128] += A [64 x 16] B [N x 16]^T, d and A as above, columns of the product along B's rows. */
GPU_FN void sm90_product_along(float (&d)[16], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, sm90_desc b)
{
	asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
	             "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, 1, 1, 1, 0;"
	             : SM90_F8(d, 0), SM90_F8(d, 8)
	             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

GPU_FN void sm90_product_along(float (&d)[32], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, sm90_desc b)
{
	asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SM90_D32
	             ", {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
	             : SM90_F32(d, 0)
	             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

GPU_FN void sm90_product_along(float (&d)[64], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, sm90_desc b)
{
	asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " SM90_D64
	             ", {%64,%65,%66,%67}, %68, 1, 1, 1, 0;"
	             : SM90_F32(d, 0), SM90_F32(d, 32)
	             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

/* All groups are over, and so is d. */
GPU_FN void sm90_products_done(float (&d)[16])
{
	asm volatile("wgmma.wait_group.sync.aligned 0;" : SM90_F8(d, 0), SM90_F8(d, 8)::"memory");
}

GPU_FN void sm90_products_done(float (&d)[32])
{
	asm volatile("wgmma.wait_group.sync.aligned 0;" : SM90_F32(d, 0)::"memory");
}

GPU_FN void sm90_products_done(float (&d)[64])
{
	asm volatile("wgmma.wait_group.sync.aligned 0;" : SM90_F32(d, 0), SM90_F32(d, 32)::"memory");
}

/* Instructions under way read registers that a compiler takes for free once they are issued: behind the wait for them
 * this uses them again. */
GPU_FN void sm90_keep(uint4 &v)
{
	asm volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w));
}

#elif defined(GPU_HOST)
#include "gpu/sm90_model.h"
#endif

#if SM90_CODE
/* The first place of a block's dynamic memory at which a tile may lie: a kernel asks for SM90_ALIGN bytes more. */
template <class T> GPU_FN T *sm90_first_tile(T *shared)
{
#if defined(GPU_HOST)
	const uint32_t misaligned = (uint32_t)((uintptr_t)shared & (SM90_ALIGN - 1));
#else
	const uint32_t misaligned = sm90_shared(shared) & (SM90_ALIGN - 1);
#endif

	return shared + (misaligned ? (SM90_ALIGN - misaligned) / (uint32_t)sizeof(T) : 0);
}
#endif
#endif
