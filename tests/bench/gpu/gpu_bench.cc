/* How near each GPU kernel comes to what the device can do, at the shapes of Qwen3-8B, mixtures at those of
 * Qwen3-30B-A3B: JSON lines.
 *
 *   gpu_bench [--only=WHAT[,WHAT]] [--type=NAME] [--tflops=N]
 *
 * WHAT: few, bytes, steady, many, attention, step, shapes, one (one sequence: products, a step, and that step without
 * each of its launches in turn), mixture, small, rows. The limit of memory is measured first, by reading two gigabytes;
 * that of arithmetic is told (default 736, an H100's). Each case is captured into a graph of several launches over
 * different weights, more than the second-level cache holds, and replayed; the median of the replays counts. The case
 * "step" is a whole decode step of 36 layers, with the element types that the backend gives it, by kernels of our own
 * alone. */
#include "gpu_bench.h"

static double limit_tflops = 736.0;
static const char *only = "", *only_type = "";

void *filled(size_t bytes)
{
	enum { PATTERN = 1 << 20 };
	static uint16_t *pattern;
	uint8_t *p = device<uint8_t>(bytes);

	if (!pattern) {
		pattern = (uint16_t *)malloc(PATTERN * 2);
		for (size_t i = 0; i < PATTERN; i++) /* +-2^-6 .. 2^-4 */
			pattern[i] = (uint16_t)(((unsigned)rand() & 0x81ff) + 0x3c80);
	}
	check(gpu_copy_in(p, pattern, bytes < PATTERN * 2 ? bytes : PATTERN * 2), "copy");
	for (size_t at = PATTERN * 2; at < bytes; at *= 2)
		check(BENCH_GPU(Memcpy)(p + at, p, bytes - at < at ? bytes - at : at, BENCH_GPU(MemcpyDeviceToDevice)),
		      "copy");
	return p;
}

void report(const char *name, double us, double bytes, double flops)
{
	const double gb = bytes / us * 1e-3, tf = flops / us * 1e-6;
	const bool memory = bytes / (limit_gbytes * 1e9) > flops / (limit_tflops * 1e12);

	printf("{\"bench\":\"gpu\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"%s\",\"limit\":%.0f,\"share\":%.3f,\"us\":"
	       "%.2f}\n",
	       name, memory ? gb : tf, memory ? "GB/s" : "TFLOP/s", memory ? limit_gbytes : limit_tflops,
	       memory ? gb / limit_gbytes : tf / limit_tflops, us);
	(void)fflush(stdout);
}

static bool has_bytes(int t)
{
	return types[t].type == KN_Q8_0 || types[t].type == KN_Q4_0 || types[t].type == KN_Q4_K;
}

static bool wanted(const char *what)
{
	return !*only || strstr(only, what);
}

static bool wanted_type(int t)
{
	return !*only_type || !strcmp(only_type, types[t].name);
}

