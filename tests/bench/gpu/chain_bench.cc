/* Whether answers in deterministic mode may have the library's kernels (kn_gpu_rows.chained): are its sums, where they
 * are shared with nobody, the bits of gk_linear_chained(), whatever kernel it takes; and what do both take. JSON lines.
 *
 *   chain_bench [--rows=N,N,...] [--quick]
 *
 * Shapes of Qwen3-8B in bfloat16. "bits" lines: how many of the library's kernels for that shape and number of rows,
 * all that its heuristics name, give the same bits in every element; the last line adds them up. Times are medians over
 * different weights, more than the second-level cache holds, each beside reading them: gk_linear_chained() and few.h up
 * to 16 rows; the library's first kernel that shares no sum, its first one of all, and gk_linear_steady() beyond.
 * --quick: bits alone, of fewer rows. */
#include <cublasLt.h>
#include <dlfcn.h>

#include "bench.h"

enum { MOST_ROWS = 256, MOST_KERNELS = 16, WORKSPACE = 64 << 20 };

struct shape {
	const char *name;
	uint32_t n, k;
	bool is_f32, accumulate, gated; /* gated: two matrices of n rows; the library takes them as one */
};

static const struct shape shapes[] = {
	{ "o 4096x4096", 4096, 4096, true, true, false },
	{ "qkv 6144x4096", 6144, 4096, false, false, false },
	{ "gate+up 24576x4096", 12288, 4096, false, false, true },
	{ "down 4096x12288", 4096, 12288, true, true, false },
	{ "head 151936x4096", 151936, 4096, true, false, false },
};

/* ---- The library ------------------------------------------------------------------------------------------------- */

#define FUNCTIONS(X)                                                                               \
	X(Create)                                                                                  \
	X(MatmulDescCreate) X(MatmulDescSetAttribute) X(MatrixLayoutCreate) X(MatrixLayoutDestroy) \
	        X(MatmulPreferenceCreate) X(MatmulPreferenceSetAttribute) X(MatmulAlgoGetHeuristic) X(Matmul)

#define POINTER(name) static decltype(&cublasLt##name) lt##name;
FUNCTIONS(POINTER)

static cublasLtHandle_t handle;
static cublasLtMatmulDesc_t product;
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

static bool have_library()
{
	const cublasOperation_t transposed = CUBLAS_OP_T;
	void *lib = open_library();
	bool all = lib != nullptr;

#define RESOLVE(name) all = all && (*(void **)&lt##name = dlsym(lib, "cublasLt" #name)) != nullptr;
	FUNCTIONS(RESOLVE)
	all = all && ltCreate(&handle) == CUBLAS_STATUS_SUCCESS &&
	      ltMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
	      ltMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) ==
	              CUBLAS_STATUS_SUCCESS;
	workspace = device<uint8_t>(WORKSPACE);
	return all;
}

/* A product of m rows, W [n, k], and the kernels for it: those that share no sum, or the first of all. */
struct problem {
	uint32_t m, n, k;
	bool accumulate;
	cublasLtMatrixLayout_t w, x, out;
	cublasLtMatmulHeuristicResult_t kernels[MOST_KERNELS];
	int n_kernels;
};

