/* Documents: reading them, finding their lines, cutting them into passages.
 *
 * Bytes become UTF-8 first: what is not UTF-8 is taken for GB18030 when its high bytes come in pairs, as Chinese text's
 * do, and for Latin-1 otherwise. The splitter works on lines: it fills a passage to at most 800 characters, prefers to
 * end it where a heading or a paragraph begins, and cuts a line that is longer by itself at the end of a sentence. */
#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <string.h>
#include <sys/stat.h>
#include <utf8proc.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "kb/kb_internal.h"

enum { BINARY_PROBE = 8192, MAX_LINES = 1 << 20 };

void ag_kb_doc_init(struct ag_kb_doc *doc, size_t max_bytes)
{
	*doc = (struct ag_kb_doc){ .text = BASE_BUF_INIT(max_bytes) };
}

void ag_kb_doc_done(struct ag_kb_doc *doc)
{
	base_buf_done(&doc->text);
	free(doc->lines);
	doc->lines = NULL;
	doc->n_lines = doc->cap_lines = 0;
}

static int grow_lines(struct ag_kb_doc *doc)
{
	size_t cap = doc->cap_lines ? doc->cap_lines * 2 : 64;
	struct ag_kb_line *lines;

	if (doc->n_lines < doc->cap_lines)
		return 0;
	if (cap > MAX_LINES)
		return -EFBIG;
	lines = realloc(doc->lines, cap * sizeof(*lines));
	if (!lines)
		return -ENOMEM;
	doc->lines = lines;
	doc->cap_lines = cap;
	return 0;
}

/* Appends without control characters and without bytes that are not UTF-8. */
static int append_clean(struct base_buf *out, const char *text, size_t len)
{
	for (size_t i = 0; i < len;) {
		int32_t c = 0;
		utf8proc_ssize_t n = utf8proc_iterate((const uint8_t *)text + i, (utf8proc_ssize_t)(len - i), &c);

		if (n <= 0) {
			(void)base_buf_puts(out, "\xef\xbf\xbd");
			n = 1;
		} else if (c == '\t' || (c >= 32 && c != 127 && !(c >= 0x80 && c < 0xa0) && c != 0xfeff)) {
			(void)base_buf_append(out, text + i, (size_t)n);
		}
		i += (size_t)n;
	}
	return base_buf_error(out);
}

int ag_kb_doc_line(struct ag_kb_doc *doc, const char *text, size_t len, uint32_t line, unsigned heading, bool para)
{
	size_t offset = doc->text.len;
	int r;

	while (len && (text[len - 1] == ' ' || text[len - 1] == '\t' || text[len - 1] == '\r'))
		len--;
	if (len == 0)
		return 0;
	r = grow_lines(doc);
	if (r == 0)
		r = append_clean(&doc->text, text, len);
	if (r < 0)
		return r;
	if (doc->text.len == offset) /* nothing but control characters */
		return 0;
	doc->lines[doc->n_lines++] = (struct ag_kb_line){
		.offset = offset, .len = doc->text.len - offset, .line = line, .heading = (uint8_t)heading, .para = para
	};
	r = base_buf_putc(&doc->text, '\n');
	if (r == 0 && heading && !doc->title[0]) {
		size_t n = doc->lines[doc->n_lines - 1].len;

		n = n < sizeof(doc->title) ? n : sizeof(doc->title) - 1;
		while (n && ((unsigned char)doc->text.data[offset + n] & 0xc0) == 0x80)
			n--;
		memcpy(doc->title, doc->text.data + offset, n);
		doc->title[n] = '\0';
	}
	return r;
}

/* ---- Plain text and Markdown -------------------------------------------------------------------------- */

static size_t leading_hashes(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && s[n] == '#')
		n++;
	return n >= 1 && n <= 6 && (n == len || s[n] == ' ' || s[n] == '\t') ? n : 0;
}

/* "====" or "----" below a line of text: the text is a heading. */
static unsigned underline_level(const char *s, size_t len)
{
	char c = len ? s[0] : 0;

	while (len && (s[len - 1] == ' ' || s[len - 1] == '\r'))
		len--;
	if (len < 3 || (c != '=' && c != '-'))
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (s[i] != c)
			return 0;
	}
	return c == '=' ? 1 : 2;
}