int main(int argc, char **argv)
{
	static const uint32_t few[] = { 1, 4, 8, 16 }, many[] = { 32, 64, 128, 256, 2048 };
	const size_t limit_bytes = (size_t)2 << 30;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--only=", 7))
			only = argv[i] + 7;
		else if (!strncmp(argv[i], "--type=", 7))
			only_type = argv[i] + 7;
		else if (!strncmp(argv[i], "--tflops=", 9))
			limit_tflops = strtod(argv[i] + 9, nullptr);
	}
	if (!bench_open(512u << 20))
		return 0;
	ctx.bytes = false; /* where it is asked for */
	report("read", measure_limit(limit_bytes), (double)limit_bytes, 0);
	for (int t = 0; wanted("few") && t < N_TYPES; t++) {
		for (int s = 0; wanted_type(t) && s < 5; s++) {
			for (int m = 0; m < (t < 2 || t == 4 ? 4 : 1); m++)
				bench_linear(&model_shapes[s], t, few[m], FEW);
		}
	}
	/* Beside "few": 32 lanes' dot products of bytes instead of matrix units, of the types that have them. */
	for (int t = 0; wanted("bytes") && t < N_TYPES; t++) {
		for (int c = 0; has_bytes(t) && wanted_type(t) && c < 5; c++) {
			bench_linear(&model_shapes[c], t, 1, BYTES);
		}
	}
	/* Deterministic answers; beside "few" and the library. */
	for (int t = 0; wanted("steady") && t < N_TYPES; t++) {
		static const uint32_t rows[] = { 1, 64, 8, 17, 32, 128, 256 };

		for (int c = 0; wanted_type(t) && c < 5; c++) {
			for (int m = 0; m < (t < 2 ? 7 : 2); m++)
				bench_linear(&model_shapes[c], t, rows[m], STEADY);
		}
	}
	if (wanted("attention")) {
		bench_attention(1, 512, 1);
		bench_attention(1, 4096, 1);
		bench_attention(1, 16384, 1);
		bench_attention(16, 2048, 1);
		bench_attention(128, 640, 1);
		bench_attention(1, 2048, 2048);
		bench_attention(4, 512, 512);
		bench_attention(8, 1024, 1024);
		bench_attention(1, 8192, 8192);
		bench_attention(4, 8192, 512);
	}
	for (int t = 0; wanted("step") && t < N_TYPES; t++) {
		static const uint32_t cases[][2] = { { 1, 512 }, { 1, 16384 }, { 8, 512 }, { 64, 512 }, { 128, 512 } };

		if (!wanted_type(t))
			continue;
		for (int c = 0; c < (t < 2 ? 5 : 1); c++) {
			if (cases[c][0] <= GK_FEW_ROWS)
				bench_step(t, cases[c][0], cases[c][1], "");
			ctx.fixed = true;
			bench_step(t, cases[c][0], cases[c][1], " deterministic");
			ctx.fixed = false;
		}
		ctx.bytes = has_bytes(t);
		if (ctx.bytes)
			bench_step(t, 1, 512, " bytes");
		ctx.bytes = false;
	}
	for (int t = 0; wanted("one") && t < N_TYPES; t++) {
		static const unsigned sets[] = { STORE_PART,
			                         ATTENTION_PART,
			                         STORE_PART | ATTENTION_PART,
			                         O_PART,
			                         STORE_PART | ATTENTION_PART | O_PART,
			                         QKV_PART,
			                         GATED_PART,
			                         DOWN_PART,
			                         HEAD_PART,
			                         PICK_PART,
			                         0 };

		for (int s = 0; wanted_type(t) && s < 5; s++)
			bench_linear(&model_shapes[s], t, 1, has_bytes(t) ? BYTES : FEW);
		ctx.bytes = has_bytes(t);
		if (wanted_type(t))
			bench_step(t, 1, 512, "", sets);
		ctx.bytes = false;
	}
	/* Which blocks attention of few rows should have is seen in a whole step: the products beside it mind. */
	for (int t = 0; wanted("shapes") && t < N_TYPES; t++) {
		static const char *const names[] = { "", " 4 x 3", " 8 x 2", " 4 x 2", " 4 x 3, stream" };

		for (uint32_t shape = GK_SHAPE_MANY; wanted_type(t) && shape < GK_N_SHAPES; shape++) {
			ctx.shape = shape;
			bench_step(t, 1, 512, names[shape]);
			bench_step(t, 1, 4096, names[shape]);
			bench_step(t, 8, 512, names[shape]);
			bench_step(t, 1, 16384, names[shape]);
			ctx.shape = GK_SHAPE_BEST;
		}
	}
	for (int t = 0; wanted("many") && t < 5; t++) {
		for (int s = 0; wanted_type(t) && s < 4; s += t ? 2 : 1) {
			for (int m = 0; m < 5; m++)
				bench_linear(&model_shapes[s], t, many[m], MANY);
			if (t)
				bench_widen(&model_shapes[s], t);
		}
	}
	if (wanted("mixture")) {
		bench_mixture(1);
		bench_mixture(4);
		bench_mixture(16);
	}
	if (wanted("small")) {
		bench_small(1);
		bench_small(64);
		bench_small(2048);
	}
	if (wanted("rows")) {
		bench_rows_of_prompts(1);
		bench_rows_of_prompts(128);
		bench_rows_of_prompts(2048);
	}
	return n_failed != 0;
}
