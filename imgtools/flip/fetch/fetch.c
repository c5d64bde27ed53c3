/* The callers' side. What they want becomes a note for the loop; no caller waits for a lock that is held while
 * something is fetched or told. */
#include "fetch/fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fetch_internal.h"

enum { DEFAULT_CONNECTIONS = 8, DEFAULT_RETRIES = 5, DEFAULT_RETRY_MS = 200, DEFAULT_STALL_S = 20 };
static const uint64_t default_queued = 32 << 20;

/* ---- The fetcher ---- */

static void fetch_unref(struct flip_fetch *f)
{
	if (atomic_fetch_sub(&f->refs, 1) > 1)
		return;
	flip_repos_free(f);
	for (size_t i = 0; f->mirrors && i < f->o.n_mirrors; i++) {
		free((char *)f->mirrors[i].host);
		free((char *)f->mirrors[i].endpoint);
	}
	free(f->mirrors);
	free(f->auth_file);
	free(f->ca_file);
	free(f->netrc_file);
	free(f->s3_endpoint);
	free(f->s3_region);
	free(f->s3_credentials_file);
	flip_s3_free(f->s3);
	(void)pthread_mutex_destroy(&f->s3_lock);
	(void)pthread_mutex_destroy(&f->lock);
	(void)pthread_cond_destroy(&f->document_done);
	free(f);
}

/* A copy of text, or NULL for NULL; *ok turns false without memory. */
static char *copy_text(const char *text, bool *ok)
{
	char *copy = text ? strdup(text) : NULL;

	*ok = *ok && (!text || copy);
	return copy;
}

static bool copy_opts(struct flip_fetch *f, const struct flip_fetch_opts *o)
{
	bool ok = true;

	if (o)
		f->o = *o;
	f->o.n_connections = f->o.n_connections ? f->o.n_connections : DEFAULT_CONNECTIONS;
	f->o.n_retries = f->o.n_retries ? f->o.n_retries : DEFAULT_RETRIES;
	f->o.retry_ms = f->o.retry_ms ? f->o.retry_ms : DEFAULT_RETRY_MS;
	f->o.stall_s = f->o.stall_s ? f->o.stall_s : DEFAULT_STALL_S;
	f->o.max_queued = f->o.max_queued ? f->o.max_queued : default_queued;
	if (f->o.max_coalesce_gap > FETCH_MAX_GAP)
		f->o.max_coalesce_gap = FETCH_MAX_GAP;
	f->auth_file = copy_text(f->o.auth_file, &ok);
	f->ca_file = copy_text(f->o.ca_file, &ok);
	f->netrc_file = copy_text(f->o.netrc_file, &ok);
	f->s3_endpoint = copy_text(f->o.s3_endpoint, &ok);
	f->s3_region = copy_text(f->o.s3_region, &ok);
	f->s3_credentials_file = copy_text(f->o.s3_credentials_file, &ok);
	if (f->o.n_mirrors) {
		f->mirrors = calloc(f->o.n_mirrors, sizeof(*f->mirrors));
		ok = ok && f->mirrors;
	}
	for (size_t i = 0; f->mirrors && i < f->o.n_mirrors; i++) {
		f->mirrors[i].host = copy_text(o->mirrors[i].host, &ok);
		f->mirrors[i].endpoint = copy_text(o->mirrors[i].endpoint, &ok);
	}
	f->o.mirrors = NULL;
	return ok;
}

static void curl_init_once(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int set_up_curl(struct flip_fetch *f)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, curl_init_once);
	f->multi = curl_multi_init();
	f->share = curl_share_init();
	if (!f->multi || !f->share)
		return -ENOMEM;
	/* One thread uses both: no locks. */
	(void)curl_share_setopt(f->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
	(void)curl_share_setopt(f->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	(void)curl_multi_setopt(f->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
	(void)curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)f->o.n_connections * 4);
	return 0;
}

static void tear_down_curl(struct flip_fetch *f)
{
	while (f->n_idle)
		curl_easy_cleanup(f->idle[--f->n_idle]);
	(void)curl_multi_cleanup(f->multi);
	(void)curl_share_cleanup(f->share);
	f->multi = NULL;
}

