/* Vectors: asking /v1/embeddings, keeping the numbers as float16 (IEEE 754 binary16, little endian).
 *
 * Vectors are made unit length before they are kept, so that a dot product is the cosine; eleven bits of precision are
 * far more than the order of neighbours needs. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/json.h"
#include "agent.h"
#include "gate/gate.h"
#include "kb/kb_internal.h"
#include "key.h"

enum { MAX_ANSWER_BYTES = 64 << 20, DEFAULT_TIMEOUT_MS = 30000 };

struct ag_kb_embed {
	struct base_http *http;
	char *address, *socket, *model, *authorization;
	uint32_t timeout_ms;
	bool is_remote; /* secrets are masked */
};

static uint16_t half_from_float(float f)
{
	uint32_t u, mantissa, lost, half;
	uint16_t sign, out;
	int shift, e;

	memcpy(&u, &f, sizeof(u));
	sign = (uint16_t)(u >> 16 & 0x8000);
	e = (int)(u >> 23 & 0xff) - 127;
	mantissa = (u & 0x7fffff) | 0x800000;
	if (e == 128) /* infinity, NaN */
		return (uint16_t)(sign | 0x7c00 | (u & 0x7fffff ? 0x200 : 0));
	if (e > 15)
		return (uint16_t)(sign | 0x7c00);
	if (e < -25)
		return sign;
	shift = e < -14 ? 13 + (-14 - e) : 13;
	out = (uint16_t)(e < -14 ? mantissa >> shift : ((uint32_t)(e + 15) << 10) + ((mantissa & 0x7fffff) >> 13));
	lost = mantissa & ((1u << shift) - 1);
	half = 1u << (shift - 1);
	if (lost > half || (lost == half && (out & 1))) /* to nearest, ties to even; a carry is right too */
		out++;
	return (uint16_t)(sign | out);
}

float ag_kb_float_from_half(uint16_t h)
{
	int e = h >> 10 & 31;
	float m = (float)(h & 0x3ff), f;

	if (e == 31)
		f = h & 0x3ff ? NAN : INFINITY;
	else if (e == 0)
		f = ldexpf(m, -24);
	else
		f = ldexpf(m + 1024, e - 25);
	return h & 0x8000 ? -f : f;
}