static void set_up(problem *p, uint32_t m, const shape &s, bool steady)
{
	const uint64_t bytes = steady ? 0 : WORKSPACE;
	const uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = 16;
	cublasLtMatmulPreference_t pref;

	p->m = m;
	p->n = s.gated ? 2 * s.n : s.n;
	p->k = s.k;
	p->accumulate = s.accumulate;
	p->n_kernels = 0;
	if (ltMatrixLayoutCreate(&p->w, CUDA_R_16BF, s.k, p->n, s.k) != CUBLAS_STATUS_SUCCESS ||
	    ltMatrixLayoutCreate(&p->x, CUDA_R_16BF, s.k, m, s.k) != CUBLAS_STATUS_SUCCESS ||
	    ltMatrixLayoutCreate(&p->out, s.is_f32 ? CUDA_R_32F : CUDA_R_16BF, p->n, m, p->n) !=
	            CUBLAS_STATUS_SUCCESS ||
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
	if (ltMatmulAlgoGetHeuristic(handle, product, p->w, p->x, p->out, p->out, pref, steady ? (int)MOST_KERNELS : 1,
	                             p->kernels, &p->n_kernels) != CUBLAS_STATUS_SUCCESS)
		p->n_kernels = 0;
}

static void drop(problem *p)
{
	for (cublasLtMatrixLayout_t l : { p->w, p->x, p->out })
		(void)ltMatrixLayoutDestroy(l);
}

static int run(const problem &p, int kernel, const void *w, const void *x, void *out)
{
	const float one = 1, beta = p.accumulate ? 1 : 0;

	return ltMatmul(handle, product, &one, w, p.w, x, p.x, &beta, out, p.out, out, p.out, &p.kernels[kernel].algo,
	                workspace, p.kernels[kernel].workspaceSize, stream) == CUBLAS_STATUS_SUCCESS
	               ? 0
	               : -1;
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

/* bfloat16 of either sign with every bit of fraction, 2^e .. 2^(e + 3), no two lines alike. */
static void *values(size_t bytes, int e)
{
	enum { PATTERN = (4 << 20) + 6 };
	uint16_t *pattern = (uint16_t *)malloc(PATTERN);
	uint8_t *p = device<uint8_t>(bytes);
	uint64_t s = 88172645463325252u;

	for (int i = 0; i < PATTERN / 2; i++) {
		s = s * 6364136223846793005u + 1442695040888963407u;
		pattern[i] = (uint16_t)((s >> 40 & 0x81ff) + (unsigned)((127 + e) << 7));
	}
	check(gpu_copy_in(p, pattern, bytes < PATTERN ? bytes : (size_t)PATTERN), "copy");
	for (size_t at = PATTERN; at < bytes; at *= 2)
		check(BENCH_GPU(Memcpy)(p + at, p, bytes - at < at ? bytes - at : at, BENCH_GPU(MemcpyDeviceToDevice)),
		      "copy");
	free(pattern);
	return p;
}

struct buffers {
	uint8_t *w;
	size_t each;
	int copies;
	void *x, *begin, *want, *out;
	size_t out_bytes; /* of a row */
};

static gk_view view(void *p, uint32_t elem, uint32_t ld)
{
	gk_view v = { p, elem, ld };

	return v;
}

enum way { CHAINED, FEW, STEADY };

/* Our kernels for rows [first, first + m); gated: without its activation where `apart`, as two jobs. */
static int ours(const shape &s, const buffers &b, way how, bool apart, const void *w, void *out, uint32_t first,
                uint32_t m)
{
	const uint32_t elem = s.is_f32 ? GK_F32 : GK_BF16, across = s.gated ? 2 * s.n : s.n;
	gk_job jobs[2] = {};
	gk_linear l = {};
	int r;

	for (uint32_t j = 0; j < (s.gated ? 2u : 1u); j++) {
		(void)gk_mat_describe(&jobs[j].w, KN_BF16, s.n, s.k, (uint8_t *)w + (size_t)j * s.n * s.k * 2);
		jobs[j].out =
		        view((uint8_t *)out + first * b.out_bytes + (size_t)j * s.n * (s.is_f32 ? 4 : 2), elem, across);
		jobs[j].accumulate = s.accumulate;
	}
	l.x = view((uint8_t *)b.x + (size_t)first * s.k * 2, GK_BF16, s.k);
	l.rows.bound = m;
	l.gated = s.gated && !apart;
	l.act = KN_ACT_SILU;
	l.n_jobs = s.gated ? 2 : 1;
	l.jobs = jobs;
	ctx.fixed = true;
	r = how == CHAINED ? gk_linear_chained(&ctx, &l)
	    : how == FEW   ? gk_linear_few(&ctx, &l)
	                   : gk_linear_steady(&ctx, &l);
	ctx.fixed = false;
	return r;
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

static uint32_t n_different(const buffers &b, uint32_t m)
{
	static uint32_t *count;
	uint32_t n = 0;

	if (!count)
		count = device<uint32_t>(1);
	check(gpu_fill(count, 0, 4), "fill");
	gpu_launch(differences, dim3(512), dim3(256), 0, ctx.stream, false, (const uint32_t *)b.want,
	           (const uint32_t *)b.out, m * b.out_bytes / 4, count);
	check(BENCH_GPU(StreamSynchronize)(stream), "compare");
	check(gpu_copy_out(&n, count, 4), "copy");
	return n;
}

static void begin_with(const buffers &b, void *out, uint32_t m)
{
	check(BENCH_GPU(Memcpy)(out, b.begin, m * b.out_bytes, BENCH_GPU(MemcpyDeviceToDevice)), "copy");
}

static void bits(const shape &s, const buffers &b, uint32_t m, uint32_t *ret_kernels, uint32_t *ret_alike)
{
	uint32_t alike = 0, worst = 0;
	problem p;

	begin_with(b, b.want, m);
	for (uint32_t first = 0; first < m; first += GK_FEW_ROWS)
		n_failed += ours(s, b, CHAINED, true, b.w, b.want, first,
		                 m - first < GK_FEW_ROWS ? m - first : GK_FEW_ROWS) < 0;
	set_up(&p, m, s, true);
	for (int i = 0; i < p.n_kernels; i++) {
		uint32_t n;

		begin_with(b, b.out, m);
		n_failed += run(p, i, b.w, b.x, b.out) < 0;
		n = n_different(b, m);
		alike += n == 0;
		worst = n > worst ? n : worst;
	}
	printf("{\"bench\":\"chain\",\"case\":\"bits %s M=%u\",\"value\":%u,\"unit\":\"kernels alike\",\"limit\":%d,"
	       "\"words_other\":%u}\n",
	       s.name, m, alike, p.n_kernels, worst);
	(void)fflush(stdout);
	*ret_kernels += (uint32_t)p.n_kernels;
	*ret_alike += alike;
	drop(&p);
}

/* ---- Times ------------------------------------------------------------------------------------------------------- */

static void report(const char *way, const shape &s, uint32_t m, double us)
{
	const double bytes = (double)s.n * s.k * (s.gated ? 4 : 2);

	printf("{\"bench\":\"chain\",\"case\":\"%s %s "
	       "M=%u\",\"value\":%.1f,\"unit\":\"GB/s\",\"limit\":%.1f,\"share\":%.3f,"
	       "\"us\":%.2f}\n",
	       way, s.name, m, bytes / us * 1e-3, limit_gbytes, bytes / us * 1e-3 / limit_gbytes, us);
	(void)fflush(stdout);
}

static void times(const shape &s, const buffers &b, uint32_t m)
{
	const int n = b.copies * (b.each < 100u << 20 ? 4 : 1);
	const auto weights = [&](int i) { return b.w + (size_t)(i % b.copies) * b.each; };

	if (m <= GK_FEW_ROWS) {
		report("chained", s, m,
		       measure(n, [&](int i) { return ours(s, b, CHAINED, false, weights(i), b.out, 0, m); }));
		report("few", s, m, measure(n, [&](int i) { return ours(s, b, FEW, false, weights(i), b.out, 0, m); }));
	} else {
		report("steady", s, m,
		       measure(n, [&](int i) { return ours(s, b, STEADY, false, weights(i), b.out, 0, m); }));
	}
	for (int steady = 1; steady >= 0; steady--) {
		problem p;

		set_up(&p, m, s, steady);
		if (p.n_kernels > 0)
			report(steady ? "library, no shared sums" : "library", s, m,
			       measure(n, [&](int i) { return run(p, 0, weights(i), b.x, b.out); }));
		drop(&p);
	}
}

int main(int argc, char **argv)
{
	uint32_t rows[16] = { 1, 4, 8, 16, 17, 32, 64, 128, 256 }, n_rows = 9, n_kernels = 0, n_alike = 0;
	bool quick = false;

	for (int i = 1; i < argc; i++) {
		quick |= !strcmp(argv[i], "--quick");
		if (strncmp(argv[i], "--rows=", 7) != 0)
			continue;
		n_rows = 0;
		for (char *at = argv[i] + 7; *at && n_rows < 16; at += *at == ',') {
			rows[n_rows] = (uint32_t)strtoul(at, &at, 10);
			if (rows[n_rows] == 0 || rows[n_rows++] > MOST_ROWS || (*at && *at != ',')) {
				fprintf(stderr, "chain_bench: rows from 1 to %d, separated by commas\n", MOST_ROWS);
				return 2;
			}
		}
	}
	if (!bench_open(512u << 20))
		return 0;
	if (!have_library()) {
		fprintf(stderr, "no library: %s\n", dlerror());
		return 0;
	}
	(void)measure_limit((size_t)2 << 30);
	for (const shape &s : shapes) {
		const size_t across = s.gated ? 2 * s.n : s.n;
		buffers b = {};

		b.each = across * s.k * 2;
		b.copies = quick ? 1 : b.each > 400u << 20 ? 2 : (int)((300u << 20) / b.each) + 2;
		b.out_bytes = across * (s.is_f32 ? 4 : 2);
		b.w = (uint8_t *)values(b.each * b.copies, -7);
		b.x = values((size_t)MOST_ROWS * s.k * 2, -1);
		b.begin = values(MOST_ROWS * b.out_bytes, 1);
		b.want = device<uint8_t>(MOST_ROWS * b.out_bytes);
		b.out = device<uint8_t>(MOST_ROWS * b.out_bytes);
		for (uint32_t i = 0; i < n_rows; i++) {
			if (!quick || i % 3 == 0)
				bits(s, b, rows[i], &n_kernels, &n_alike);
			if (!quick)
				times(s, b, rows[i]);
		}
		for (void *p : { (void *)b.w, b.x, b.begin, b.want, b.out })
			(void)gpu_free(p);
	}
	printf("{\"bench\":\"chain\",\"case\":\"bits of all\",\"value\":%u,\"unit\":\"kernels alike\",\"limit\":%u}\n",
	       n_alike, n_kernels);
	return n_failed != 0;
}
