/* What happens to a request next. An attempt ends in one of these:
 *
 *   done                     2xx and all bytes are there
 *   again, at once           sent elsewhere (3xx); a remembered place that refuses is forgotten and the door asked
 * again; 401: the door's token is renewed, once for all that wait, and each goes on where it was again, after a pause
 * refused, reset, stalled, cut short, 408, 429 (not before Retry-After; the whole host rests), 500, 502-504. Pauses
 * double and are half chance; an attempt that brought a good piece does not count and goes on at once at the next door
 * everything else, and when the attempts are used up. A mirror gets one more attempt only, and none when there is
 * nobody to connect to: there is another door given up                 no door is left: what the last one said
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "fetch_internal.h"

enum { GOOD_PIECE = 64 << 10, MAX_FORGOTTEN = 2, MAX_REFUSED = 2, MAX_RETRY_AFTER_S = 60 };

/* What is read from an answer before its handle goes back. */
struct answer {
	long status;
	CURLcode code;
	uint32_t retry_after_s;
	char *place;     /* of a redirect */
	char *challenge; /* of a 401 */
};

static struct fetch_door *door_of(const struct fetch_job *j)
{
	return &j->repo->doors[j->door];
}

static const char *what(const struct fetch_job *j)
{
	return j->doc ? j->doc->which : j->blob->digest;
}

/* ---- Where to go from here ---- */

static void rest_until(struct fetch_job *j, int64_t due)
{
	j->state = JOB_RESTS;
	j->due = due;
	flip_fetch_due(j->f, due);
}

/* This door is of no use for this job. */
static void next_door(struct fetch_job *j)
{
	int door;

	j->tried |= 1u << j->door;
	door = flip_door_choose(j->f, j->repo, j->blob, j->tried);
	if (door < 0) {
		struct err err = j->err;

		flip_job_fail(j, j->error, &err);
		return;
	}
	flip_job_leave(j);
	flip_job_enter(j, (unsigned)door);
	j->f->counts.n_retries++;
	rest_until(j, j->f->now); /* the loop takes it up: no recursion through all doors */
}

static void again_later(struct fetch_job *j, uint32_t retry_after_s, bool nobody_there, long status)
{
	struct flip_fetch *f = j->f;
	unsigned n_retries = !door_of(j)->is_mirror ? f->o.n_retries : nobody_there || status == 429 ? 0 : 1;

	flip_job_let_in(j);
	if (!status)
		door_of(j)->origin->is_warm[j->is_low] = false;
	if (j->got - j->got_before >= GOOD_PIECE) {
		j->n_retries = 0;
		f->counts.n_retries++;
		rest_until(j, f->now);
		return;
	}
	if (j->n_retries >= n_retries) {
		flip_door_fails(f, door_of(j), status);
		next_door(j);
		return;
	}
	if (retry_after_s > MAX_RETRY_AFTER_S)
		retry_after_s = MAX_RETRY_AFTER_S;
	rest_until(j, f->now + (int64_t)img_retry_pause_ms(f->o.retry_ms, j->n_retries, retry_after_s) * 1000);
	if (status == 429)
		door_of(j)->origin->quiet_until = j->due;
	j->n_retries++;
	f->counts.n_retries++;
}

/* ---- The door's tasks ---- */

static void wait_for_task(struct fetch_job *j, const char *challenge)
{
	struct fetch_door *d = door_of(j);
	struct err err = { 0 };

	if (!d->task && flip_door_start_task(j->f, j->repo, d, challenge, &err) < 0) {
		flip_job_fail(j, -EIO, &err);
		return;
	}
	j->state = JOB_AT_DOOR;
}

static int error_of_task(int r)
{
	switch (r) {
	case -ECONNREFUSED:
	case -EHOSTUNREACH:
		return -ENETUNREACH;
	case -EACCES:
	case -EINVAL: /* docker's config.json cannot be read */
		return -EACCES;
	case -ETIMEDOUT:
	case -ECANCELED:
		return r;
	default:
		return -EIO;
	}
}

void flip_job_task_ended(struct fetch_job *j, int r, const struct err *err)
{
	if (r == 0) {
		rest_until(j, j->f->now);
		return;
	}
	j->error = error_of_task(r);
	j->err = *err;
	if (j->error == -EACCES) {
		flip_door_fails(j->f, door_of(j), 401);
		next_door(j);
	} else {
		again_later(j, 0, j->error == -ENETUNREACH, 0);
	}
}

void flip_job_go(struct fetch_job *j)
{
	struct fetch_door *d = door_of(j);

	if (d->task || !d->is_found)
		wait_for_task(j, NULL);
	else if (d->origin->quiet_until > j->f->now)
		rest_until(j, d->origin->quiet_until);
	else if (flip_job_launch(j, &j->err) < 0)
		flip_job_fail(j, -EIO, &j->err);
}

/* ---- Answers ---- */

static const char *header(CURL *easy, const char *name, size_t i)
{
	struct curl_header *h = NULL;

	return curl_easy_header(easy, name, i, CURLH_HEADER, -1, &h) == CURLHE_OK ? h->value : NULL;
}

