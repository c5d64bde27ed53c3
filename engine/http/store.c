#include "store.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	struct entry *next; /* older */
	char *id, *reply, *messages;
	size_t bytes;
};

struct http_store {
	pthread_mutex_t lock;
	/* protected by lock */
	struct entry *newest;
	size_t n, bytes, max_entries, max_bytes;
};

struct http_store *http_store_new(size_t max_entries, size_t max_bytes)
{
	struct http_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	(void)pthread_mutex_init(&s->lock, NULL);
	s->max_entries = max_entries;
	s->max_bytes = max_bytes;
	return s;
}

static void entry_free(struct entry *e)
{
	free(e->id);
	free(e->reply);
	free(e->messages);
	free(e);
}

/* Locked. Takes what *link points to out of the list. */
static struct entry *take(struct http_store *s, struct entry **link)
{
	struct entry *e = *link;

	*link = e->next;
	s->n--;
	s->bytes -= e->bytes;
	return e;
}

static struct entry **find(struct http_store *s, const char *id)
{
	struct entry **link = &s->newest;

	while (*link && strcmp((*link)->id, id) != 0)
		link = &(*link)->next;
	return link;
}

static void make_room(struct http_store *s)
{
	while (s->newest && (s->n > s->max_entries || s->bytes > s->max_bytes)) {
		struct entry **link = &s->newest;

		while ((*link)->next)
			link = &(*link)->next;
		entry_free(take(s, link));
	}
}

void http_store_free(struct http_store *s)
{
	if (!s)
		return;
	while (s->newest)
		entry_free(take(s, &s->newest));
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

void http_store_put(struct http_store *s, const char *id, const char *reply, const char *messages)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return;
	e->id = strdup(id);
	e->reply = strdup(reply);
	e->messages = strdup(messages);
	if (!e->id || !e->reply || !e->messages) {
		entry_free(e);
		return;
	}
	e->bytes = sizeof(*e) + strlen(id) + strlen(reply) + strlen(messages) + 3;
	(void)pthread_mutex_lock(&s->lock);
	e->next = s->newest;
	s->newest = e;
	s->n++;
	s->bytes += e->bytes;
	make_room(s);
	(void)pthread_mutex_unlock(&s->lock);
}

int http_store_get(struct http_store *s, const char *id, char **ret_reply, char **ret_messages)
{
	struct entry *e;

	(void)pthread_mutex_lock(&s->lock);
	e = *find(s, id);
	if (e && ret_reply)
		*ret_reply = strdup(e->reply);
	if (e && ret_messages)
		*ret_messages = strdup(e->messages);
	(void)pthread_mutex_unlock(&s->lock);
	return e ? 0 : -ENOENT;
}

int http_store_remove(struct http_store *s, const char *id)
{
	struct entry **link, *e = NULL;

	(void)pthread_mutex_lock(&s->lock);
	link = find(s, id);
	if (*link)
		e = take(s, link);
	(void)pthread_mutex_unlock(&s->lock);
	if (!e)
		return -ENOENT;
	entry_free(e);
	return 0;
}
