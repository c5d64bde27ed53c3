/* Which sequences of a batch begin with the same pages, as those do whose prompts begin alike and were served from
 * one prefix cache: their keys and values are then the same memory, which attention can read once for all of them.
 *
 * A set is led by the first sequence not yet in one. It takes those that share at least one step with the leader,
 * down to the length that saves most reading: members times keys. Only single new tokens take part; prompts are
 * bound by arithmetic. */
#include <string.h>

#include "cpu/cpu.h"

int cpu_shares_reserve(struct cpu_backend *cpu)
{
	struct cpu_shares *s = &cpu->shares;
	size_t n = cpu->max_tokens;
	int r = cpu_area_reserve(&s->area, n * (sizeof(struct cpu_share) + 4 * sizeof(uint32_t)));

	if (r < 0)
		return r;
	s->shares = (struct cpu_share *)s->area.p;
	s->members = (uint32_t *)(s->shares + n);
	s->tiles = s->members + n;
	s->n_keys = s->tiles + n;
	s->first_tile = s->n_keys + n;
	return 0;
}

/* Keys of whole steps that tokens before the last ones of both sequences left and that lie in the same pages. */
static uint32_t common_keys(const struct kn_seq *a, const struct kn_seq *b, uint32_t page_tokens, uint32_t step)
{
	uint32_t most = a->kv_len < b->kv_len ? a->kv_len : b->kv_len, pages = (most - 1) / page_tokens, same = 0;

	while (same < pages && a->pages[same] == b->pages[same])
		same++;
	return same * page_tokens / step * step;
}

/* The length at which a set led by `leader` saves most; common[i] is what sequence i has in common with it. */
static uint32_t best_length(const uint32_t *common, size_t leader, size_t n)
{
	uint64_t best = 0;
	uint32_t keys = 0;

	for (size_t i = leader + 1; i < n; i++) {
		uint64_t saved = 0;

		if (common[i] == 0 || common[i] == keys)
			continue;
		for (size_t j = leader + 1; j < n; j++)
			saved += common[j] >= common[i] ? common[i] : 0;
		if (saved > best) {
			best = saved;
			keys = common[i];
		}
	}
	return keys;
}

const struct cpu_share *cpu_shares_find(struct cpu_backend *cpu, const struct kn_seq *seqs, size_t n_seqs,
                                        uint32_t page_tokens, uint32_t step, size_t *ret_n)
{
	struct cpu_shares *s = &cpu->shares;
	uint32_t *common = s->first_tile; /* filled by the caller only later */
	size_t n_members = 0;

	*ret_n = 0;
	if (n_seqs > cpu->max_tokens)
		return NULL;
	memset(s->n_keys, 0, n_seqs * sizeof(*s->n_keys));
	for (size_t i = 0; i + 1 < n_seqs; i++) {
		struct cpu_share share = { s->members + n_members, s->tiles + n_members, 0, 0 };

		if (seqs[i].n_q != 1 || s->n_keys[i])
			continue;
		for (size_t j = i + 1; j < n_seqs; j++)
			common[j] = seqs[j].n_q == 1 && !s->n_keys[j]
			                    ? common_keys(&seqs[i], &seqs[j], page_tokens, step)
			                    : 0;
		share.n_keys = best_length(common, i, n_seqs);
		if (!share.n_keys)
			continue;
		common[i] = share.n_keys;
		for (size_t j = i; j < n_seqs; j++) {
			if (common[j] < share.n_keys)
				continue;
			share.members[share.n++] = (uint32_t)j;
			s->n_keys[j] = share.n_keys;
		}
		n_members += share.n;
		s->shares[(*ret_n)++] = share;
	}
	return s->shares;
}
