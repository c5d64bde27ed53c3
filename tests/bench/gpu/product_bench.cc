/* Products of FP8 weights with rows in eight bits, or of both in bfloat16, by our own kernels beside the vendor's
 * library, at the shapes of Qwen3-8B: JSON lines.
 *
 *   product_bench [--rows=N[,N...]] [--tiles] [--only=SHAPE] [--bf16]
 *
 * First what both give for the same values is compared. Then, for 32 to 8,192 rows, each product of a layer by the
 * library and by ours (gate and up with the activation in eight bits: the library's with the launch behind it), and the
 * layer's products with what makes their rows, one behind the other: that counts what lies between launches, too.
 * --tiles: ours with each kind of tile. The limit is whatever takes longer: reading the weights, as fast as a kernel
 * that only reads (measured first), or 1,440 TFLOP/s. Each case is a graph of several launches over different weights,
 * more than the second-level cache holds; the median of its replays counts. Without the library: ours alone. */
#include <math.h>

#include "bench.h"
#include "library.h"

enum { D = 4096, FF = 12288, QKV = 6144, MOST_ROWS = 8192, N_LAYERS = 3 };

static double limit_tflops = 1440.0; /* 736 in bfloat16 */
static bool is16;
static const char *only = ""; /* products whose names have it, and no layers */
static struct bench_library *library;

struct shape {
	const char *name;
	uint32_t n, k;
	bool onto_f32, gated;
};
enum { P_QKV, P_O, P_GATED, P_DOWN, N_SHAPES };
static const struct shape shapes[N_SHAPES] = { { "qkv 6144x4096", QKV, D, false, false },
	                                       { "o 4096x4096", D, D, true, false },
	                                       { "gate+up 24576x4096", FF, D, false, true },
	                                       { "down 4096x12288", D, FF, true, false } };

/* ---- What they work on ------------------------------------------------------------------------------------------- */

/* e4m3 as weights are spread: of a normal distribution. */
static uint8_t *eights(size_t bytes)
{
	enum { PATTERN = (1 << 22) + 4000 };
	static uint8_t *pattern;
	uint8_t *p = device<uint8_t>(bytes);

	if (!pattern) {
		float *f = (float *)malloc(PATTERN * sizeof(float));

		pattern = (uint8_t *)malloc(PATTERN);
		for (int i = 0; i < PATTERN; i++) {
			f[i] = 0;
			for (int k = 0; k < 6; k++)
				f[i] += (float)rand() / (float)RAND_MAX - 0.5f;
			f[i] *= 110.0f;
		}
		kn_quantize(KN_FP8_128, f, pattern, PATTERN);
		free(f);
	}
	for (size_t at = 0; at < bytes; at += PATTERN)
		check(gpu_copy_in(p + at, pattern, bytes - at < PATTERN ? bytes - at : (size_t)PATTERN), "copy");
	return p;
}

/* bfloat16 of about 1/64. */
static uint16_t *sixteens(size_t n)
{
	enum { PATTERN = (1 << 21) + 1000 };
	static uint16_t *pattern;
	uint16_t *p = device<uint16_t>(n);

	if (!pattern) {
		pattern = (uint16_t *)malloc(PATTERN * 2);
		for (int i = 0; i < PATTERN; i++)
			pattern[i] = (uint16_t)(((unsigned)rand() & 0x81ff) + 0x3b80);
	}
	for (size_t at = 0; at < n; at += PATTERN)
		check(gpu_copy_in(p + at, pattern, (n - at < PATTERN ? n - at : (size_t)PATTERN) * 2), "copy");
	return p;
}

static float *floats(size_t n, float value)
{
	float *host = (float *)malloc(n * sizeof(float)), *p;

	for (size_t i = 0; i < n; i++)
		host[i] = value * (1.0f + (float)(i % 7) * 0.01f);
	p = put(host, n);
	free(host);
	return p;
}

/* A layer's weights: gate and up behind one another, and their scales. */
struct layer {
	struct gk_mat mat[N_SHAPES], up;
};

static struct gk_mat matrix(uint32_t rows, uint32_t cols)
{
	struct gk_mat m;

