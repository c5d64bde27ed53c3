/* The trace file (docs/formats/trace.md): a line that names the format and its version, lines of processes, lines of
 * records in the order of the first touch, and a last line that counts both, so that a file that was cut short is
 * noticed. Fields are separated by one tab; control characters and the backslash are written \xHH, all other bytes
 * stand for themselves, so that a path of any bytes makes the way there and back. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mapfile.h"

#include "trace_internal.h"

static const char magic[] = "slimtrace-trace";
enum { VERSION = 1, MAX_FIELDS = 9 };
static const size_t MAX_FILE_BYTES = (size_t)4 << 30;

/* ---- Writing ---------------------------------------------------------------------------------------------- */

static void put_text(struct base_buf *b, const char *text)
{
	const char *p = text;

	while (*p) {
		size_t plain = 0;

		while ((unsigned char)p[plain] >= 0x20 && p[plain] != 0x7f && p[plain] != '\\')
			plain++;
		(void)base_buf_append(b, p, plain);
		p += plain;
		if (*p)
			(void)base_buf_printf(b, "\\x%02x", (unsigned char)*p++);
	}
}

static void put_process(struct base_buf *b, const struct img_trace_process *p)
{
	(void)base_buf_printf(b, "process\t%" PRIu32 "\t%" PRIu32 "\t%" PRId32 "\t", p->pid, p->parent, p->exit_code);
	put_text(b, p->program);
	(void)base_buf_putc(b, '\t');
	put_text(b, p->cmdline);
	(void)base_buf_putc(b, '\n');
}

static void put_record(struct base_buf *b, const struct img_trace_record *r)
{
	(void)base_buf_printf(b, "%s\t%" PRIu32 "\t%" PRIu32 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRId32 "\t",
	                      img_access_name(r->access), r->pid, r->count, r->first_ns, r->last_ns, r->size, r->error);
	put_text(b, r->path);
	(void)base_buf_putc(b, '\n');
}

int img_trace_print(const struct img_trace *t, struct base_buf *b)
{
	(void)base_buf_printf(b, "%s %d\n", magic, VERSION);
	for (size_t i = 0; i < img_trace_n_processes(t); i++)
		put_process(b, img_trace_process_at(t, i));
	for (size_t i = 0; i < img_trace_count(t); i++)
		put_record(b, img_trace_at(t, i));
	(void)base_buf_printf(b, "end\t%zu\t%zu\n", img_trace_n_processes(t), img_trace_count(t));
	return base_buf_error(b);
}

/* Beside its place and renamed, so that nobody reads half of it. Not synced to the disk, which would take longer than
 * many a traced command: after a loss of power a trace can be made again. */
