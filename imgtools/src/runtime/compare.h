/* Is a slim root as good as the full one for a command? It is run in both, and what is seen from outside is compared:
 * exit status, output, the files it made or changed. Where they differ, both runs are traced to find what is missing.
 *
 * Parts that change from run to run are no difference: see img_volatile_mask() for what is masked in text; whatever
 * still differs between two runs in the full root (the full root is asked twice then) is not held against the slim one;
 * and caches are not looked at (img_volatile_path()). */
#ifndef IMG_COMPARE_H
#define IMG_COMPARE_H

#include "runtime.h"

enum img_missing_why {
	IMG_MISSING_USED,   /* looked for in vain in the slim root; opened or executed in the full one */
	IMG_MISSING_LOOKED, /* the same; in the full one only its existence, a link or a listing mattered */
	IMG_MISSING_NEXT,   /* touched in the full root; the run in the slim one did not get so far */
	IMG_MISSING_EXISTS, /* looked for in vain in the slim root; exists in the full one, where it was not touched */
};

struct img_missing {
	char *path; /* as it is in the full root */
	enum img_missing_why why;
};

struct img_comparison {
	bool is_equal;
	/* What differs, a line each ("exit status: 0 in the full root, 1 in the slim one"); "" when nothing does. */
	struct base_buf differences;
	struct img_run_result full, slim; /* of the first run in each; slim is empty when it could not be started */
	struct img_missing *missing;      /* the likeliest first */
	size_t n_missing;
};

/* run->roots is not used; output is captured whatever run says. 0 also when they differ. An error when the command
 * cannot be started in the full root, or something else fails. *ret is the caller's: img_comparison_done(). */
int img_compare(const struct img_run *run, const char *full_root, const char *slim_root, struct img_comparison *ret,
                struct err *err);
void img_comparison_done(struct img_comparison *c);

const char *img_missing_why_text(enum img_missing_why why); /* "was used", ... */

/* Appends the text with what changes from run to run replaced: addresses (0x7ffd12345678), dates and times of day
 * (2026-01-31, 12:34:56.789), amounts of time (1.5 ms, 12 seconds), numbers behind "pid", UUIDs, numbers of ten digits
 * and more (seconds since 1970), names in temporary folders (/tmp/x8f3a). */
int img_volatile_mask(const char *text, size_t size, struct base_buf *ret);
/* Whether what happens at a path does not matter: temporary folders, /run, caches (/var/cache, .cache, __pycache__). */
bool img_volatile_path(const char *path);

#endif
