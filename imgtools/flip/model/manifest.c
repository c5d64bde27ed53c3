/* The document of a model (docs/formats/model-manifest.md), in and out.
 *
 * A model of 100 GB in chunks of 1 MiB has 100,000 digests: those of a file are one string of hexadecimal digits, so
 * that the document stays small as JSON. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"
#include "model/flip_model.h"
#include "model/model_internal.h"
#include "tree/tree.h"

static const char format_name[] = "flip-model/1";
static const uint64_t max_file = UINT64_C(1) << 40; /* what the store takes */
enum { MAX_URL = 4096, WEIGHTS_FROM = 64 << 20 };

static void file_done(struct flip_model_file *f)
{
	free(f->path);
	free(f->chunks);
	for (size_t i = 0; i < f->n_urls; i++)
		free(f->urls[i]);
	free(f->urls);
}

void flip_model_free(struct flip_model *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_files; i++)
		file_done(&m->files[i]);
	free(m->files);
	free(m);
}

bool flip_model_name_is_valid(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	size_t len = strlen(name);

	return len > 0 && len <= FLIP_MODEL_NAME_MAX && strchr(letters, name[0]) &&
	       strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

uint64_t flip_model_size(const struct flip_model *m)
{
	uint64_t n = 0;

	for (size_t i = 0; i < m->n_files; i++)
		n += m->files[i].size;
	return n;
}

static bool is_utf8(const char *text)
{
	json_t *value = json_string(text);
	bool is = value != NULL;

	json_decref(value);
	return is;
}

int flip_model_add(struct flip_model *m, const char *path, struct flip_model_file **ret_file, struct err *err)
{
	char normal[IMG_PATH_MAX];
	struct flip_model_file *p;

	if (img_path_normalize(path, normal) < 0 || strcmp(normal, "/") == 0)
		return err_set(err, -EBADMSG, "\"%.200s\": not a path of a file in a folder", path);
	for (const char *c = normal; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return err_set(err, -EBADMSG, "\"%.200s\": a path with control characters", path);
	}
	if (!is_utf8(normal))
		return err_set(err, -EBADMSG, "\"%.200s\": a path that is no UTF-8", path);
	if (m->n_files == FLIP_MODEL_MAX_FILES)
		return err_set(err, -EBADMSG, "more than %d files", FLIP_MODEL_MAX_FILES);
	if ((m->n_files & (m->n_files - 1)) == 0) { /* grows at powers of two */
		p = reallocarray(m->files, m->n_files ? 2 * m->n_files : 1, sizeof(*p));
		if (!p)
			return err_set(err, -ENOMEM, "out of memory");
		m->files = p;
	}
	p = &m->files[m->n_files];
	*p = (struct flip_model_file){ .path = strdup(normal + 1) };
	if (!p->path)
		return err_set(err, -ENOMEM, "out of memory");
	m->n_files++;
	*ret_file = p;
	return 0;
}

/* ---- Places ---- */

/* Credentials do not belong into a document that is passed on: "user:password@host" is refused. */
static bool url_is_valid(const char *url)
{
	const char *host = strncmp(url, "https://", 8) == 0  ? url + 8
	                   : strncmp(url, "http://", 7) == 0 ? url + 7
	                   : strncmp(url, "s3://", 5) == 0   ? url + 5
	                                                     : NULL;
	size_t len = strlen(url), n_host;

	if (!host || len >= MAX_URL)
		return false;
	n_host = strcspn(host, "/?#");
	if (n_host == 0 || memchr(host, '@', n_host))
		return false;
	for (const char *c = url; *c; c++) {
		if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f || strchr("\"<>\\^`{|}#", *c))
			return false;
	}
	return true;
}

static int add_url(struct flip_model_file *f, const char *url, struct err *err)
{
	char **p;

	if (!url_is_valid(url))
		return err_set(err, -EBADMSG,
		               "%s: \"%.200s\": not an http, https or s3 address (or one with a password)", f->path,
		               url);
	if (f->n_urls == FLIP_MODEL_MAX_URLS)
		return err_set(err, -EBADMSG, "%s: more than %d places", f->path, FLIP_MODEL_MAX_URLS);
	p = reallocarray(f->urls, f->n_urls + 1, sizeof(*p));
	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	f->urls = p;
	p[f->n_urls] = strdup(url);
	if (!p[f->n_urls])
		return err_set(err, -ENOMEM, "out of memory");
	f->n_urls++;
	return 0;
}