static bool is_fence(const char *s, size_t len)
{
	return len >= 3 && (memcmp(s, "```", 3) == 0 || memcmp(s, "~~~", 3) == 0);
}

static size_t skip_blanks(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && (s[n] == ' ' || s[n] == '\t'))
		n++;
	return n;
}

static int markdown_heading(struct ag_kb_doc *doc, const char *s, size_t len, size_t hashes, uint32_t line)
{
	size_t skip = hashes + skip_blanks(s + hashes, len - hashes);

	while (len > skip && (s[len - 1] == '#' || s[len - 1] == ' ' || s[len - 1] == '\r'))
		len--;
	return ag_kb_doc_line(doc, s + skip, len - skip, line, (unsigned)hashes, true);
}

static int extract_lines(bool markdown, const char *data, size_t len, struct ag_kb_doc *doc)
{
	const char *end = data + len;
	bool fenced = false, para = true;
	uint32_t line = 0;
	int r = 0;

	for (const char *s = data; s < end && r == 0;) {
		const char *newline = memchr(s, '\n', (size_t)(end - s));
		size_t n = (size_t)((newline ? newline : end) - s), indent = skip_blanks(s, n), hashes = 0;
		unsigned level = 0;

		line++;
		if (markdown && indent < 4) {
			if (is_fence(s + indent, n - indent))
				fenced = !fenced;
			else if (!fenced) {
				hashes = leading_hashes(s + indent, n - indent);
				level = para ? 0 : underline_level(s + indent, n - indent);
			}
		}
		if (hashes) {
			r = markdown_heading(doc, s + indent, n - indent, hashes, line);
			para = true;
		} else if (level && doc->n_lines && !doc->lines[doc->n_lines - 1].heading) {
			doc->lines[doc->n_lines - 1].heading = (uint8_t)level;
			doc->lines[doc->n_lines - 1].para = true;
			para = true;
		} else if (indent == n || (n == indent + 1 && s[indent] == '\r')) {
			para = true;
		} else {
			r = ag_kb_doc_line(doc, s, n, line, 0, para);
			para = false;
		}
		s = newline ? newline + 1 : end;
	}
	return r;
}

/* A heading found by its underline comes too late for ag_kb_doc_line(). */
static void set_title(struct ag_kb_doc *doc)
{
	for (size_t i = 0; i < doc->n_lines && !doc->title[0]; i++) {
		const struct ag_kb_line *l = &doc->lines[i];

		if (l->heading && l->len < sizeof(doc->title)) {
			memcpy(doc->title, doc->text.data + l->offset, l->len);
			doc->title[l->len] = '\0';
		}
	}
}

/* ---- Encodings ------------------------------------------------------------------------------------------ */

static bool is_utf8(const char *data, size_t len)
{
	for (size_t i = 0; i < len;) {
		int32_t c;
		utf8proc_ssize_t n = 1;

		if ((unsigned char)data[i] >= 0x80)
			n = utf8proc_iterate((const uint8_t *)data + i, (utf8proc_ssize_t)(len - i), &c);
		if (n <= 0)
			return len - i < 4 && i > 0; /* cut at the end */
		i += (size_t)n;
	}
	return true;
}

static const char *guess_encoding(const char *data, size_t len)
{
	size_t n_high = 0, n_pairs = 0;

	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)data[i] < 0x80)
			continue;
		n_high++;
		if (i + 1 < len && (unsigned char)data[i] >= 0xa1 && (unsigned char)data[i + 1] >= 0xa1) {
			n_pairs++;
			i++;
		}
	}
	/* In Chinese text nearly every high byte opens a pair. */
	return n_pairs * 10 >= n_high * 8 ? "GB18030" : "ISO-8859-1";
}

static int to_utf8(const char *from, const char *data, size_t len, struct base_buf *out)
{
	iconv_t cd = iconv_open("UTF-8", from);
	char *in = (char *)data, piece[4096];
	int r = 0;

	if (cd == (iconv_t)-1)
		return base_buf_append(out, data, len); /* invalid bytes are replaced later */
	while (len && r == 0) {
		char *to = piece;
		size_t left = sizeof(piece);
		size_t n = iconv(cd, &in, &len, &to, &left);
		int error = errno;

		r = base_buf_append(out, piece, (size_t)(to - piece));
		if (n == (size_t)-1 && error != E2BIG) { /* one bad byte: replaced, then on */
			r = base_buf_puts(out, "\xef\xbf\xbd");
			in++;
			len--;
		}
	}
	(void)iconv_close(cd);
	return r;
}

