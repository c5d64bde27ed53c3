/* Runs the tests of GPU kernels: all, or those whose names contain the argument. */
#include "gpu_test.h"

int test_failures;
struct gk_ctx test_ctx;
struct kn_backend *test_ref;

static test_case *first_case;

test_case::test_case(const char *case_name, test_fn case_run) : name(case_name), run(case_run), next(first_case)
{
	first_case = this;
}

static void set_shared(uint32_t bytes)
{
	test_ctx.smem_bytes = bytes;
#if defined(GPU_HOST)
	gpu_host::shared_bytes = bytes;
#endif
}

test_shared::test_shared(uint32_t bytes) : before(test_ctx.smem_bytes)
{
	set_shared(bytes);
}

test_shared::~test_shared()
{
	set_shared(before);
}

test_hopper::test_hopper() : before(test_ctx)
{
#if defined(GPU_HOST)
	test_ctx.sm = 90;
	set_shared(227 << 10);
#endif
}

test_hopper::~test_hopper()
{
	test_ctx = before;
	set_shared(before.smem_bytes);
}

void test_sync(const char *what)
{
	const gpu_error e = (gpu_error)gpu_sync();

	CHECK(e == GPU_OK, "%s: %s", what, gpu_error_string(e));
	if (e != GPU_OK)
		exit(1); /* nothing works after that */
}

static const uint64_t random_begin = 0x9e3779b97f4a7c15u; /* of each test, so that none minds the others */
static uint64_t random_state;

uint32_t test_random()
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33);
}

float test_normal()
{
	float s = 0.0f;

	for (int i = 0; i < 6; i++)
		s += (float)test_random() / 2147483648.0f - 0.5f;
	return s * 1.41421356f;
}

void test_normals(float *p, size_t n, float scale)
{
	for (size_t i = 0; i < n; i++)
		p[i] = test_normal() * scale;
}

static enum kn_dtype dtype_of(uint32_t elem)
{
	return elem == GK_F32 ? KN_F32 : elem == GK_BF16 ? KN_BF16 : KN_F16;
}

test_rows::test_rows(uint32_t e, uint32_t rows, uint32_t d, uint32_t stride)
        : raw((size_t)rows * stride * (e == GK_F32 ? 4 : 2)), elem(e), n(rows), dim(d), ld(stride)
{
	host = (float *)calloc((size_t)n * ld, sizeof(float));
}

test_rows::~test_rows()
{
	free(host);
}

void test_rows::random(float scale)
{
	test_normals(host, (size_t)n * ld, scale);
	up();
}

void test_rows::up()
{
	kn_quantize(dtype_of(elem), host, raw.host, (size_t)n * ld);
	kn_dequantize(dtype_of(elem), raw.host, host, (size_t)n * ld);
	raw.up();
}

void test_rows::down()
{
	raw.down();
	kn_dequantize(dtype_of(elem), raw.host, host, (size_t)n * ld);
}

struct gk_view test_rows::view()
{
	struct gk_view v = { raw.device, elem, ld };

	return v;
}

const uint32_t test_types[] = { KN_F32,  KN_F16,  KN_BF16, GK_FP8_128, KN_Q8_0, KN_Q4_0,
	                        KN_Q4_1, KN_Q5_0, KN_Q5_1, KN_Q4_K,    KN_Q5_K, KN_Q6_K,
	                        KN_MXFP4 };
const int test_n_types = sizeof(test_types) / sizeof(test_types[0]);

const char *test_type_name(uint32_t type)
{
	return type == GK_FP8_128 ? "FP8" : kn_dtype_info((enum kn_dtype)type)->name;
}

static float e4m3(uint8_t b)
{
	const int exp = b >> 3 & 15, mant = b & 7;
	const float v = exp ? ldexpf(1.0f + (float)mant / 8.0f, exp - 7) : ldexpf((float)mant, -9);

	return b & 0x80 ? -v : v;
}