	if (gk_mat_describe(&m, is16 ? (uint32_t)KN_BF16 : (uint32_t)GK_FP8_128, rows, cols,
	                    is16 ? (uint8_t *)sixteens((size_t)rows * cols) : eights((size_t)rows * cols)) < 0)
		exit(1);
	if (is16)
		return m;
	m.scales = floats((size_t)(rows / 128 + 1) * gk_mat_scale_stride(&m), 2e-4f);
	return m;
}

static struct layer make_layer()
{
	struct layer l;

	for (int s = 0; s < N_SHAPES; s++)
		l.mat[s] = matrix(shapes[s].n * (shapes[s].gated ? 2 : 1), shapes[s].k);
	l.up = l.mat[P_GATED];
	l.mat[P_GATED].rows = l.up.rows = FF;
	l.up.values = (const uint8_t *)l.up.values + (size_t)FF * l.up.ld * (is16 ? 2 : 1);
	if (!is16)
		l.up.scales = (const float *)l.up.scales + (size_t)FF / 128 * gk_mat_scale_stride(&l.up);
	return l;
}

struct rows8 {
	uint8_t *q;
	float *scale;
	uint32_t ld;
};

static struct rows8 make_rows(uint32_t cols)
{
	const struct rows8 r = { is16 ? (uint8_t *)sixteens((size_t)MOST_ROWS * cols)
		                      : eights((size_t)MOST_ROWS * cols),
		                 floats((size_t)MOST_ROWS * cols / 128, 5e-3f), cols };

	return r;
}

static struct layer layers[N_LAYERS];
static struct rows8 narrow, wide; /* of D and FF columns */
static float *stream_f32, *norm_w;
static uint16_t *both16; /* [rows, 2 FF] */

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

typedef decltype(gk_product::tiles) tiles;

static struct gk_product product(int s, const struct layer &l, uint32_t n, const tiles &t)
{
	const struct rows8 &x = shapes[s].k == FF ? wide : narrow;
	struct gk_product p = {};

	p.x = x.q;
	p.x_scale = x.scale;
	p.ld_x = x.ld;
	p.ld_scale = n;
	p.rows.bound = n;
	p.n = shapes[s].n;
	p.w[0] = l.mat[s];
	p.tiles = t;
	p.gated = shapes[s].gated;
	if (p.gated && is16) {
		p.w[1] = l.up;
		p.act = KN_ACT_SILU;
		p.out.p = both16;
		p.out.elem = GK_BF16;
		p.out.ld = 2 * FF;
	} else if (p.gated) {
		p.w[1] = l.up;
		p.act = KN_ACT_SILU;
		p.q = wide.q;
		p.q_scale = wide.scale;
		p.ld_q = FF;
		p.ld_q_scale = n;
	} else {
		p.out.p = shapes[s].onto_f32 ? (void *)stream_f32 : (void *)both16;
		p.out.elem = shapes[s].onto_f32 ? GK_F32 : GK_BF16;
		p.out.ld = shapes[s].n;
		p.accumulate = shapes[s].onto_f32;
	}
	return p;
}

static int quantize(const struct rows8 &to, uint32_t dim, uint32_t n, bool norm, bool act)
{
	struct gk_quantize a = {};

	a.q = to.q;
	a.scale = to.scale;
	a.ld = a.dim = dim;
	a.ld_scale = n;
	a.rows.bound = n;
	a.x.p = norm ? (void *)stream_f32 : (void *)both16;
	a.x.elem = norm ? GK_F32 : GK_BF16;
	a.x.ld = act ? 2 * FF : dim;
	a.norm = norm;
	a.norm_w = norm_w;
	a.eps = 1e-6f;
	a.is_act = act;
	a.act = KN_ACT_SILU;
	a.up = a.x;
	a.up.p = both16 + FF;
	return gk_quantize_rows(&ctx, &a);
}

static int library_product(int s, const struct layer &l, uint32_t n)
{
	struct gk_product p = product(s, l, n, {});
	int r;

	if (p.gated) {
		p.n = 2 * FF;
		p.out.p = both16;
		p.out.elem = GK_BF16;
		p.out.ld = 2 * FF;
	}
	r = bench_library_product(library, &p);
	if (r < 0 || !p.gated)
		return r;
	if (!is16)
		return quantize(wide, FF, n, false, true);

	struct gk_view up = p.out;

	up.p = both16 + FF;
	return gk_act_mul(&ctx, KN_ACT_SILU, p.out, p.out, up, p.rows, FF);
}

