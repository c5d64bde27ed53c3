/* What the tests of GPU kernels share. Compiled with the kernels, for the host shim or for a device; every launcher is
 * compared with kernels/ref. No cmocka: the binary also runs where only a GPU and its driver are. */
#ifndef GPU_TEST_H
#define GPU_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/gpu.h"
#include "gpu/launch.h"

typedef void (*test_fn)();

struct test_case {
	const char *name;
	test_fn run;
	test_case *next;
	test_case(const char *name, test_fn run);
};

/* GPU_TEST(name_as_a_sentence) { ... } */
#define GPU_TEST(name)                             \
	static void name();                        \
	static test_case case_##name(#name, name); \
	static void name()

extern int test_failures; /* of the running test */
extern struct gk_ctx test_ctx;
extern struct kn_backend *test_ref;

/* A failure is counted and the test goes on. */
#define CHECK(cond, ...)                                                      \
	do {                                                                  \
		if (!(cond)) {                                                \
			printf("    %s:%d: " #cond ": ", __FILE__, __LINE__); \
			printf(__VA_ARGS__);                                  \
			printf("\n");                                         \
			test_failures++;                                      \
		}                                                             \
	} while (0)

/* As on a device whose blocks have less shared memory, as long as it lives; on the host launches that ask for more are
 * refused. */
struct test_shared {
	uint32_t before;

	explicit test_shared(uint32_t bytes);
	~test_shared();
};

/* As on Hopper, for as long as it lives; nothing changes on another device. */
struct test_hopper {
	const struct gk_ctx before;

	test_hopper();
	~test_hopper();
};

/* Waits, and fails the test when the device is unhappy. */
void test_sync(const char *what);

/* Random numbers, the same everywhere. */
uint32_t test_random();
float test_normal();
void test_normals(float *p, size_t n, float scale);

/* Memory in both places. Device memory begins as garbage, so that what is not written shows. */
template <class T> struct both {
	T *host = nullptr, *device = nullptr;
	size_t n = 0;

	explicit both(size_t count) : n(count)
	{
		host = (T *)calloc(n ? n : 1, sizeof(T));
		if (gpu_malloc(&device, (n ? n : 1) * sizeof(T)) != GPU_OK)
			abort();
		(void)gpu_fill(device, 0xff, n * sizeof(T));
	}
	both(const both &) = delete;
	both &operator=(const both &) = delete;
	~both()
	{
		(void)gpu_free(device);
		free(host);
	}
	void up()
	{
		(void)gpu_copy_in(device, host, n * sizeof(T));
	}
	void down()
	{
		(void)gpu_copy_out(host, device, n * sizeof(T));
	}
};

/* Activations of any element type. `host` is what the device sees, as floats. */
struct test_rows {
	both<uint8_t> raw;
	float *host;
	uint32_t elem, n, dim, ld;

	test_rows(uint32_t elem, uint32_t n, uint32_t dim, uint32_t ld);
	~test_rows();
	void random(float scale);
	void up();   /* host, rounded to the element type, to the device; host becomes what was rounded */
	void down(); /* the device's to host */
	struct gk_view view();
};

/* A matrix with random values, in the file's form and packed on the device. */
struct test_mat {
	both<uint8_t> raw, packed;
	struct kn_mat ref; /* float32 values of it, for the reference */
	float *values;
	struct gk_mat mat;

	test_mat(uint32_t type, uint32_t rows, uint32_t cols, float scale);
	~test_mat();
};

const char *test_type_name(uint32_t type);
extern const uint32_t test_types[];
extern const int test_n_types;

/* ||a - b|| / ||b|| over n rows of dim values of stride ld; infinite when a value is no number. */
double test_distance(const float *a, size_t ld_a, const float *b, size_t ld_b, size_t n, size_t dim);
/* Largest |a - b| over the root of the mean square of b. */
double test_worst(const float *a, size_t ld_a, const float *b, size_t ld_b, size_t n, size_t dim);

/* Tolerances of ||a - b|| / ||b||: float32 arithmetic in another order; operands or results rounded to bfloat16 (8
 * bits: 2^-9 at most each, a third of it on average); results rounded to binary16. */
static const double TOL_F32 = 2e-6, TOL_BF16 = 4e-3, TOL_F16 = 5e-4;

static inline double test_tolerance(uint32_t elem)
{
	return elem == GK_F32 ? TOL_F32 : elem == GK_BF16 ? TOL_BF16 : TOL_F16;
}

static inline struct gk_rows test_all(uint32_t n)
{
	struct gk_rows r = { n, nullptr };

	return r;
}

#endif
