/* The tools of the room's readers: text cut into words by pointer and length, files below a root prefix, and JSON
 * values from bytes of unknown origin. Files of /proc have no size and change while they are read: a reader takes
 * what one pass gives, up to its ceiling, and a file that vanishes is simply not there. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sys/sys_internal.h"

bool ag_sys_next_line(struct sys_span *text, struct sys_span *ret_line)
{
	const char *end;

	if (text->n == 0)
		return false;
	end = memchr(text->p, '\n', text->n);
	ret_line->p = text->p;
	ret_line->n = end ? (size_t)(end - text->p) : text->n;
	text->p += ret_line->n + (end ? 1 : 0);
	text->n -= ret_line->n + (end ? 1 : 0);
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\0';
}

bool ag_sys_next_word(struct sys_span *line, struct sys_span *ret_word)
{
	size_t n = 0;

	while (line->n && is_blank(*line->p)) {
		line->p++;
		line->n--;
	}
	while (n < line->n && !is_blank(line->p[n]))
		n++;
	if (n == 0)
		return false;
	*ret_word = ag_sys_span(line->p, n);
	line->p += n;
	line->n -= n;
	return true;
}

bool ag_sys_skip_words(struct sys_span *line, unsigned n)
{
	struct sys_span word;

	while (n--) {
		if (!ag_sys_next_word(line, &word))
			return false;
	}
	return true;
}

bool ag_sys_is(struct sys_span s, const char *text)
{
	return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

bool ag_sys_starts(struct sys_span s, const char *text)
{
	size_t n = strlen(text);

	return s.n >= n && memcmp(s.p, text, n) == 0;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

bool ag_sys_number(struct sys_span word, unsigned base, uint64_t *ret)
{
	uint64_t v = 0;

	if (word.n == 0)
		return false;
	for (size_t i = 0; i < word.n; i++) {
		unsigned d = (unsigned)digit(word.p[i]);

		if (d >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
			return false;
	}
	*ret = v;
	return true;
}

bool ag_sys_next_number(struct sys_span *line, uint64_t *ret)
{
	struct sys_span word;

	return ag_sys_next_word(line, &word) && ag_sys_number(word, 10, ret);
}

bool ag_sys_keyed(struct sys_span text, const char *key, uint64_t *ret)
{
	struct sys_span line, word;

	while (ag_sys_next_line(&text, &line)) {
		if (!ag_sys_next_word(&line, &word))
			continue;
		if (word.n && word.p[word.n - 1] == ':')
			word.n--;
		if (ag_sys_is(word, key))
			return ag_sys_next_number(&line, ret);
	}
	return false;
}

size_t ag_sys_unescape(char *text, size_t n)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		int a = i + 3 < n ? digit(text[i + 1]) : 99, b = i + 3 < n ? digit(text[i + 2]) : 99;
		int c = i + 3 < n ? digit(text[i + 3]) : 99;

		if (text[i] == '\\' && a < 4 && b < 8 && c < 8) {
			text[out++] = (char)(a * 64 + b * 8 + c);
			i += 3;
		} else {
			text[out++] = text[i];
		}
	}
	return out;
}

/* ---- Files ---------------------------------------------------------------------------------------------- */

static int path_v(const struct sys_ctx *ctx, char *ret, size_t size, const char *fmt, va_list ap)
{
	int head = snprintf(ret, size, "%s", ctx->root);
	int tail;

	if (head < 0 || (size_t)head >= size)
		return -ENAMETOOLONG;
	tail = vsnprintf(ret + head, size - (size_t)head, fmt, ap);
	return tail < 0 || (size_t)tail >= size - (size_t)head ? -ENAMETOOLONG : 0;
}

int ag_sys_path(const struct sys_ctx *ctx, char *ret, size_t size, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = path_v(ctx, ret, size, fmt, ap);
	va_end(ap);
	return r;
}