int flip_model_add_base(struct flip_model *m, const char *base, struct err *err)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
	size_t len = strlen(base);
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->n_files; i++) {
		struct base_buf url = BASE_BUF_INIT(MAX_URL + 3 * IMG_PATH_MAX);

		(void)base_buf_printf(&url, "%s%s", base, len && base[len - 1] == '/' ? "" : "/");
		for (const char *c = m->files[i].path; *c; c++)
			(void)(strchr(plain, *c) ? base_buf_putc(&url, *c)
			                         : base_buf_printf(&url, "%%%02X", (unsigned char)*c));
		r = base_buf_error(&url);
		r = r < 0 ? err_set(err, r, "%s: its address is too long", m->files[i].path)
		          : add_url(&m->files[i], base_buf_text(&url), err);
		base_buf_done(&url);
	}
	return r;
}

/* ---- Order and agreement ---- */

/* What a reader opens first, and what everything else waits for, comes first: configuration and tokenizer. Weights are
 * large, or say so. */
static bool is_weights(const struct flip_model_file *f)
{
	static const char *const suffixes[] = { ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx" };
	size_t len = strlen(f->path);

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		size_t n = strlen(suffixes[i]);

		if (len > n && strcmp(f->path + len - n, suffixes[i]) == 0)
			return true;
	}
	return f->size >= WEIGHTS_FROM;
}

static int by_need(const void *a, const void *b)
{
	const struct flip_model_file *x = a, *y = b;
	int d = is_weights(x) - is_weights(y);

	return d ? d : strcmp(x->path, y->path);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct flip_model_file *)a)->path, ((const struct flip_model_file *)b)->path);
}

/* With the files by path: "a" and "a/b" cannot both be. What begins with "a" and lies between them ("a-b") is passed.
 */
static int check_paths(const struct flip_model *m, const char *where, struct err *err)
{
	for (size_t i = 0; i < m->n_files; i++) {
		const char *path = m->files[i].path;
		size_t n = strlen(path);

		for (size_t k = i + 1; k < m->n_files && strncmp(m->files[k].path, path, n) == 0; k++) {
			if (m->files[k].path[n] == '\0')
				return err_set(err, -EBADMSG, "%s: %s: is there twice", where, path);
			if (m->files[k].path[n] == '/')
				return err_set(err, -EBADMSG, "%s: %s: lies below a file", where, m->files[k].path);
			if (m->files[k].path[n] > '/')
				break;
		}
	}
	return 0;
}

static int by_digest(const void *a, const void *b)
{
	return memcmp((*(const struct flip_model_file *const *)a)->sha256,
	              (*(const struct flip_model_file *const *)b)->sha256, 32);
}

static int check_contents(const struct flip_model *m, const char *where, struct err *err)
{
	struct flip_model_file **order = calloc(m->n_files + 1, sizeof(*order));
	int r = order ? 0 : err_set(err, -ENOMEM, "out of memory");

	for (size_t i = 0; order && i < m->n_files; i++)
		order[i] = &m->files[i];
	if (order)
		qsort(order, m->n_files, sizeof(*order), by_digest);
	for (size_t i = 1; r == 0 && i < m->n_files; i++) {
		const struct flip_model_file *x = order[i - 1], *y = order[i];

		if (memcmp(x->sha256, y->sha256, 32) != 0)
			continue;
		if (x->size != y->size || x->n_chunks != y->n_chunks ||
		    (x->n_chunks && memcmp(x->chunks, y->chunks, x->n_chunks * sizeof(*x->chunks)) != 0))
			r = err_set(err, -EBADMSG, "%s: %s and %s: one digest, and other sizes or chunks", where,
			            x->path, y->path);
	}
	free(order);
	return r;
}

int flip_model_settle(struct flip_model *m, const char *where, struct err *err)
{
	int r;

	qsort(m->files, m->n_files, sizeof(*m->files), by_path);
	r = check_paths(m, where, err);
	if (r == 0)
		r = check_contents(m, where, err);
	if (r == 0)
		qsort(m->files, m->n_files, sizeof(*m->files), by_need);
	return r;
}

