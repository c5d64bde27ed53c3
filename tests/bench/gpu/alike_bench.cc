/* Whether a row has the same bits whichever of the library's kernels multiplies it, as long as that shares its sums
 * with nobody: what deterministic mode asks at its start (kernels/gpu/gemm_alike.h), of more kernels and more numbers
 * of rows. JSON lines.
 *
 *   alike_bench [--rows=N,N,...] [--quick] [--each]
 *
 * Shapes of Qwen3-8B in bfloat16, and in e4m3 with a scale for each 128 x 128 weights and each 128 values of a row
 * (where the library has that). Columns are such that each sum is 0 but for what rounding leaves of it: the second half
 * of a row is the first half with the other sign, and weights have the same values in both. So any other order of sums
 * shows in nearly every result. "bits": how many of the kernels that the heuristics name for so many rows give the bits
 * of the one for 2,048 rows; "words_other": how many words of 4 bytes the worst of them has otherwise. Then times,
 * medians over different weights, more than the second-level cache holds: of the first kernel with the same bits, of
 * the one for 2,048 rows, and of the library's choice where it may share sums. --quick: bits alone; --each: times of
 * all kernels with the same bits. */
#include <cublasLt.h>
#include <dlfcn.h>

#include "bench.h"
#include "shapes.h"

enum { MOST_ROWS = 256, MODEL_ROWS = 2048, MOST_KERNELS = 8, WORKSPACE = 64 << 20 };

struct shape {
	const char *name;
	uint32_t n, k;
	bool is_f32, accumulate;
};

static shape shape_of(const model_shape &of)
{
	return { of.name, of.gated ? 2 * of.rows : of.rows, of.cols, of.is_f32, !of.norm };
}

/* ---- The library ------------------------------------------------------------------------------------------------- */

#define FUNCTIONS(X)                                                                                     \
	X(Create)                                                                                        \
	X(MatmulDescCreate)                                                                              \
	X(MatmulDescSetAttribute) X(MatrixLayoutCreate) X(MatrixLayoutDestroy) X(MatmulPreferenceCreate) \
	        X(MatmulPreferenceSetAttribute) X(MatmulAlgoGetHeuristic) X(Matmul)

#define POINTER(name) static decltype(&cublasLt##name) lt##name;
FUNCTIONS(POINTER)

static cublasLtHandle_t handle;
static cublasLtMatmulDesc_t desc_of[2]; /* bfloat16, e4m3 */
static void *workspace;

static void *open_library()
{
	static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12" };
	char folders[4096], path[4300];
	void *lib = nullptr;

	for (const char *name : names) {
		(void)snprintf(folders, sizeof(folders), "%s", getenv("OCAI_GPU_LIBS") ? getenv("OCAI_GPU_LIBS") : "");
		for (char *at = strtok(folders, ":"); at && !lib; at = strtok(nullptr, ":")) {
			(void)snprintf(path, sizeof(path), "%s/%s", at, name);
			lib = dlopen(path, RTLD_NOW);
		}
		lib = lib ? lib : dlopen(name, RTLD_NOW);
		if (lib)
			break;
	}
	return lib;
}

static bool make_desc(bool fp8)
{
	const cublasOperation_t transposed = CUBLAS_OP_T;
	cublasLtMatmulDesc_t d;
	bool made = ltMatmulDescCreate(&d, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
	            ltMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) ==
	                    CUBLAS_STATUS_SUCCESS;

#if CUBLAS_VERSION >= 120900
	const int32_t by_block = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F,
	              by_row = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;

	if (fp8)
		made = made &&
		       ltMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &by_block, sizeof(by_block)) ==
		               CUBLAS_STATUS_SUCCESS &&
		       ltMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &by_row, sizeof(by_row)) ==
		               CUBLAS_STATUS_SUCCESS;
#else
	made = made && !fp8;
#endif
	desc_of[fp8] = made ? d : nullptr;
	return made;
}

static bool have_library()
{
	void *lib = open_library();
	bool all = lib != nullptr;

#define RESOLVE(name) all = all && (*(void **)&lt##name = dlsym(lib, "cublasLt" #name)) != nullptr;
	FUNCTIONS(RESOLVE)
	all = all && ltCreate(&handle) == CUBLAS_STATUS_SUCCESS && make_desc(false);
	if (all)
		(void)make_desc(true);
	workspace = device<uint8_t>(WORKSPACE);
	return all;
}

