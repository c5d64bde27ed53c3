/* Matching: the index proposes tasks, the alignment ranks them and finds the values.
 *
 * How sure it is: certain when nearly everything of the question is explained, the runner-up that would give another
 * command is clearly behind, and every slot has a value; likely when the best explains most. The limits were set on the
 * development questions (agent/knowledge/dev_questions.tsv). */
#include "know/know_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const float SHARE_ALIGN = 0.75f; /* the rest is the index's score */
static const float LEFTOVER = 0.15f;
static const float CERTAIN = 0.88f, CERTAIN_MARGIN = 0.06f, CERTAIN_MISSING = 0.8f, LIKELY = 0.55f;

static int compare_scored(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;

	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return x->task < y->task ? -1 : x->task > y->task;
}

static bool has_text(const struct know_query *q, const char *word)
{
	return strstr(q->text, word) != NULL;
}

/* What the words say beyond the alignment: a question that only asks is not an order. */
bool ag_know_asks_only(const char *question)
{
	static const char *const cues[] = { "查看",     "看看",     "看下",     "看一下", "查一下",   "查询",
		                            "列出",     "显示",     "多少",     "哪些",   "哪个",     "有没有",
		                            "是不是",   "是否",     "什么",     "谁",     "吗",       "多大",
		                            "几个",     "在哪",     "为什么",   "what",   "which",    "show",
		                            "list ",    "how many", "how much", "who ",   "is there", "are there",
		                            "anything", "display",  "is the",   "is it",  "why",      "where",
		                            "check ",   "does ",    "status" };
	char lower[KNOW_MAX_TEXT];
	size_t n = strnlen(question, sizeof(lower) - 1);

	for (size_t i = 0; i < n; i++)
		lower[i] = (char)(question[i] >= 'A' && question[i] <= 'Z' ? question[i] + 32 : question[i]);
	lower[n] = '\0';
	for (size_t i = 0; i < sizeof(cues) / sizeof(cues[0]); i++)
		if (strstr(lower, cues[i]))
			return true;
	return false;
}

void ag_know_query(const struct ag_know *k, const char *question, struct know_query *q)
{
	uint32_t tasks[KNOW_CANDIDATES];
	float scores[KNOW_CANDIDATES];

	memset(q, 0, sizeof(*q));
	q->n_tokens = ag_know_tokenize(k, question, q->text, q->tokens);
	q->n = ag_know_candidates(k, q->tokens, q->n_tokens, tasks, scores, KNOW_CANDIDATES);
	for (size_t i = 0; i < q->n; i++) {
		struct scored *s = &q->best[i];

		s->task = tasks[i];
		ag_know_align(k, &k->tasks[tasks[i]], q->tokens, q->n_tokens, &s->a);
		s->score = SHARE_ALIGN * s->a.score + (1 - SHARE_ALIGN) * scores[i];
		/* A path or a port that the task has no use for: the question means something else. */
		if (s->a.leftover_value)
			s->score = s->score > LEFTOVER ? s->score - LEFTOVER : 0;
	}
	qsort(q->best, q->n, sizeof(q->best[0]), compare_scored);
}

int ag_know_query_rank(const struct know_query *q, uint32_t task)
{
	for (size_t i = 0; i < q->n; i++)
		if (q->best[i].task == task)
			return (int)i;
	return -1;
}

/* ---- Results ------------------------------------------------------------------------------------------------ */

static int fill_values(const struct task *t, const struct know_query *q, const struct alignment *a,
                       struct ag_know_match *m)
{
	char value[512];

	m->n_slots = t->n_slots;
	for (uint8_t i = 0; i < t->n_slots; i++) {
		const uint8_t *span = a->span[i];

		m->slots[i].name = t->slots[i].name;
		m->slots[i].type = t->slots[i].type;
		if (span[1] <= span[0] || !ag_know_slot_value(t->slots[i].kind, q->tokens + span[0],
		                                              (size_t)(span[1] - span[0]), value, sizeof(value))) {
			m->n_unfilled++;
			continue;
		}
		m->slots[i].value = strdup(value);
		if (!m->slots[i].value)
			return -ENOMEM;
	}
	return 0;
}

/* docker in the template, podman in the question. */
static void use_podman(struct base_buf *command)
{
	for (char *s = command->data; s && (s = strstr(s, "docker ")); s += 7)
		if (s == command->data || s[-1] == '(' || s[-1] == ' ')
			memcpy(s, "podman ", 7);
}

