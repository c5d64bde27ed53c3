/* Sums and gathers between GPUs by way of the backend: whether they are right, how long they take, and how near they
 * come to what the links move. JSON lines.
 *
 *   comm_bench [--backend=cuda] [--devices=2] [--link=GBYTES] [--quick]
 *
 * A message of B bytes on n devices: B (n - 1) / n bytes have to leave each device twice for a sum and once for a
 * gather, whatever the way. --link: what one device sends at most, in GB/s, for the share (NVLink of an H100 or H200:
 * 450). The time is a device's between the begin and the end of a step of many messages, divided by their number; the
 * program of a step is replayed as a graph from the third one on. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

enum { DIM = 4096, MOST_REPS = 200, N_STEPS = 9 };

static struct kn_backend *be;
static int n_failed;

/* One rank's thread of a case. */
struct rank {
	struct kn_backend *be;
	uint32_t rank, n_rows, n_reps;
	bool gathers, is_narrow; /* narrow: in bfloat16, as between kernels of a model */
	float *x, *base, *sum, *ones, *got;
	uint64_t ns[N_STEPS];
	int result;
};

/* Small whole numbers, so that sums are exact in any type and order. */
static float value_at(uint32_t rank, size_t i)
{
	return (float)((int)((i * 7 + rank * 13) % 11) - 5);
}

/* base -> x by a norm whose output is bfloat16 in the program, or by a sum onto zeros. */
static void fill(struct rank *r)
{
	if (r->is_narrow) {
		r->be->ops->rmsnorm(r->be, r->x, DIM, r->base, DIM, r->ones, r->n_rows, 1, DIM, 1e-6f);
	} else {
		r->be->ops->clear(r->be, r->x, DIM, r->n_rows, DIM);
		r->be->ops->add(r->be, r->x, DIM, r->base, DIM, r->n_rows, DIM, 1);
	}
}

static void message(struct rank *r)
{
	uint32_t n = r->be->n_ranks;

	if (r->gathers)
		r->be->ops->all_gather(r->be, r->x, DIM, r->n_rows, DIM / n, DIM);
	else
		r->be->ops->all_reduce(r->be, r->x, DIM, r->n_rows, DIM);
}

/* What the next operation reads in float32. */
static void drain(struct rank *r)
{
	r->be->ops->clear(r->be, r->sum, DIM, r->n_rows, DIM);
	r->be->ops->add(r->be, r->sum, DIM, r->x, DIM, r->n_rows, DIM, 1);
}

static int land(struct rank *r)
{
	r->be->ops->submit(r->be);
	return r->be->ops->wait(r->be);
}

static float norm_of(uint32_t rank, size_t row)
{
	double sum = 0;

	for (size_t k = 0; k < DIM; k++)
		sum += (double)value_at(rank, row * DIM + k) * value_at(rank, row * DIM + k);
	return (float)(1 / sqrt(sum / DIM + 1e-6));
}

static void compare(struct rank *r)
{
	size_t n = (size_t)r->n_rows * DIM;
	double worst = 0, largest = 0;

	r->be->ops->download(r->be, r->got, r->sum, n * sizeof(float));
	for (size_t row = 0; row < r->n_rows; row++) {
		float scale[KN_MAX_RANKS];

		for (uint32_t q = 0; q < r->be->n_ranks; q++)
			scale[q] = r->is_narrow ? norm_of(q, row) : 1;
		for (size_t k = 0; k < DIM; k++) {
			size_t i = row * DIM + k;
			double want = 0;

			for (uint32_t q = 0; q < r->be->n_ranks; q++) {
				if (!r->gathers || k / (DIM / r->be->n_ranks) == q)
					want += scale[q] * value_at(q, i);
			}
			worst = fmax(worst, isfinite(r->got[i]) ? fabs(r->got[i] - want) : INFINITY);
			largest = fmax(largest, fabs(want));
		}
	}
	/* bfloat16: each summand and the sum are rounded to 8 bits. */
	if (worst > (r->is_narrow ? largest * 0.01 * r->be->n_ranks : 0)) {
		fprintf(stderr, "rank %u, %u rows, %s in %s: off by %g\n", r->rank, r->n_rows,
		        r->gathers ? "gather" : "sum", r->is_narrow ? "bfloat16" : "float32", worst);
		r->result = -EBADMSG;
	}
}

