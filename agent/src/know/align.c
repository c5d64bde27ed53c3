/* Alignment of a question with the wordings of a task.
 *
 * Dynamic programming over the wording's tree: a row holds, for every place in the question, the cheapest way to have
 * read the wording so far and the question up to there. A token of the wording that the question lacks costs its weight
 * in part, a token of the question that the wording lacks costs its weight; a slot takes one or several tokens that
 * read as a value of its type. Choices take the cheapest alternative for every place. Rows carry the slots' places, so
 * the best row end names the values too. Cost: nodes of the wording times tokens of the question. */
#include "know/know_internal.h"

#include <string.h>

enum { MAX_VALUE_TOKENS = 4 };

static const float MISSING = 0.55f;  /* share of a wording's token's weight that its absence costs */
static const float NO_SLOT = 3.0f;   /* a slot that nothing fills */
static const float NEAR_COST = 0.4f; /* a typing error */
static const float IMPOSSIBLE = 1e9f;

struct cell {
	float cost;    /* both kinds together: what is minimised */
	float missing; /* the wording's part of it */
	uint8_t span[AG_KNOW_MAX_SLOTS][2];
};

struct context {
	const struct ag_know *k;
	const struct task *task;
	const struct token *tokens;
	size_t n;
	float slot_cost[AG_KNOW_MAX_SLOTS][KNOW_MAX_TOKENS][MAX_VALUE_TOKENS]; /* of tokens [i, i + len] */
};

/* Lets every place also be reached by leaving question tokens unexplained. */
static void skip_tokens(const struct context *c, struct cell *row)
{
	for (size_t j = 1; j <= c->n; j++) {
		float cost = row[j - 1].cost + c->tokens[j - 1].weight;

		if (cost < row[j].cost) {
			row[j] = row[j - 1];
			row[j].cost = cost;
		}
	}
}

static void read_token(const struct context *c, uint32_t word, struct cell *row)
{
	float missing = MISSING * c->k->words[word].weight;
	struct cell before = row[0];

	row[0].cost += missing;
	row[0].missing += missing;
	for (size_t j = 1; j <= c->n; j++) {
		const struct token *t = &c->tokens[j - 1];
		struct cell here = row[j];

		row[j].cost += missing;
		row[j].missing += missing;
		if (t->word == word && before.cost + (t->is_near ? NEAR_COST : 0) < row[j].cost) {
			row[j] = before;
			row[j].cost += t->is_near ? NEAR_COST : 0;
		}
		before = here;
	}
}

static void read_slot(const struct context *c, uint8_t slot, struct cell *row)
{
	struct cell in[KNOW_MAX_TOKENS + 1];

	memcpy(in, row, (c->n + 1) * sizeof(*in));
	for (size_t j = 0; j <= c->n; j++) {
		row[j].cost += NO_SLOT;
		row[j].missing += NO_SLOT;
		for (size_t len = 1; len <= MAX_VALUE_TOKENS && len <= j; len++) {
			float cost = c->slot_cost[slot][j - len][len - 1];

			if (cost < 0 || in[j - len].cost + cost >= row[j].cost)
				continue;
			row[j] = in[j - len];
			row[j].cost += cost;
			row[j].missing += cost;
			row[j].span[slot][0] = (uint8_t)(j - len);
			row[j].span[slot][1] = (uint8_t)j;
		}
	}
}

static void read_sequence(const struct context *c, uint32_t node, struct cell *row);

static void read_choice(const struct context *c, uint32_t alt, struct cell *row)
{
	struct cell in[KNOW_MAX_TOKENS + 1], out[KNOW_MAX_TOKENS + 1];

	memcpy(in, row, (c->n + 1) * sizeof(*in));
	for (size_t j = 0; j <= c->n; j++)
		row[j].cost = IMPOSSIBLE;
	for (; alt; alt = c->k->alts[alt].next) {
		memcpy(out, in, (c->n + 1) * sizeof(*out));
		read_sequence(c, c->k->alts[alt].first, out);
		for (size_t j = 0; j <= c->n; j++)
			if (out[j].cost < row[j].cost)
				row[j] = out[j];
	}
}

static void read_sequence(const struct context *c, uint32_t node, struct cell *row)
{
	for (; node; node = c->k->nodes[node].next) {
		const struct node *n = &c->k->nodes[node];

		if (n->kind == NODE_TOKEN)
			read_token(c, n->token, row);
		else if (n->kind == NODE_SLOT)
			read_slot(c, n->slot, row);
		else
			read_choice(c, n->child, row);
		skip_tokens(c, row);
	}
}

static void fill_slot_costs(struct context *c)
{
	for (uint8_t s = 0; s < c->task->n_slots; s++)
		for (size_t i = 0; i < c->n; i++)
			for (size_t len = 1; len <= MAX_VALUE_TOKENS; len++)
				c->slot_cost[s][i][len - 1] =
				        i + len <= c->n
				                ? ag_know_slot_cost(c->k, c->task->slots[s].kind, c->tokens + i, len)
				                : -1;
}

void ag_know_align(const struct ag_know *k, const struct task *t, const struct token *tokens, size_t n_tokens,
                   struct alignment *ret)
{
	struct context c;
	float total = 0;

	c.k = k;
	c.task = t;
	c.tokens = tokens;
	c.n = n_tokens < KNOW_MAX_TOKENS ? n_tokens : KNOW_MAX_TOKENS;
	fill_slot_costs(&c);
	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < c.n; i++)
		total += tokens[i].weight;
	for (uint8_t w = 0; w < t->n_wordings; w++) {
		struct cell row[KNOW_MAX_TOKENS + 1], *end = &row[c.n];
		float left, score;

		memset(row, 0, sizeof(row));
		for (size_t j = 1; j <= c.n; j++)
			row[j].cost = IMPOSSIBLE;
		skip_tokens(&c, row);
		read_sequence(&c, t->wordings[w], row);
		left = end->cost - end->missing;
		if (left < 0)
			left = 0;
		score = total > 0 ? (total - left) / (total + end->missing) : 0;
		if (score > ret->score) {
			ret->score = score;
			ret->leftover = left;
			ret->missing = end->missing;
			memcpy(ret->span, end->span, sizeof(ret->span));
		}
	}
	for (size_t i = 0; i < c.n; i++) {
		bool used = false;

		for (uint8_t s = 0; s < t->n_slots; s++)
			used = used || (i >= ret->span[s][0] && i < ret->span[s][1]);
		if (!used && !tokens[i].word && ag_know_is_value(&tokens[i]))
			ret->leftover_value = true;
	}
}
