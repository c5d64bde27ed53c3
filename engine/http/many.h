/* A request that makes several engine requests, one for each of its parts, some at a time so that a long list does not
 * fill the queue, and is answered when all are done. many.c prepares, submits and counts; struct many_api says what is
 * asked and what the reply is. Everything but prepare() runs with the exchange locked. */
#ifndef HTTP_MANY_H
#define HTTP_MANY_H

#include "gen.h"

struct many;

struct many_part {
	struct many *many;
	int32_t *ids; /* owned */
	size_t n_ids;
	uint64_t request_id;
	bool is_running, has_result;
	float *vector; /* embeddings: [n_dims], owned */
	double score;  /* rerank */
};

struct many_api {
	http_parse_fn parse;
	/* The ids of each part of m->parts, one for each prompt. */
	int (*prepare)(struct many *m, struct http_error *e);
	/* What the protocol asks of the engine: kind, sampling and the like; the rest is set. */
	void (*request)(const struct many *m, struct eng_request *req);
	/* An event before DONE: sets has_result with what it tells. */
	void (*result)(struct many_part *part, const struct eng_event *ev);
	/* All have a result. A negative errno: no memory. */
	int (*reply)(struct many *m, struct base_buf *out);
};

struct many {
	struct exchange *x;
	const struct many_api *api;
	struct http_params p;
	struct many_part *parts;
	size_t n, n_submitted, n_running;
	struct http_error error;
	uint32_t n_dims;    /* embeddings */
	int32_t answers[2]; /* rerank: yes, no */
};

/* Parses the body of x and starts the work. */
void http_handle_many(struct exchange *x, const struct many_api *api);

#endif
