/* Answers of /v1/responses that can be continued or asked for again: the latest ones, within a budget. Thread-safe. */
#ifndef HTTP_STORE_H
#define HTTP_STORE_H

#include <stddef.h>

struct http_store;

struct http_store *http_store_new(size_t max_entries, size_t max_bytes);
void http_store_free(struct http_store *s);
/* Both texts are copied. The oldest ones make room; what is larger than the budget is not kept. */
void http_store_put(struct http_store *s, const char *id, const char *reply, const char *messages);
/* malloc'd copies (either pointer may be NULL); false: not there. */
int http_store_get(struct http_store *s, const char *id, char **ret_reply, char **ret_messages);
int http_store_remove(struct http_store *s, const char *id);

#endif
