/* The host's model of sm90.h's instructions; see there. It computes when an instruction is issued. Included by sm90.h
 * alone. */
#ifndef GPU_SM90_MODEL_H
#define GPU_SM90_MODEL_H

struct sm90_place {
	uint8_t *at;

	sm90_place(const void *p) : at((uint8_t *)p)
	{
	}
	sm90_place operator+(uint32_t bytes) const
	{
		return at + bytes;
	}
	sm90_bar *bar() const
	{
		return (sm90_bar *)at;
	}
};

GPU_FN sm90_place sm90_place_of(const void *p)
{
	return p;
}

GPU_FN float sm90_read(sm90_place p)
{
	return *(const float *)p.at;
}

GPU_FN void sm90_turn(sm90_bar *bar)
{
	if (bar->pending == 0 && bar->bytes == 0) {
		bar->phase ^= 1;
		bar->pending = bar->count;
	}
}

GPU_FN void sm90_bar_init(sm90_bar *bar, uint32_t arrivals)
{
	if (arrivals == 0 || arrivals >= 1u << 20)
		abort();
	*bar = { arrivals, arrivals, 0, 0 };
}

GPU_FN void sm90_bars_ready()
{
}

GPU_FN void sm90_bar_expect(sm90_place bar, uint32_t bytes)
{
	if (bar.bar()->pending-- == 0)
		abort(); /* more arrivals than were said */
	bar.bar()->bytes += (int32_t)bytes;
	sm90_turn(bar.bar());
}

/* So many of those have come. */
GPU_FN void sm90_bar_count(sm90_place bar, uint32_t bytes)
{
	bar.bar()->bytes -= (int32_t)bytes;
	sm90_turn(bar.bar());
}

GPU_FN void sm90_bar_arrive(sm90_bar *bar)
{
	sm90_bar_expect(bar, 0);
}

GPU_FN void sm90_bar_wait(sm90_place bar, uint32_t parity)
{
	while (bar.bar()->phase == parity)
		gpu_host::pause();
}

GPU_FN void sm90_named_arrive(uint32_t id, uint32_t threads)
{
	gpu_host::named &b = gpu_host::named_barriers[gpu_host::rank][id];

	if (++b.arrived == threads) {
		b.arrived = 0;
		b.phase++;
	}
}