static int write_beside(const char *path, const struct base_buf *b, struct err *err)
{
	CLEANUP(freep) char *beside = NULL;
	CLEANUP(close_fdp) int fd = -1;
	size_t done = 0;
	int r = 0;

	if (asprintf(&beside, "%s.XXXXXX", path) < 0) {
		beside = NULL;
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	fd = mkostemp(beside, O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	while (r == 0 && done < b->len) {
		ssize_t n = write(fd, b->data + done, b->len - done);

		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			r = n < 0 ? -errno : -EIO;
	}
	if (r == 0 && (fchmod(fd, 0644) < 0 || rename(beside, path) < 0))
		r = -errno;
	if (r < 0) {
		(void)unlink(beside);
		return err_set(err, r, "%s: %s", path, strerror(-r));
	}
	return 0;
}

int img_trace_write(const struct img_trace *t, const char *path, struct err *err)
{
	struct base_buf b = BASE_BUF_INIT(MAX_FILE_BYTES);
	int r = img_trace_print(t, &b);

	if (r < 0)
		r = err_set(err, r, "%s: the trace is too large to be written: %s", path, strerror(-r));
	else
		r = write_beside(path, &b, err);
	base_buf_done(&b);
	return r;
}

/* ---- Reading ---------------------------------------------------------------------------------------------- */

struct parser {
	struct img_trace *trace;
	const char *name;
	size_t line;
	bool has_ended;
	struct err *err;
	char *fields[MAX_FIELDS]; /* of the line at hand; point into its copy */
	size_t n_fields;
};

static int bad(const struct parser *p, const char *what)
{
	return err_set(p->err, -EBADMSG, "%s: line %zu: %s", p->name, p->line, what);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* \xHH becomes its byte, in place. */
static int unescape(const struct parser *p, char *text)
{
	char *out = text;

	for (const char *in = text; *in;) {
		int hi, lo;

		if (*in != '\\') {
			*out++ = *in++;
			continue;
		}
		hi = in[1] == 'x' ? hex_digit(in[2]) : -1;
		lo = hi >= 0 ? hex_digit(in[3]) : -1;
		if (lo < 0 || hi * 16 + lo == 0)
			return bad(p,
			           "a backslash must be followed by x and two lower-case hexadecimal digits, not 00");
		*out++ = (char)(hi * 16 + lo);
		in += 4;
	}
	*out = '\0';
	return 0;
}

/* Decimal digits only, at most max. */
static int number(const struct parser *p, size_t field, const char *what, uint64_t max, uint64_t *ret)
{
	const char *text = p->fields[field];
	uint64_t v = 0;

	if (!*text)
		return err_set(p->err, -EBADMSG, "%s: line %zu: %s is empty", p->name, p->line, what);
	for (const char *c = text; *c; c++) {
		unsigned digit = (unsigned)(*c - '0');

		if (digit > 9 || v > (max - digit) / 10)
			return err_set(p->err, -EBADMSG, "%s: line %zu: %s: \"%.32s\" is not a number up to %" PRIu64,
			               p->name, p->line, what, text, max);
		v = v * 10 + digit;
	}
	*ret = v;
	return 0;
}

static int add_failed(const struct parser *p, int r)
{
	if (r == -EINVAL)
		return bad(p, "the path is not absolute and normal");
	if (r == -E2BIG)
		return bad(p, "too many lines");
	return err_set(p->err, r, "%s: line %zu: %s", p->name, p->line, strerror(-r));
}

/* process PID PARENT EXIT PROGRAM CMDLINE */
static int parse_process(struct parser *p)
{
	struct img_trace_process proc = { .exit_code = -1 };
	uint64_t pid, parent, code = 0;
	int r;

	if (p->n_fields != 6)
		return bad(p, "a process has 6 fields");
	r = number(p, 1, "the number of the process", UINT32_MAX, &pid);
	if (r == 0)
		r = number(p, 2, "the parent", UINT32_MAX, &parent);
	if (r == 0 && strcmp(p->fields[3], "-1") != 0) {
		r = number(p, 3, "the exit status", INT32_MAX, &code);
		proc.exit_code = (int32_t)code;
	}
	if (r == 0)
		r = unescape(p, p->fields[4]);
	if (r == 0)
		r = unescape(p, p->fields[5]);
	if (r < 0)
		return r;
	proc.pid = (uint32_t)pid;
	proc.parent = (uint32_t)parent;
	proc.program = p->fields[4];
	proc.cmdline = p->fields[5];
	r = img_trace_add_process(p->trace, &proc);
	return r < 0 ? add_failed(p, r) : 0;
}

/* ACCESS PID COUNT FIRST LAST SIZE ERROR PATH */
static int parse_record(struct parser *p, enum img_access access)
{
	uint64_t pid, count, error;
	struct img_trace_record rec = { .access = access };
	int r;

	if (p->n_fields != 8)
		return bad(p, "a record has 8 fields");
	r = number(p, 1, "the number of the process", UINT32_MAX, &pid);
	if (r == 0)
		r = number(p, 2, "the count", UINT32_MAX, &count);
	if (r == 0 && count == 0)
		r = bad(p, "the count is 0");
	if (r == 0)
		r = number(p, 3, "the first time", UINT64_MAX, &rec.first_ns);
	if (r == 0)
		r = number(p, 4, "the last time", UINT64_MAX, &rec.last_ns);
	if (r == 0 && rec.last_ns < rec.first_ns)
		r = bad(p, "the last time is before the first");
	if (r == 0)
		r = number(p, 5, "the size", UINT64_MAX, &rec.size);
	if (r == 0)
		r = number(p, 6, "the error", INT32_MAX, &error);
	if (r == 0)
		r = unescape(p, p->fields[7]);
	if (r < 0)
		return r;
	rec.pid = (uint32_t)pid;
	rec.count = (uint32_t)count;
	rec.error = (int32_t)error;
	rec.path = p->fields[7];
	r = img_trace_append(p->trace, &rec);
	return r < 0 ? add_failed(p, r) : 0;
}

/* end PROCESSES RECORDS */
static int parse_end(struct parser *p)
{
	uint64_t processes, records;
	int r;

	if (p->n_fields != 3)
		return bad(p, "the end has 3 fields");
	r = number(p, 1, "the count of processes", UINT64_MAX, &processes);
	if (r == 0)
		r = number(p, 2, "the count of records", UINT64_MAX, &records);
	if (r < 0)
		return r;
	if (processes != img_trace_n_processes(p->trace) || records != img_trace_count(p->trace))
		return bad(p, "the counts are not those of the lines above");
	p->has_ended = true;
	return 0;
}

static int parse_fields(struct parser *p)
{
	if (strcmp(p->fields[0], "process") == 0)
		return parse_process(p);
	if (strcmp(p->fields[0], "end") == 0)
		return parse_end(p);
	for (int a = 0; a < IMG_N_ACCESS; a++) {
		if (strcmp(p->fields[0], img_access_name((enum img_access)a)) == 0)
			return parse_record(p, (enum img_access)a);
	}
	return err_set(p->err, -EBADMSG, "%s: line %zu: \"%.32s\" is no kind of line", p->name, p->line, p->fields[0]);
}

/* `line` is a copy that may be written to, 0 at its end. */
static int parse_line(struct parser *p, char *line)
{
	if (p->line == 1) {
		size_t len = sizeof(magic) - 1;

		if (strncmp(line, magic, len) != 0 || line[len] != ' ')
			return bad(p, "not a trace: the first line is not \"slimtrace-trace 1\"");
		if (strcmp(line + len + 1, "1") != 0)
			return bad(p, "this version of the format is not known, only 1");
		return 0;
	}
	if (!*line || *line == '#')
		return 0;
	if (p->has_ended)
		return bad(p, "a line after the end");
	p->n_fields = 0;
	for (char *f = line; f;) {
		if (p->n_fields == MAX_FIELDS)
			return bad(p, "too many fields");
		p->fields[p->n_fields++] = strsep(&f, "\t");
	}
	return parse_fields(p);
}

static int parse_all(struct parser *p, const char *text, size_t size)
{
	struct base_buf line = BASE_BUF_INIT(64u << 10);
	int r = 0;

	for (const char *at = text, *end = text + size; at < end && r == 0;) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((nl ? nl : end) - at);

		p->line++;
		base_buf_reset(&line);
		if (!nl)
			r = bad(p, "the line has no end: the file was cut short");
		else if (memchr(at, '\0', len))
			r = bad(p, "a zero byte");
		else if (base_buf_append(&line, at, len) < 0 || base_buf_putc(&line, '\0') < 0)
			r = bad(p, line.error == -EFBIG ? "the line is too long" : "out of memory");
		else
			r = parse_line(p, line.data);
		at += len + 1;
	}
	base_buf_done(&line);
	if (r == 0 && p->line == 0)
		return err_set(p->err, -EBADMSG, "%s: not a trace: it is empty", p->name);
	if (r == 0 && !p->has_ended)
		return err_set(p->err, -EBADMSG, "%s: line %zu: the line \"end\" is missing: the file was cut short",
		               p->name, p->line + 1);
	return r;
}

int img_trace_parse(const char *text, size_t size, const char *name, struct img_trace **ret_trace, struct err *err)
{
	struct parser p = { .name = name, .err = err, .trace = img_trace_new() };
	int r;

	if (!p.trace)
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	r = parse_all(&p, text, size);
	if (r < 0) {
		img_trace_free(p.trace);
		return r;
	}
	img_trace_sort(p.trace);
	*ret_trace = p.trace;
	return 0;
}

int img_trace_read(const char *path, struct img_trace **ret_trace, struct err *err)
{
	/* Not mapped: another program may cut the file short while it is being read. */
	struct base_buf b = BASE_BUF_INIT(MAX_FILE_BYTES);
	int r = base_read_file(path, &b, err);

	if (r == 0)
		r = img_trace_parse(base_buf_text(&b), b.len, path, ret_trace, err);
	base_buf_done(&b);
	return r;
}
