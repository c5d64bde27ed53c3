/* Hopper's own instructions under names of ours: barriers in shared memory that count bytes, copies of boxes by the
 * tensor engine, products of warpgroups (128 threads), registers handed from one to another. For files that are
 * compiled for sm_90a alone (*_sm90.cu); device code stands behind SM90_CODE.
 *
 * On the host each is a model after the manual (PTX ISA 9.0: mbarrier, cp.async.bulk.tensor, wgmma with its
 * descriptors and 128-byte swizzle), so that tests run the same kernels there. The model computes when an
 * instruction is issued: it sees wrong addresses and barriers that nobody completes, not what is read too early.
 *
 * A tile is rows of 128 bytes (64 bfloat16) at a multiple of 1,024 bytes, swizzled as gpu_tile_at() of 8 chunks. */
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

/* A matrix of bfloat16 in memory, of which boxes of 64 columns are copied. */
#if defined(GPU_CUDA)
typedef CUtensorMap sm90_map;
#else
struct sm90_map {
	const uint8_t *base;
	size_t row_bytes;
	uint32_t box_rows;
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
GPU_FN void sm90_bar_expect(sm90_bar *bar, uint32_t bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sm90_shared(bar)), "r"(bytes)
	             : "memory");
}

/* Until the phase of this parity is over; of a fresh barrier the one of parity 1 is. */
GPU_FN void sm90_bar_wait(sm90_bar *bar, uint32_t parity)
{
	uint32_t over;

	do {
		asm volatile("{\n"
		             ".reg .pred p;\n"
		             "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
		             "selp.b32 %0, 1, 0, p;\n"
		             "}"
		             : "=r"(over)
		             : "r"(sm90_shared(bar)), "r"(parity)
		             : "memory");
	} while (!over);
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

/* The map's box at column `col` and row `row`, to a tile; its bytes count at bar. One thread. */
GPU_FN void sm90_copy_box(void *tile, const sm90_map *map, uint32_t col, uint32_t row, sm90_bar *bar)
{
	asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
	             "%4}], "
	             "[%2];" ::"r"(sm90_shared(tile)),
	             "l"(map), "r"(sm90_shared(bar)), "r"(col), "r"(row)
	             : "memory");
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

GPU_FN void sm90_pin(float (&d)[32])
{
	asm volatile("" : SM90_F32(d, 0)::"memory");
}

GPU_FN void sm90_pin(uint32_t (&d)[32])
{
	asm volatile("" : SM90_R8(d, 0), SM90_R8(d, 8), SM90_R8(d, 16), SM90_R8(d, 24)::"memory");
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

/* d [64 x 128] = (ADD: +=) A [64 x 16] B [128 x 16]^T. In elements: thread t holds of d rows t / 32 * 16 + t % 32 / 4
 * and 8 more, i / 4 * 8 + t % 4 * 2 + i % 2 is the column of d[i], i / 2 % 2 says which row. */
template <bool ADD> GPU_FN void sm90_product(float (&d)[64], sm90_desc a, sm90_desc b)
{
	asm volatile("{\n"
	             ".reg .pred p;\n"
	             "setp.ne.b32 p, %66, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " SM90_D64 ", %64, %65, p, 1, 1, 0, 0;\n"
	             "}"
	             : SM90_F32(d, 0), SM90_F32(d, 32)
	             : "l"(a), "l"(b), "r"(ADD ? 1 : 0));
}

/* d [64 x 128 or 64] += A [64 x 16] B [16 x 128 or 64]. A's registers, each two neighbours of a row: row t % 32 / 4 and
 * columns t % 4 * 2, the row 8 below, both again 8 columns on. */
GPU_FN void sm90_product_across(float (&d)[64], const uint32_t *a, sm90_desc b)
{
	asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " SM90_D64
	             ", {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
	             : SM90_F32(d, 0), SM90_F32(d, 32)
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

GPU_FN void sm90_product_across(float (&d)[32], const uint32_t *a, sm90_desc b)
{
	asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SM90_D32
	             ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
	             : SM90_F32(d, 0)
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#elif defined(GPU_HOST)

/* ---- The model --------------------------------------------------------------------------------------------------- */

GPU_FN void sm90_turn(sm90_bar *bar)
{
	if (bar->pending == 0 && bar->bytes == 0) {
		bar->phase ^= 1;
		bar->pending = bar->count;
	}
}

GPU_FN void sm90_bar_init(sm90_bar *bar, uint32_t arrivals)
{
	*bar = { arrivals, arrivals, 0, 0 };
}

GPU_FN void sm90_bars_ready()
{
}

GPU_FN void sm90_bar_expect(sm90_bar *bar, uint32_t bytes)
{
	if (bar->pending-- == 0)
		abort(); /* more arrivals than were said */
	bar->bytes += (int32_t)bytes;
	sm90_turn(bar);
}

GPU_FN void sm90_bar_arrive(sm90_bar *bar)
{
	sm90_bar_expect(bar, 0);
}

GPU_FN void sm90_bar_wait(sm90_bar *bar, uint32_t parity)
{
	while (bar->phase == parity)
		gpu_host::pause();
}

GPU_FN void sm90_named_arrive(uint32_t id, uint32_t threads)
{
	gpu_host::named &b = gpu_host::named_barriers[id];

	if (++b.arrived == threads) {
		b.arrived = 0;
		b.phase++;
	}
}

GPU_FN void sm90_named_sync(uint32_t id, uint32_t threads)
{
	const uint32_t phase = gpu_host::named_barriers[id].phase;

	sm90_named_arrive(id, threads);
	while (gpu_host::named_barriers[id].phase == phase)
		gpu_host::pause();
}

GPU_FN void sm90_publish()
{
}

template <int N> GPU_FN void sm90_fewer_registers()
{
}

template <int N> GPU_FN void sm90_more_registers()
{
}

/* What an address within a tile becomes. */
GPU_FN const uint8_t *sm90_swizzled(const uint8_t *at)
{
	return (const uint8_t *)((uintptr_t)at ^ ((uintptr_t)at >> 7 & 7) << 4);
}

GPU_FN void sm90_copy_box(void *tile, const sm90_map *map, uint32_t col, uint32_t row, sm90_bar *bar)
{
	const uint8_t *from = map->base + row * map->row_bytes + col * 2;

	if ((uintptr_t)tile % SM90_TILE_ROW)
		abort();
	for (uint32_t r = 0; r < map->box_rows; r++) {
		for (uint32_t c = 0; c < SM90_TILE_ROW; c += 16)
			memcpy((void *)sm90_swizzled((const uint8_t *)tile + r * SM90_TILE_ROW + c),
			       from + r * map->row_bytes + c, 16);
	}
	bar->bytes -= (int32_t)(map->box_rows * SM90_TILE_ROW);
	sm90_turn(bar);
}

GPU_FN sm90_desc sm90_desc_of(const void *tile, uint32_t leading, uint32_t stride)
{
	return { (const uint8_t *)tile, leading, stride };
}

GPU_FN sm90_desc sm90_desc_add(sm90_desc d, uint32_t bytes)
{
	d.at += bytes;
	return d;
}

template <class T, int N> GPU_FN void sm90_pin(T (&)[N])
{
}

GPU_FN void sm90_products_begin()
{
}

GPU_FN void sm90_products_end()
{
}

/* All lanes have computed theirs. */
template <int N> GPU_FN void sm90_products_wait()
{
	gpu_host::wait_group(32);
}

GPU_FN float sm90_value(const uint8_t *at)
{
	gpu_bf16 h;

	memcpy(&h, sm90_swizzled(at), sizeof(h));
	return gpu_from_bf16(h);
}

GPU_FN float sm90_along(const sm90_desc &d, uint32_t row, uint32_t k)
{
	return sm90_value(d.at + row / 8 * d.stride + row % 8 * SM90_TILE_ROW + k * 2);
}

GPU_FN float sm90_across(const sm90_desc &d, uint32_t col, uint32_t k)
{
	return sm90_value(d.at + col / 64 * d.leading + col % 64 * 2 + k / 8 * d.stride + k % 8 * SM90_TILE_ROW);
}

template <bool ADD> GPU_FN void sm90_product(float (&d)[64], sm90_desc a, sm90_desc b)
{
	const uint32_t t = threadIdx.x % SM90_GROUP, row = t / 32 * 16 + t % 32 / 4;

	for (uint32_t i = 0; i < 64; i++) {
		const uint32_t col = i / 4 * 8 + t % 4 * 2 + i % 2;
		float sum = ADD ? d[i] : 0.0f;

		for (uint32_t k = 0; k < 16; k++)
			sum += sm90_along(a, row + i / 2 % 2 * 8, k) * sm90_along(b, col, k);
		d[i] = sum;
	}
}

template <int N> GPU_FN void sm90_product_across(float (&d)[N], const uint32_t *a, sm90_desc b)
{
	using namespace gpu_host;
	const int me = current, now = parity[me] ^= 1;
	const uint32_t t = threadIdx.x % 4;

	memcpy(slots[now][me], a, 16);
	wait_group(32);
	for (uint32_t i = 0; i < N; i++) {
		for (uint32_t k = 0; k < 16; k++) {
			const uint32_t reg = k / 8 * 2 + i / 2 % 2;
			uint32_t two;

			memcpy(&two, slots[now][(me & ~3) + (int)(k % 8 / 2)] + 4 * reg, 4);
			d[i] += (k % 2 ? gpu_bf16_high(two) : gpu_bf16_low(two)) *
			        sm90_across(b, i / 4 * 8 + t * 2 + i % 2, k);
		}
	}
}

#endif
#endif