GPU_FN void sm90_named_sync(uint32_t id, uint32_t threads)
{
	const gpu_host::named &b = gpu_host::named_barriers[gpu_host::rank][id];
	const uint32_t phase = b.phase;

	sm90_named_arrive(id, threads);
	while (b.phase == phase)
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

/* Where p of this block's shared memory lies in that of block `rank` of the cluster. */
template <class T> GPU_FN T *sm90_there(T *p, uint32_t rank)
{
	return (T *)(gpu_host::cluster_shared[rank] + ((const uint8_t *)p - gpu_host::cluster_shared[gpu_host::rank]));
}

GPU_FN void sm90_bar_arrive_at(sm90_place bar, uint32_t rank)
{
	sm90_bar_arrive(sm90_there(bar.bar(), rank));
}

GPU_FN void sm90_bar_wait_for_all(sm90_bar *bar, uint32_t parity)
{
	sm90_bar_wait(bar, parity);
}

GPU_FN void sm90_send(float4 *to, uint32_t rank, const float4 &v, sm90_bar *bar)
{
	*sm90_there(to, rank) = v;
	sm90_bar_count(sm90_there(bar, rank), sizeof(v));
}

GPU_FN uint32_t sm90_cluster_rank()
{
	return gpu_host::rank;
}

GPU_FN void sm90_cluster_sync()
{
	gpu_host::wait_cluster();
}

GPU_FN void sm90_cluster_meet()
{
	gpu_host::wait_cluster();
}

GPU_FN void sm90_ask_for_map(const sm90_map *)
{
}

GPU_FN void sm90_copy_box(sm90_place tile, const sm90_map *map, uint32_t col, uint32_t row, sm90_place bar)
{
	if ((uintptr_t)tile.at % SM90_TILE_ROW)
		abort();
	for (uint32_t r = 0; r < map->box_rows; r++) {
		for (uint32_t c = 0; c < SM90_TILE_ROW; c += 16) {
			const uint32_t at = col + c / map->elem_bytes;
			uint8_t piece[16] = { 0 };

			if (row + r < map->rows && at < map->cols) {
				const size_t left = (size_t)(map->cols - at) * map->elem_bytes;

				memcpy(piece, map->base + (row + r) * map->row_bytes + (size_t)at * map->elem_bytes,
				       left < 16 ? left : 16);
			}
			memcpy((void *)sm90_swizzled(tile.at + r * SM90_TILE_ROW + c), piece, 16);
		}
	}
	sm90_bar_count(bar, map->box_rows * SM90_TILE_ROW);
}

GPU_FN void sm90_copy_box_to(sm90_place tile, const sm90_map *map, uint32_t col, uint32_t row, sm90_place bar,
                             uint32_t ranks)
{
	for (uint32_t r = 0; r < gpu_host::MAX_CLUSTER; r++) {
		if (ranks >> r & 1)
			sm90_copy_box(sm90_there(tile.at, r), map, col, row, sm90_there(bar.at, r));
	}
}

GPU_FN void sm90_copy_bytes(sm90_place to, const void *from, uint32_t bytes, sm90_place bar)
{
	if (((uintptr_t)to.at | (uintptr_t)from | bytes) % 16)
		abort();
	memcpy(to.at, from, bytes);
	sm90_bar_count(bar, bytes);
}

GPU_FN void sm90_copy16(void *to, const void *from)
{
	gpu_copy16(to, from, 16);
}

GPU_FN float sm90_load_of(const float *p, uint32_t rank)
{
	return *sm90_there(p, rank);
}

GPU_FN void sm90_keep(uint4 &)
{
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

struct sm90_tiles {
	sm90_desc first;

	sm90_desc operator[](uint32_t bytes) const
	{
		return sm90_desc_add(first, bytes);
	}
};

GPU_FN sm90_tiles sm90_tiles_of(sm90_place tile, uint32_t leading, uint32_t stride)
{
	return { sm90_desc_of(tile.at, leading, stride) };
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

template <bool HALF> GPU_FN float sm90_float(uint16_t h)
{
	return HALF ? gpu_from_f16(h) : gpu_from_bf16(h);
}

template <bool HALF> GPU_FN float sm90_value(const uint8_t *at)
{
	uint16_t h;

	memcpy(&h, sm90_swizzled(at), sizeof(h));
	return sm90_float<HALF>(h);
}

template <bool HALF> GPU_FN float sm90_along(const sm90_desc &d, uint32_t row, uint32_t k)
{
	return sm90_value<HALF>(d.at + row / 8 * d.stride + row % 8 * SM90_TILE_ROW + k * 2);
}

template <bool HALF> GPU_FN float sm90_across(const sm90_desc &d, uint32_t col, uint32_t k)
{
	return sm90_value<HALF>(d.at + col / 64 * d.leading + col % 64 * 2 + k / 8 * d.stride + k % 8 * SM90_TILE_ROW);
}

template <bool ADD, bool HALF = false, int N> GPU_FN void sm90_product(float (&d)[N], sm90_desc a, sm90_desc b)
{
	const uint32_t t = threadIdx.x % SM90_GROUP, row = t / 32 * 16 + t % 32 / 4;

	for (uint32_t i = 0; i < N; i++) {
		const uint32_t col = i / 4 * 8 + t % 4 * 2 + i % 2;
		float sum = ADD ? d[i] : 0.0f;

		for (uint32_t k = 0; k < 16; k++)
			sum += sm90_along<HALF>(a, row + i / 2 % 2 * 8, k) * sm90_along<HALF>(b, col, k);
		d[i] = sum;
	}
}

/* before + the 32 products, all of them cut off 13 bits below the greatest: see above. */
GPU_FN float sm90_sum8(float before, const float *products)
{
	float most = fabsf(before), plain = before, inverse;
	int32_t sum;
	int exponent;

	for (int k = 0; k < 32; k++) {
		most = fmaxf(most, fabsf(products[k]));
		plain += products[k];
	}
	if (!(most > 0.0f) || !isfinite(plain))
		return plain;
	(void)frexpf(most, &exponent);
	inverse = ldexpf(1.0f, 14 - exponent);
	sum = (int32_t)(before * inverse);
	for (int k = 0; k < 32; k++)
		sum += (int32_t)(products[k] * inverse);
	return (float)sum / inverse;
}

/* 32 of a row, from a multiple of 16 on. */
GPU_FN void sm90_line8(const sm90_desc &d, uint32_t row, float *ret)
{
	const uint8_t *const line = d.at + row / 8 * d.stride + row % 8 * SM90_TILE_ROW;

	for (uint32_t k = 0; k < 32; k++)
		ret[k] = gpu_from_e4m3(sm90_swizzled(line + k / 16 * 16)[k % 16]);
}

template <bool ADD> GPU_FN void sm90_product8(float (&d)[64], sm90_desc a, sm90_desc b)
{
	const uint32_t t = threadIdx.x % SM90_GROUP, row = t / 32 * 16 + t % 32 / 4;
	float x[2][32], w[32], products[32];

	sm90_line8(a, row, x[0]);
	sm90_line8(a, row + 8, x[1]);
	for (uint32_t i = 0; i < 64; i++) {
		sm90_line8(b, i / 4 * 8 + t % 4 * 2 + i % 2, w);
		for (uint32_t k = 0; k < 32; k++)
			products[k] = x[i / 2 % 2][k] * w[k];
		d[i] = sm90_sum8(ADD ? d[i] : 0.0f, products);
	}
}

template <bool HALF = false, int N> GPU_FN void sm90_product_across(float (&d)[N], const uint32_t *a, sm90_desc b)
{
	using namespace gpu_host;
	const int me = current, now = parity[me] ^= 1;
	const uint32_t t = threadIdx.x % 4;

	memcpy(slots[now][me], a, 16);
	wait_group(32);
	for (uint32_t i = 0; i < N; i++) {
		for (uint32_t k = 0; k < 16; k++) {
			const uint32_t reg = k / 8 * 2 + i / 2 % 2;
			uint16_t two[2];

			memcpy(two, slots[now][(me & ~3) + (int)(k % 8 / 2)] + 4 * reg, 4);
			d[i] += sm90_float<HALF>(two[k % 2]) * sm90_across<HALF>(b, i / 4 * 8 + t * 2 + i % 2, k);
		}
	}
}

/* The terms in the order in which the model of gpu_mma_half() has them. */
template <int N>
GPU_FN void sm90_product_along(float (&d)[N], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, sm90_desc b)
{
	using namespace gpu_host;
	const int me = current, now = parity[me] ^= 1;
	const uint32_t a[4] = { a0, a1, a2, a3 }, t = threadIdx.x % 4;

	memcpy(slots[now][me], a, 16);
	wait_group(32);
	for (uint32_t i = 0; i < N; i++) {
		for (uint32_t k = 0; k < 16; k++) {
			const uint32_t of = k / 4, reg = k / 2 % 2 * 2 + i / 2 % 2; /* of lane `of` of the quad */
			uint32_t two;

			memcpy(&two, slots[now][(me & ~3) + (int)of] + 4 * reg, 4);
			d[i] += (k % 2 ? gpu_bf16_high(two) : gpu_bf16_low(two)) *
			        sm90_along<false>(b, i / 4 * 8 + t * 2 + i % 2, k / 2 % 2 * 8 + of * 2 + k % 2);
		}
	}
}

template <int N> GPU_FN void sm90_products_done(float (&)[N])
{
	sm90_products_wait<0>();
}

#endif