int ag_kb_extract(enum ag_kb_format format, const char *data, size_t len, struct ag_kb_doc *doc)
{
	CLEANUP(base_buf_done) struct base_buf utf8 = BASE_BUF_INIT(doc->text.max);
	int r = 0;

	if (memchr(data, '\0', len < BINARY_PROBE ? len : BINARY_PROBE))
		return -EBADMSG;
	if (!is_utf8(data, len)) {
		r = to_utf8(guess_encoding(data, len), data, len, &utf8);
		if (r < 0)
			return r;
		data = base_buf_text(&utf8);
		len = utf8.len;
	}
	if (format == AG_KB_HTML)
		r = ag_kb_extract_html(data, len, doc);
	else if (format == AG_KB_ROFF)
		r = ag_kb_extract_roff(data, len, doc);
	else
		r = extract_lines(format == AG_KB_MARKDOWN, data, len, doc);
	if (r == 0)
		set_title(doc);
	return r;
}

static bool ends_with(const char *s, size_t len, const char *suffix)
{
	size_t n = strlen(suffix);

	return len > n && strncasecmp(s + len - n, suffix, n) == 0;
}

enum ag_kb_format ag_kb_format_of(const char *path)
{
	size_t len = strlen(path);
	const char *dot;

	if (ends_with(path, len, ".gz"))
		len -= 3;
	if (ends_with(path, len, ".md") || ends_with(path, len, ".markdown"))
		return AG_KB_MARKDOWN;
	if (ends_with(path, len, ".html") || ends_with(path, len, ".htm") || ends_with(path, len, ".xhtml"))
		return AG_KB_HTML;
	dot = memrchr(path, '.', len);
	/* ls.1, openssl.1ssl: but not notes.2024 */
	if (dot && dot[1] >= '1' && dot[1] <= '9' && dot > path && dot[-1] != '/' &&
	    (dot + 2 == path + len || !strchr("0123456789", dot[2])) && !memchr(dot, '/', (size_t)(path + len - dot)) &&
	    strstr(path, "/man"))
		return AG_KB_ROFF;
	return AG_KB_TEXT;
}

/* ---- Reading -------------------------------------------------------------------------------------------- */

int ag_kb_read_document(const char *path, struct base_buf *out, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), r = 0, n;
	struct stat st;
	char piece[32768];
	gzFile gz;

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		(void)close(fd);
		return err_set(err, -EINVAL, "%s: not a regular file", path);
	}
	gz = gzdopen(fd, "rb"); /* passes what is not compressed through */
	if (!gz) {
		(void)close(fd);
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	while (r == 0 && (n = gzread(gz, piece, sizeof(piece))) > 0)
		r = base_buf_append(out, piece, (size_t)n);
	if (r == -EFBIG)
		r = err_set(err, r, "%s: larger than %zu bytes", path, out->max);
	else if (r == 0 && (n < 0 || gzclose_r(gz) != Z_OK))
		r = n < 0 ? (gzclose_r(gz), err_set(err, -EIO, "%s: cannot be read", path))
		          : err_set(err, -EBADMSG, "%s: the compressed data is damaged or cut short", path);
	else if (r < 0)
		r = err_set(err, r, "%s: out of memory", path);
	if (r == -EFBIG || r == -ENOMEM)
		(void)gzclose_r(gz);
	return r;
}

/* ---- Passages ------------------------------------------------------------------------------------------- */

struct splitter {
	const struct ag_kb_doc *doc;
	ag_kb_passage_fn fn;
	void *arg;
	size_t first, n_chars;                /* the passage under construction: lines first.., its characters */
	size_t boundary, boundary_chars;      /* the last line in it that begins a paragraph, and what lies before */
	char heading[256], next_heading[256]; /* of the passage; of what comes */
};

static size_t count_chars(const char *s, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)s[i] & 0xc0) != 0x80;
	return n;
}

