/* How long answers took, as Prometheus histograms. */
#include <stdio.h>

#include "http_internal.h"

/* Upper bounds in seconds; the last bucket has none. */
static const double bounds[HTTP_N_BUCKETS] = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
	                                       0.5,   1,      2.5,   5,    10,    25,   50,  100 };

void http_times_add(struct http_histogram *h, uint64_t us)
{
	size_t i = 0;

	while (i < HTTP_N_BUCKETS && (double)us > bounds[i] * 1e6)
		i++;
	atomic_fetch_add(&h->counts[i], 1);
	atomic_fetch_add(&h->sum_us, us);
}

static void append(const struct http_histogram *h, const char *name, const char *help, struct base_buf *out)
{
	uint64_t n = 0;

	(void)base_buf_printf(out, "# HELP ocai_engine_%s %s\n# TYPE ocai_engine_%s histogram\n", name, help, name);
	for (size_t i = 0; i < HTTP_N_BUCKETS; i++) {
		n += atomic_load(&h->counts[i]);
		(void)base_buf_printf(out, "ocai_engine_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
		                      (unsigned long long)n);
	}
	n += atomic_load(&h->counts[HTTP_N_BUCKETS]);
	(void)base_buf_printf(out, "ocai_engine_%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)n);
	(void)base_buf_printf(out, "ocai_engine_%s_sum %.6f\nocai_engine_%s_count %llu\n", name,
	                      (double)atomic_load(&h->sum_us) / 1e6, name, (unsigned long long)n);
}

void http_times_append(const struct http_times *t, struct base_buf *out)
{
	append(&t->first_token, "time_to_first_token_seconds", "From a request's arrival to its first token.", out);
	append(&t->per_token, "time_per_output_token_seconds", "Between the tokens of one answer, its mean.", out);
	append(&t->whole, "request_seconds", "From a request's arrival to its end.", out);
}
