/* Those who wait: for one range, for a blob from its beginning to its end, for a document. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"
#include "fetch_internal.h"

/* ---- One range ---- */

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	void *data;
	bool is_done; /* protected by lock, with r and err */
	int r;
	struct err *err;
};

static void wake_waiter(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
{
	struct waiter *w = arg;

	(void)i;
	if (r == 0)
		memcpy(w->data, data, size);
	(void)pthread_mutex_lock(&w->lock);
	w->r = r;
	if (r < 0 && w->err)
		*w->err = *err;
	w->is_done = true;
	(void)pthread_cond_signal(&w->cond);
	(void)pthread_mutex_unlock(&w->lock);
}

int flip_blob_read_wait(struct flip_blob *b, uint64_t offset, size_t size, void *ret_data, enum flip_priority priority,
                        struct err *err)
{
	struct waiter w = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .err = err };
	struct flip_range range = { .offset = offset, .size = size };
	int64_t number;

	w.data = ret_data;
	if (size == 0 && offset <= b->size)
		return 0;
	number = flip_blob_read(b, &range, 1, priority, wake_waiter, &w, err);
	if (number < 0)
		return (int)number;
	(void)pthread_mutex_lock(&w.lock);
	while (!w.is_done)
		(void)pthread_cond_wait(&w.cond, &w.lock);
	(void)pthread_mutex_unlock(&w.lock);
	(void)pthread_mutex_destroy(&w.lock);
	(void)pthread_cond_destroy(&w.cond);
	return w.r;
}

/* ---- A whole blob ---- */

enum { MIN_PART = 256 << 10, MAX_PART = 2 << 20 };

struct part {
	struct stream *stream;
	uint8_t *data;
	size_t size;
	int64_t number;
	bool is_wanted, is_done; /* protected by stream->lock */
};

/* A window of parts that moves over the blob; part k of it is k % n_parts. */
struct stream {
	struct flip_blob *b;
	enum flip_priority priority;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int r;          /* protected by lock, with err */
	struct err err; /* the first */
	size_t n_parts;
	uint64_t part_size, n_total;
	struct base_sha256 *sum;
	struct part parts[];
};

static void on_part(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
{
	struct part *p = arg;
	struct stream *s = p->stream;

	(void)i;
	if (r == 0)
		memcpy(p->data, data, size);
	(void)pthread_mutex_lock(&s->lock);
	p->is_done = true;
	if (r < 0 && s->r == 0) {
		s->r = r;
		s->err = *err;
	}
	(void)pthread_cond_signal(&s->cond);
	(void)pthread_mutex_unlock(&s->lock);
}

static struct stream *stream_new(struct flip_blob *b, enum flip_priority priority)
{
	const struct flip_fetch *f = b->f;
	size_t n_parts = (size_t)f->o.n_connections * 2;
	uint64_t part_size = f->o.max_queued / 2 / n_parts;
	struct stream *s = calloc(1, sizeof(*s) + n_parts * sizeof(s->parts[0]));

	if (!s)
		return NULL;
	s->b = b;
	s->priority = priority;
	s->n_parts = n_parts;
	s->part_size = part_size < MIN_PART ? MIN_PART : part_size > MAX_PART ? MAX_PART : part_size;
	s->n_total = (b->size + s->part_size - 1) / s->part_size;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->cond, NULL);
	return s;
}

static void stream_free(struct stream *s)
{
	for (size_t i = 0; i < s->n_parts; i++)
		flip_buffer_free(s->parts[i].data, s->part_size);
	base_sha256_free(s->sum);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->cond);
	free(s);
}

static int ask_for_part(struct stream *s, uint64_t k, struct err *err)
{
	struct part *p = &s->parts[k % s->n_parts];
	uint64_t offset = k * s->part_size, left = s->b->size - offset;
	struct flip_range range = { .offset = offset, .size = left < s->part_size ? left : s->part_size };

	if (!p->data)
		p->data = flip_buffer_new(s->part_size);
	if (!p->data)
		return err_set(err, -ENOMEM, "out of memory");
	p->stream = s;
	p->size = (size_t)range.size;
	p->is_done = false;
	p->number = flip_blob_read(s->b, &range, 1, s->priority, on_part, p, err);
	if (p->number < 0)
		return (int)p->number;
	p->is_wanted = true;
	return 0;
}

