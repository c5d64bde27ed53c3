/* Errors with words.
 *
 * Whatever can fail returns 0 (or a useful positive count) or a negative errno. Where a person will
 * need words, the last parameter is a `struct err *`: owned by the caller, fixed size, may be NULL.
 * The deepest function that knows the facts fills it once; callers may put context in front of it. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum { ERR_MSG_SIZE = 512 };

struct err {
	int code;               /* the negative errno; 0 means never set */
	char msg[ERR_MSG_SIZE]; /* one line without control characters, cut at a character boundary when too long */
};

/* Fills err (when not NULL) and returns code, so that `return err_set(err, -EINVAL, ...)` reads well. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts context in front of what is already there; sets it when nothing was. Returns code. */
int err_prefix(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The words, or strerror() of the code when nobody left any. Never NULL. */
const char *err_text(const struct err *err);

#endif