/* A product of m rows, W [n, k], and kernels for it: those that share no sum, or the first of all. */
struct problem {
	uint32_t m;
	bool fp8, accumulate;
	cublasLtMatrixLayout_t w, x, out;
	cublasLtMatmulHeuristicResult_t kernels[MOST_KERNELS];
	int n_kernels;
};

struct buffers {
	uint8_t *w;
	float *w_scale, *x_scale; /* e4m3; the latter for the number of rows that is asked for: fill_x_scales() */
	size_t each;
	int copies;
	void *x, *begin, *want, *out;
	size_t out_bytes; /* of a row */
};

static void set_scales(const buffers &b)
{
	const void *const w = b.w_scale, *const x = b.x_scale;

	(void)ltMatmulDescSetAttribute(desc_of[1], CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w, sizeof(w));
	(void)ltMatmulDescSetAttribute(desc_of[1], CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x, sizeof(x));
}

static void set_up(problem *p, uint32_t m, const shape &s, bool fp8, bool steady, const buffers &b)
{
	const uint64_t bytes = steady ? 0 : WORKSPACE;
	const uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = 16;
	const cudaDataType_t in = fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
	cublasLtMatmulPreference_t pref;

	p->m = m;
	p->fp8 = fp8;
	p->accumulate = s.accumulate;
	p->n_kernels = 0;
	if (fp8)
		set_scales(b);
	if (ltMatrixLayoutCreate(&p->w, in, s.k, s.n, s.k) != CUBLAS_STATUS_SUCCESS ||
	    ltMatrixLayoutCreate(&p->x, in, s.k, m, s.k) != CUBLAS_STATUS_SUCCESS ||
	    ltMatrixLayoutCreate(&p->out, s.is_f32 ? CUDA_R_32F : CUDA_R_16BF, s.n, m, s.n) != CUBLAS_STATUS_SUCCESS ||
	    ltMatmulPreferenceCreate(&pref) != CUBLAS_STATUS_SUCCESS)
		exit(1);
	(void)ltMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes));
	if (steady) { /* as gemm_cublaslt.c asks */
		(void)ltMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none,
		                                     sizeof(none));
		for (auto who :
		     { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
		       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES })
			(void)ltMatmulPreferenceSetAttribute(pref, who, &alignment, sizeof(alignment));
	}
	if (ltMatmulAlgoGetHeuristic(handle, desc_of[fp8], p->w, p->x, p->out, p->out, pref,
	                             steady ? (int)MOST_KERNELS : 1, p->kernels,
	                             &p->n_kernels) != CUBLAS_STATUS_SUCCESS)
		p->n_kernels = 0;
}

static void drop(problem *p)
{
	for (cublasLtMatrixLayout_t l : { p->w, p->x, p->out })
		(void)ltMatrixLayoutDestroy(l);
}

static int run(const problem &p, const cublasLtMatmulHeuristicResult_t &kernel, const void *w, const buffers &b,
               void *out)
{
	const float one = 1, beta = p.accumulate ? 1 : 0;

	if (p.fp8)
		set_scales(b);
	return ltMatmul(handle, desc_of[p.fp8], &one, w, p.w, b.x, p.x, &beta, out, p.out, out, p.out, &kernel.algo,
	                workspace, kernel.workspaceSize, stream) == CUBLAS_STATUS_SUCCESS
	               ? 0
	               : -1;
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

GPU_FN uint32_t mixed(uint32_t a, uint32_t b)
{
	uint64_t v = ((uint64_t)a << 32 | b) * 0xbf58476d1ce4e5b9ull;

	v = (v ^ v >> 31) * 0x94d049bb133111ebull;
	return (uint32_t)(v >> 32);
}

/* Row r's value at column c of `half` columns: any sign and fraction, exponents over a range. */
static __global__ void fill_values(uint8_t *p, bool fp8, size_t rows, uint32_t k, uint32_t seed, bool turns)
{
	const uint32_t half = k / 2;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * k;
	     i += (size_t)gridDim.x * blockDim.x) {
		const uint32_t r = (uint32_t)(i / k), c = (uint32_t)(i % k), v = mixed(seed + r, c % half);
		const uint32_t sign = (v >> 31) ^ (turns && c >= half ? 1u : 0u);

		if (fp8)
			p[i] = (uint8_t)(sign << 7 | (3 + v % 9) << 3 | (v >> 16 & 7));
		else
			((uint16_t *)p)[i] = (uint16_t)(sign << 15 | (120 + v % 6) << 7 | (v >> 16 & 127));
	}
}

