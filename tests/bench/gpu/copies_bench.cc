/* How fast pages of K and V go to pinned host memory and back, and which way is quickest: JSON lines.
 *
 *   copies_bench [LAYERS [KIB [PAGES]]]
 *
 * A page of Qwen3-8B's shape in bfloat16 by default: 72 pieces of 64 KiB at equal distances in a pool, side by side on the
 * host; 256 pages, as a prompt of 8,192 tokens has. Each way of copying, to the host, to the device, and both at once, on
 * streams of their own as the engine has them: whole (pages that lay side by side on the device, too: the limit), rows (one
 * copy of rows a page: what the engine does), pieces (a copy each), batch (one call a page), and a kernel of 8 to 64 blocks.
 * The median of five; us_to_begin: what beginning a page takes the host. What comes back is compared with what went. */
#include "bench.h"
#include "gpu/rt.h"

enum { REPS = 5 };

struct side {
	struct gpu_rt rt;
	char *pool, *host;
};

static size_t n_pieces = 72, piece = 64 << 10, n_pages = 256;
static size_t page_bytes, pool_step;
static double limit[3];

enum how { WHOLE, ROWS, PIECES, BATCH, KERNEL8, KERNEL16, KERNEL32, KERNEL64, N_HOWS };
static const char *const how_names[N_HOWS] = { "whole",           "rows",             "pieces",           "batch",
	                                       "kernel, 8 blocks", "kernel, 16 blocks", "kernel, 32 blocks", "kernel, 64 blocks" };

static int copy_page(struct side *s, enum how how, bool out, size_t page)
{
	char *device = s->pool + (how == WHOLE ? page * page_bytes : page * piece), *host = s->host + page * page_bytes;
	const size_t step = how == WHOLE ? piece : pool_step;
	char *dst = out ? host : device, *src = out ? device : host;
	const size_t to = out ? piece : step, from = out ? step : piece;
	int r = 0;

	s->rt.in_batches = how == BATCH;
	if (how >= KERNEL8)
		return gk_copy_rows(s->rt.stream, 8u << (how - KERNEL8), dst, to, src, from, piece, n_pieces);
	if (how == WHOLE)
		return gpu_rt_copy_rows(&s->rt, s->rt.stream, out, dst, page_bytes, src, page_bytes, page_bytes, 1);
	if (how != PIECES)
		return gpu_rt_copy_rows(&s->rt, s->rt.stream, out, dst, to, src, from, piece, n_pieces);
	for (size_t i = 0; i < n_pieces && r == 0; i++)
		r = gpu_rt_copy_rows(&s->rt, s->rt.stream, out, dst + i * to, piece, src + i * from, piece, piece, 1);
	return r;
}

/* Seconds; < 0: it cannot. */
static double run(struct side *sides, int ways, enum how how, double *ret_begin)
{
	double begin = now(), begun;
	int r = 0;

	for (size_t page = 0; page < n_pages && r == 0; page++) {
		for (int w = 0; w < 2 && r == 0; w++) {
			if (ways >> w & 1)
				r = copy_page(&sides[w], how, w == 0, page);
		}
	}
	begun = now();
	for (int w = 0; w < 2; w++)
		r = gpu_rt_sync(&sides[w].rt) < 0 ? -1 : r;
	*ret_begin = begun - begin;
	return r < 0 ? -1 : now() - begin;
}

static void measure_how(struct side *sides, int ways, enum how how)
{
	static const char *const names[] = { "", "to the host", "to the device", "both ways" };
	const double bytes = (double)(page_bytes * n_pages) * (ways == 3 ? 2 : 1);
	double t[REPS], begins[REPS], gb;

	for (int i = -1; i < REPS; i++) {
		double b, s = run(sides, ways, how, &b);

		if (s < 0) {
			printf("{\"bench\":\"copies\",\"case\":\"%s, %s\",\"skipped\":\"%s\"}\n", how_names[how], names[ways],
			       gpu_rt_error());
			return;
		}
		if (i >= 0) {
			t[i] = s;
			begins[i] = b;
		}
	}
	qsort(t, REPS, sizeof(*t), by_value);
	qsort(begins, REPS, sizeof(*begins), by_value);
	gb = bytes / t[REPS / 2] * 1e-9;
	if (how == WHOLE)
		limit[ways - 1] = gb;
	printf("{\"bench\":\"copies\",\"case\":\"%s, %s\",\"value\":%.2f,\"unit\":\"GB/s\",\"limit\":%.2f,\"share\":%.3f,"
	       "\"us_to_begin\":%.1f}\n",
	       how_names[how], names[ways], gb, limit[ways - 1], gb / limit[ways - 1],
	       begins[REPS / 2] / (double)n_pages / (ways == 3 ? 2 : 1) * 1e6);
	(void)fflush(stdout);
}

/* There and back with each way. */
static bool is_right(struct side *s, enum how how)
{
	const size_t n = page_bytes * n_pages;
	bool right = true;

	for (size_t i = 0; i < n; i += 8)
		*(uint64_t *)(s->host + i) = i * 0x9e3779b97f4a7c15u;
	for (int back = 0; back < 2; back++) {
		for (size_t page = 0; page < n_pages; page++) {
			if (copy_page(s, how, back, page) < 0)
				return true; /* it is said where it is measured */
		}
		if (gpu_rt_sync(&s->rt) < 0)
			return false;
		if (!back)
			memset(s->host, 0, n);
	}
	for (size_t i = 0; i < n; i += 8)
		right = right && *(uint64_t *)(s->host + i) == i * 0x9e3779b97f4a7c15u;
	return right;
}

int main(int argc, char **argv)
{
	struct side sides[2] = {};
	char reason[256];
	bool all_right = true;

	if (argc > 1)
		n_pieces = 2 * strtoul(argv[1], nullptr, 10);
	if (argc > 2)
		piece = strtoul(argv[2], nullptr, 10) << 10;
	if (argc > 3)
		n_pages = strtoul(argv[3], nullptr, 10);
	page_bytes = n_pieces * piece;
	pool_step = n_pages * piece;
	for (int i = 0; i < 2; i++) {
		if (gpu_rt_open(&sides[i].rt, 0, reason, sizeof(reason)) < 0) {
			fprintf(stderr, "no device: %s\n", reason);
			return 0;
		}
		sides[i].pool = (char *)gpu_rt_alloc(&sides[i].rt, page_bytes * n_pages);
		sides[i].host = (char *)gpu_rt_host_alloc(&sides[i].rt, page_bytes * n_pages);
		if (!sides[i].pool || !sides[i].host) {
			fprintf(stderr, "no memory: %s\n", gpu_rt_error());
			return 1;
		}
	}
	for (int how = 0; how < N_HOWS; how++) {
		const bool right = is_right(&sides[0], (enum how)how);

		if (!right)
			fprintf(stderr, "%s: what came back is not what went\n", how_names[how]);
		all_right = all_right && right;
	}
	for (int ways = 1; ways <= 3; ways++) {
		for (int how = 0; how < N_HOWS; how++)
			measure_how(sides, ways, (enum how)how);
	}
	return all_right ? 0 : 1;
}