static void read_answer(struct fetch_job *j, CURLcode code, struct answer *a)
{
	const char *text = header(j->easy, "Retry-After", 0);
	char *place = NULL;

	*a = (struct answer){ .code = code };
	(void)curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &a->status);
	(void)curl_easy_getinfo(j->easy, CURLINFO_REDIRECT_URL, &place);
	a->place = place ? strdup(place) : NULL;
	if (text && text[0] >= '0' && text[0] <= '9')
		a->retry_after_s = (uint32_t)strtoul(text, NULL, 10);
	/* Of several challenges a bearer one is preferred. */
	for (size_t i = 0; a->status == 401 && (text = header(j->easy, "WWW-Authenticate", i)); i++) {
		if (a->challenge && strncasecmp(text, "Bearer ", 7) != 0)
			continue;
		free(a->challenge);
		a->challenge = strdup(text);
	}
}

/* Bytes of a body that follow its first ones, by the time that they took: what the way can do, also while requests are
 * so small that it idles most of the time. */
static void measure_burst(struct fetch_job *j, struct fetch_origin *o, curl_off_t first)
{
	enum { LEAST_BYTES = 48 << 10, LEAST_US = 50 };
	uint64_t bytes = j->got - j->got_before, rate;
	curl_off_t total = 0;

	if (bytes < LEAST_BYTES || curl_easy_getinfo(j->easy, CURLINFO_TOTAL_TIME_T, &total) != CURLE_OK ||
	    total < first + LEAST_US)
		return;
	rate = bytes * 1000000 / (uint64_t)(total - first);
	o->burst = o->burst ? (o->burst * 7 + rate) / 8 : rate;
}

/* What the answer says of the host. */
static void measure(struct fetch_job *j, const struct answer *a)
{
	struct fetch_origin *o = door_of(j)->origin;
	curl_off_t sent = 0, first = 0;
	long version = 0;

	if (!a->status)
		return;
	/* Streams are cheaper than connections. What counts is who sends the bytes, a door or where it sent us. */
	if (j->blob && a->status <= 299 && curl_easy_getinfo(j->easy, CURLINFO_HTTP_VERSION, &version) == CURLE_OK) {
		o->is_h2 = version == CURL_HTTP_VERSION_2_0;
		o->limit = o->is_h2 ? 4 * j->f->o.n_connections : j->f->o.n_connections;
	}
	if (j->is_paused || curl_easy_getinfo(j->easy, CURLINFO_PRETRANSFER_TIME_T, &sent) != CURLE_OK ||
	    curl_easy_getinfo(j->easy, CURLINFO_STARTTRANSFER_TIME_T, &first) != CURLE_OK || first <= sent)
		return;
	measure_burst(j, o, first);
	first -= sent;
	/* Down at once; up slowly, and only by a request that was alone: what waits in a full link's queue behind our
	 * own bytes is not the way's length. */
	if (!o->rtt_us || first < o->rtt_us)
		o->rtt_us = (uint32_t)first;
	else if (o->n_active <= 1)
		o->rtt_us += (uint32_t)((first - o->rtt_us) / 16);
	j->f->counts.rtt_us = o->rtt_us;
}

static void explain_status(struct fetch_job *j, long status)
{
	char message[200];

	img_registry_message(j->words.data, j->words.len, message, sizeof(message));
	j->error = status == 401 || status == 403 ? -EACCES : status == 404 ? -ENOENT : -EIO;
	(void)err_set(&j->err, j->error, "%s: %s: %.100s: %s (%ld)%s", door_of(j)->origin->name, j->repo->name, what(j),
	              status == 404         ? "not there"
	              : j->error == -EACCES ? "not allowed"
	              : status == 429       ? "too many requests"
	              : status == 416       ? "does not have the range"
	                                    : "the registry answered",
	              status, message);
}

static void explain_code(struct fetch_job *j, CURLcode code)
{
	const char *words = j->message[0] ? j->message : curl_easy_strerror(code);

	j->error = code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT
	           : code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
	                           code == CURLE_COULDNT_RESOLVE_PROXY
	                   ? -ENETUNREACH
	           : code == CURLE_PEER_FAILED_VERIFICATION ? -EACCES
	                                                    : -EIO;
	(void)err_set(&j->err, j->error, "%s: %s: %.100s: %s", door_of(j)->origin->name, j->repo->name, what(j), words);
}

static void forget_place(struct fetch_job *j)
{
	if (!j->blob)
		return;
	free(j->blob->target[j->door]);
	j->blob->target[j->door] = NULL;
}

static void on_redirect(struct fetch_job *j, struct answer *a)
{
	flip_door_works(j->f, door_of(j));
	flip_job_let_in(j);
	if (++j->n_hops > FETCH_MAX_HOPS) {
		j->error = err_set(&j->err, -EIO, "%s: %s: %.100s: sent from place to place", door_of(j)->origin->name,
		                   j->repo->name, what(j));
		next_door(j);
		return;
	}
	if (j->blob) {
		door_of(j)->redirects = true;
		free(j->blob->target[j->door]);
		j->blob->target[j->door] = strdup(a->place);
	}
	free(j->url);
	j->url = a->place;
	a->place = NULL;
	rest_until(j, j->f->now);
}