static int own_product(int s, const struct layer &l, uint32_t n, const tiles &t)
{
	const struct gk_product p = product(s, l, n, t);

	return gk_product_hopper(&ctx, &p);
}

static int whole_layer(const struct layer &l, uint32_t n, bool own)
{
	int r = 0;

	for (int s = 0; s < N_SHAPES && r == 0; s++) {
		if (s == P_QKV || s == P_GATED)
			r = quantize(narrow, D, n, true, false);
		else if (s == P_O)
			r = quantize(narrow, D, n, false, false);
		if (r == 0)
			r = own ? own_product(s, l, n, {}) : library_product(s, l, n);
	}
	return r;
}

/* ---- Whether they agree ------------------------------------------------------------------------------------------ */

static float *values_of(const void *from, size_t n, enum kn_dtype type)
{
	const size_t each = type == KN_F32 ? 4 : type == KN_BF16 ? 2 : 1;
	uint8_t *raw = (uint8_t *)malloc(n * each);
	float *f = (float *)malloc(n * sizeof(float));

	check(gpu_copy_out(raw, from, n * each), "copy");
	kn_dequantize(type, raw, f, n);
	free(raw);
	return f;
}

/* What a product leaves, as floats. */
static float *result(int s, uint32_t n)
{
	if (shapes[s].gated && is16) { /* rows of gate and up; what is up is the library's alone */
		float *const f = values_of(both16, (size_t)n * 2 * FF, KN_BF16);

		for (uint32_t i = 1; i < n; i++)
			memmove(f + (size_t)i * FF, f + (size_t)i * 2 * FF, FF * sizeof(float));
		return f;
	}
	if (!shapes[s].gated)
		return values_of(shapes[s].onto_f32 ? (void *)stream_f32 : (void *)both16, (size_t)n * shapes[s].n,
		                 shapes[s].onto_f32 ? KN_F32 : KN_BF16);

	float *const f = values_of(wide.q, (size_t)n * FF, KN_FP8_128), *const scale =
	                                                                        values_of(wide.scale,
	                                                                                  (size_t)n * FF / 128, KN_F32);

	for (size_t i = 0; i < (size_t)n * FF; i++)
		f[i] *= scale[i % FF / 128 * n + i / FF];
	free(scale);
	return f;
}

static void compare(int s, uint32_t n)
{
	double err = 0, norm = 0;
	float *a, *b;

	check(gpu_fill(stream_f32, 0, (size_t)n * D * 4), "fill");
	if (library_product(s, layers[0], n) < 0) {
		printf("{\"bench\":\"fp8\",\"case\":\"%s, %u rows\",\"error\":\"the library has no kernel\"}\n",
		       shapes[s].name, n);
		return;
	}
	check(BENCH_GPU(StreamSynchronize)(stream), "the library");
	a = result(s, n);
	check(gpu_fill(stream_f32, 0, (size_t)n * D * 4), "fill");
	if (own_product(s, layers[0], n, {}) < 0)
		exit(1);
	check(BENCH_GPU(StreamSynchronize)(stream), "ours");
	b = result(s, n);
	for (size_t i = 0; i < (size_t)n * shapes[s].n; i++) {
		err += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		norm += (double)a[i] * a[i];
	}
	/* Gated: rounded to 3 bits of fraction, near ties once to either side. */
	n_failed += !(sqrt(err / norm) < (shapes[s].gated ? 3e-2 : 1e-2));
	printf("{\"bench\":\"fp8\",\"case\":\"%s, %u rows\",\"differs\":%.2e}\n", shapes[s].name, n, sqrt(err / norm));
	(void)fflush(stdout);
	free(a);
	free(b);
}

/* ---- Times ------------------------------------------------------------------------------------------------------- */