static void *run_rank(void *arg)
{
	struct rank *r = arg;
	const struct kn_ops *ops = r->be->ops;
	size_t n = (size_t)r->n_rows * DIM;
	float *host = malloc(n * sizeof(*host)), ones[DIM];
	float **all[] = { &r->x, &r->base, &r->sum };

	r->got = malloc(n * sizeof(*r->got));
	r->ones = ops->alloc(r->be, sizeof(ones));
	for (size_t i = 0; i < 3; i++)
		*all[i] = ops->alloc(r->be, n * sizeof(float));
	for (size_t i = 0; i < DIM; i++)
		ones[i] = 1;
	for (size_t i = 0; i < n && host; i++)
		host[i] = value_at(r->rank, i);
	r->result = host && r->got && r->x && r->base && r->sum && r->ones ? 0 : -ENOMEM;
	if (r->result == 0) {
		ops->upload(r->be, r->base, host, n * sizeof(*host));
		ops->upload(r->be, r->ones, ones, sizeof(ones));
		/* Thrice: at once, captured, replayed. */
		for (int i = 0; i < 3 && r->result == 0; i++) {
			fill(r);
			message(r);
			drain(r);
			r->result = land(r);
			if (r->result == 0)
				compare(r);
		}
	}
	for (int i = 0; i < N_STEPS && r->result == 0; i++) {
		uint64_t before = ops->busy_ns(r->be);

		fill(r);
		for (uint32_t k = 0; k < r->n_reps; k++)
			message(r);
		drain(r);
		r->result = land(r);
		r->ns[i] = ops->busy_ns(r->be) - before;
	}
	free(host);
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* What surrounds the messages of a step is measured with few of them and taken off. */
static double run_case(uint32_t n_rows, uint32_t n_reps, bool gathers, bool is_narrow)
{
	struct rank ranks[KN_MAX_RANKS];
	pthread_t threads[KN_MAX_RANKS];
	double ns = 0;

	memset(ranks, 0, sizeof(ranks));
	for (uint32_t i = 0; i < be->n_ranks; i++) {
		ranks[i] = (struct rank){ .be = be->ranks[i],
			                  .rank = i,
			                  .n_rows = n_rows,
			                  .n_reps = n_reps,
			                  .gathers = gathers,
			                  .is_narrow = is_narrow };
		if (pthread_create(&threads[i], NULL, run_rank, &ranks[i]) != 0)
			exit(1);
	}
	for (uint32_t i = 0; i < be->n_ranks; i++) {
		(void)pthread_join(threads[i], NULL);
		n_failed += ranks[i].result < 0;
		qsort(ranks[i].ns, N_STEPS, sizeof(ranks[i].ns[0]), by_value);
		ns = fmax(ns, (double)ranks[i].ns[N_STEPS / 2]);
	}
	for (uint32_t i = 0; i < be->n_ranks; i++) {
		const struct kn_ops *ops = ranks[i].be->ops;
		float *all[] = { ranks[i].x, ranks[i].base, ranks[i].sum, ranks[i].ones };

		for (size_t k = 0; k < 4; k++) {
			if (all[k])
				ops->free(ranks[i].be, all[k]);
		}
		free(ranks[i].got);
	}
	return ns;
}

static void report(uint32_t n_rows, uint32_t n_reps, bool gathers, bool is_narrow, double link)
{
	double few = run_case(n_rows, 1, gathers, is_narrow), many = run_case(n_rows, 1 + n_reps, gathers, is_narrow);
	double us = (many - few) / n_reps / 1e3, bytes = (double)n_rows * DIM * (is_narrow ? 2 : 4);
	double moved = bytes * (be->n_ranks - 1) / be->n_ranks * (gathers ? 1 : 2), rate = moved / us / 1e3;

	printf("{\"bench\":\"gpu-comm\",\"case\":\"%s %s %.0f bytes on "
	       "%u\",\"value\":%.2f,\"unit\":\"us\",\"gbytes_per_s\":%.2f,"
	       "\"limit\":%.2f,\"share\":%.3f,\"peer\":null,\"ratio\":null}\n",
	       gathers ? "gather" : "sum", is_narrow ? "bf16" : "f32", bytes, be->n_ranks, us, rate, link, rate / link);
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	static const uint32_t rows[] = { 1, 4, 16, 32, 64, 128, 512, 2048 };
	uint32_t devices[KN_MAX_RANKS], n_rows = sizeof(rows) / sizeof(rows[0]), n_reps = MOST_REPS;
	struct kn_config config = { .max_tokens = 2048, .devices = devices, .n_devices = 2 };
	const char *kind = "cuda";
	double link = 450;
	struct err err = { 0 };

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--backend=", 10) == 0)
			kind = argv[i] + 10;
		else if (strncmp(argv[i], "--devices=", 10) == 0)
			config.n_devices = (uint32_t)strtoul(argv[i] + 10, NULL, 10);
		else if (strncmp(argv[i], "--link=", 7) == 0)
			link = strtod(argv[i] + 7, NULL);
		else if (strcmp(argv[i], "--quick") == 0)
			n_rows = 4, n_reps = 4;
	}
	if (config.n_devices < 2 || config.n_devices > KN_MAX_RANKS || DIM % config.n_devices) {
		fprintf(stderr, "comm_bench: %u devices\n", config.n_devices);
		return 2;
	}
	for (uint32_t i = 0; i < config.n_devices; i++)
		devices[i] = i;
	if (kn_backend_open(kind, &config, &be, &err) < 0) {
		fprintf(stderr, "comm_bench: %s\n", err_text(&err));
		return 77;
	}
	for (int gathers = 0; gathers < 2; gathers++) {
		for (int narrow = 0; narrow < 2 && !(gathers && narrow); narrow++) {
			for (uint32_t i = 0; i < n_rows && n_failed == 0; i++)
				report(rows[i], rows[i] > 128 ? n_reps / 4 : n_reps, gathers, narrow, link);
		}
	}
	kn_backend_close(be);
	return n_failed > 0;
}