static void on_refused(struct fetch_job *j, const struct answer *a)
{
	struct fetch_door *d = door_of(j);

	/* Somebody renewed it meanwhile: the new one has not been tried. */
	if (j->generation != d->generation || d->task) {
		rest_until(j, j->f->now);
	} else if (!a->challenge || d->url || ++j->n_refused > MAX_REFUSED) {
		explain_status(j, 401);
		flip_door_fails(j->f, d, 401);
		next_door(j);
	} else {
		wait_for_task(j, a->challenge);
	}
}

static bool may_pass(long status)
{
	return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

/* Registries keep configurations among the blobs, and say 404 or worse when asked for one as a manifest. What they said
 * of the manifest counts when it is no blob either. Returns true when there is something else to ask. */
static bool is_elsewhere_in_store(struct fetch_job *j, struct answer *a)
{
	struct fetch_document *d = j->doc;

	if (!d || !strchr(d->which, ':'))
		return false;
	if (!d->is_blob && (a->status == 404 || a->status == 400 || a->status == 500)) {
		d->is_blob = true;
		j->manifest_status = a->status;
		return true;
	}
	if (d->is_blob && a->status == 404) {
		d->is_blob = false;
		a->status = j->manifest_status;
	}
	return false;
}

static void on_status(struct fetch_job *j, struct answer *a)
{
	if (a->status >= 300 && a->status <= 399 && a->place) {
		on_redirect(j, a);
		return;
	}
	if (is_elsewhere_in_store(j, a)) {
		rest_until(j, j->f->now);
		return;
	}
	explain_status(j, a->status);
	if (may_pass(a->status)) {
		again_later(j, a->retry_after_s, false, a->status);
	} else if (a->status == 401 && !j->is_elsewhere) {
		on_refused(j, a);
	} else if (j->is_sent && a->status != 416 && j->n_forgotten++ < MAX_FORGOTTEN) {
		forget_place(j); /* such addresses expire */
		rest_until(j, j->f->now);
	} else {
		if (j->is_sent)
			forget_place(j);
		if (j->doc)
			j->doc->is_blob = false; /* anew at the next door */
		if (a->status == 404 && j->blob && door_of(j)->is_mirror)
			j->blob->is_missing[j->door] = true;
		if (a->status == 401 || a->status == 403)
			flip_door_fails(j->f, door_of(j), a->status);
		next_door(j);
	}
}

/* ---- All is there, or is it? ---- */

static int check_document(struct fetch_job *j)
{
	struct fetch_document *d = j->doc;
	uint8_t sum[BASE_SHA256_SIZE];

	if (base_sha256_bytes(base_buf_text(&d->body), d->body.len, sum) < 0)
		return err_set(&j->err, -EIO, "out of memory");
	memcpy(d->digest, "sha256:", 7);
	base_sha256_hex(sum, d->digest + 7);
	if (strchr(d->which, ':') && strcmp(d->which, d->digest) != 0)
		return err_set(&j->err, -EBADMSG, "%s: %s: %.100s: digest mismatch, the content is %s",
		               door_of(j)->origin->name, j->repo->name, d->which, d->digest);
	return 0;
}

static void keep_media_type(struct fetch_job *j)
{
	const char *type = header(j->easy, "Content-Type", 0);
	size_t len = type ? strcspn(type, "; \t") : 0;

	if (!j->doc || len >= sizeof(j->doc->media_type))
		return;
	memcpy(j->doc->media_type, type ? type : "", len);
	j->doc->media_type[len] = '\0';
}

static void on_success(struct fetch_job *j, CURLcode code)
{
	bool is_whole = j->doc ? code == CURLE_OK : j->got == j->end - j->start;

	if (!is_whole) {
		if (code != CURLE_OK)
			explain_code(j, code);
		else
			j->error = err_set(&j->err, -EIO, "%s: %s: %.100s: the answer ended early",
			                   door_of(j)->origin->name, j->repo->name, what(j));
		again_later(j, 0, false, 0);
		return;
	}
	flip_door_works(j->f, door_of(j));
	flip_job_let_in(j);
	if (j->doc && (j->error = check_document(j)) < 0) {
		next_door(j);
		return;
	}
	flip_job_finish(j);
}

void flip_job_ended(struct fetch_job *j, CURLcode code)
{
	struct answer a;

	read_answer(j, code, &a);
	measure(j, &a);
	keep_media_type(j);
	flip_job_land(j);
	if (j->is_bad) {
		next_door(j);
	} else if (a.status >= 200 && a.status <= 299) {
		on_success(j, code);
	} else if (code == CURLE_OK) {
		on_status(j, &a);
	} else {
		explain_code(j, code);
		if (j->is_sent)
			forget_place(j); /* the door may know a better one */
		if (j->error == -EACCES) {
			flip_door_fails(j->f, door_of(j), 0);
			next_door(j);
		} else {
			again_later(j, 0, j->error == -ENETUNREACH, 0);
		}
	}
	free(a.place);
	free(a.challenge);
}