static void report(const char *who, const char *what, uint32_t n, double us, double weights)
{
	const double memory = weights * (is16 ? 2 : 1) / limit_gbytes * 1e-3,
	             arithmetic = 2 * weights * n / limit_tflops * 1e-6;
	const double limit = memory > arithmetic ? memory : arithmetic;

	printf("{\"bench\":\"fp8\",\"case\":\"%s, %s, %u "
	       "rows\",\"us\":%.2f,\"limit_us\":%.2f,\"share\":%.3f,\"tflops\":"
	       "%.0f}\n",
	       who, what, n, us, limit, limit / us, 2 * weights * n / us * 1e-6);
	(void)fflush(stdout);
}

static double weights_of(int s)
{
	return (double)shapes[s].n * shapes[s].k * (shapes[s].gated ? 2 : 1); /* each a byte, or two */
}

static void products(uint32_t n)
{
	double all = 0;

	for (int s = 0; s < N_SHAPES; s++) {
		all += weights_of(s);
		if (!strstr(shapes[s].name, only))
			continue;
		if (library)
			report("library", shapes[s].name, n,
			       measure(2 * N_LAYERS,
			               [&](int i) { return library_product(s, layers[i % N_LAYERS], n); }),
			       weights_of(s));
		report("own", shapes[s].name, n,
		       measure(2 * N_LAYERS, [&](int i) { return own_product(s, layers[i % N_LAYERS], n, {}); }),
		       weights_of(s));
	}
	for (int own = library ? 0 : 1; own < 2 && !*only && !is16; own++)
		report(own ? "own" : "library", "layer", n,
		       measure(2 * N_LAYERS, [&](int i) { return whole_layer(layers[i % N_LAYERS], n, own); }), all);
}

static void kinds_of_tiles(uint32_t n)
{
	for (int s = 0; s < N_SHAPES; s++) {
		const uint32_t most_parts = shapes[s].gated || n > 512 ? 1 : shapes[s].onto_f32 ? 3 : 2;

		if (!strstr(shapes[s].name, only))
			continue;
		for (uint32_t columns = 128; columns <= 256; columns += 128) {
			for (uint32_t parts = 1; parts <= most_parts; parts++) {
				const tiles t = { columns, parts };
				char who[64];

				/* What would be the same as another. */
				if (shapes[s].gated ? columns == 128 : columns == 256 && parts > 1)
					continue;
				(void)snprintf(who, sizeof(who), "own %u, parts %u", columns, parts);
				report(who, shapes[s].name, n,
				       measure(2 * N_LAYERS,
				               [&](int i) { return own_product(s, layers[i % N_LAYERS], n, t); }),
				       weights_of(s));
			}
		}
	}
}

int main(int argc, char **argv)
{
	const char *rows = "32,64,128,256,512,1024,2048,8192";
	const size_t limit_bytes = (size_t)1 << 30;
	bool with_tiles = false;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--rows=", 7))
			rows = argv[i] + 7;
		else if (!strcmp(argv[i], "--tiles"))
			with_tiles = true;
		else if (!strncmp(argv[i], "--only=", 7))
			only = argv[i] + 7;
		else if (!strcmp(argv[i], "--bf16"))
			is16 = true;
	}
	limit_tflops = is16 ? 736.0 : limit_tflops;
	if (!bench_open(64u << 20))
		return 0;
	if (ctx.sm != 90) {
		fprintf(stderr, "no kernels of our own for this device\n");
		return 0;
	}
	library = bench_library_open(ctx.stream);
	(void)measure_limit(limit_bytes);
	for (struct layer &l : layers)
		l = make_layer();
	narrow = make_rows(D);
	wide = make_rows(FF);
	stream_f32 = floats((size_t)MOST_ROWS * D, 0.1f);
	norm_w = floats(D, 1.0f);
	both16 = (uint16_t *)eights((size_t)MOST_ROWS * 2 * FF * 2);
	for (int s = 0; library && s < N_SHAPES; s++) {
		if (!strstr(shapes[s].name, only))
			continue;
		compare(s, 128);
		compare(s, 1000);
	}
	for (const char *at = rows; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : nullptr) {
		const uint32_t n = ((uint32_t)strtoul(at, nullptr, 10) + 3) & ~3u;

		if (n == 0 || n > MOST_ROWS)
			continue;
		products(n);
		if (with_tiles)
			kinds_of_tiles(n);
	}
	return n_failed != 0;
}