/* Scales of W's blocks, and of m rows side by side: the same for both halves. */
static __global__ void fill_scales(float *p, size_t n, uint32_t lines_half, uint32_t across, bool by_line,
                                   uint32_t seed)
{
	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
		const uint32_t line = (uint32_t)(i / across), at = (uint32_t)(i % across);
		/* W: a line is a block of rows, `at` the block of columns; x: a line is a block of columns. */
		const uint32_t block = by_line ? line % lines_half : at % lines_half, of = by_line ? at : line;

		p[i] = (1.0f + (float)(mixed(seed + of, block) & 0xffff) / 65536.0f) / 64.0f;
	}
}

static __global__ void fill_floats(float *p, size_t n)
{
	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
		p[i] = ((float)mixed((uint32_t)i, 77) / 4294967296.0f - 0.5f) * 1e-3f;
}

static void fill_x_scales(const buffers &b, uint32_t m, uint32_t k)
{
	if (b.x_scale)
		gpu_launch(fill_scales, dim3(64), dim3(256), 0, ctx.stream, false, b.x_scale, (size_t)m * (k / 128),
		           k / 256, m, true, 5u);
}

static buffers make_buffers(const shape &s, bool fp8, bool quick)
{
	buffers b = {};
	const size_t each = fp8 ? 1 : 2;

	b.each = (size_t)s.n * s.k * each;
	b.copies = quick ? 1 : b.each > 400u << 20 ? 2 : (int)((300u << 20) / b.each) + 2;
	b.out_bytes = (size_t)s.n * (s.is_f32 ? 4 : 2);
	b.w = device<uint8_t>(b.each * b.copies);
	b.x = device<uint8_t>((size_t)MOST_ROWS * s.k * each);
	b.begin = device<uint8_t>(MOST_ROWS * b.out_bytes);
	b.want = device<uint8_t>(MOST_ROWS * b.out_bytes);
	b.out = device<uint8_t>(MOST_ROWS * b.out_bytes);
	gpu_launch(fill_values, dim3(2048), dim3(256), 0, ctx.stream, false, b.w, fp8, (size_t)s.n * b.copies, s.k, 1u,
	           false);
	gpu_launch(fill_values, dim3(512), dim3(256), 0, ctx.stream, false, (uint8_t *)b.x, fp8, (size_t)MOST_ROWS, s.k,
	           1u << 30, true);
	gpu_launch(fill_floats, dim3(512), dim3(256), 0, ctx.stream, false, (float *)b.begin,
	           MOST_ROWS * b.out_bytes / 4);
	if (fp8) {
		const uint32_t across = s.k / 128; /* a multiple of 4 */

		b.w_scale = device<float>((size_t)(s.n / 128 + 1) * across);
		b.x_scale = device<float>((size_t)MOST_ROWS * across);
		gpu_launch(fill_scales, dim3(64), dim3(256), 0, ctx.stream, false, b.w_scale,
		           (size_t)(s.n / 128 + 1) * across, across / 2, across, false, 9u);
	}
	check(BENCH_GPU(StreamSynchronize)(stream), "values");
	return b;
}

/* ---- Bits -------------------------------------------------------------------------------------------------------- */

/* How many of n 4-byte words differ. */
static __global__ void differences(const uint32_t *a, const uint32_t *b, size_t n, uint32_t *ret)
{
	uint32_t d = 0;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
		d += a[i] != b[i];
	if (d)
		atomicAdd(ret, d);
}

static uint32_t n_different(const void *a, const void *b, size_t bytes)
{
	static uint32_t *count;
	uint32_t n = 0;

	if (!count)
		count = device<uint32_t>(1);
	check(gpu_fill(count, 0, 4), "fill");
	gpu_launch(differences, dim3(512), dim3(256), 0, ctx.stream, false, (const uint32_t *)a, (const uint32_t *)b,
	           bytes / 4, count);
	check(BENCH_GPU(StreamSynchronize)(stream), "compare");
	check(gpu_copy_out(&n, count, 4), "copy");
	return n;
}

