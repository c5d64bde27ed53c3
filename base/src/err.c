/* struct err: fill, prefix, read. Cutting never splits a UTF-8 sequence. Words often quote what came from outside, a
 * server's answer or a file's name: they stay on one line, and what could act on a terminal is taken out. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Drops a UTF-8 sequence that the size limit cut in half. */
static void trim_partial_utf8(char *s)
{
	size_t len = strlen(s), i = len;
	unsigned char lead;
	size_t need;

	while (i > 0 && ((unsigned char)s[i - 1] & 0xc0) == 0x80)
		i--;
	if (i == 0)
		return;
	lead = (unsigned char)s[i - 1];
	need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
	if (len - (i - 1) < need)
		s[i - 1] = '\0';
}

/* Blanks for C0 controls, question marks for DEL and the C1 controls (U+0080 to U+009F). */
static void make_harmless(char *s)
{
	char *out = s;

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == 0xc2 && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0) {
			*out++ = '?';
			s++;
		} else {
			*out++ = c < 0x20 ? ' ' : c == 0x7f ? '?' : (char)c;
		}
	}
	*out = '\0';
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, fmt);
	n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(err->msg))
		trim_partial_utf8(err->msg);
	make_harmless(err->msg);
	return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
	char old[ERR_MSG_SIZE];
	va_list ap;
	size_t n;
	int len;

	if (!err)
		return code;
	(void)snprintf(old, sizeof(old), "%s", err->code ? err->msg : strerror(-code));
	err->code = code;
	va_start(ap, fmt);
	len = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = len < 0 ? 0 : (size_t)len;
	if (n < sizeof(err->msg) - 1) {
		(void)snprintf(err->msg + n, sizeof(err->msg) - n, "%s", old);
		n += strlen(old);
	}
	if (n >= sizeof(err->msg))
		trim_partial_utf8(err->msg);
	make_harmless(err->msg);
	return code;
}

const char *err_text(const struct err *err)
{
	if (!err || !err->code)
		return "no error";
	return err->msg[0] ? err->msg : strerror(-err->code);
}