/* Until part p is there or another one failed. */
static int wait_for_part(struct stream *s, const struct part *p, struct err *err)
{
	int r;

	(void)pthread_mutex_lock(&s->lock);
	while (!p->is_done && s->r == 0)
		(void)pthread_cond_wait(&s->cond, &s->lock);
	r = s->r;
	if (r < 0 && err)
		*err = s->err;
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

/* Nothing may come any more when the parts go. */
static void settle(struct stream *s)
{
	for (size_t i = 0; i < s->n_parts; i++) {
		struct part *p = &s->parts[i];

		if (p->is_wanted)
			flip_fetch_cancel(s->b->f, p->number);
	}
	(void)pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_parts; i++) {
		while (s->parts[i].is_wanted && !s->parts[i].is_done)
			(void)pthread_cond_wait(&s->cond, &s->lock);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

static int pass_on(struct stream *s, flip_sink sink, void *arg, struct err *err)
{
	uint64_t asked = 0;
	int r = 0;

	for (uint64_t k = 0; r == 0 && k < s->n_total; k++) {
		struct part *p = &s->parts[k % s->n_parts];

		for (; r == 0 && asked < s->n_total && asked < k + s->n_parts; asked++)
			r = ask_for_part(s, asked, err);
		if (r == 0)
			r = wait_for_part(s, p, err);
		if (r < 0)
			break;
		p->is_wanted = false;
		base_sha256_update(s->sum, p->data, p->size);
		r = sink(arg, p->data, p->size, err);
	}
	return r;
}

int flip_blob_stream(struct flip_blob *b, enum flip_priority priority, flip_sink sink, void *arg, struct err *err)
{
	struct stream *s = stream_new(b, priority);
	uint8_t sum[BASE_SHA256_SIZE];
	char hex[BASE_SHA256_HEX_SIZE];
	int r;

	if (!s || base_sha256_new(&s->sum) < 0) {
		if (s)
			stream_free(s);
		return err_set(err, -ENOMEM, "out of memory");
	}
	r = pass_on(s, sink, arg, err);
	settle(s);
	if (r == 0) {
		base_sha256_final(s->sum, sum);
		base_sha256_hex(sum, hex);
		if (strcmp(hex, b->digest + 7) != 0)
			r = err_set(err, -EBADMSG, "%s: digest mismatch, the content is sha256:%s", b->digest, hex);
	}
	stream_free(s);
	return r;
}

/* ---- Documents ---- */

/* Some servers send no Content-Type; the document says it itself. */
static void media_type_of(const struct fetch_document *d, char ret[128])
{
	json_t *doc = NULL;
	const char *text;

	memcpy(ret, d->media_type, sizeof(d->media_type));
	if ((ret[0] && strcmp(ret, "application/json") != 0 && strcmp(ret, "application/octet-stream") != 0) ||
	    base_json_parse("document", d->body.data, d->body.len, &doc, NULL) < 0)
		return;
	text = json_string_value(json_object_get(doc, "mediaType"));
	if (text && strlen(text) < 128)
		memcpy(ret, text, strlen(text) + 1);
	json_decref(doc);
}

static int wait_for_document(struct flip_fetch *f, struct fetch_document *d)
{
	int r = 0;

	(void)pthread_mutex_lock(&f->lock);
	if (f->is_over) {
		r = err_set(d->err, -ECANCELED, "canceled: the fetcher ends");
	} else {
		TAILQ_INSERT_TAIL(&f->documents, d, in_documents);
		flip_fetch_wake(f);
		while (!d->is_done)
			(void)pthread_cond_wait(&f->document_done, &f->lock);
		r = d->r;
	}
	(void)pthread_mutex_unlock(&f->lock);
	return r;
}

/* What goes into a URL is checked as the name of an image with it would be. */
static int check_name(const char *ref, const char *which, struct err *err)
{
	struct img_reference parts;
	char *text = NULL;
	int r;

	if (asprintf(&text, "h.x/n%c%s", strchr(which, ':') ? '@' : ':', which) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = img_reference_parse(text, &parts, NULL);
	free(text);
	if (r < 0)
		return err_set(err, r, "%s: %.100s: not a tag or digest", ref, which);
	img_reference_done(&parts);
	return 0;
}

int flip_fetch_manifest(struct flip_fetch *f, const char *ref, const char *tag_or_digest, char **ret_data,
                        size_t *ret_size, char ret_digest[72], char ret_media_type[128], struct err *err)
{
	struct fetch_document d = { .which = tag_or_digest, .err = err };
	struct img_reference parts = { 0 };
	char *data;
	size_t size;
	int r = img_reference_parse(ref, &parts, err);

	if (r < 0)
		return r;
	if (!d.which)
		d.which = parts.digest ? parts.digest : parts.tag;
	base_buf_init(&d.body, FETCH_MAX_DOCUMENT);
	r = check_name(ref, d.which, err);
	if (r == 0)
		r = flip_repo_get(f, ref, &d.repo, err);
	if (r == 0) {
		r = wait_for_document(f, &d);
		flip_repo_put(f, d.repo);
	}
	if (r == 0) {
		media_type_of(&d, ret_media_type);
		memcpy(ret_digest, d.digest, sizeof(d.digest));
		size = d.body.len;
		data = base_buf_take(&d.body);
		if (!data)
			data = strdup("");
		r = data ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	if (r == 0) {
		*ret_data = data;
		*ret_size = size;
	}
	base_buf_done(&d.body);
	img_reference_done(&parts);
	return r;
}