static int set_address(struct ag_kb_embed *e, const char *url, struct err *err)
{
	size_t n = strlen(url);
	int r;

	if (strncmp(url, "unix:/", 6) == 0) {
		e->socket = strdup(url + 5);
		e->address = strdup("http://localhost/v1/embeddings");
		return e->socket && e->address ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
		return err_set(err, -EINVAL, "%s: not an address: expected http://, https:// or unix:/path", url);
	while (n && url[n - 1] == '/')
		n--;
	if (n >= 3 && memcmp(url + n - 3, "/v1", 3) == 0)
		n -= 3;
	r = asprintf(&e->address, "%.*s/v1/embeddings", (int)n, url);
	if (r < 0)
		e->address = NULL;
	return r < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
}

int ag_kb_embed_new(const struct ag_kb_embedder *e, struct ag_kb_embed **ret_embed, struct err *err)
{
	struct ag_kb_embed *embed = calloc(1, sizeof(*embed));
	char host[256];
	int r;

	if (!embed)
		return err_set(err, -ENOMEM, "out of memory");
	embed->timeout_ms = e->timeout_ms ? e->timeout_ms : DEFAULT_TIMEOUT_MS;
	embed->model = strdup(e->model ? e->model : "");
	r = embed->model ? set_address(embed, e->url, err) : err_set(err, -ENOMEM, "out of memory");
	embed->is_remote = r == 0 && ag_url_remote_host(e->url, host, sizeof(host));
	if (embed->is_remote && !e->allow_remote)
		r = err_set(
		        err, -EPERM,
		        "%s is not this machine, and nothing leaves it unless kb.conf says 'allow-remote = true' in "
		        "[embeddings]",
		        host);
	if (r == 0 && e->api_key_file && *e->api_key_file)
		r = ag_key_header(e->api_key_file, &embed->authorization, err);
	if (r == 0)
		r = base_http_new(&embed->http, err);
	if (r < 0) {
		ag_kb_embed_free(embed);
		return r;
	}
	*ret_embed = embed;
	return 0;
}

void ag_kb_embed_free(struct ag_kb_embed *embed)
{
	if (!embed)
		return;
	base_http_free(embed->http);
	free(embed->address);
	free(embed->socket);
	free(embed->model);
	free(embed->authorization);
	free(embed);
}

const char *ag_kb_embed_model(const struct ag_kb_embed *embed)
{
	return embed->model;
}

static void put_text(const struct ag_kb_embed *e, const char *text, struct base_buf *body)
{
	CLEANUP(base_buf_done) struct base_buf masked = BASE_BUF_INIT(body->max);

	if (e->is_remote && ag_gate_mask(text, strlen(text), &masked) < 0)
		body->error = -EFBIG; /* unmasked it does not go */
	else
		text = e->is_remote ? base_buf_text(&masked) : text;
	(void)base_json_append_string(body, text, strlen(text));
}

static int make_body(const struct ag_kb_embed *e, const char *const *texts, size_t n, struct base_buf *body)
{
	(void)base_buf_puts(body, "{\"model\":");
	(void)base_json_append_string(body, e->model, strlen(e->model));
	(void)base_buf_puts(body, ",\"encoding_format\":\"float\",\"input\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)base_buf_putc(body, ',');
		put_text(e, texts[i], body);
	}
	return base_buf_puts(body, "]}");
}

static int take_vector(const struct ag_kb_embed *e, const json_t *item, size_t n, float *vectors, size_t dim,
                       struct err *err)
{
	const json_t *index = json_object_get(item, "index"), *numbers = json_object_get(item, "embedding");
	double norm = 0;
	float *v;

	if (!json_is_integer(index) || json_integer_value(index) < 0 || (size_t)json_integer_value(index) >= n ||
	    json_array_size(numbers) != dim)
		return err_set(err, -EBADMSG, "%s: data[].index or data[].embedding is not what was asked for",
		               e->address);
	v = vectors + (size_t)json_integer_value(index) * dim;
	for (size_t i = 0; i < dim; i++) {
		v[i] = (float)json_number_value(json_array_get(numbers, i));
		if (!isfinite(v[i]))
			return err_set(err, -EBADMSG, "%s: a vector holds no number", e->address);
		norm += (double)v[i] * v[i];
	}
	for (size_t i = 0; i < dim && norm > 0; i++)
		v[i] = (float)(v[i] / sqrt(norm));
	return 0;
}

static int parse_vectors(const struct ag_kb_embed *e, const struct base_http_response *resp, size_t n,
                         float **ret_vectors, size_t *ret_dim, struct err *err)
{
	json_t *json = NULL, *data;
	float *vectors = NULL;
	size_t dim;
	int r;

	if (resp->status != 200)
		return err_set(err, -EIO, "%s answered with status %ld", e->address, resp->status);
	r = base_json_parse(e->address, base_buf_text(&resp->body), resp->body.len, &json, err);
	if (r < 0)
		return r;
	data = json_object_get(json, "data");
	dim = json_array_size(json_object_get(json_array_get(data, 0), "embedding"));
	if (json_array_size(data) != n || dim == 0 || dim > AG_KB_MAX_DIM)
		r = err_set(err, -EBADMSG, "%s: expected %zu vectors of 1 to %d numbers", e->address, n, AG_KB_MAX_DIM);
	else if (!(vectors = calloc(n * dim, sizeof(*vectors))))
		r = err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n && r == 0; i++)
		r = take_vector(e, json_array_get(data, i), n, vectors, dim, err);
	json_decref(json);
	if (r < 0) {
		free(vectors);
		return r;
	}
	*ret_vectors = vectors;
	*ret_dim = dim;
	return 0;
}

int ag_kb_embed_texts(struct ag_kb_embed *e, const char *const *texts, size_t n, float **ret_vectors, size_t *ret_dim,
                      struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf body = BASE_BUF_INIT(8 << 20);
	const char *headers[] = { "Content-Type: application/json", e->authorization, NULL };
	struct base_http_request req = { .method = "POST",
		                         .url = e->address,
		                         .unix_socket = e->socket,
		                         .headers = headers,
		                         .idle_timeout_ms = e->timeout_ms,
		                         .max_response_bytes = MAX_ANSWER_BYTES };
	struct base_http_response resp = { 0 };
	int r = make_body(e, texts, n, &body);

	if (r < 0)
		return err_set(err, r, "the texts are too long for one request");
	req.body = base_buf_text(&body);
	req.body_len = body.len;
	r = base_http_request(e->http, &req, &resp, err);
	if (r < 0)
		return err_prefix(err, r, "%s: ", e->address);
	r = parse_vectors(e, &resp, n, ret_vectors, ret_dim, err);
	base_buf_done(&resp.body);
	return r;
}

