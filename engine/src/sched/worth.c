#include "sched/worth.h"

static const double weight = 0.2;      /* of the newest load */
static const double for_trials = 0.05; /* of what is computed */

void sched_worth_init(struct worth *w)
{
	*w = (struct worth){ .credit_ns = 0 };
}

void sched_worth_learn(struct worth *w, uint32_t pages, double ns)
{
	struct worth_line *l = &w->host;
	double x = pages;

	if (!l->has_any) {
		*l = (struct worth_line){ x, ns, x * x, x * ns, true };
		return;
	}
	l->x += weight * (x - l->x);
	l->y += weight * (ns - l->y);
	l->xx += weight * (x * x - l->xx);
	l->xy += weight * (x * ns - l->xy);
}

/* Loads that were all alike do not tell how their time grows: shorter ones are taken to last as long. */
static double expect_ns(const struct worth_line *l, double pages)
{
	double spread = l->xx - l->x * l->x, slope;

	if (!l->has_any)
		return 0;
	slope = spread > 0.01 * l->xx ? (l->xy - l->x * l->y) / spread : 0;
	if (slope <= 0)
		return pages > l->x ? l->y * pages / l->x : l->y;
	return l->y + slope * (pages - l->x) > slope * pages ? l->y + slope * (pages - l->x) : slope * pages;
}

bool sched_worth_begins(struct worth *w, double compute_ns, uint32_t n_pages, uint32_t n_disk, double read_ns)
{
	double load = expect_ns(&w->host, n_pages) + read_ns * n_disk, cost = load - compute_ns;

	if (compute_ns <= 0 || cost < 0)
		return true;
	/* A load from disk ends when its first pages were slow. */
	if (n_disk > 0 && cost > read_ns * WORTH_PROBES)
		cost = read_ns * WORTH_PROBES;
	if (cost < w->credit_ns) {
		w->credit_ns = 0;
		return true;
	}
	w->credit_ns += for_trials * compute_ns;
	return false;
}

uint32_t sched_worth_goes_on(const struct worth *w, double compute_ns, uint32_t n_pages, uint32_t n_disk,
                             double read_ns, uint32_t n_probes, bool *ret_is_slow)
{
	double load = expect_ns(&w->host, n_pages) + read_ns * n_disk;
	bool is_quicker = compute_ns > 0 && read_ns > 0 && load < compute_ns;

	*ret_is_slow = false;
	if (is_quicker)
		return n_disk;
	if (n_probes < WORTH_PROBES)
		return WORTH_PROBES - n_probes;
	*ret_is_slow = compute_ns > 0 && read_ns > 0;
	return 0;
}