static void begin_with(const buffers &b, void *out, uint32_t m)
{
	check(BENCH_GPU(StreamSynchronize)(stream), "before");
	check(BENCH_GPU(Memcpy)(out, b.begin, m * b.out_bytes, BENCH_GPU(MemcpyDeviceToDevice)), "copy");
}

static void say_no_kernel(const char *type, const shape &s, uint32_t m)
{
	printf("{\"bench\":\"alike\",\"case\":\"%s %s M=%u\",\"error\":\"no kernel\"}\n", type, s.name, m);
	(void)fflush(stdout);
}

static void report(const char *way, const char *type, const shape &s, uint32_t m, size_t bytes, double us)
{
	printf("{\"bench\":\"alike\",\"case\":\"%s %s %s "
	       "M=%u\",\"value\":%.1f,\"unit\":\"GB/s\",\"limit\":%.1f,\"share\":%.3f,\"us\":%.2f}\n",
	       way, type, s.name, m, (double)bytes / us * 1e-3, limit_gbytes, (double)bytes / us * 1e-3 / limit_gbytes,
	       us);
	(void)fflush(stdout);
}

static uint32_t n_kernels, n_alike;
static bool each;

static void rows_of(const shape &s, bool fp8, const problem &model, const buffers &b, uint32_t m, bool quick)
{
	const char *const type = fp8 ? "e4m3" : "bf16";
	const int n = b.copies * (b.each < 100u << 20 ? 4 : 1);
	const auto weights = [&](int i) { return b.w + (size_t)(i % b.copies) * b.each; };
	uint32_t alike = 0, worst = 0, least = UINT32_MAX;
	int first = -1;
	problem p, any;

	fill_x_scales(b, m, s.k);
	set_up(&p, m, s, fp8, true, b);
	if (p.n_kernels == 0) {
		say_no_kernel(type, s, m);
		drop(&p);
		return;
	}
	begin_with(b, b.want, m);
	if (run(p, model.kernels[0], b.w, b, b.want) < 0) {
		printf("{\"bench\":\"alike\",\"case\":\"%s %s M=%u\",\"error\":\"the kernel of 2048 rows does not take "
		       "so "
		       "few\"}\n",
		       type, s.name, m);
		n_failed++;
		drop(&p);
		return;
	}
	for (int i = 0; i < p.n_kernels; i++) {
		uint32_t others;

		begin_with(b, b.out, m);
		n_failed += run(p, p.kernels[i], b.w, b, b.out) < 0;
		others = n_different(b.want, b.out, m * b.out_bytes);
		alike += others == 0;
		worst = others > worst ? others : worst;
		least = others < least ? others : least;
		if (others == 0 && first < 0)
			first = i;
		if (others == 0 && each) {
			char name[32];

			(void)snprintf(name, sizeof(name), "kernel %d", i);
			report(name, type, s, m, b.each,
			       measure(n, [&](int k) { return run(p, p.kernels[i], weights(k), b, b.out); }));
		}
	}
	printf("{\"bench\":\"alike\",\"case\":\"bits %s %s M=%u\",\"value\":%u,\"unit\":\"kernels alike\",\"limit\":%d,"
	       "\"words_other\":%u,\"words\":%zu,\"first\":%d}\n",
	       type, s.name, m, alike, p.n_kernels, worst, m * b.out_bytes / 4, first);
	(void)fflush(stdout);
	n_kernels += (uint32_t)p.n_kernels;
	n_alike += alike;
	if (!quick) {
		if (first >= 0)
			report("first alike", type, s, m, b.each,
			       measure(n, [&](int i) { return run(p, p.kernels[first], weights(i), b, b.out); }));
		if (first != 0)
			report("first of all without shared sums", type, s, m, b.each,
			       measure(n, [&](int i) { return run(p, p.kernels[0], weights(i), b, b.out); }));
		if (first < 0 || fp8)
			report("kernel of 2048 rows", type, s, m, b.each,
			       measure(n, [&](int i) { return run(p, model.kernels[0], weights(i), b, b.out); }));
		set_up(&any, m, s, fp8, false, b);
		if (any.n_kernels > 0)
			report("library's choice", type, s, m, b.each,
			       measure(n, [&](int i) { return run(any, any.kernels[0], weights(i), b, b.out); }));
		drop(&any);
	}
	drop(&p);
}