static int open_v(const struct sys_ctx *ctx, int flags, const char *fmt, va_list ap)
{
	char path[4096];
	int r = path_v(ctx, path, sizeof(path), fmt, ap);

	if (r < 0)
		return r;
	/* Never wait for a writer, should a prefix hold a pipe. */
	r = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
	return r < 0 ? -errno : r;
}

static int read_fd(int fd, struct base_buf *buf)
{
	char piece[16384];

	base_buf_reset(buf);
	for (;;) {
		ssize_t n = read(fd, piece, sizeof(piece));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return buf->len ? 0 : -errno;
		if ((size_t)n > buf->max - buf->len)
			n = (ssize_t)(buf->max - buf->len);
		if (n == 0)
			return 0;
		if (base_buf_append(buf, piece, (size_t)n) < 0)
			return base_buf_error(buf);
	}
}

int ag_sys_read(const struct sys_ctx *ctx, struct base_buf *buf, const char *fmt, ...)
{
	CLEANUP(close_fdp) int fd = -1;
	va_list ap;

	base_buf_reset(buf);
	va_start(ap, fmt);
	fd = open_v(ctx, 0, fmt, ap);
	va_end(ap);
	return fd < 0 ? fd : read_fd(fd, buf);
}

int ag_sys_read_at(int dir_fd, const char *name, char *ret, size_t size, size_t *ret_len)
{
	CLEANUP(close_fdp) int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, ret, size - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	*ret_len = (size_t)n;
	return 0;
}

static int read_line_v(const struct sys_ctx *ctx, char *ret, size_t size, const char *fmt, va_list ap)
{
	CLEANUP(close_fdp) int fd = open_v(ctx, 0, fmt, ap);
	char *start = ret, *end;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, ret, size - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	end = ret + strcspn(ret, "\n");
	while (start < end && is_blank(*start))
		start++;
	while (end > start && is_blank(end[-1]))
		end--;
	*end = '\0';
	memmove(ret, start, (size_t)(end - start) + 1);
	return 0;
}

int ag_sys_read_line(const struct sys_ctx *ctx, char *ret, size_t size, const char *fmt, ...)
{
	va_list ap;
	int r;

	ret[0] = '\0';
	va_start(ap, fmt);
	r = read_line_v(ctx, ret, size, fmt, ap);
	va_end(ap);
	return r;
}

bool ag_sys_read_number(const struct sys_ctx *ctx, uint64_t *ret, const char *fmt, ...)
{
	char line[128];
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = read_line_v(ctx, line, sizeof(line), fmt, ap);
	va_end(ap);
	return r == 0 && ag_sys_number(ag_sys_span(line, strlen(line)), 10, ret);
}

DIR *ag_sys_opendir(const struct sys_ctx *ctx, const char *fmt, ...)
{
	DIR *dir;
	va_list ap;
	int fd;

	va_start(ap, fmt);
	fd = open_v(ctx, O_DIRECTORY, fmt, ap);
	va_end(ap);
	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (!dir)
		(void)close(fd);
	return dir;
}

void ag_sys_closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

const char *ag_sys_next_entry(DIR *dir)
{
	struct dirent *e;

	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			return e->d_name;
	}
	return NULL;
}

bool ag_sys_is_pid(const char *name)
{
	return *name && strlen(name) <= 10 && strspn(name, "0123456789") == strlen(name);
}

/* ---- JSON ------------------------------------------------------------------------------------------------- */

json_t *ag_sys_string(const char *p, size_t n)
{
	CLEANUP(freep) char *copy = malloc(n + 1);
	json_t *value;

	if (!copy)
		return NULL;
	copy[n] = '\0';
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)p[i];

		/* C2 80 to C2 9F are control characters too: a terminal may obey them. */
		bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] >= 0x80 && (unsigned char)p[i + 1] < 0xa0;

		copy[i] = c < 32 || c == 127 || c1 ? '?' : (char)c;
		if (c1)
			copy[++i] = '?';
	}
	value = json_stringn(copy, n);
	if (value)
		return value;
	for (size_t i = 0; i < n; i++)
		copy[i] = (unsigned char)copy[i] > 127 ? '?' : copy[i];
	return json_stringn(copy, n);
}

