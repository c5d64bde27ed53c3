/* Stop strings may begin in one token and end in another, so text that could still become one is held
 * back. The match that ends first wins, as if the text came byte by byte: how it was cut into tokens
 * does not change the result. */
#include "sched/textout.h"

#include <errno.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

enum { HELD_MAX = 1 << 20 };

int eng_textout_init(struct eng_textout *t, const struct eng_tokenizer *tok, const struct eng_request *req)
{
	*t = (struct eng_textout){ .stops = req->stops, .n_stops = req->n_stops, .include_stop = req->include_stop };
	base_buf_init(&t->held, HELD_MAX);
	if (!tok)
		return 0;
	return eng_detok_new(tok, !req->keep_special, &t->detok);
}

void eng_textout_done(struct eng_textout *t)
{
	eng_detok_free(t->detok);
	t->detok = NULL;
	base_buf_done(&t->held);
}

/* The stop string whose first occurrence ends earliest (of those the one that starts earliest). */
static const char *find_stop(const struct eng_textout *t, size_t *ret_begin, size_t *ret_end)
{
	const char *best = NULL;

	for (size_t i = 0; i < t->n_stops; i++) {
		size_t len = strlen(t->stops[i]), begin;
		const char *hit;

		if (len == 0 || t->held.len < len)
			continue;
		hit = memmem(t->held.data, t->held.len, t->stops[i], len);
		if (!hit)
			continue;
		begin = (size_t)(hit - t->held.data);
		if (!best || begin + len < *ret_end || (begin + len == *ret_end && begin < *ret_begin)) {
			best = t->stops[i];
			*ret_begin = begin;
			*ret_end = begin + len;
		}
	}
	return best;
}

/* Length of the longest tail of the held text that begins some stop string. */
static size_t stop_prefix_len(const struct eng_textout *t)
{
	size_t longest = 0;

	for (size_t i = 0; i < t->n_stops; i++) {
		size_t len = strlen(t->stops[i]), n;

		n = len > 0 ? len - 1 : 0;
		if (n > t->held.len)
			n = t->held.len;
		for (; n > longest; n--) {
			if (memcmp(t->held.data + t->held.len - n, t->stops[i], n) == 0)
				longest = n;
		}
	}
	return longest;
}

/* Moves the first n held bytes to out. */
static int release(struct eng_textout *t, size_t n, struct base_buf *out)
{
	int r;

	if (n == 0)
		return 0;
	r = base_buf_append(out, t->held.data, n);
	memmove(t->held.data, t->held.data + n, t->held.len - n);
	t->held.len -= n;
	t->held.data[t->held.len] = '\0';
	return r;
}

static int hand_out(struct eng_textout *t, bool may_stop, bool last, struct base_buf *out, const char **ret_stop)
{
	size_t begin = 0, end = 0;
	int r;

	*ret_stop = NULL;
	if (base_buf_error(&t->held))
		return base_buf_error(&t->held);
	if (!may_stop)
		return release(t, t->held.len, out);
	*ret_stop = find_stop(t, &begin, &end);
	if (*ret_stop) {
		r = release(t, t->include_stop ? end : begin, out);
		base_buf_reset(&t->held);
		return r;
	}
	return release(t, t->held.len - (last ? 0 : stop_prefix_len(t)), out);
}

int eng_textout_push(struct eng_textout *t, int32_t id, bool may_stop, struct base_buf *out, const char **ret_stop)
{
	int r;

	*ret_stop = NULL;
	if (!t->detok)
		return 0;
	r = eng_detok_push(t->detok, id, &t->held);
	if (r < 0)
		return r;
	return hand_out(t, may_stop, false, out, ret_stop);
}

int eng_textout_flush(struct eng_textout *t, bool may_stop, struct base_buf *out, const char **ret_stop)
{
	int r;

	*ret_stop = NULL;
	if (!t->detok)
		return 0;
	r = eng_detok_flush(t->detok, &t->held);
	if (r < 0)
		return r;
	return hand_out(t, may_stop, true, out, ret_stop);
}
