/* What the readers of request bodies share (params.c, params_chat.c). */
#ifndef HTTP_PARAMS_INTERNAL_H
#define HTTP_PARAMS_INTERNAL_H

#include "params.h"

int http_out_of_memory(struct http_error *e); /* -ENOMEM, status 500 */

/* Defaults, and the body as an object. */
int http_params_begin(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *p,
                      struct http_error *e);
/* Frees what was parsed when r says that it failed. */
int http_params_finish(struct http_params *p, int r);
/* What chat and text completions share. */
int http_parse_common(const json_t *obj, struct http_params *p, struct http_error *e);
int http_parse_max_new(const json_t *obj, const char *key, int64_t min, struct http_params *p, struct http_error *e);

#endif