test_mat::test_mat(uint32_t type, uint32_t rows, uint32_t cols, float scale)
        : raw(type == GK_FP8_128 ? (size_t)rows * cols : rows * kn_row_bytes((enum kn_dtype)type, cols)),
          packed(gk_mat_bytes(type, rows, cols))
{
	values = (float *)malloc((size_t)rows * cols * sizeof(float));
	test_normals(values, (size_t)rows * cols, scale);
	CHECK(gk_mat_describe(&mat, type, rows, cols, packed.device) == 0, "%s", test_type_name(type));
	if (type == GK_FP8_128) {
		/* As if it were cut out of a larger one, at any place where that may be. */
		mat.first_row = test_random() % 8 * 16;

		const uint32_t across = gk_mat_scale_stride(&mat), n_scales = gk_mat_scale_lines(&mat) * across;
		both<float> scales(n_scales);

		for (uint32_t i = 0; i < n_scales; i++)
			scales.host[i] = scale * (0.001f + (float)(test_random() % 1000) * 1e-5f);
		for (size_t i = 0; i < raw.n; i++) {
			raw.host[i] = (uint8_t)test_random();
			if ((raw.host[i] & 0x7f) == 0x7f)
				raw.host[i] = 0;
			values[i] = e4m3(raw.host[i]) * scales.host[(mat.first_row + i / cols) / 128 * across + i % cols / 128];
		}
		(void)gpu_copy_in((void *)mat.scales, scales.host, n_scales * sizeof(float));
	} else {
		const size_t row_bytes = kn_row_bytes((enum kn_dtype)type, cols);

		for (uint32_t r = 0; r < rows; r++) {
			kn_quantize((enum kn_dtype)type, values + (size_t)r * cols, raw.host + r * row_bytes, cols);
			kn_dequantize((enum kn_dtype)type, raw.host + r * row_bytes, values + (size_t)r * cols, cols);
		}
	}
	raw.up();
	memset(&ref, 0, sizeof(ref));
	ref.dtype = KN_F32;
	ref.rows = rows;
	ref.cols = cols;
	ref.data = values;
	for (uint32_t r = 0; r < rows; r += GK_PACK_ROWS) {
		const uint32_t n = rows - r < GK_PACK_ROWS ? rows - r : (uint32_t)GK_PACK_ROWS;
		const size_t row_bytes = raw.n / rows;
		void *piece;

		/* As it comes in pieces: each at an address of its own. */
		if (gpu_malloc(&piece, n * row_bytes) != GPU_OK)
			abort();
		(void)gpu_copy_in(piece, raw.host + r * row_bytes, n * row_bytes);
		CHECK(gk_mat_pack(&test_ctx, &mat, piece, r, n) == 0, "%s", test_type_name(type));
		test_sync("pack");
		(void)gpu_free(piece);
	}
}

test_mat::~test_mat()
{
	free(values);
}

double test_distance(const float *a, size_t ld_a, const float *b, size_t ld_b, size_t n, size_t dim)
{
	double err = 0.0, norm = 0.0;

	for (size_t i = 0; i < n; i++) {
		for (size_t d = 0; d < dim; d++) {
			const double x = a[i * ld_a + d], y = b[i * ld_b + d];

			err += (x - y) * (x - y);
			norm += y * y;
		}
	}
	return isfinite(err) ? sqrt(err) / (sqrt(norm) + 1e-30) : INFINITY;
}

double test_worst(const float *a, size_t ld_a, const float *b, size_t ld_b, size_t n, size_t dim)
{
	double worst = 0.0, norm = 0.0;

	for (size_t i = 0; i < n; i++) {
		for (size_t d = 0; d < dim; d++) {
			const double e = fabs((double)a[i * ld_a + d] - b[i * ld_b + d]);

			worst = e <= worst ? worst : e; /* not a number stays */
			norm += (double)b[i * ld_b + d] * b[i * ld_b + d];
		}
	}
	return worst / (sqrt(norm / (double)(n * dim)) + 1e-30);
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : "";
	struct kn_config config;
	test_case *list = nullptr;
	size_t scratch_bytes = 64 << 20;
	int n_run = 0, n_failed = 0;

	memset(&config, 0, sizeof(config));
	config.max_tokens = 4096;
	if (gk_ctx_init(&test_ctx, 0) != 0 || gpu_malloc(&test_ctx.scratch, scratch_bytes) != GPU_OK) {
		printf("no device: %s\n", gk_error_text());
		return 77;
	}
	test_ctx.scratch_bytes = scratch_bytes;
	test_ctx.bytes = false; /* has a test of its own */
	if (gpu_malloc(&test_ctx.counters, GK_COUNTERS * sizeof(uint32_t)) != GPU_OK)
		return 1;
	(void)gpu_fill(test_ctx.counters, 0, GK_COUNTERS * sizeof(uint32_t));
	if (kn_ref_open(&config, &test_ref, nullptr) < 0)
		return 1;
	while (first_case) { /* as they were written */
		test_case *c = first_case;

		first_case = c->next;
		c->next = list;
		list = c;
	}
	for (test_case *c = list; c; c = c->next) {
		if (!strstr(c->name, only))
			continue;
		test_failures = 0;
		random_state = random_begin;
		(void)gpu_fill(test_ctx.scratch, 0xff, scratch_bytes);
		c->run();
		test_sync(c->name);
		printf("%s - %s\n", test_failures ? "FAIL" : "ok", c->name);
		(void)fflush(stdout);
		n_run++;
		n_failed += test_failures != 0;
	}
	printf("%d passed, %d failed (wave %u)\n", n_run - n_failed, n_failed, test_ctx.warp);
	kn_backend_close(test_ref);
	(void)gpu_free(test_ctx.scratch);
	(void)gpu_free(test_ctx.counters);
	return n_failed != 0 || n_run == 0;
}
