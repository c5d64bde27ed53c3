/* libhipblaslt.so.1 in plain loops: a library with the names, values and layouts that hipBLASLt documents, columns
 * first, for test_gpu_hipblaslt.c and test_gpu_alike.c. It refuses what the test asks to be refused, names the kernels
 * that the test asks for, and counts what is alive. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As documented, not as gemm_hipblaslt.c declares them. */
enum { SUCCESS = 0, INVALID_VALUE = 3, OP_N = 111, OP_T = 112 };

struct desc {
	int compute_type, scale_type;
	int trans_a, trans_b;
	/* Not hipBLASLt's, but what a library has that knows scales of blocks (e4m3): of 128 x 128 of A, in lines along
	 * K that are multiples of four, and of 128 of a column of B, side by side. */
	const float *scale_a, *scale_b;
};
enum { SCALE_A = 1000, SCALE_B, E4M3 = 28, BF16 = 14 };
struct layout {
	int type;
	unsigned long rows, cols;
	long ld;
};
struct pref {
	unsigned long workspace;
};
struct algo {
	unsigned char data[16];
	size_t max_workspace_bytes;
};
struct result {
	struct algo algo;
	size_t workspace;
	int state;
	float waves;
	int reserved[4];
};
_Static_assert(sizeof(struct result) == 56, "the documented layout");

/* What is alive; how many heuristics were asked for. The test reads them by dlsym(). */
int plain_alive, plain_heuristics;
/* Rows of B from which on nothing is offered; 0: everything is. */
unsigned long plain_refuses_from;
/* What is offered for so many rows of B and fewer, best first, ended by -1; else FORWARD alone. And which one ran last.
 */
enum { FORWARD, BACKWARD, SILENT, FAILING, FORWARD_TOO, MOST_KERNELS = 8 };
unsigned long plain_few_rows;
int plain_kernels[MOST_KERNELS], plain_last;

#define API __attribute__((visibility("default")))
API int hipblasLtCreate(void **handle);
API int hipblasLtDestroy(void *handle);
API int hipblasLtMatmulDescCreate(struct desc **d, int compute_type, int scale_type);
API int hipblasLtMatmulDescDestroy(struct desc *d);
API int hipblasLtMatmulDescSetAttribute(struct desc *d, int attribute, const void *value, size_t bytes);
API int hipblasLtMatrixLayoutCreate(struct layout **l, int type, unsigned long rows, unsigned long cols, long ld);
API int hipblasLtMatrixLayoutDestroy(struct layout *l);
API int hipblasLtMatmulPreferenceCreate(struct pref **p);
API int hipblasLtMatmulPreferenceDestroy(struct pref *p);
API int hipblasLtMatmulPreferenceSetAttribute(struct pref *p, int attribute, const void *value, size_t bytes);
API int hipblasLtMatmulAlgoGetHeuristic(void *handle, struct desc *desc, struct layout *a, struct layout *b,
                                        struct layout *c, struct layout *d, struct pref *p, int n_wanted,
                                        struct result *ret, int *ret_n);
API int hipblasLtMatmul(void *handle, struct desc *desc, const void *alpha, const void *a, struct layout *la,
                        const void *b, struct layout *lb, const void *beta, const void *c, struct layout *lc, void *d,
                        struct layout *ld, const struct algo *algo, void *workspace, size_t workspace_bytes,
                        void *stream);

static int make(void **ret, size_t bytes)
{
	*ret = calloc(1, bytes);
	plain_alive += *ret != NULL;
	return *ret ? SUCCESS : INVALID_VALUE;
}

static int drop(void *p)
{
	plain_alive -= p != NULL;
	free(p);
	return p ? SUCCESS : INVALID_VALUE;
}

int hipblasLtCreate(void **handle)
{
	return make(handle, 1);
}

int hipblasLtDestroy(void *handle)
{
	return drop(handle);
}

int hipblasLtMatmulDescCreate(struct desc **d, int compute_type, int scale_type)
{
	int r = make((void **)d, sizeof(**d));

	if (r == SUCCESS)
		**d = (struct desc){
			.compute_type = compute_type, .scale_type = scale_type, .trans_a = OP_N, .trans_b = OP_N
		};
	return r;
}

int hipblasLtMatmulDescDestroy(struct desc *d)
{
	return drop(d);
}

int hipblasLtMatmulDescSetAttribute(struct desc *d, int attribute, const void *value, size_t bytes)
{
	int v;

	if ((attribute == SCALE_A || attribute == SCALE_B) && bytes == sizeof(void *)) {
		memcpy(attribute == SCALE_A ? &d->scale_a : &d->scale_b, value, bytes);
		return SUCCESS;
	}
	if (attribute > 1 || bytes != sizeof(v))
		return INVALID_VALUE;
	memcpy(&v, value, sizeof(v));
	*(attribute == 0 ? &d->trans_a : &d->trans_b) = v;
	return v == OP_N || v == OP_T ? SUCCESS : INVALID_VALUE;
}

int hipblasLtMatrixLayoutCreate(struct layout **l, int type, unsigned long rows, unsigned long cols, long ld)
{
	int r = make((void **)l, sizeof(**l));

	if (r == SUCCESS)
		**l = (struct layout){ type, rows, cols, ld };
	return ld >= (long)rows ? r : INVALID_VALUE;
}

int hipblasLtMatrixLayoutDestroy(struct layout *l)
{
	return drop(l);
}