/* Whether sums that are 0 but for rounding are seen to be other where their order is: halves are what a kernel that
 * shares its sums makes them. */
static void seen(const shape &s, bool fp8, const problem &model, const buffers &b)
{
	enum { M = 16 };
	problem p;
	uint64_t bytes = WORKSPACE;
	const uint32_t others_only = CUBLASLT_REDUCTION_SCHEME_MASK & ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_NONE;
	cublasLtMatmulPreference_t pref;

	set_up(&p, M, s, fp8, false, b);
	if (fp8 || ltMatmulPreferenceCreate(&pref) != CUBLAS_STATUS_SUCCESS)
		return drop(&p);
	(void)ltMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes));
	(void)ltMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &others_only,
	                                     sizeof(others_only));
	if (ltMatmulAlgoGetHeuristic(handle, desc_of[fp8], p.w, p.x, p.out, p.out, pref, 1, p.kernels, &p.n_kernels) ==
	            CUBLAS_STATUS_SUCCESS &&
	    p.n_kernels > 0) {
		begin_with(b, b.want, M);
		begin_with(b, b.out, M);
		n_failed += run(p, model.kernels[0], b.w, b, b.want) < 0;
		n_failed += run(p, p.kernels[0], b.w, b, b.out) < 0;
		printf("{\"bench\":\"alike\",\"case\":\"shared sums %s M=%d\",\"words_other\":%u,\"words\":%zu}\n",
		       s.name, M, n_different(b.want, b.out, M * b.out_bytes), M * b.out_bytes / 4);
	}
	drop(&p);
}

int main(int argc, char **argv)
{
	uint32_t rows[16] = { 1, 2, 4, 8, 16, 24, 32, 64, 128, 256 }, n_rows = 10;
	bool quick = false;

	for (int i = 1; i < argc; i++) {
		quick |= !strcmp(argv[i], "--quick");
		each |= !strcmp(argv[i], "--each");
		if (strncmp(argv[i], "--rows=", 7) != 0)
			continue;
		n_rows = 0;
		for (char *at = argv[i] + 7; *at && n_rows < 16; at += *at == ',') {
			rows[n_rows] = (uint32_t)strtoul(at, &at, 10);
			if (rows[n_rows] == 0 || rows[n_rows++] > MOST_ROWS || (*at && *at != ',')) {
				fprintf(stderr, "alike_bench: rows from 1 to %d, separated by commas\n", MOST_ROWS);
				return 2;
			}
		}
	}
	if (!bench_open(64u << 20))
		return 0;
	if (!have_library()) {
		fprintf(stderr, "no library: %s\n", dlerror());
		return 0;
	}
	(void)measure_limit((size_t)1 << 30);
	for (int fp8 = 1; fp8 >= 0; fp8--) {
		for (const model_shape &of : model_shapes) {
			const shape s = shape_of(of);
			problem model;
			buffers b;

			if (!desc_of[fp8] || (fp8 && s.n > 100000)) /* outputs stay in 16 bits in such folders */
				continue;
			b = make_buffers(s, fp8, quick);
			set_up(&model, MODEL_ROWS, s, fp8, true, b);
			if (model.n_kernels == 0)
				say_no_kernel(fp8 ? "e4m3" : "bf16", s, MODEL_ROWS);
			else
				seen(s, fp8, model, b);
			for (uint32_t i = 0; i < n_rows && model.n_kernels > 0; i++) {
				if (!fp8 || rows[i] % 4 == 0)
					rows_of(s, fp8, model, b, rows[i], quick);
			}
			drop(&model);
			for (void *p :
			     { (void *)b.w, (void *)b.w_scale, (void *)b.x_scale, b.x, b.begin, b.want, b.out })
				(void)gpu_free(p);
		}
	}
	printf("{\"bench\":\"alike\",\"case\":\"bits of all\",\"value\":%u,\"unit\":\"kernels alike\",\"limit\":%u}\n",
	       n_alike, n_kernels);
	return n_failed != 0;
}
