/* Whether pages of a prompt come back from elsewhere or are computed again: never slower than computing, as far as what
 * was seen tells. What computing takes is pace.h's; here is what loads take. Guesses only, of no consequence for what
 * comes out. */
#ifndef ENG_SCHED_WORTH_H
#define ENG_SCHED_WORTH_H

#include <stdbool.h>
#include <stdint.h>

/* Times of loads by their pages: weighted means, through which a line is laid. */
struct worth_line {
	double x, y, xx, xy;
	bool has_any;
};

struct worth {
	struct worth_line host; /* of loads from host memory alone */
	double credit_ns;       /* what trying again may cost, since so much was computed instead */
};

enum { WORTH_PROBES = 16 /* pages that are read, several at a time, to see how fast that goes */ };

void sched_worth_init(struct worth *w);
/* A load of so many pages from host memory took so long. */
void sched_worth_learn(struct worth *w, uint32_t pages, double ns);
/* n_disk of n_pages are on disk, where reading one takes read_ns; 0: not known. compute_ns: of all of them; 0: not
 * known, then host memory is tried, and of the disk its first pages, which tell both. What is refused is tried again
 * now and then, since it may have been slow for a moment only: as often as that costs a twentieth of what is computed
 * instead. */
bool sched_worth_begins(struct worth *w, double compute_ns, uint32_t n_pages, uint32_t n_disk, double read_ns);
/* Of a load under way n_pages are left, n_disk of them on disk: how many of those may be asked for now, n_probes of
 * them being on their way already. 0: computing them is quicker, or it is time to see what the first ones took;
 * *ret_is_slow says which. */
uint32_t sched_worth_goes_on(const struct worth *w, double compute_ns, uint32_t n_pages, uint32_t n_disk,
                             double read_ns, uint32_t n_probes, bool *ret_is_slow);

#endif