int flip_fetch_new(const struct flip_fetch_opts *o, struct flip_fetch **ret_fetch, struct err *err)
{
	struct flip_fetch *f = calloc(1, sizeof(*f));
	int r = -ENOMEM;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->refs = 1;
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)pthread_mutex_init(&f->s3_lock, NULL);
	(void)pthread_cond_init(&f->document_done, NULL);
	STAILQ_INIT(&f->notes);
	TAILQ_INIT(&f->documents);
	TAILQ_INIT(&f->waiting);
	TAILQ_INIT(&f->queued);
	TAILQ_INIT(&f->jobs);
	if (copy_opts(f, o) && set_up_curl(f) == 0)
		r = -pthread_create(&f->thread, NULL, flip_fetch_loop, f);
	if (r < 0) {
		tear_down_curl(f);
		fetch_unref(f);
		return err_set(err, r, "the fetcher cannot start: %s", strerror(-r));
	}
	*ret_fetch = f;
	return 0;
}

void flip_fetch_stop(struct flip_fetch *f)
{
	if (!f || atomic_exchange(&f->is_stopping, true))
		return;
	flip_fetch_wake(f);
	(void)pthread_join(f->thread, NULL);
}

void flip_fetch_free(struct flip_fetch *f)
{
	if (!f)
		return;
	flip_fetch_stop(f);
	tear_down_curl(f);
	fetch_unref(f);
}

void flip_fetch_share(struct flip_fetch *f, unsigned n_others)
{
	atomic_store(&f->n_sharers, n_others);
}

void flip_fetch_stat(struct flip_fetch *f, struct flip_fetch_stat *ret_stat)
{
	struct fetch_counts *c = &f->counts;

	*ret_stat = (struct flip_fetch_stat){ .n_requests = c->n_requests,
		                              .n_retries = c->n_retries,
		                              .n_ranges = c->n_ranges,
		                              .wire_bytes = c->wire_bytes,
		                              .gap_bytes = c->gap_bytes,
		                              .rtt_us = c->rtt_us,
		                              .rate = c->rate };
	for (size_t i = 0; i < FLIP_N_PRIORITIES; i++) {
		ret_stat->n_queued[i] = c->n_queued[i];
		ret_stat->n_active[i] = c->n_active[i];
	}
}

/* ---- Blobs ---- */

static bool digest_is_valid(const char *digest)
{
	return strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 71 &&
	       strspn(digest + 7, "0123456789abcdef") == 64;
}

int flip_blob_new(struct flip_fetch *f, const char *digest, uint64_t size, const char *where,
                  struct flip_blob **ret_blob, struct err *err)
{
	struct flip_blob *b;

	if (!digest_is_valid(digest) || size > INT64_MAX)
		return err_set(err, -EINVAL, "%s: %.80s: not a digest and size of a blob", where, digest);
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_set(err, -ENOMEM, "out of memory");
	b->refs = 1;
	b->f = f;
	b->size = size;
	memcpy(b->digest, digest, sizeof(b->digest));
	for (size_t i = 0; i < FLIP_N_PRIORITIES; i++)
		TAILQ_INIT(&b->fifo[i]);
	f->refs++;
	*ret_blob = b;
	return 0;
}

int flip_blob_open(struct flip_fetch *f, const char *ref, const char *digest, uint64_t size,
                   struct flip_blob **ret_blob, struct err *err)
{
	struct flip_blob *b;
	int r = flip_blob_new(f, digest, size, ref, &b, err);

	if (r < 0)
		return r;
	r = flip_repo_get(f, ref, &b->repo, err);
	if (r < 0) {
		flip_blob_unref(b);
		return r;
	}
	*ret_blob = b;
	return 0;
}

void flip_blob_unref(struct flip_blob *b)
{
	struct flip_fetch *f = b->f;

	if (atomic_fetch_sub(&b->refs, 1) > 1)
		return;
	if (b->repo)
		flip_repo_put(f, b->repo);
	for (size_t i = 0; i < b->n_parts; i++)
		flip_blob_unref(b->parts[i]);
	free(b->parts);
	free(b->starts);
	for (size_t i = 0; i < FETCH_MAX_DOORS; i++)
		free(b->target[i]);
	free(b->sorted);
	free(b);
	fetch_unref(f);
}

void flip_blob_close(struct flip_blob *b)
{
	if (b)
		flip_blob_unref(b);
}

uint64_t flip_blob_size(const struct flip_blob *b)
{
	return b->size;
}

/* ---- Ranges ---- */

static int check_ranges(const struct flip_blob *b, const struct flip_range *ranges, size_t n, struct err *err)
{
	if (n == 0 || n > FETCH_MAX_RANGES)
		return err_set(err, -EINVAL, "%.19s: %zu ranges at once", b->digest, n);
	for (size_t i = 0; i < n; i++) {
		const struct flip_range *r = &ranges[i];

		if (r->size == 0 || r->size > FETCH_MAX_RANGE || r->offset > b->size || r->size > b->size - r->offset)
			return err_set(err, -EINVAL, "%.19s: no range of its %llu bytes: %llu at %llu", b->digest,
			               (unsigned long long)b->size, (unsigned long long)r->size,
			               (unsigned long long)r->offset);
	}
	return 0;
}

