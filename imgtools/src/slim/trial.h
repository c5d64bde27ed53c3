/* A command that is run in the full tree and in the slim one, and what the difference says. */
#ifndef IMG_TRIAL_H
#define IMG_TRIAL_H

#include "runtime/compare.h"
#include "slim/bindings.h"
#include "trace/trace.h"
#include "tree/tree.h"

struct img_trial {
	char *text;    /* as it was given */
	char **argv;   /* ended by NULL */
	bool is_check; /* not traced for what it needs: a second opinion */
	struct img_run_result full, slim;
	struct img_trace *trace; /* of the full run; NULL for a check */
	/* After a run in the slim tree. */
	bool passed;
	char verdict[ERR_MSG_SIZE]; /* "exit status: 0 in the full root, 1 in the slim one"; "" when all is the same */
	struct img_missing *missed; /* the likeliest first */
	size_t n_missed;
	unsigned n_rounds;
};

struct img_trial_place {
	const char *root; /* a folder with the whole tree */
	const char *const *env;
	const char *user, *cwd;
	uint64_t timeout_ms;
};

/* Splits a command line as a shell would, without expanding anything. -EINVAL for a quote that is not closed. */
int img_trial_init(struct img_trial *t, const char *text, bool is_check, struct err *err);
int img_trial_init_words(struct img_trial *t, char *const *words, size_t n, struct err *err);
void img_trial_done(struct img_trial *t);

/* Runs in the full tree and records what it touches. An exit code other than 0 is no error: the slim tree must do the
 * same. */
int img_trial_run_full(struct img_trial *t, const struct img_trial_place *p, struct err *err);
/* Runs again for the dynamic linker's words, which go to `work`/ld. */
int img_trial_bindings(struct img_trial *t, const struct img_trial_place *p, const char *work, struct img_bindings *b,
                       struct err *err);
/* Runs in both and compares; `full_root` is that of the place. */
int img_trial_compare(struct img_trial *t, const struct img_trial_place *p, const char *slim_root, struct err *err);

#endif
