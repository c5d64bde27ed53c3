/* The lint of agent/knowledge: what every task of the catalogue must have. It looks at the parsed trees, so it sees
 * what the matching sees. What a shell must say about the commands: tests/tools/check-catalogue.sh. */
#include "test.h"
#include "catalogue.h"

#include "../../../agent/src/know/know_internal.h"

enum { MANY = 100000, MIN_TASKS = 1500, MIN_ZH = 6, MIN_EN = 4 };

/* Sentences that a wording stands for, up to MANY. */
static unsigned long expansions(const struct ag_know *k, uint32_t node)
{
	unsigned long n = 1;

	for (; node && n < MANY; node = k->nodes[node].next) {
		unsigned long sum = 0;

		if (k->nodes[node].kind != NODE_CHOICE)
			continue;
		for (uint32_t a = k->nodes[node].child; a; a = k->alts[a].next)
			sum += expansions(k, k->alts[a].first);
		n *= sum;
	}
	return n < MANY ? n : MANY;
}

/* Slots that the wording names in every sentence, as bits. */
static unsigned slots_named(const struct ag_know *k, uint32_t node)
{
	unsigned named = 0;

	for (; node; node = k->nodes[node].next) {
		const struct node *n = &k->nodes[node];
		unsigned all = ~0u;

		if (n->kind == NODE_SLOT)
			named |= 1u << n->slot;
		if (n->kind != NODE_CHOICE)
			continue;
		for (uint32_t a = n->child; a; a = k->alts[a].next)
			all &= slots_named(k, k->alts[a].first);
		named |= all;
	}
	return named;
}

static void the_catalogue_is_large_enough(void **state)
{
	assert_true(ag_know_n_tasks(*state) >= MIN_TASKS);
}

static void every_task_has_wordings_in_both_languages(void **state)
{
	const struct ag_know *k = *state;
	unsigned bad = 0;

	for (size_t i = 0; i < k->n_tasks; i++) {
		unsigned long zh = 0, en = 0;

		for (uint8_t w = 0; w < k->tasks[i].n_wordings; w++) {
			if (k->tasks[i].chinese >> w & 1)
				zh += expansions(k, k->tasks[i].wordings[w]);
			else
				en += expansions(k, k->tasks[i].wordings[w]);
		}
		if (zh < MIN_ZH || en < MIN_EN) {
			print_message("%s: %lu Chinese and %lu English wordings\n", k->tasks[i].id, zh, en);
			bad++;
		}
	}
	assert_int_equal(bad, 0);
}

static void every_task_is_explained_in_both_languages(void **state)
{
	const struct ag_know *k = *state;
	unsigned without = 0;

	for (size_t i = 0; i < k->n_tasks; i++) {
		const struct task *t = &k->tasks[i];

		if (*t->explain_zh && *t->explain_en)
			continue;
		print_message("%s: no explanation\n", t->id);
		without++;
	}
	assert_int_equal(without, 0);
}

/* The catalogue's few wordings that leave a slot to choice ("the (dir|{dir}) folder") still mean it; none may lack it.
 */
static bool names_slot(const struct ag_know *k, uint32_t node, uint8_t slot)
{
	for (; node; node = k->nodes[node].next) {
		const struct node *n = &k->nodes[node];

		if (n->kind == NODE_SLOT && n->slot == slot)
			return true;
		for (uint32_t a = n->kind == NODE_CHOICE ? n->child : 0; a; a = k->alts[a].next)
			if (names_slot(k, k->alts[a].first, slot))
				return true;
	}
	return false;
}

static void every_wording_names_every_slot(void **state)
{
	const struct ag_know *k = *state;
	unsigned bad = 0, loose = 0;

	for (size_t i = 0; i < k->n_tasks; i++) {
		const struct task *t = &k->tasks[i];

		for (uint8_t w = 0; w < t->n_wordings; w++) {
			for (uint8_t s = 0; s < t->n_slots; s++) {
				if (names_slot(k, t->wordings[w], s))
					continue;
				print_message("%s: wording %u lacks {%s}\n", t->id, w + 1u, t->slots[s].name);
				bad++;
			}
			loose += t->n_slots && slots_named(k, t->wordings[w]) != (1u << t->n_slots) - 1;
		}
	}
	print_message("%u wordings name a slot in some of their sentences only\n", loose);
	assert_int_equal(bad, 0);
}

static void a_template_is_an_instance_of_itself(void **state)
{
	const struct ag_know *k = *state;

	for (size_t i = 0; i < k->n_tasks; i++) {
		struct base_buf command = BASE_BUF_INIT(8192);
		char *values[AG_KNOW_MAX_SLOTS] = { "v1", "v2", "v3", "v4", "v5", "v6" };
		char found[AG_KNOW_MAX_SLOTS][128];

		assert_int_equal(ag_know_fill(&k->tasks[i], values, &command), 0);
		if (!ag_know_is_instance(&k->tasks[i], base_buf_text(&command), found))
			fail_msg("%s: %s", k->tasks[i].id, base_buf_text(&command));
		base_buf_done(&command);
	}
}

/* Read-only by its class, and by its words. */
static void no_read_only_task_destroys(void **state)
{
	const struct ag_know *k = *state;

	for (size_t i = 0; i < k->n_tasks; i++)
		if (k->tasks[i].risk == AG_KNOW_READ && ag_know_guess_risk(k->tasks[i].command) == AG_KNOW_DESTRUCTIVE)
			fail_msg("%s: %s", k->tasks[i].id, k->tasks[i].command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_catalogue_is_large_enough),
		cmocka_unit_test(every_task_has_wordings_in_both_languages),
		cmocka_unit_test(every_task_is_explained_in_both_languages),
		cmocka_unit_test(every_wording_names_every_slot),
		cmocka_unit_test(a_template_is_an_instance_of_itself),
		cmocka_unit_test(no_read_only_task_destroys),
	};

	return cmocka_run_group_tests(tests, open_catalogue, close_catalogue);
}