void ag_sys_set_span(json_t *obj, const char *key, struct sys_span text)
{
	(void)json_object_set_new(obj, key, ag_sys_string(text.p, text.n));
}

void ag_sys_set_text(json_t *obj, const char *key, const char *text)
{
	ag_sys_set_span(obj, key, ag_sys_span(text, strlen(text)));
}

void ag_sys_set_u64(json_t *obj, const char *key, uint64_t value)
{
	(void)json_object_set_new(obj, key, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

void ag_sys_set_real(json_t *obj, const char *key, double value)
{
	if (!isfinite(value))
		value = 0;
	(void)json_object_set_new(obj, key, json_real(round(value * 100) / 100));
}

json_t *ag_sys_array(json_t *obj, const char *key)
{
	if (!json_is_array(json_object_get(obj, key)))
		(void)json_object_set_new(obj, key, json_array());
	return json_object_get(obj, key);
}

json_t *ag_sys_object(json_t *obj, const char *key)
{
	if (!json_is_object(json_object_get(obj, key)))
		(void)json_object_set_new(obj, key, json_object());
	return json_object_get(obj, key);
}

void ag_sys_append_take(json_t *array, json_t *value)
{
	(void)json_array_append_new(array, value);
}

const json_t *ag_sys_lookup(const json_t *obj, const char *path)
{
	while (obj && *path) {
		size_t n = strcspn(path, ".");
		char key[64];

		if (n >= sizeof(key))
			return NULL;
		memcpy(key, path, n);
		key[n] = '\0';
		obj = json_object_get(obj, key);
		path += n + (path[n] == '.' ? 1 : 0);
	}
	return obj;
}

static int append_value(const char *key, const json_t *v, struct base_buf *out)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	size_t unit = 0;
	double d = json_number_value(v);

	if (json_is_string(v))
		return base_buf_append(out, json_string_value(v), json_string_length(v));
	if (!json_is_number(v))
		return base_buf_puts(out, json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "?");
	if (strstr(key, "_bytes")) {
		for (; fabs(d) >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
			d /= 1024;
		return base_buf_printf(out, unit ? "%.1f %s" : "%.0f %s", d, units[unit]);
	}
	if (json_is_integer(v))
		return base_buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	return base_buf_printf(out, fabs(d) < 10 ? "%.2f" : "%.1f", d);
}

int ag_sys_expand(const char *format, const json_t *first, const json_t *second, struct base_buf *out)
{
	while (*format) {
		size_t n = strcspn(format, "{");
		const char *close = format[n] == '{' ? strchr(format + n, '}') : NULL;
		char key[64];
		const json_t *v;

		(void)base_buf_append(out, format, n);
		if (!close || (size_t)(close - format) - n - 1 >= sizeof(key))
			return base_buf_puts(out, format + n);
		memcpy(key, format + n + 1, (size_t)(close - format) - n - 1);
		key[(size_t)(close - format) - n - 1] = '\0';
		v = ag_sys_lookup(first, key);
		if (!v)
			v = ag_sys_lookup(second, key);
		(void)append_value(key, v, out);
		format = close + 1;
	}
	return base_buf_error(out);
}

void ag_sys_note(json_t *section, const char *en, const char *zh, json_t *values)
{
	CLEANUP(base_buf_done) struct base_buf a = BASE_BUF_INIT(4096);
	CLEANUP(base_buf_done) struct base_buf b = BASE_BUF_INIT(4096);
	json_t *note = json_object();

	(void)ag_sys_expand(en, values, NULL, &a);
	(void)ag_sys_expand(zh, values, NULL, &b);
	ag_sys_set_text(note, "en", base_buf_text(&a));
	ag_sys_set_text(note, "zh", base_buf_text(&b));
	ag_sys_append_take(ag_sys_array(section, "notes"), note);
	json_decref(values);
}
