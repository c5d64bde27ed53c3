/* The catalogue and the model together: which command is offered.
 *
 * A small model answers fluently and is sometimes wrong with full confidence, dangerously so. The catalogue knows what
 * its commands are for. Every command of the model is looked up among the templates: if it is an instance of a task,
 * that task should be among those that the question names, and its values should be in the question. What the catalogue
 * does not have is judged by risk: the question sets how much may be changed. */
#include "know/know_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float BEHIND = 0.12f;          /* the model's task may score this much less than the best */
static const float FAR_BEHIND = 0.3f;       /* so much less is no near miss */
static const float UNKNOWN_COMMAND = 0.65f; /* a catalogue answer against a command that it does not have */
static const float TRUSTED = 0.62f;         /* a catalogue answer that stands against a model */
static const float CLEAR = 0.85f;           /* a task that makes an order of a question with a question's words */
static const float NEAR_ENOUGH = 0.35f;     /* a model's task that the question at least resembles */

/* What is known about a command. */
struct origin {
	int rank; /* among the question's candidates, -1: not there */
	int task; /* -1: not in the catalogue */
	float score;
	enum ag_know_risk risk;
	char values[AG_KNOW_MAX_SLOTS][128];
};

static void find_origin(const struct ag_know *k, const struct know_query *q, const char *command, struct origin *o)
{
	char values[AG_KNOW_MAX_SLOTS][128];
	size_t best_slots = AG_KNOW_MAX_SLOTS + 1;

	*o = (struct origin){ .rank = -1, .task = -1 };
	for (size_t i = 0; i < k->n_tasks; i++) {
		int rank;

		if (!ag_know_is_instance(&k->tasks[i], command, values))
			continue;
		rank = ag_know_query_rank(q, (uint32_t)i);
		/* Nearest to the question first; otherwise the template with the fewest open places. */
		if (o->task >= 0 && !(rank >= 0 && (o->rank < 0 || rank < o->rank)) &&
		    !(rank < 0 && o->rank < 0 && k->tasks[i].n_slots < best_slots))
			continue;
		o->task = (int)i;
		o->rank = rank;
		best_slots = k->tasks[i].n_slots;
		memcpy(o->values, values, sizeof(values));
	}
	o->score = o->rank >= 0 ? q->best[o->rank].score : 0;
	o->risk = o->task >= 0 ? k->tasks[o->task].risk : ag_know_guess_risk(command);
}

static bool same_text(const char *a, size_t n, const char *b)
{
	return strlen(b) == n && strncasecmp(a, b, n) == 0;
}

/* The value is in the question, perhaps in another form ("500兆", "ten", sdb for /dev/sdb). */
static bool value_is_asked(const struct know_query *q, int kind, const char *value)
{
	char form[512];

	if (strcasestr(q->text, value))
		return true;
	for (size_t i = 0; i < q->n_tokens; i++) {
		if (same_text(q->tokens[i].text, q->tokens[i].len, value))
			return true;
		for (size_t n = 1; n <= 4 && i + n <= q->n_tokens; n++)
			if (ag_know_slot_value(kind, q->tokens + i, n, form, sizeof(form)) &&
			    strcasecmp(form, value) == 0)
				return true;
	}
	return false;
}

static bool values_are_asked(const struct ag_know *k, const struct know_query *q, const struct origin *o)
{
	const struct task *t = &k->tasks[o->task];

	for (uint8_t i = 0; i < t->n_slots; i++)
		if (o->values[i][0] && !value_is_asked(q, t->slots[i].kind, o->values[i]))
			return false;
	return true;
}

static void set_answer(struct ag_know_answer *a, enum ag_know_verdict verdict, const char *command, const char *reason)
{
	a->verdict = verdict;
	(void)snprintf(a->command, sizeof(a->command), "%s", command);
	(void)snprintf(a->reason, sizeof(a->reason), "%s", reason);
}

