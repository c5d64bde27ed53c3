/* One request: what it asks for, and the bytes that come. A span of a blob has one buffer that libcurl's bytes are
 * copied into once; each range is told as soon as its last byte is there, whatever follows. A second attempt goes on
 * where the first one ended. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fetch_internal.h"

enum { CONNECT_TIMEOUT_MS = 10000, MAX_WORDS = 4096, RECEIVE_BUFFER = 256 << 10 };

static const char accept_documents[] =
        "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
        "application/vnd.docker.distribution.manifest.list.v2+json, "
        "application/vnd.docker.distribution.manifest.v2+json, */*";

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

enum { MAPPED_FROM = 128 << 10 };

/* Large ones are mappings: pages become resident as bytes come, and all go back at once. A heap would keep them. */
void *flip_buffer_new(size_t size)
{
	void *p;

	if (size < MAPPED_FROM)
		return malloc(size);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void flip_buffer_free(void *p, size_t size)
{
	if (size < MAPPED_FROM)
		free(p);
	else if (p)
		(void)munmap(p, size);
}

/* ---- What a job holds ---- */

struct fetch_job *flip_job_new(struct flip_fetch *f, struct fetch_repo *repo, unsigned door)
{
	struct fetch_job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->f = f;
	j->repo = repo;
	base_buf_init(&j->words, MAX_WORDS);
	TAILQ_INSERT_TAIL(&f->jobs, j, in_jobs);
	f->counts.n_active[FLIP_FOREGROUND]++;
	flip_job_enter(j, door);
	return j;
}

static void count_low(const struct fetch_job *j, bool is_more)
{
	struct fetch_origin *o = j->repo->doors[j->door].origin;

	if (!j->counts || j->priority == FLIP_FOREGROUND)
		return;
	o->n_low += is_more ? 1 : -1u;
	o->low_bytes += is_more ? j->end - j->start : -(j->end - j->start);
}

static void set_priority(struct fetch_job *j, enum flip_priority priority)
{
	count_low(j, false);
	j->f->counts.n_active[j->priority]--;
	j->f->counts.n_active[priority]++;
	j->priority = priority;
	count_low(j, true);
}

void flip_job_raise(struct fetch_job *j, enum flip_priority priority)
{
	if (priority < j->priority)
		set_priority(j, priority);
}

int flip_job_take(struct fetch_job *j, struct fetch_range *seed, uint64_t gap, uint64_t max)
{
	struct fetch_span s;

	if (!flip_queue_take(j->f, seed, gap, max, &s))
		return -ENOMEM;
	j->blob = seed->batch->blob;
	j->blob->refs++;
	j->ranges = s.ranges;
	j->n_ranges = s.n;
	j->start = s.start;
	j->end = s.end;
	j->gaps = s.gaps;
	for (size_t i = 0; i < s.n; i++)
		s.ranges[i]->job = j;
	set_priority(j, (enum flip_priority)seed->priority);
	j->f->held += s.end - s.start;
	j->data = flip_buffer_new((size_t)(s.end - s.start));
	return j->data ? 0 : -ENOMEM;
}

static void job_free(struct fetch_job *j)
{
	struct flip_fetch *f = j->f;

	flip_job_land(j);
	flip_job_leave(j);
	TAILQ_REMOVE(&f->jobs, j, in_jobs);
	f->counts.n_active[j->priority]--;
	f->held -= j->end - j->start;
	flip_buffer_free(j->data, (size_t)(j->end - j->start));
	free(j->ranges);
	base_buf_done(&j->words);
	if (j->blob)
		flip_blob_unref(j->blob);
	free(j);
}

static void tell_document(struct fetch_job *j, int r, const struct err *err)
{
	struct flip_fetch *f = j->f;

	(void)pthread_mutex_lock(&f->lock);
	j->doc->r = r;
	if (r < 0 && err && j->doc->err)
		*j->doc->err = *err;
	j->doc->is_done = true;
	(void)pthread_cond_broadcast(&f->document_done);
	(void)pthread_mutex_unlock(&f->lock);
	j->doc = NULL;
}

void flip_job_fail(struct fetch_job *j, int r, const struct err *err)
{
	if (j->doc)
		tell_document(j, r, err);
	while (j->n_told < j->n_ranges)
		flip_range_end(j->f, j->ranges[j->n_told++], r, NULL, err);
	job_free(j);
}

void flip_job_finish(struct fetch_job *j)
{
	if (j->doc)
		tell_document(j, 0, NULL);
	j->f->counts.gap_bytes += j->gaps;
	job_free(j);
}

/* ---- Where it is counted ---- */

void flip_job_enter(struct fetch_job *j, unsigned door)
{
	struct fetch_door *d = &j->repo->doors[door];

	j->door = door;
	j->n_retries = j->n_refused = j->n_hops = j->n_forgotten = 0;
	j->counts = true;
	d->origin->n_active++;
	count_low(j, true);
	j->knocks = !d->is_proven;
	d->n_knocking += j->knocks;
}

void flip_job_let_in(struct fetch_job *j)
{
	if (j->knocks)
		j->repo->doors[j->door].n_knocking--;
	j->knocks = false;
	if (j->is_asking)
		j->blob->n_asking--;
	j->is_asking = false;
}

void flip_job_leave(struct fetch_job *j)
{
	struct fetch_origin *o = j->repo->doors[j->door].origin;

	flip_job_let_in(j);
	if (!j->counts)
		return;
	count_low(j, false);
	j->counts = false;
	o->n_active--;
}

/* ---- Bytes ---- */

/* "bytes A-B/TOTAL" must be what was asked for; fewer bytes than that are a truncated answer and may be. */
static bool content_range_is_right(struct fetch_job *j)
{
	unsigned long long first, last, total;
	struct curl_header *h = NULL;

	if (curl_easy_header(j->easy, "Content-Range", 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
		return false;
	if (sscanf(h->value, "bytes %llu-%llu/%llu", &first, &last, &total) == 3) {
		if (total != j->blob->size)
			return false;
	} else if (sscanf(h->value, "bytes %llu-%llu/", &first, &last) != 2 || !strstr(h->value, "/*")) {
		return false;
	}
	return first == j->start + j->got && last >= first && last < j->end;
}

/* What an answer is, known with its first byte. Returns false when its body is not wanted. */
static bool judge(struct fetch_job *j)
{
	const struct fetch_door *d = &j->repo->doors[j->door];
	curl_off_t length = -1;

	(void)curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &j->status);
	if (j->status < 200 || j->status > 299)
		return true;
	flip_job_let_in(j);
	d->origin->is_warm[j->is_low] = true;
	if (j->doc)
		return true;
	if (j->status == 206 && !content_range_is_right(j)) {
		j->error = err_set(&j->err, -EIO, "%s: %s: sends another part of %.19s than was asked for",
		                   d->origin->name, j->repo->name, j->blob->digest);
		return false;
	}
	if (j->status == 206)
		return true;
	(void)curl_easy_getinfo(j->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	if (j->status != 200 || (length >= 0 && (uint64_t)length != j->blob->size)) {
		j->error = err_set(&j->err, -EIO, "%s: %s: answers %ld with %lld bytes for %.19s, which has %llu",
		                   d->origin->name, j->repo->name, j->status, (long long)length, j->blob->digest,
		                   (unsigned long long)j->blob->size);
		return false;
	}
	/* All of it although a part was asked for. */
	j->blob->ignores_ranges[j->door] = j->start > 0 || j->end < j->blob->size;
	j->skip = j->start + j->got;
	return true;
}

static size_t on_document(struct fetch_job *j, const char *data, size_t len)
{
	if (base_buf_append(&j->doc->body, data, len) == 0)
		return len;
	j->is_bad = true;
	j->error = err_set(&j->err, -EIO, "%s: %s: the document is larger than %d MiB",
	                   j->repo->doors[j->door].origin->name, j->repo->name, FETCH_MAX_DOCUMENT >> 20);
	return CURL_WRITEFUNC_ERROR;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct fetch_job *j = arg;
	struct flip_fetch *f = j->f;
	size_t len = size * n, take = len, skipped;

	j->moved_at = f->now;
	if (!j->status && !judge(j)) {
		j->is_bad = true;
		return CURL_WRITEFUNC_ERROR;
	}
	if (j->status < 200 || j->status > 299) {
		(void)base_buf_append(&j->words, data, len); /* too long: no words */
		return len;
	}
	f->counts.wire_bytes += len;
	f->rate_bytes += len;
	flip_origin_bytes(f, j->repo->doors[j->door].origin, len);
	if (j->doc)
		return on_document(j, data, len);
	skipped = j->skip < take ? (size_t)j->skip : take;
	j->skip -= skipped;
	f->counts.gap_bytes += skipped;
	take -= skipped;
	if (take > j->end - j->start - j->got)
		take = (size_t)(j->end - j->start - j->got);
	memcpy(j->data + j->got, data + skipped, take);
	j->got += take;
	while (j->n_told < j->n_ranges &&
	       j->ranges[j->n_told]->offset + j->ranges[j->n_told]->size <= j->start + j->got) {
		struct fetch_range *r = j->ranges[j->n_told++];

		flip_range_end(f, r, 0, j->data + (r->offset - j->start), NULL);
	}
	/* An answer that goes on beyond what was asked for is cut off. */
	return skipped + take == len ? len : CURL_WRITEFUNC_ERROR;
}

/* ---- The request ---- */

static int make_url(struct fetch_job *j)
{
	const struct fetch_door *d = &j->repo->doors[j->door];
	const char *base = flip_door_base(d), *target = j->blob ? j->blob->target[j->door] : NULL;
	bool is_blob = !j->doc || j->doc->is_blob;
	size_t len = strlen(base);
	int n;

	j->is_sent = j->url || target;
	if (j->url) /* just now */
		n = 0;
	else if (target || d->url)
		n = asprintf(&j->url, "%s", target ? target : d->url);
	else
		n = asprintf(&j->url, "%s/v2/%s/%s/%s%s%s", base, j->repo->name, is_blob ? "blobs" : "manifests",
		             j->doc ? j->doc->which : j->blob->digest, d->is_mirror ? "?ns=" : "",
		             d->is_mirror ? j->repo->ns : "");
	if (n < 0) {
		j->url = NULL;
		return -ENOMEM;
	}
	/* Our token is for the registry alone. */
	j->is_elsewhere = strncmp(j->url, base, len) != 0 || !strchr("/?", j->url[len]);
	return 0;
}

static int add_header(struct fetch_job *j, const char *line)
{
	struct curl_slist *longer = curl_slist_append(j->headers, line);

	if (!longer)
		return -ENOMEM;
	j->headers = longer;
	return 0;
}

/* "A-B" of the blob; false: all of it. */
static bool range_of(const struct fetch_job *j, char ret[64])
{
	if (j->doc || (j->start + j->got == 0 && j->end == j->blob->size))
		return false;
	(void)snprintf(ret, 64, "%llu-%llu", (unsigned long long)(j->start + j->got), (unsigned long long)(j->end - 1));
	return true;
}

/* For an object store. */
static int sign(struct fetch_job *j)
{
	char *lines[FLIP_S3_MAX_HEADERS + 1], part[64], range[80];
	bool has_range = range_of(j, part);
	int r;

	(void)snprintf(range, sizeof(range), "bytes=%s", has_range ? part : "");
	r = flip_fetch_s3_headers(j->f, j->url, has_range ? range : NULL, lines, NULL);
	for (size_t i = 0; r == 0 && lines[i]; i++)
		r = add_header(j, lines[i]);
	flip_s3_headers_free(lines);
	return r;
}

static int make_headers(struct fetch_job *j)
{
	const struct fetch_door *d = &j->repo->doors[j->door];
	char *line = NULL;
	int r = j->doc && !j->doc->is_blob ? add_header(j, accept_documents) : 0;

	j->generation = d->generation;
	if (r == 0 && d->is_s3 && !j->is_elsewhere)
		return sign(j);
	if (r < 0 || j->is_elsewhere || !d->authorization)
		return r;
	if (asprintf(&line, "Authorization: %s", d->authorization) < 0)
		return -ENOMEM;
	r = add_header(j, line);
	explicit_bzero(line, strlen(line));
	free(line);
	return r;
}

static void set_range(struct fetch_job *j)
{
	char text[64];

	if (range_of(j, text))
		(void)curl_easy_setopt(j->easy, CURLOPT_RANGE, text);
}

static int set_up(struct fetch_job *j)
{
	static const long weights[FLIP_N_PRIORITIES] = { 256, 32, 1, 1 };
	const struct flip_fetch *f = j->f;
	const struct fetch_door *d = &j->repo->doors[j->door];
	const char *base = flip_door_base(d);
	bool is_plain = strncmp(base, "http://", 7) == 0;
	CURL *easy = j->easy;

	if (curl_easy_setopt(easy, CURLOPT_URL, j->url) != CURLE_OK ||
	    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, j->headers) != CURLE_OK ||
	    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, is_plain ? "http,https" : "https") != CURLE_OK ||
	    (f->ca_file && curl_easy_setopt(easy, CURLOPT_CAINFO, f->ca_file) != CURLE_OK))
		return -ENOMEM;
	(void)curl_easy_setopt(easy, CURLOPT_PRIVATE, j);
	(void)curl_easy_setopt(easy, CURLOPT_SHARE, f->share);
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_USERAGENT, "flip/" OCAI_VERSION);
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, j->message);
	(void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
	(void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	(void)curl_easy_setopt(easy, CURLOPT_STREAM_WEIGHT, weights[j->priority]);
	/* The second request waits to see whether the first one's connection takes more streams. */
	(void)curl_easy_setopt(easy, CURLOPT_PIPEWAIT, is_plain ? 0L : 1L);
	/* The same for TLS, but not for libcurl, which so keeps two connections: where streams share one, the bytes of
	 * a foreground read would queue behind all that is under way already. */
	(void)curl_easy_setopt(easy, CURLOPT_SSLVERSION,
	                       !j->is_low ? (long)CURL_SSLVERSION_TLSv1_2
	                                  : (long)CURL_SSLVERSION_TLSv1_2 | (long)CURL_SSLVERSION_MAX_TLSv1_3);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, j);
	if (d->is_s3) /* as it was signed */
		(void)curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	if (d->url && !d->is_s3 && !j->is_elsewhere) { /* a registry's tokens are the registry room's */
		(void)curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_OPTIONAL);
		if (f->netrc_file)
			(void)curl_easy_setopt(easy, CURLOPT_NETRC_FILE, f->netrc_file);
	}
	if (f->o.insecure) {
		(void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		(void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (img_is_loopback(strstr(j->url, "://") ? strstr(j->url, "://") + 3 : ""))
		(void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
	set_range(j);
	return 0;
}

int flip_job_launch(struct fetch_job *j, struct err *err)
{
	struct flip_fetch *f = j->f;
	CURLMcode code = CURLM_OUT_OF_MEMORY;

	j->status = 0;
	j->skip = 0;
	j->is_bad = j->is_paused = false;
	j->is_low = j->priority != FLIP_FOREGROUND;
	j->got_before = j->got;
	j->message[0] = '\0';
	base_buf_reset(&j->words);
	if (j->doc)
		base_buf_reset(&j->doc->body);
	j->easy = f->n_idle ? f->idle[--f->n_idle] : curl_easy_init();
	if (j->easy && make_url(j) == 0 && make_headers(j) == 0 && set_up(j) == 0)
		code = curl_multi_add_handle(f->multi, j->easy);
	if (code != CURLM_OK) {
		curl_easy_cleanup(j->easy);
		j->easy = NULL;
		flip_job_land(j);
		return err_set(err, -ENOMEM, "out of memory for a request");
	}
	if (j->blob && !j->is_asking && !j->blob->target[j->door]) {
		j->is_asking = true;
		j->blob->n_asking++;
	}
	j->state = JOB_RUNS;
	j->moved_at = f->now;
	f->counts.n_requests++;
	return 0;
}

void flip_job_land(struct fetch_job *j)
{
	struct flip_fetch *f = j->f;

	if (j->easy) {
		(void)curl_multi_remove_handle(f->multi, j->easy);
		curl_easy_reset(j->easy);
		if (f->n_idle < sizeof(f->idle) / sizeof(*f->idle))
			f->idle[f->n_idle++] = j->easy;
		else
			curl_easy_cleanup(j->easy);
		j->easy = NULL;
	}
	for (struct curl_slist *h = j->headers; h; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(j->headers);
	j->headers = NULL;
	free(j->url);
	j->url = NULL;
}
