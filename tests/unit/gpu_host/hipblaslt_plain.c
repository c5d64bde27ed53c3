/* libhipblaslt.so.1 in plain loops: a library with the names, values and layouts that hipBLASLt documents, columns
 * first, for test_gpu_hipblaslt.c. It refuses what the test asks to be refused, and counts what is alive. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As documented, not as gemm_hipblaslt.c declares them. */
enum { SUCCESS = 0, INVALID_VALUE = 3, OP_N = 111, OP_T = 112 };

struct desc {
	int compute_type, scale_type;
	int trans_a, trans_b;
};
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
		**d = (struct desc){ compute_type, scale_type, OP_N, OP_N };
	return r;
}

int hipblasLtMatmulDescDestroy(struct desc *d)
{
	return drop(d);
}

int hipblasLtMatmulDescSetAttribute(struct desc *d, int attribute, const void *value, size_t bytes)
{
	int v;

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
	if (n_wanted < 1 || desc->compute_type != 2 || desc->scale_type != 0 || a->type != 14 || b->type != 14 ||
	    (d->type != 14 && d->type != 0) || (plain_refuses_from && b->cols >= plain_refuses_from))
		return SUCCESS;
	*ret = (struct result){ .workspace = p->workspace / 2, .waves = 1 };
	memcpy(ret->algo.data, "plain loops", 12);
	*ret_n = 1;
	return SUCCESS;
}

static double value(const void *p, int type, size_t i)
{
	unsigned bits;
	float f;

	if (type == 0)
		return ((const float *)p)[i];
	bits = (unsigned)((const unsigned short *)p)[i] << 16;
	memcpy(&f, &bits, sizeof(f));
	return f;
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
	float al = *(const float *)alpha, be = *(const float *)beta;

	(void)handle;
	(void)stream;
	if (memcmp(algo->data, "plain loops", 12) != 0 || !workspace || workspace_bytes == 0 || m != ld->rows ||
	    n_k != lb->rows || lb->cols != ld->cols || desc->trans_b != OP_N)
		return INVALID_VALUE;
	for (size_t j = 0; j < ld->cols; j++) {
		for (size_t i = 0; i < ld->rows; i++) {
			size_t at = j * (size_t)ld->ld + i;
			double s = 0;

			for (size_t k = 0; k < n_k; k++) {
				size_t in_a = desc->trans_a == OP_T ? i * (size_t)la->ld + k : k * (size_t)la->ld + i;

				s += value(a, la->type, in_a) * value(b, lb->type, j * (size_t)lb->ld + k);
			}
			s *= al;
			if (be != 0)
				s += be * value(c, lc->type, j * (size_t)lc->ld + i);
			put(d, ld->type, at, (float)s);
		}
	}
	return SUCCESS;
}