int hipblasLtMatmulPreferenceCreate(struct pref **p)
{
	return make((void **)p, sizeof(**p));
}

int hipblasLtMatmulPreferenceDestroy(struct pref *p)
{
	return drop(p);
}

int hipblasLtMatmulPreferenceSetAttribute(struct pref *p, int attribute, const void *value, size_t bytes)
{
	if (attribute != 1 || bytes != sizeof(p->workspace))
		return INVALID_VALUE;
	memcpy(&p->workspace, value, bytes);
	return SUCCESS;
}

int hipblasLtMatmulAlgoGetHeuristic(void *handle, struct desc *desc, struct layout *a, struct layout *b,
                                    struct layout *c, struct layout *d, struct pref *p, int n_wanted,
                                    struct result *ret, int *ret_n)
{
	(void)handle;
	(void)c;
	plain_heuristics++;
	*ret_n = 0;
	if (n_wanted < 1 || desc->compute_type != 2 || desc->scale_type != 0 || a->type != b->type ||
	    (a->type != BF16 && (a->type != E4M3 || !desc->scale_a || !desc->scale_b || b->cols % 4 != 0)) ||
	    (d->type != 14 && d->type != 0) || (plain_refuses_from && b->cols >= plain_refuses_from))
		return SUCCESS;
	for (int i = 0; i < n_wanted && i < MOST_KERNELS; i++) {
		int kernel = b->cols <= plain_few_rows ? plain_kernels[i] : i == 0 ? (int)FORWARD : -1;

		if (kernel < 0)
			break;
		ret[i] = (struct result){ .workspace = p->workspace / 2, .waves = 1 };
		ret[i].algo.max_workspace_bytes = p->workspace / 2;
		memcpy(ret[i].algo.data, "plain loops", 12);
		ret[i].algo.data[12] = (unsigned char)kernel;
		*ret_n = i + 1;
	}
	return SUCCESS;
}

/* In floats, from the first to the last or the other way round. */
static float sum_of(const float *products, size_t n, int kernel)
{
	float s = 0;

	for (size_t k = 0; k < n; k++)
		s += products[kernel == BACKWARD ? n - 1 - k : k];
	return s;
}

static double value(const void *p, int type, size_t i)
{
	unsigned bits;
	float f;

	if (type == 0)
		return ((const float *)p)[i];
	if (type == E4M3) {
		unsigned v = ((const unsigned char *)p)[i], exponent = v >> 3 & 15, fraction = v & 7;
		double d = exponent ? ldexp(1 + fraction / 8.0, (int)exponent - 7) : ldexp(fraction, -9);

		return v & 128 ? -d : d;
	}
	bits = (unsigned)((const unsigned short *)p)[i] << 16;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* Of column k of row i of A, and of column j of B, which has n of them; 1: there are none. */
static float scale(const struct desc *d, const struct layout *a, size_t i, size_t j, size_t n, size_t k)
{
	size_t across = ((a->rows + 127) / 128 + 3) / 4 * 4;

	return a->type == E4M3 ? d->scale_a[i / 128 * across + k / 128] * d->scale_b[k / 128 * n + j] : 1;
}

static void put(void *p, int type, size_t i, float f)
{
	unsigned bits;

	if (type == 0) {
		((float *)p)[i] = f;
		return;
	}
	memcpy(&bits, &f, sizeof(bits));
	((unsigned short *)p)[i] = (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* D = alpha op(A) op(B) + beta C; D is [m, n], op(A) [m, k], op(B) [k, n], columns first. */
int hipblasLtMatmul(void *handle, struct desc *desc, const void *alpha, const void *a, struct layout *la, const void *b,
                    struct layout *lb, const void *beta, const void *c, struct layout *lc, void *d, struct layout *ld,
                    const struct algo *algo, void *workspace, size_t workspace_bytes, void *stream)
{
	size_t n_k = desc->trans_a == OP_T ? la->rows : la->cols, m = desc->trans_a == OP_T ? la->cols : la->rows;
	float al = *(const float *)alpha, be = *(const float *)beta, *products;
	int kernel = algo->data[12];

	(void)handle;
	(void)stream;
	plain_last = kernel;
	if (memcmp(algo->data, "plain loops", 12) != 0 || !workspace || workspace_bytes != algo->max_workspace_bytes ||
	    m != ld->rows || n_k != lb->rows || lb->cols != ld->cols || desc->trans_b != OP_N || kernel == FAILING)
		return INVALID_VALUE;
	if (kernel == SILENT)
		return SUCCESS;
	products = calloc(n_k + 1, sizeof(*products));
	if (!products)
		return INVALID_VALUE;
	for (size_t j = 0; j < ld->cols; j++) {
		for (size_t i = 0; i < ld->rows; i++) {
			size_t at = j * (size_t)ld->ld + i;
			double s;

			for (size_t k = 0; k < n_k; k++) {
				size_t in_a = desc->trans_a == OP_T ? i * (size_t)la->ld + k : k * (size_t)la->ld + i;

				products[k] =
				        (float)(value(a, la->type, in_a) * value(b, lb->type, j * (size_t)lb->ld + k)) *
				        scale(desc, la, i, j, ld->cols, k);
			}
			s = (double)al * sum_of(products, n_k, kernel);
			if (be != 0)
				s += be * value(c, lc->type, j * (size_t)lc->ld + i);
			put(d, ld->type, at, (float)s);
		}
	}
	free(products);
	return SUCCESS;
}
