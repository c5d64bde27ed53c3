/* A growing byte buffer with a ceiling given at birth: no outside input can make it larger.
 *
 * Errors are sticky: after one failed append every later one fails too and the content stays as it
 * was, so a writer may append many pieces and look at base_buf_error() once. One owner, one thread. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct base_buf {
	char *data; /* always NUL-terminated once anything was appended; NULL before */
	size_t len; /* bytes in use, without the NUL */
	size_t cap; /* allocated */
	size_t max; /* ceiling for len */
	int error;  /* 0, -ENOMEM or -EFBIG */
};

#define BASE_BUF_INIT(max_bytes)   \
	{                          \
		.max = (max_bytes) \
	}

void base_buf_init(struct base_buf *b, size_t max_bytes);
void base_buf_done(struct base_buf *b);
void base_buf_reset(struct base_buf *b); /* empties, keeps the memory, clears the error */

int base_buf_append(struct base_buf *b, const void *data, size_t len);
int base_buf_puts(struct base_buf *b, const char *text);
int base_buf_putc(struct base_buf *b, char c);
int base_buf_printf(struct base_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int base_buf_reserve(struct base_buf *b, size_t extra); /* room for `extra` more bytes */

static inline int base_buf_error(const struct base_buf *b)
{
	return b->error;
}

/* The text, never NULL; valid until the next change. */
const char *base_buf_text(const struct base_buf *b);

/* Hands the NUL-terminated memory to the caller (free()); the buffer is empty afterwards.
 * NULL when an error is pending. */
char *base_buf_take(struct base_buf *b);

#endif
