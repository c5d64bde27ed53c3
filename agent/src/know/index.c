/* The index: which tasks share words, and pairs of neighbouring Chinese characters, with a question.
 *
 * A feature (word or pair) counts once per task; its weight is its rarity among the tasks. The score of a task is the
 * share of the question's weight that it covers: a first sieve, before the alignment looks at order and slots. */
#include "know/know_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int grow_features(struct ag_know *k)
{
	size_t cap = k->cap_features ? k->cap_features * 2 : 262144;
	struct feature *table = calloc(cap, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < k->cap_features; i++) {
		size_t at;

		if (!k->features[i].hash)
			continue;
		for (at = k->features[i].hash & (cap - 1); table[at].hash; at = (at + 1) & (cap - 1))
			;
		table[at] = k->features[i];
	}
	free(k->features);
	k->features = table;
	k->cap_features = cap;
	return 0;
}

static uint64_t pair_hash(uint32_t a, uint32_t b)
{
	uint64_t x = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;

	x ^= x >> 29;
	return x ? x : 1;
}

static int add_feature(struct ag_know *k, uint64_t hash, uint32_t task)
{
	struct feature *f;
	size_t at;
	int r;

	if (k->n_features * 4 >= k->cap_features * 3) {
		r = grow_features(k);
		if (r < 0)
			return r;
	}
	for (at = hash & (k->cap_features - 1); k->features[at].hash && k->features[at].hash != hash;
	     at = (at + 1) & (k->cap_features - 1))
		;
	f = &k->features[at];
	if (!f->hash) {
		f->hash = hash;
		k->n_features++;
	} else if (f->last_task == task + 1) {
		return 0;
	}
	if (k->n_postings == k->cap_postings) {
		size_t cap = k->cap_postings ? k->cap_postings * 2 : 65536;
		struct posting *p = realloc(k->postings, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		k->postings = p;
		k->cap_postings = cap;
	}
	if (!k->n_postings)
		k->n_postings = 1; /* 0 ends a chain */
	k->postings[k->n_postings] = (struct posting){ task, f->postings };
	f->postings = (uint32_t)k->n_postings++;
	f->last_task = task + 1;
	f->n_tasks++;
	return 0;
}

int ag_know_index_word(struct ag_know *k, uint32_t word, uint32_t task)
{
	return add_feature(k, pair_hash(0, word), task);
}

int ag_know_index_pair(struct ag_know *k, uint32_t a, uint32_t b, uint32_t task)
{
	return add_feature(k, pair_hash(a, b), task);
}

static const struct feature *find_feature(const struct ag_know *k, uint64_t hash)
{
	size_t at;

	if (!k->cap_features)
		return NULL;
	for (at = hash & (k->cap_features - 1); k->features[at].hash; at = (at + 1) & (k->cap_features - 1))
		if (k->features[at].hash == hash)
			return &k->features[at];
	return NULL;
}

static float add_score(const struct ag_know *k, uint64_t hash, float scale, float *scores)
{
	const struct feature *f = find_feature(k, hash);
	float w;

	if (!f)
		return 0;
	w = scale * logf((float)(k->n_tasks + 1) / ((float)f->n_tasks + 0.5f));
	if (w <= 0)
		return 0;
	for (uint32_t p = f->postings; p; p = k->postings[p].next)
		scores[k->postings[p].task] += w;
	return w;
}

static size_t take_best(float *scores, size_t n, uint32_t *ret_tasks, float *ret_scores, size_t max)
{
	size_t count = 0;

	for (size_t t = 0; t < n; t++) {
		size_t at;

		if (scores[t] <= 0 || (count == max && scores[t] <= ret_scores[count - 1]))
			continue;
		at = count < max ? count++ : count - 1;
		while (at && ret_scores[at - 1] < scores[t]) {
			ret_scores[at] = ret_scores[at - 1];
			ret_tasks[at] = ret_tasks[at - 1];
			at--;
		}
		ret_scores[at] = scores[t];
		ret_tasks[at] = (uint32_t)t;
	}
	return count;
}

size_t ag_know_candidates(const struct ag_know *k, const struct token *tokens, size_t n_tokens, uint32_t *ret_tasks,
                          float *ret_scores, size_t max)
{
	float *scores = calloc(k->n_tasks + 1, sizeof(*scores)), total = 0;
	size_t n;

	if (!scores)
		return 0;
	for (size_t i = 0; i < n_tokens; i++) {
		float scale = ag_know_is_filler(tokens[i].text, tokens[i].len) ? 0.15f : 1;

		if (!tokens[i].word) {
			if (!ag_know_is_value(&tokens[i]))
				total += 0.5f * tokens[i].weight;
			continue;
		}
		total += add_score(k, pair_hash(0, tokens[i].word), tokens[i].is_cjk ? scale * 0.6f : scale, scores);
		if (i && tokens[i].is_cjk && tokens[i - 1].is_cjk && tokens[i - 1].word)
			total += add_score(k, pair_hash(tokens[i - 1].word, tokens[i].word),
			                   scale < 1 && ag_know_is_filler(tokens[i - 1].text, tokens[i - 1].len) ? 0.15f
			                                                                                         : 1,
			                   scores);
	}
	n = take_best(scores, k->n_tasks, ret_tasks, ret_scores, max);
	for (size_t i = 0; i < n && total > 0; i++)
		ret_scores[i] /= total;
	free(scores);
	return n;
}