/* ---- In ---- */

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool flip_model_parse_hex(const char *text, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int high = digit(text[2 * i]), low = high < 0 ? -1 : digit(text[2 * i + 1]);

		if (low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* A string of exactly n digits' bytes: NUL within it is no digit. */
static int get_hex(const json_t *o, const char *where, const char *key, uint8_t *out, size_t n, struct err *err)
{
	const json_t *value = json_object_get(o, key);

	if (!json_is_string(value) || json_string_length(value) != 2 * n ||
	    !flip_model_parse_hex(json_string_value(value), out, n))
		return err_set(err, -EBADMSG, "%s: %s: expected %zu lower-case hexadecimal digits", where, key, 2 * n);
	return 0;
}

static int get_text(const json_t *value, const char *where, const char *key, const char **ret, struct err *err)
{
	const char *text = json_string_value(value);

	if (!text || strlen(text) != json_string_length(value))
		return err_set(err, -EBADMSG, "%s: %s: expected a string, got %s", where, key,
		               base_json_type_name(value));
	*ret = text;
	return 0;
}

static int get_size(const json_t *o, const char *where, const char *key, uint64_t max, uint64_t *ret, struct err *err)
{
	const json_t *value = json_object_get(o, key);
	json_int_t n = json_integer_value(value);

	if (!json_is_integer(value) || n < 0 || (uint64_t)n > max)
		return err_set(err, -EBADMSG, "%s: %s: expected a number of bytes up to %llu", where, key,
		               (unsigned long long)max);
	*ret = (uint64_t)n;
	return 0;
}

static int read_chunks(struct flip_model_file *f, const json_t *o, uint32_t chunk_size, const char *where,
                       struct err *err)
{
	size_t n = (size_t)(f->size / chunk_size + (f->size % chunk_size != 0));

	if (f->size <= chunk_size)
		return err_set(err, -EBADMSG, "%s: chunks: the file is no larger than one", where);
	/* Before memory is taken for what a number says: the digits must be there. */
	if (json_string_length(json_object_get(o, "chunks")) != n * 64)
		return err_set(err, -EBADMSG, "%s: chunks: expected %zu digests", where, n);
	f->chunks = calloc(n, sizeof(*f->chunks));
	if (!f->chunks)
		return err_set(err, -ENOMEM, "out of memory");
	f->n_chunks = n;
	return get_hex(o, where, "chunks", f->chunks[0], n * 32, err);
}

static int read_file(struct flip_model *m, const json_t *o, const char *where, struct err *err)
{
	struct flip_model_file *f;
	const json_t *urls = json_object_get(o, "urls");
	const char *text;
	char what[300];
	int r;

	if (!json_is_object(o))
		return err_set(err, -EBADMSG, "%s: files: expected objects, got %s", where, base_json_type_name(o));
	r = get_text(json_object_get(o, "path"), where, "files: path", &text, err);
	if (r < 0)
		return r;
	r = flip_model_add(m, text, &f, err);
	if (r < 0)
		return err_prefix(err, r, "%s: files: ", where);
	(void)snprintf(what, sizeof(what), "%.100s: %.180s", where, f->path);
	r = get_size(o, what, "size", max_file, &f->size, err);
	if (r == 0)
		r = get_hex(o, what, "sha256", f->sha256, 32, err);
	if (r == 0 && json_object_get(o, "chunks"))
		r = read_chunks(f, o, m->chunk_size, what, err);
	if (r == 0 && urls && !json_is_array(urls))
		r = err_set(err, -EBADMSG, "%s: urls: expected an array, got %s", what, base_json_type_name(urls));
	for (size_t i = 0; r == 0 && i < json_array_size(urls); i++) {
		r = get_text(json_array_get(urls, i), what, "urls", &text, err);
		if (r == 0 && (r = add_url(f, text, err)) < 0)
			(void)err_prefix(err, r, "%s: ", where);
	}
	return r;
}

/* "base_urls", else the folder that the document lies in: for files that say nothing themselves. */
static int read_bases(struct flip_model *m, const json_t *doc, const char *where, const char *base_url, struct err *err)
{
	const json_t *bases = json_object_get(doc, "base_urls");
	const char *text;
	int r = 0;

	if (bases && !json_is_array(bases))
		return err_set(err, -EBADMSG, "%s: base_urls: expected an array, got %s", where,
		               base_json_type_name(bases));
	for (size_t i = 0; r == 0 && i < json_array_size(bases); i++) {
		r = get_text(json_array_get(bases, i), where, "base_urls", &text, err);
		if (r == 0 && (r = flip_model_add_base(m, text, err)) < 0)
			(void)err_prefix(err, r, "%s: base_urls: ", where);
	}
	if (r == 0 && base_url && json_array_size(bases) == 0) {
		struct flip_model rest = { .n_files = 1 };
		const char *end = base_url + strcspn(base_url, "?#");
		char *folder;

		while (end > base_url && end[-1] != '/')
			end--;
		folder = strndup(base_url, (size_t)(end - base_url));
		if (!folder)
			return err_set(err, -ENOMEM, "out of memory");
		for (size_t i = 0; r == 0 && i < m->n_files; i++) {
			rest.files = &m->files[i];
			if (m->files[i].n_urls == 0 && (r = flip_model_add_base(&rest, folder, err)) < 0)
				(void)err_prefix(err, r, "%s: ", where);
		}
		free(folder);
	}
	return r;
}

static int read_document(const json_t *doc, const char *where, const char *base_url, struct flip_model *m,
                         struct err *err)
{
	const json_t *files = json_object_get(doc, "files");
	uint64_t chunk_size = FLIP_MODEL_CHUNK;
	const char *text;
	int r;

	if (!json_is_object(doc))
		return err_set(err, -EBADMSG, "%s: expected an object, got %s", where, base_json_type_name(doc));
	r = get_text(json_object_get(doc, "format"), where, "format", &text, err);
	if (r == 0 && strcmp(text, format_name) != 0)
		r = err_set(err, -EBADMSG, "%s: format: expected \"%s\", got \"%.60s\"", where, format_name, text);
	if (r == 0 && json_object_get(doc, "chunk_size"))
		r = get_size(doc, where, "chunk_size", FLIP_MODEL_MAX_CHUNK, &chunk_size, err);
	if (r == 0 && (chunk_size < FLIP_MODEL_MIN_CHUNK || (chunk_size & (chunk_size - 1))))
		r = err_set(err, -EBADMSG, "%s: chunk_size: expected a power of two from %d to %d", where,
		            FLIP_MODEL_MIN_CHUNK, FLIP_MODEL_MAX_CHUNK);
	if (r == 0 && json_array_size(files) == 0)
		r = err_set(err, -EBADMSG, "%s: files: expected an array that is not empty", where);
	m->chunk_size = (uint32_t)chunk_size;
	for (size_t i = 0; r == 0 && i < json_array_size(files); i++)
		r = read_file(m, json_array_get(files, i), where, err);
	if (r == 0)
		r = read_bases(m, doc, where, base_url, err);
	return r < 0 ? r : flip_model_settle(m, where, err);
}

int flip_model_parse(const void *data, size_t size, const char *where, const char *base_url,
                     struct flip_model **ret_model, struct err *err)
{
	struct flip_model *m = calloc(1, sizeof(*m));
	json_t *doc = NULL;
	int r = m ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r == 0 && size > FLIP_MODEL_MAX_DOCUMENT)
		r = err_set(err, -EBADMSG, "%s: larger than %d MiB", where, FLIP_MODEL_MAX_DOCUMENT >> 20);
	if (r == 0)
		r = base_json_parse(where, data, size, &doc, err);
	if (r == 0)
		r = read_document(doc, where, base_url, m, err);
	json_decref(doc);
	if (r < 0) {
		flip_model_free(m);
		return r;
	}
	*ret_model = m;
	return 0;
}

/* ---- Out ---- */

static void append_hex(struct base_buf *buf, const uint8_t *data, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	if (base_buf_reserve(buf, 2 * n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		(void)base_buf_putc(buf, digits[data[i] >> 4]);
		(void)base_buf_putc(buf, digits[data[i] & 15]);
	}
}

static void append_file(struct base_buf *buf, const struct flip_model_file *f, bool with_urls)
{
	(void)base_buf_puts(buf, "{\"path\":");
	(void)base_json_append_string(buf, f->path, strlen(f->path));
	(void)base_buf_printf(buf, ",\"size\":%llu,\"sha256\":\"", (unsigned long long)f->size);
	append_hex(buf, f->sha256, sizeof(f->sha256));
	(void)base_buf_putc(buf, '"');
	if (f->n_chunks) {
		(void)base_buf_puts(buf, ",\"chunks\":\"");
		append_hex(buf, f->chunks[0], f->n_chunks * 32);
		(void)base_buf_putc(buf, '"');
	}
	for (size_t i = 0; with_urls && i < f->n_urls; i++) {
		(void)base_buf_puts(buf, i ? "," : ",\"urls\":[");
		(void)base_json_append_string(buf, f->urls[i], strlen(f->urls[i]));
	}
	(void)base_buf_puts(buf, with_urls && f->n_urls ? "]}" : "}");
}

int flip_model_append(const struct flip_model *m, bool with_urls, struct base_buf *buf)
{
	(void)base_buf_printf(buf, "{\"format\":\"%s\",\"chunk_size\":%u,\"files\":[", format_name, m->chunk_size);
	for (size_t i = 0; i < m->n_files; i++) {
		(void)base_buf_puts(buf, i ? ",\n" : "\n");
		append_file(buf, &m->files[i], with_urls);
	}
	return base_buf_puts(buf, "\n]}\n");
}

int flip_model_digest(const struct flip_model *m, char ret_digest[IMG_DIGEST_SIZE], struct err *err)
{
	struct base_buf buf = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	int r = flip_model_append(m, false, &buf);

	if (r == 0)
		img_digest_of(buf.data, buf.len, ret_digest);
	base_buf_done(&buf);
	return r < 0 ? err_set(err, r, "the model's manifest is larger than %d MiB", FLIP_MODEL_MAX_DOCUMENT >> 20) : 0;
}
