/* The capped buffer. Growth is by half, so appends cost amortized constant time. */
#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void base_buf_init(struct base_buf *b, size_t max_bytes)
{
	*b = (struct base_buf)BASE_BUF_INIT(max_bytes);
}

void base_buf_done(struct base_buf *b)
{
	free(b->data);
	*b = (struct base_buf)BASE_BUF_INIT(b->max);
}

void base_buf_reset(struct base_buf *b)
{
	b->len = 0;
	b->error = 0;
	if (b->data)
		b->data[0] = '\0';
}

int base_buf_reserve(struct base_buf *b, size_t extra)
{
	size_t want, cap;
	char *p;

	if (b->error)
		return b->error;
	if (extra > b->max || b->len > b->max - extra)
		return b->error = -EFBIG;
	want = b->len + extra + 1;
	if (want <= b->cap)
		return 0;
	cap = b->cap + b->cap / 2;
	if (cap < want)
		cap = want;
	if (cap < 64)
		cap = 64;
	p = realloc(b->data, cap);
	if (!p)
		return b->error = -ENOMEM;
	b->data = p;
	b->cap = cap;
	b->data[b->len] = '\0'; /* text from the first moment, also when nothing follows */
	return 0;
}

int base_buf_append(struct base_buf *b, const void *data, size_t len)
{
	int r = base_buf_reserve(b, len);

	if (r < 0)
		return r;
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int base_buf_puts(struct base_buf *b, const char *text)
{
	return base_buf_append(b, text, strlen(text));
}

int base_buf_putc(struct base_buf *b, char c)
{
	return base_buf_append(b, &c, 1);
}

int base_buf_printf(struct base_buf *b, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	if (b->error)
		return b->error;
	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return b->error = -EINVAL;
	r = base_buf_reserve(b, (size_t)n);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	(void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return 0;
}

const char *base_buf_text(const struct base_buf *b)
{
	return b->data ? b->data : "";
}

char *base_buf_take(struct base_buf *b)
{
	char *p;

	if (base_buf_reserve(b, 0) < 0)
		return NULL;
	b->data[b->len] = '\0';
	p = b->data;
	*b = (struct base_buf)BASE_BUF_INIT(b->max);
	return p;
}
