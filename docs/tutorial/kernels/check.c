/* The definition of right, in plain C, and a comparison with it over odd shapes. What only reads and writes must be
 * equal to the bit. Softmax rounds the difference of a value and the maximum, at most 2 * span, by 2^-24 of it, which
 * exp() makes a relative error of the result; expf(), the sum and the division add a few roundings more, for which 16
 * are allowed. */
#include "tutorial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void ref_softmax(double *out, const float *in, size_t n)
{
	double m = -INFINITY, s = 0;

	for (size_t i = 0; i < n; i++)
		m = in[i] > m ? in[i] : m;
	for (size_t i = 0; i < n; i++)
		s += exp(in[i] - m);
	for (size_t i = 0; i < n; i++)
		out[i] = exp(in[i] - m) / s;
}

/* The same numbers everywhere: a linear congruential generator (Knuth, MMIX), -span to span. */
static float number(unsigned long long *state, float span)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return span * (2 * (float)(*state >> 40) / (float)(1 << 24) - 1);
}

static void *need(void *p)
{
	if (!p)
		exit(1);
	return p;
}

static int told(const char *what, int error)
{
	printf("%s: %s\n", what, tutorial_error_words(error));
	return 1;
}

static int check_add(size_t n)
{
	float *a = need(malloc(n * sizeof(*a))), *b = need(malloc(n * sizeof(*b))),
	      *out = need(calloc(n, sizeof(*out)));
	unsigned long long state = n;
	size_t n_wrong = 0;
	int e;

	for (size_t i = 0; i < n; i++) {
		a[i] = number(&state, 1000);
		b[i] = number(&state, 1000);
	}
	e = tutorial_vector_add(out, a, b, n);
	for (size_t i = 0; i < n && !e; i++)
		n_wrong += out[i] != a[i] + b[i];
	free(a);
	free(b);
	free(out);
	if (e)
		return told("vector add", e);
	printf("vector add   %8zu elements      %zu wrong\n", n, n_wrong);
	return n_wrong > 0;
}

static int check_softmax(size_t n_rows, size_t n_columns, float span)
{
	const size_t n = n_rows * n_columns;
	float *in = need(malloc(n * sizeof(*in))), *out = need(calloc(n, sizeof(*out)));
	const double allowed = (2 * span + 16) * 0x1p-24, vanishing = 1e-37;
	double *want = need(malloc(n_columns * sizeof(*want))), worst = 0;
	unsigned long long state = n;
	size_t n_wrong = 0;
	int e;

	for (size_t i = 0; i < n; i++)
		in[i] = number(&state, span);
	in[n / 2] = -INFINITY; /* a masked place */
	e = tutorial_softmax(out, in, n_rows, n_columns);
	for (size_t r = 0; r < n_rows && !e; r++) {
		ref_softmax(want, in + r * n_columns, n_columns);
		for (size_t i = 0; i < n_columns; i++) {
			const double off = fabs(out[r * n_columns + i] - want[i]),
			             share = off / (allowed * want[i] + vanishing);

			worst = share > worst ? share : worst;
			n_wrong += !(share <= 1);
		}
	}
	free(in);
	free(out);
	free(want);
	if (e)
		return told("softmax", e);
	printf("softmax      %4zu x %-6zu        %zu wrong, at most %.0f %% of what is allowed\n", n_rows, n_columns,
	       n_wrong, 100 * worst);
	return n_wrong > 0;
}

int main(void)
{
	static const size_t lengths[] = { 1, 255, 256, 257, 100003 };
	static const struct {
		size_t n_rows, n_columns;
		float span;
	} shapes[] = { { 1, 2, 1 },    { 3, 31, 5 },      { 7, 32, 5 },    { 5, 33, 80 },
		       { 4, 256, 10 }, { 2, 1000, 1e4f }, { 64, 4097, 20 } };
	int failed = 0;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		failed |= check_add(lengths[i]);
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
		failed |= check_softmax(shapes[i].n_rows, shapes[i].n_columns, shapes[i].span);
	puts(failed ? "FAILED" : "all right");
	return failed;
}