/* Most that the question lets the command do. A question that only asks lets nothing change. An order may change; it
 * may destroy when a task near to it does. */
static enum ag_know_risk allowed_risk(const struct ag_know *k, const struct know_query *q, const char *question,
                                      const struct origin *o)
{
	if (ag_know_asks_only(question)) {
		bool order = q->n && q->best[0].score >= CLEAR && k->tasks[q->best[0].task].risk > AG_KNOW_READ;

		return order ? k->tasks[q->best[0].task].risk : AG_KNOW_READ;
	}
	if (o->rank >= 0 && o->risk == AG_KNOW_DESTRUCTIVE && o->score >= NEAR_ENOUGH)
		return AG_KNOW_DESTRUCTIVE;
	for (size_t i = 0; i < q->n && q->best[i].score >= q->best[0].score - BEHIND; i++)
		if (k->tasks[q->best[i].task].risk == AG_KNOW_DESTRUCTIVE)
			return AG_KNOW_DESTRUCTIVE;
	return AG_KNOW_CHANGE;
}

/* Why the model's command should not be offered, or NULL. */
static const char *objection(const struct ag_know *k, const struct know_query *q, const char *question,
                             const struct ag_know_match *top, const struct origin *o)
{
	bool complete = top->n_unfilled == 0;

	if (o->risk > allowed_risk(k, q, question, o))
		return "the command changes more than the question asks for";
	if (top->certainty == AG_KNOW_CERTAIN && complete)
		return "the catalogue is certain of another command";
	/* Never from looking to changing. */
	if (top->risk > o->risk)
		return NULL;
	if (o->task < 0)
		return complete && top->score >= UNKNOWN_COMMAND ? "the catalogue has another command for this" : NULL;
	if (!values_are_asked(k, q, o))
		return "the command has values that are not in the question";
	/* What changes the system needs better grounds than what only looks. */
	if (o->risk > AG_KNOW_READ && complete && top->score >= TRUSTED && o->score < top->score - FAR_BEHIND)
		return "another task fits the question better";
	/* A task that the question does not even resemble. */
	if (o->rank < 0 && top->score >= TRUSTED && complete)
		return "another task fits the question better";
	return NULL;
}

static void take_catalogue(const struct ag_know_match *top, enum ag_know_verdict verdict, const char *reason,
                           struct ag_know_answer *a)
{
	set_answer(a, verdict, top->n_unfilled ? "" : top->command, reason);
	a->from_catalogue = true;
	a->certainty = top->certainty;
	a->risk = top->risk;
	(void)snprintf(a->task_id, sizeof(a->task_id), "%s", top->id);
}

static void take_model(const struct ag_know *k, const struct ag_know_match *top, const struct origin *o,
                       const char *command, struct ag_know_answer *a)
{
	bool agree = top && !top->n_unfilled && ag_know_same_command(top->command, command);

	set_answer(a, AG_KNOW_ACCEPT, command, "");
	a->risk = o->risk;
	a->certainty = agree ? AG_KNOW_CERTAIN : o->task >= 0 && o->score >= TRUSTED ? AG_KNOW_LIKELY : AG_KNOW_UNSURE;
	if (o->task >= 0)
		(void)snprintf(a->task_id, sizeof(a->task_id), "%s", k->tasks[o->task].id);
}

/* The model chose a task well and a value badly: the same task, filled from the question. */
static bool repair(const struct ag_know *k, const struct know_query *q, const struct ag_know_match *top,
                   const struct origin *o, struct ag_know_answer *a)
{
	struct ag_know_match m;
	bool ok;

	if (o->rank < 0 || o->score < top->score - BEHIND || ag_know_query_result(k, q, (size_t)o->rank, &m) < 0)
		return false;
	ok = m.n_unfilled == 0;
	if (ok)
		take_catalogue(&m, AG_KNOW_PREFER_CATALOGUE, "the command had values that are not in the question", a);
	ag_know_match_done(&m);
	return ok;
}