int ag_know_query_result(const struct ag_know *k, const struct know_query *q, size_t at, struct ag_know_match *ret)
{
	const struct scored *s = &q->best[at];
	const struct task *t = &k->tasks[s->task];
	struct base_buf command = BASE_BUF_INIT(8192);
	char *values[AG_KNOW_MAX_SLOTS];
	int r;

	*ret = (struct ag_know_match){ .id = t->id,
		                       .explain_zh = t->explain_zh,
		                       .explain_en = t->explain_en,
		                       .packages = t->packages,
		                       .template = t->command,
		                       .risk = t->risk,
		                       .score = s->score };
	r = fill_values(t, q, &s->a, ret);
	for (uint8_t i = 0; i < AG_KNOW_MAX_SLOTS; i++)
		values[i] = ret->slots[i].value;
	if (r == 0)
		r = ag_know_fill(t, values, &command);
	if (r == 0 && has_text(q, "podman") && !has_text(q, "docker"))
		use_podman(&command);
	ret->command = r == 0 ? base_buf_take(&command) : NULL;
	base_buf_done(&command);
	if (!ret->command) {
		ag_know_match_done(ret);
		return -ENOMEM;
	}
	if (s->score >= LIKELY)
		ret->certainty = AG_KNOW_LIKELY;
	return 0;
}

/* The runner-up that would give another command. */
static float other_score(const struct ag_know *k, const struct know_query *q, const char *command)
{
	float score = 0;

	for (size_t i = 1; i < q->n && i < 6 && score == 0; i++) {
		struct ag_know_match other;

		if (ag_know_query_result(k, q, i, &other) < 0)
			return 1;
		if (!ag_know_same_command(command, other.command))
			score = (float)other.score - 0.08f * (float)other.n_unfilled;
		ag_know_match_done(&other);
	}
	return score;
}

int ag_know_match(const struct ag_know *k, const char *question, struct ag_know_match *results, size_t n)
{
	struct know_query *q = malloc(sizeof(*q));
	size_t count = 0;

	if (!q)
		return -ENOMEM;
	ag_know_query(k, question, q);
	for (; count < n && count < q->n; count++) {
		if (ag_know_query_result(k, q, count, &results[count]) < 0) {
			ag_know_matches_done(results, count);
			free(q);
			return -ENOMEM;
		}
	}
	if (count && results[0].certainty == AG_KNOW_LIKELY && results[0].n_unfilled == 0 &&
	    results[0].score >= CERTAIN && q->best[0].a.missing <= CERTAIN_MISSING && !q->best[0].a.leftover_value &&
	    results[0].score - other_score(k, q, results[0].command) >= CERTAIN_MARGIN)
		results[0].certainty = AG_KNOW_CERTAIN;
	free(q);
	return (int)count;
}

void ag_know_match_done(struct ag_know_match *m)
{
	for (size_t i = 0; i < AG_KNOW_MAX_SLOTS; i++)
		free(m->slots[i].value);
	free(m->command);
	memset(m, 0, sizeof(*m));
}

void ag_know_matches_done(struct ag_know_match *results, size_t n)
{
	for (size_t i = 0; i < n; i++)
		ag_know_match_done(&results[i]);
}

int ag_know_prompt(const struct ag_know *k, const char *question, size_t n, struct base_buf *out)
{
	struct ag_know_match m[8];
	int count = ag_know_match(k, question, m, n < 8 ? n : 8);

	if (count < 0)
		return count;
	for (int i = 0; i < count; i++)
		(void)base_buf_printf(out, "%s | %s | %s\n", m[i].id, m[i].template, m[i].explain_en);
	ag_know_matches_done(m, (size_t)count);
	return base_buf_error(out);
}

int ag_know_hints(const struct ag_know *k, const char *question, size_t n, struct base_buf *out)
{
	struct know_query *q = malloc(sizeof(*q));

	if (!q)
		return -ENOMEM;
	ag_know_query(k, question, q);
	for (size_t i = 0; i < n && i < q->n; i++)
		(void)base_buf_printf(out, "%s%.96s", i ? "\n" : "", k->tasks[q->best[i].task].command);
	free(q);
	return base_buf_error(out);
}

const char *ag_know_certainty_name(enum ag_know_certainty certainty)
{
	return certainty == AG_KNOW_CERTAIN ? "certain" : certainty == AG_KNOW_LIKELY ? "likely" : "unsure";
}
