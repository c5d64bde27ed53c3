/* What goes wrong with one chunk goes wrong with the next thousand: a registry that is down, a disk that is full. One
 * line for each layer and kind of error, the next after some seconds, with how many there were in between. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "node/node_internal.h"

enum { PAUSE_MS = 5000 };

/* With the lock held: the entry of this layer and error, or the one that was quiet for longest. */
static struct node_complaint *entry_of(struct flip_node *node, uint32_t layer, int r)
{
	struct node_complaint *oldest = &node->complaints[0];

	for (size_t i = 0; i < NODE_COMPLAINTS; i++) {
		struct node_complaint *c = &node->complaints[i];

		if (c->r == r && c->layer == layer)
			return c;
		if (c->last_ms < oldest->last_ms)
			oldest = c;
	}
	*oldest = (struct node_complaint){ .layer = layer, .r = r, .last_ms = -PAUSE_MS };
	return oldest;
}

void node_complain(struct node_layer *layer, int r, const char *what)
{
	struct flip_node *node = layer->node;
	int64_t now_ms = base_now_ms();
	struct node_complaint *c;
	char more[48] = "";
	bool speak;

	pthread_mutex_lock(&node->complaints_lock);
	c = entry_of(node, layer->id, r);
	speak = now_ms - c->last_ms >= PAUSE_MS;
	if (speak && c->n)
		(void)snprintf(more, sizeof(more), " (%u more since the last line)", c->n);
	c->n = speak ? 0 : c->n + 1;
	if (speak)
		c->last_ms = now_ms;
	pthread_mutex_unlock(&node->complaints_lock);
	if (!speak)
		return;
	if (strstr(what, layer->digest)) /* what the registry said names the blob */
		base_log_with(BASE_LOG_WARN, NODE_FIELDS(NULL, layer->digest), "%s%s", what, more);
	else
		base_log_with(BASE_LOG_WARN, NODE_FIELDS(NULL, layer->digest), "layer %s: %s%s", layer->digest, what,
		              more);
}

void node_complaints_end(struct flip_node *node, int64_t now_ms)
{
	for (size_t i = 0; i < NODE_COMPLAINTS; i++) {
		struct node_complaint *c = &node->complaints[i], over;

		pthread_mutex_lock(&node->complaints_lock);
		over = *c;
		if (now_ms - over.last_ms >= PAUSE_MS)
			c->n = 0;
		pthread_mutex_unlock(&node->complaints_lock);
		if (over.n && now_ms - over.last_ms >= PAUSE_MS)
			base_log(BASE_LOG_WARN, "layer number %u: %u more of: %s", over.layer, over.n,
			         strerror(-over.r));
	}
}

bool node_is_final(int r)
{
	return r == -EBADMSG || r == -EACCES || r == -ENOENT;
}

/* A file whose bytes are wrong stays wrong: it is not fetched again and again until somebody asks for the model anew.
 */
static void note_trouble(struct node_layer *layer, int r, const char *what)
{
	pthread_mutex_lock(&layer->node->complaints_lock);
	layer->trouble->r = r;
	layer->trouble->n++;
	(void)snprintf(layer->trouble->text, sizeof(layer->trouble->text), "%s", what);
	pthread_mutex_unlock(&layer->node->complaints_lock);
	if (!node_is_final(r))
		return;
	atomic_store(&layer->is_wanted, false);
	node_queue_drop(layer);
}

void node_complain_chunk(struct node_layer *layer, uint32_t chunk, int r, const char *what)
{
	char text[ERR_MSG_SIZE];

	if (!layer->model) {
		node_complain(layer, r, what);
		return;
	}
	(void)snprintf(text, sizeof(text), "%.160s: %.330s", node_model_path(layer, chunk), what);
	note_trouble(layer, r, text);
	node_complain(layer, r, text);
}
