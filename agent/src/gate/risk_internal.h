/* What the files of the risk assessment share: risk.c walks the tree, risk_found.c keeps what it finds and its memory,
 * risk_expand.c turns words into the arguments that are known before anything runs, risk_wrap.c sees through sudo and
 * its like, risk_target.c judges programs by what they are pointed at, risk_path.c names places of the file system,
 * risk_table.c is the data about programs. */
#ifndef AG_GATE_RISK_INTERNAL_H
#define AG_GATE_RISK_INTERNAL_H

#include "gate.h"

enum {
	GATE_UNKNOWN_BYTE = 1, /* in expanded text: something that is not known */
	GATE_MAX_STEPS = 5000, /* commands judged in one line */
	GATE_MAX_EVAL_DEPTH = 24,
	GATE_MAX_POOL_BYTES = 32 * 1024 * 1024,
};

struct gate_var {
	const char *name;
	const char *value; /* may hold GATE_UNKNOWN_BYTE */
	bool array;
	struct gate_var *next; /* older ones */
};

struct gate_function {
	const char *name;
	const struct ag_gate_node *body; /* a function of the line, or ... */
	const char *alias;               /* ... the text of an alias */
	bool busy;
	struct gate_function *next;
};

struct gate_eval {
	struct ag_gate_risk *risk; /* risk_found.c's: all memory below belongs to it */
	size_t max_commands, max_findings;
	const char *home, *cwd, *mounts;
	struct gate_var *vars;
	struct gate_function *functions;
	int error; /* -ENOMEM */
	bool cut;  /* a limit was met */
	unsigned depth, steps;
	unsigned inherited;     /* AG_GATE_ROOT, AG_GATE_REMOTE of the wrappers around */
	bool piped;             /* standard input comes from a pipe or a file */
	const char *stdin_text; /* what it brings, when known */
};

/* What is thought of one command. */
struct gate_opinion {
	enum ag_gate_class class;
	unsigned flags;
	const char *why, *word; /* of the worst */
};

/* risk_found.c */
struct ag_gate_risk *ag_gate_risk_new(void); /* NULL: no memory; ag_gate_risk_free() */
/* Trees of inner lines, taken: functions point into them until all is judged. False: no room, and it is freed. */
bool ag_gate_keep_tree(struct gate_eval *ev, struct ag_gate_tree *tree);
void ag_gate_trees_free(struct gate_eval *ev);
void ag_gate_pool_anew(struct gate_eval *ev);                /* its ceiling counts from here */
void *ag_gate_pool_alloc(struct gate_eval *ev, size_t size); /* zeroed; NULL sets ev->error or ev->cut */
char *ag_gate_pool_text(struct gate_eval *ev, const char *text, size_t len);
char *ag_gate_pool_take(struct gate_eval *ev, struct base_buf *b); /* the text, the buffer done; never NULL */
void ag_gate_opinion_raise(struct gate_opinion *o, enum ag_gate_class class, unsigned flags, const char *why,
                           const char *word);

void ag_gate_add(struct gate_eval *ev, char **argv, size_t argc, const struct gate_opinion *o, bool wrapper);
void ag_gate_add_cut(struct gate_eval *ev, const char *why, const char *word); /* what cannot be judged */

/* risk_expand.c: NULL-terminated arrays from the pool; never NULL unless ev->error or ev->cut. */
char **ag_gate_expand(struct gate_eval *ev, const struct ag_gate_word *words, size_t *ret_n);
const char *ag_gate_expand_one(struct gate_eval *ev, const struct ag_gate_word *word); /* no splitting */
void ag_gate_var_set(struct gate_eval *ev, const char *name, const char *value, bool array);
const struct gate_var *ag_gate_var_get(const struct gate_eval *ev, const char *name);
static inline bool gate_is_known(const char *text)
{
	for (; *text; text++)
		if (*text == GATE_UNKNOWN_BYTE)
			return false;
	return true;
}

/* risk.c */
void ag_gate_eval_text(struct gate_eval *ev, const char *text); /* a command line inside the line */
void ag_gate_eval_argv(struct gate_eval *ev, char **argv, size_t argc);

/* risk_wrap.c: true when argv runs another command, which then was judged. */
bool ag_gate_wrapper(struct gate_eval *ev, char **argv, size_t argc);

/* risk_target.c: programs judged by their arguments; false when argv[0] is not one of them. */
bool ag_gate_target(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o);
void ag_gate_write_target(struct gate_eval *ev, const char *path, bool append, struct gate_opinion *o);

/* risk_table.c: false when the program is not in it. */
bool ag_gate_table(char **argv, size_t argc, struct gate_opinion *o);
/* argv has the option: "-r", "--recursive", or "-r" within "-fr". */
bool ag_gate_has_option(char **argv, size_t argc, const char *option);
bool ag_gate_glob(const char *pattern, const char *text); /* '*', '?', [set]; '|' separates alternatives */

/* risk_path.c */
enum gate_place {
	GATE_PLACE_OTHER,
	GATE_PLACE_NONE,     /* /dev/null, /dev/tty, /dev/fd/N: nothing is kept there */
	GATE_PLACE_ROOT,     /* "/", all in it */
	GATE_PLACE_TOP,      /* /etc, /usr, /home ... itself, or all in it */
	GATE_PLACE_SYSTEM,   /* below one of these, the users' homes excepted */
	GATE_PLACE_HOME,     /* a whole home folder */
	GATE_PLACE_DEVICE,   /* a disk, a partition, memory */
	GATE_PLACE_IN_USE,   /* such a disk with mounted file systems, or swap */
	GATE_PLACE_UNSET,    /* becomes ROOT or TOP when a variable is empty */
	GATE_PLACE_ALL_HERE, /* *, ., .. */
	GATE_PLACE_TEMP,     /* in /tmp, /var/tmp, /dev/shm */
};
enum gate_place ag_gate_place(struct gate_eval *ev, const char *path);
bool ag_gate_is_secret_path(const char *path);

#endif