/* A question that only asks, and no task fits well: the nearest task that only reads, if it is near at all. */
static void only_look(const struct ag_know *k, const struct know_query *q, struct ag_know_answer *a)
{
	static const char reason[] = "the question only asks, and the command changes something";
	struct ag_know_match m;

	set_answer(a, AG_KNOW_WARN, "", reason);
	for (size_t i = 0; i < q->n && q->best[i].score >= q->best[0].score - BEHIND; i++) {
		if (k->tasks[q->best[i].task].risk != AG_KNOW_READ || ag_know_query_result(k, q, i, &m) < 0)
			continue;
		if (m.n_unfilled == 0)
			take_catalogue(&m, AG_KNOW_PREFER_CATALOGUE, reason, a);
		ag_know_match_done(&m);
		if (a->from_catalogue)
			return;
	}
}

static void decide(const struct ag_know *k, const char *question, const char *command, const struct know_query *q,
                   const struct ag_know_match *top, struct ag_know_answer *a)
{
	const char *reason;
	struct origin o;

	if (!command || !*command) {
		if (top && top->certainty != AG_KNOW_UNSURE)
			take_catalogue(top, AG_KNOW_PREFER_CATALOGUE, "", a);
		else
			set_answer(a, AG_KNOW_WARN, "", "no task of the catalogue fits");
		return;
	}
	find_origin(k, q, command, &o);
	if (!top) {
		if (o.risk > AG_KNOW_READ && ag_know_asks_only(question))
			set_answer(a, AG_KNOW_WARN, "", "the question only asks, and the command changes something");
		else
			take_model(k, top, &o, command, a);
		return;
	}
	if (o.risk > AG_KNOW_READ && allowed_risk(k, q, question, &o) == AG_KNOW_READ && top->risk > AG_KNOW_READ) {
		only_look(k, q, a);
		return;
	}
	if (!top->n_unfilled && ag_know_same_command(top->command, command)) {
		take_model(k, top, &o, command, a);
		return;
	}
	reason = objection(k, q, question, top, &o);
	if (!reason) {
		take_model(k, top, &o, command, a);
		return;
	}
	if (o.task >= 0 && strstr(reason, "values") && repair(k, q, top, &o, a))
		return;
	if (!top->n_unfilled && top->certainty != AG_KNOW_UNSURE && top->risk <= allowed_risk(k, q, question, &o))
		take_catalogue(top, AG_KNOW_PREFER_CATALOGUE, reason, a);
	else if (o.risk > allowed_risk(k, q, question, &o))
		set_answer(a, AG_KNOW_WARN, "", reason);
	else {
		take_model(k, top, &o, command, a);
		a->verdict = AG_KNOW_WARN;
		a->certainty = AG_KNOW_UNSURE;
		(void)snprintf(a->reason, sizeof(a->reason), "%s", reason);
	}
}

int ag_know_decide(const struct ag_know *k, const char *question, const char *model_command,
                   struct ag_know_answer *ret_answer)
{
	struct know_query *q = malloc(sizeof(*q));
	struct ag_know_match top;
	int n;

	if (!q)
		return -ENOMEM;
	memset(ret_answer, 0, sizeof(*ret_answer));
	ag_know_query(k, question, q);
	n = ag_know_match(k, question, &top, 1);
	if (n >= 0)
		decide(k, question, model_command, q, n ? &top : NULL, ret_answer);
	if (n > 0)
		ag_know_match_done(&top);
	free(q);
	return n < 0 ? n : 0;
}

int ag_know_check_answer(const struct ag_know *k, const char *question, const char *command,
                         struct ag_know_answer *ret_answer)
{
	int r = ag_know_decide(k, question, command, ret_answer);

	if (r == 0 && ret_answer->verdict != AG_KNOW_ACCEPT && !ag_know_same_command(command, ret_answer->command))
		ret_answer->command[0] = '\0';
	return r;
}
