/* The task catalogue: what an administrator may ask, and the command for it.
 *
 * Reads the *.tasks files (docs/formats/task-catalogue.md), finds the tasks nearest to a question, takes the values
 * of their slots out of the question, and judges a command that a model proposes for it. No network, no model, no
 * locale; a question costs a few milliseconds. An opened catalogue is read-only: threads may share it. */
#ifndef AG_KNOW_H
#define AG_KNOW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct ag_know;

enum ag_know_risk { AG_KNOW_READ, AG_KNOW_CHANGE, AG_KNOW_DESTRUCTIVE };

enum ag_know_certainty {
	AG_KNOW_UNSURE,  /* show it as "nearest tasks", do not offer to run it */
	AG_KNOW_LIKELY,  /* offer it, let a model confirm or choose */
	AG_KNOW_CERTAIN, /* all slots filled, clear margin: answer without a model */
};

enum { AG_KNOW_MAX_SLOTS = 6 };

struct ag_know_slot {
	const char *name; /* borrowed from the catalogue: "pkg", or "a" of {a:port} */
	const char *type; /* borrowed: "port" */
	char *value;      /* owned; NULL: the question does not say */
};

struct ag_know_match {
	const char *id, *explain_zh, *explain_en, *packages; /* borrowed from the catalogue; "" when it says nothing */
	const char *template;                                /* borrowed: the command with {slots} */
	enum ag_know_risk risk;
	enum ag_know_certainty certainty;
	double score;  /* 0 to 1 */
	char *command; /* owned: filled, quoted for the shell; unfilled slots stay as <name> */
	size_t n_slots, n_unfilled;
	struct ag_know_slot slots[AG_KNOW_MAX_SLOTS];
};

/* path: a folder of *.tasks files, or one such file. NULL: $OCAI_KNOWLEDGE_DIR, else agent/knowledge of the source tree
 * that this program was built in (build/<config>/bin/..), else PREFIX/share/ocai/knowledge. */
int ag_know_open(const char *path, struct ag_know **ret_know, struct err *err);
/* From memory, for tests: the text of one *.tasks file; name is for messages. */
int ag_know_parse(const char *name, const char *text, size_t len, struct ag_know **ret_know, struct err *err);
void ag_know_close(struct ag_know *k);
size_t ag_know_n_tasks(const struct ag_know *k);

/* The best tasks, best first, at most n. Returns how many were written (0: nothing in common with any task), or a
 * negative errno. Each result is given back with ag_know_match_done(). question: any bytes, NUL-terminated. */
int ag_know_match(const struct ag_know *k, const char *question, struct ag_know_match *results, size_t n);
void ag_know_match_done(struct ag_know_match *m);
void ag_know_matches_done(struct ag_know_match *results, size_t n);

/* Appends the best tasks as lines "id | template | explanation", for a larger model's prompt. */
int ag_know_prompt(const struct ag_know *k, const char *question, size_t n, struct base_buf *out);

/* Appends the templates of the best tasks, best first, one per line, cut to 96 bytes: what a model that was trained
 * with them (engine/models/mini) gets after its keyword. Nothing when nothing is near. */
int ag_know_hints(const struct ag_know *k, const char *question, size_t n, struct base_buf *out);

enum ag_know_verdict {
	AG_KNOW_ACCEPT,           /* the command fits the question as far as the catalogue can tell */
	AG_KNOW_PREFER_CATALOGUE, /* the catalogue's first task is the better answer */
	AG_KNOW_WARN, /* offer neither silently: the command does more than was asked, nothing better is known */
};

struct ag_know_answer {
	enum ag_know_verdict verdict;
	enum ag_know_certainty certainty; /* of `command` */
	enum ag_know_risk risk;           /* of `command`, as far as known from the catalogue; the gate decides */
	bool from_catalogue;
	char command[1024]; /* what to offer; "" when nothing should be offered */
	char task_id[64];   /* the catalogue's task that `command` is an instance of, or "" */
	char reason[256];   /* English, one sentence; "" when accepted without remark */
};

/* Is this model's command right for this question? (a) a question that only asks never gets a command that changes or
 * destroys; (b) the command's values come from the question; (c) a task that fits clearly better wins. Fills *ret,
 * with command "" unless the command given can stand. */
int ag_know_check_answer(const struct ag_know *k, const char *question, const char *command,
                         struct ag_know_answer *ret_answer);
/* The combination of both: what to offer. model_command may be NULL or "" (not asked, or no answer). */
int ag_know_decide(const struct ag_know *k, const char *question, const char *model_command,
                   struct ag_know_answer *ret_answer);

const char *ag_know_certainty_name(enum ag_know_certainty certainty);

#endif