static struct fetch_batch *make_batch(struct flip_blob *b, const struct flip_range *ranges, size_t n,
                                      enum flip_priority priority)
{
	struct fetch_batch *batch = calloc(1, sizeof(*batch) + n * sizeof(batch->ranges[0]));

	if (!batch)
		return NULL;
	batch->blob = b;
	batch->n = batch->n_left = n;
	for (size_t i = 0; i < n; i++) {
		batch->ranges[i].batch = batch;
		batch->ranges[i].offset = ranges[i].offset;
		batch->ranges[i].size = (uint32_t)ranges[i].size;
		batch->ranges[i].priority = (uint8_t)priority;
	}
	return batch;
}

/* Of a joined blob: asked of the one part that all of them are of. */
static int64_t read_part(struct flip_blob *b, const struct flip_range *ranges, size_t n, enum flip_priority priority,
                         flip_range_done done, void *arg, struct err *err)
{
	struct flip_range *shifted = calloc(n ? n : 1, sizeof(*shifted));
	struct flip_blob *part = NULL;
	int64_t r = 0;

	if (!shifted)
		return err_set(err, -ENOMEM, "out of memory for %zu ranges", n);
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct flip_blob *p;

		shifted[i] = ranges[i];
		p = flip_blob_part(b, &shifted[i].offset, ranges[i].size);
		if (!p || (part && p != part))
			r = err_set(err, -EINVAL, "%.19s: ranges of more than one part", b->digest);
		part = p;
	}
	if (r == 0 && part)
		r = flip_blob_read(part, shifted, n, priority, done, arg, err);
	free(shifted);
	return r;
}

int64_t flip_blob_read(struct flip_blob *b, const struct flip_range *ranges, size_t n, enum flip_priority priority,
                       flip_range_done done, void *arg, struct err *err)
{
	struct flip_fetch *f = b->f;
	struct fetch_note *note;
	struct fetch_batch *batch;
	int64_t r = check_ranges(b, ranges, n, err);

	if (r < 0)
		return r;
	if (b->n_parts)
		return read_part(b, ranges, n, priority, done, arg, err);
	note = calloc(1, sizeof(*note));
	batch = make_batch(b, ranges, n, priority);
	if (!note || !batch) {
		free(note);
		free(batch);
		return err_set(err, -ENOMEM, "out of memory for %zu ranges", n);
	}
	batch->done = done;
	batch->arg = arg;
	*note = (struct fetch_note){ .kind = NOTE_READ, .batch = batch };
	(void)pthread_mutex_lock(&f->lock);
	if (f->is_over) {
		r = err_set(err, -ECANCELED, "canceled: the fetcher ends");
	} else if (f->n_ranges + n > FETCH_MAX_RANGES) {
		r = err_set(err, -ENOBUFS, "%zu ranges are waiting, no room for %zu more", f->n_ranges, n);
	} else {
		b->refs++;
		f->n_ranges += n;
		batch->number = r = ++f->last_number;
		STAILQ_INSERT_TAIL(&f->notes, note, in_notes);
		flip_fetch_wake(f);
	}
	(void)pthread_mutex_unlock(&f->lock);
	if (r < 0) {
		free(note);
		free(batch);
	}
	return r;
}

static void send_note(struct flip_fetch *f, enum note_kind kind, int64_t number, enum flip_priority priority)
{
	struct fetch_note *note = calloc(1, sizeof(*note));

	if (!note)
		return; /* it goes on as it was queued */
	*note = (struct fetch_note){ .kind = kind, .number = number, .priority = priority };
	(void)pthread_mutex_lock(&f->lock);
	if (f->is_over || number <= 0 || number > f->last_number) {
		free(note);
	} else {
		STAILQ_INSERT_TAIL(&f->notes, note, in_notes);
		flip_fetch_wake(f);
	}
	(void)pthread_mutex_unlock(&f->lock);
}

void flip_fetch_raise(struct flip_fetch *f, int64_t number, enum flip_priority priority)
{
	send_note(f, NOTE_RAISE, number, priority);
}

void flip_fetch_cancel(struct flip_fetch *f, int64_t number)
{
	send_note(f, NOTE_CANCEL, number, FLIP_FOREGROUND);
}
