/* How attention of few rows is cut into items and shares. */
#include "gpu_test.h"

/* What a device of 132 multiprocessors would make of n sequences: items, and those of the first one. */
static uint32_t n_items(uint32_t n, uint32_t kv_len, uint32_t n_kv, uint32_t group, uint32_t *ret_of_first)
{
	struct gk_ctx ctx = test_ctx;
	struct gk_seq seqs[4] = {};
	struct gk_plan plan = {};
	uint32_t n_few;

	ctx.n_sm = 132;
	for (uint32_t i = 0; i < n; i++) {
		seqs[i].kv_len = kv_len;
		seqs[i].n_q = 1;
		seqs[i].row = i;
	}
	plan.room = gk_plan_room(&ctx, n, n, kv_len);
	plan.few = (struct gk_work *)calloc(plan.room, sizeof(*plan.few));
	plan.many = (struct gk_work *)calloc(plan.room, sizeof(*plan.many));
	plan.merge = (struct gk_merge *)calloc(plan.room, sizeof(*plan.merge));
	CHECK(gk_plan_attention(&ctx, n_kv, group, seqs, n, &plan) == 0, "plan");
	n_few = plan.n_few;
	*ret_of_first = 0;
	for (uint32_t i = 0; i < n_few; i++)
		*ret_of_first += plan.few[i].seq == 0;
	free(plan.few);
	free(plan.many);
	free(plan.merge);
	return n_few;
}

GPU_TEST(a_lone_sequence_is_cut_less)
{
	uint32_t of_first;

	CHECK(n_items(1, 513, 4, 8, &of_first) == 1, "%u parts", of_first);
	CHECK(n_items(1, 640, 8, 4, &of_first) == 1, "%u parts", of_first);
	CHECK(n_items(1, 641, 8, 4, &of_first) == 3, "%u parts", of_first);
	CHECK(n_items(1, 16384, 4, 8, &of_first) == 32, "%u parts", of_first);
	(void)n_items(4, 513, 4, 8, &of_first);
	CHECK(of_first > 1, "one of four, whole");
}

/* Every key of every token is in one item, shares hold about as much each, and lists are as long as was said. */
GPU_TEST(plans_cover_all_keys_once)
{
	enum { SEQS = 40, CTX = 5000 };

	for (int round = 0; round < 12; round++) {
		static const uint32_t heads[] = { 8, 1, 3 }, groups[] = { 4, 1, 40 };
		const uint32_t n_kv = heads[round % 3], group = groups[round / 3 % 3], n = 1 + test_random() % SEQS;
		struct gk_ctx ctx = test_ctx;
		struct gk_seq seqs[SEQS] = {};
		struct gk_plan plan = {};
		uint64_t keys = 0, covered = 0;
		uint32_t rows = 0, places = 0;

		ctx.fixed = round % 2;
		ctx.n_sm = 132;
		for (uint32_t i = 0; i < n; i++) {
			seqs[i].n_q = 1 + test_random() % (round % 4 ? 1 : GK_WORK_TOKENS);
			seqs[i].kv_len = seqs[i].n_q + test_random() % (CTX - GK_WORK_TOKENS);
			seqs[i].row = rows;
			rows += seqs[i].n_q;
		}
		plan.room = gk_plan_room(&ctx, rows, n, CTX);
		plan.answer_rows = UINT32_MAX;
		plan.few = (struct gk_work *)calloc(plan.room, sizeof(*plan.few));
		plan.many = (struct gk_work *)calloc(plan.room, sizeof(*plan.many));
		plan.merge = (struct gk_merge *)calloc(plan.room, sizeof(*plan.merge));
		CHECK(gk_plan_attention(&ctx, n_kv, group, seqs, n, &plan) == 0, "round %d", round);
		CHECK(plan.n_shares <= gk_plan_shares(&ctx, n_kv, group), "round %d: %u shares", round, plan.n_shares);
		CHECK(plan.n_many == 0, "no prompts");
		for (uint32_t i = 0; i < plan.n_few; i++) {
			const struct gk_work *w = &plan.few[i], *before = i ? &plan.few[i - 1] : nullptr;
			const uint32_t end = seqs[w->seq].kv_len - seqs[w->seq].n_q + w->q + w->n_q;

			CHECK(w->n_q * group <= 16 || w->n_q == 1, "rows of an item");
			CHECK(w->kv_begin == (before && before->seq == w->seq && before->q == w->q ? before->kv_end : 0),
			      "item %u", i);
			CHECK(w->kv_end <= end && w->kv_begin < w->kv_end, "item %u", i);
			CHECK(w->part != GK_WHOLE || (w->kv_begin == 0 && w->kv_end == end), "item %u", i);
			CHECK(!ctx.fixed || (w->kv_begin & (GK_FIXED_PART - 1)) == 0, "item %u", i);
			covered += (uint64_t)(w->kv_end - w->kv_begin) * w->n_q;
			if (w->part != GK_WHOLE) {
				const struct gk_merge *m = &plan.merge[w->merge];

				CHECK(m->seq == w->seq && m->q == w->q && m->n_q == w->n_q, "item %u", i);
				CHECK(w->part >= m->part && w->part < m->part + m->n_parts * m->n_q, "item %u", i);
				places += w->n_q;
			}
		}
		for (uint32_t i = 0; i < n; i++) {
			const uint32_t tokens = group < 16 ? 16 / group : 1;

			for (uint32_t q = 0; q < seqs[i].n_q; q += tokens) {
				const uint32_t n_q = seqs[i].n_q - q < tokens ? seqs[i].n_q - q : tokens;

				keys += (uint64_t)(seqs[i].kv_len - seqs[i].n_q + q + n_q) * n_q;
			}
		}
		CHECK(covered == keys, "round %d", round);
		CHECK(places == plan.n_parts, "round %d", round);
		for (uint32_t i = 0; i < plan.n_shares; i++)
			CHECK(plan.few[i].first < plan.n_few && (i == 0 ? plan.few[i].first == 0
			                                                : plan.few[i].first > plan.few[i - 1].first),
			      "share %u", i);
		free(plan.few);
		free(plan.many);
		free(plan.merge);
	}
}