/* ---- Passages without a vector ----------------------------------------------------------------------- */

struct batch {
	int64_t ids[AG_KB_EMBED_BATCH];
	char *texts[AG_KB_EMBED_BATCH];
	size_t n;
};

static void batch_reset(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		free(b->texts[i]);
	b->n = 0;
}

static int next_batch(struct ag_kb *kb, struct batch *b, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	int code, r = ag_kb_prepare(kb,
	                            "SELECT p.id, p.title || char(10) || p.text FROM passage p LEFT JOIN vector v"
	                            " ON v.passage_id = p.id WHERE v.passage_id IS NULL OR v.model <> ?1 LIMIT ?2",
	                            &stmt, err);

	if (r < 0)
		return r;
	(void)sqlite3_bind_text(stmt, 1, kb->embed->model, -1, SQLITE_STATIC);
	(void)sqlite3_bind_int(stmt, 2, AG_KB_EMBED_BATCH);
	while ((code = sqlite3_step(stmt)) == SQLITE_ROW && b->n < AG_KB_EMBED_BATCH) {
		b->ids[b->n] = sqlite3_column_int64(stmt, 0);
		b->texts[b->n] = strdup((const char *)sqlite3_column_text(stmt, 1));
		if (!b->texts[b->n])
			return err_set(err, -ENOMEM, "out of memory");
		b->n++;
	}
	return code == SQLITE_DONE || code == SQLITE_ROW ? 0 : ag_kb_sql_error(kb, "reading", err);
}

static int store_batch(struct ag_kb *kb, const struct batch *b, const float *vectors, size_t dim, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	CLEANUP(freep) uint8_t *halves = malloc(2 * dim);
	int r = halves ? ag_kb_prepare(kb,
	                               "INSERT OR REPLACE INTO vector(passage_id, model, halves) VALUES (?1, ?2, ?3)",
	                               &stmt, err)
	               : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = ag_kb_exec(kb, "BEGIN IMMEDIATE", err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < b->n && r == 0; i++) {
		for (size_t k = 0; k < dim; k++) {
			uint16_t h = half_from_float(vectors[i * dim + k]);

			halves[2 * k] = (uint8_t)h;
			halves[2 * k + 1] = (uint8_t)(h >> 8);
		}
		(void)sqlite3_bind_int64(stmt, 1, b->ids[i]);
		(void)sqlite3_bind_text(stmt, 2, kb->embed->model, -1, SQLITE_STATIC);
		(void)sqlite3_bind_blob64(stmt, 3, halves, 2 * dim, SQLITE_STATIC);
		r = ag_kb_step_done(kb, stmt, err);
	}
	if (r < 0) {
		(void)sqlite3_exec(kb->db, "ROLLBACK", NULL, NULL, NULL);
		return r;
	}
	return ag_kb_exec(kb, "COMMIT", err);
}

int ag_kb_embed_missing(struct ag_kb *kb, uint64_t *n_vectors, struct err *err)
{
	struct batch b = { .n = 0 };
	int r;

	do {
		CLEANUP(freep) float *vectors = NULL;
		size_t dim = 0;

		batch_reset(&b);
		if (ag_kb_is_cancelled(kb))
			return err_set(err, -ECANCELED, "cancelled; `ocai kb update` goes on");
		r = next_batch(kb, &b, err);
		if (r == 0 && b.n)
			r = ag_kb_embed_texts(kb->embed, (const char *const *)b.texts, b.n, &vectors, &dim, err);
		if (r == 0 && b.n)
			r = store_batch(kb, &b, vectors, dim, err);
		if (r == 0)
			*n_vectors += b.n;
	} while (r == 0 && b.n == AG_KB_EMBED_BATCH);
	batch_reset(&b);
	return r;
}