/* Lines first..end-1 as one passage. */
static int emit(struct splitter *sp, size_t end)
{
	const struct ag_kb_line *a, *z;

	if (sp->first >= end)
		return 0;
	a = &sp->doc->lines[sp->first];
	z = &sp->doc->lines[end - 1];
	return sp->fn(sp->arg, a->line, sp->heading, sp->doc->text.data + a->offset, z->offset + z->len - a->offset);
}

static void begin(struct splitter *sp, size_t first, size_t n_chars)
{
	sp->first = sp->boundary = first;
	sp->n_chars = n_chars;
	sp->boundary_chars = 0;
	memcpy(sp->heading, sp->next_heading, sizeof(sp->heading));
}

/* Where to cut a text that is longer than a passage may be: bytes. */
static size_t cut_at(const char *s, size_t len)
{
	size_t chars = 0, sentence = 0, blank = 0, i = 0;

	while (i < len && chars < AG_KB_MAX_PASSAGE) {
		size_t n = 1;

		while (i + n < len && ((unsigned char)s[i + n] & 0xc0) == 0x80)
			n++;
		chars++;
		if (n == 3 && chars >= AG_KB_MIN_PASSAGE &&
		    (memcmp(s + i, "\xe3\x80\x82", 3) == 0 || memcmp(s + i, "\xef\xbc\x81", 3) == 0 ||
		     memcmp(s + i, "\xef\xbc\x9f", 3) == 0 || memcmp(s + i, "\xef\xbc\x9b", 3) == 0))
			sentence = i + n;
		if (chars >= AG_KB_MIN_PASSAGE && s[i] == ' ') {
			blank = i + 1;
			if (strchr(".!?;", s[i - 1]))
				sentence = i + 1;
		}
		i += n;
	}
	if (i >= len)
		return len;
	return sentence ? sentence : blank ? blank : i;
}

static int long_line(struct splitter *sp, size_t index)
{
	const struct ag_kb_line *l = &sp->doc->lines[index];
	int r = emit(sp, index);

	begin(sp, index, 0);
	for (size_t off = 0; off < l->len && r == 0;) {
		const char *s = sp->doc->text.data + l->offset + off;
		size_t n = cut_at(s, l->len - off);

		r = sp->fn(sp->arg, l->line, sp->heading, s, n);
		off += n;
	}
	begin(sp, index + 1, 0);
	return r;
}

static int take_line(struct splitter *sp, size_t index)
{
	const struct ag_kb_line *l = &sp->doc->lines[index];
	const char *s = sp->doc->text.data + l->offset;
	size_t chars = count_chars(s, l->len) + 1;
	int r = 0;

	if (l->heading) {
		size_t n = l->len < sizeof(sp->next_heading) ? l->len : sizeof(sp->next_heading) - 1;

		while (n < l->len && n && ((unsigned char)s[n] & 0xc0) == 0x80)
			n--;
		memcpy(sp->next_heading, s, n);
		sp->next_heading[n] = '\0';
		if (sp->n_chars == 0 || sp->n_chars >= AG_KB_MIN_PASSAGE) {
			r = emit(sp, index);
			begin(sp, index, 0);
		}
	}
	if (chars > AG_KB_MAX_PASSAGE)
		return r < 0 ? r : long_line(sp, index);
	if (r == 0 && sp->n_chars + chars > AG_KB_MAX_PASSAGE) {
		bool at_paragraph = !l->para && sp->boundary_chars >= AG_KB_MIN_PASSAGE;
		size_t end = at_paragraph ? sp->boundary : index;

		r = emit(sp, end);
		begin(sp, end, at_paragraph ? sp->n_chars - sp->boundary_chars : 0);
		if (sp->n_chars + chars > AG_KB_MAX_PASSAGE && sp->n_chars) {
			r = r ? r : emit(sp, index);
			begin(sp, index, 0);
		}
	}
	if (l->para && sp->n_chars) {
		sp->boundary = index;
		sp->boundary_chars = sp->n_chars;
	}
	sp->n_chars += chars;
	return r;
}

int ag_kb_split(const struct ag_kb_doc *doc, ag_kb_passage_fn fn, void *arg)
{
	struct splitter sp = { .doc = doc, .fn = fn, .arg = arg };
	int r = 0;

	for (size_t i = 0; i < doc->n_lines && r == 0; i++)
		r = take_line(&sp, i);
	return r ? r : emit(&sp, doc->n_lines);
}
