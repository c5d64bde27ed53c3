/* Output text of one request: ids in, final text out, cut at the first stop string. */
#ifndef ENG_TEXTOUT_H
#define ENG_TEXTOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "engine.h"

struct eng_tokenizer;
struct eng_detok;

struct eng_textout {
	struct eng_detok *detok;  /* NULL: no text */
	const char *const *stops; /* borrowed from the request */
	size_t n_stops;
	bool include_stop;
	struct base_buf held; /* detokenized, not yet handed out */
};

int eng_textout_init(struct eng_textout *t, const struct eng_tokenizer *tok, const struct eng_request *req);
void eng_textout_done(struct eng_textout *t);

/* Appends to out what became final. *ret_stop is the stop string that ended the text, else NULL; after a
 * stop nothing more comes. With may_stop false stop strings are ordinary text. */
int eng_textout_push(struct eng_textout *t, int32_t id, bool may_stop, struct base_buf *out, const char **ret_stop);
/* The rest, at the end of the output. */
int eng_textout_flush(struct eng_textout *t, bool may_stop, struct base_buf *out, const char **ret_stop);

#endif
