/* What we come to peers with for a layer, and what we know of where it may be had: for a registry's, the images that it
 * is of; for a model from addresses or from another member's folder, that it is open to the cluster.
 *
 * Kept as the note "layer-image", a line for each, the one that is asked by first:
 *
 *   REF sha256:MANIFEST     an image or artifact of a registry
 *   :held [NAME,NAME]       none; members that have all of it, where it has no other origin
 *
 * and as the note "layer-open": NODE_OPEN_BY_ID, NODE_OPEN_BY_NAME. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "node/node_internal.h"
#include "registry/registry.h"

#define HELD ":held"
enum { MAX_KEPT = 8, MAX_TEXT = 64 << 10 };

static void claim_free(struct node_claim *c)
{
	if (!c)
		return;
	free(c->image);
	free(c->ref);
	free(c->seeds);
	free(c);
}

void node_claims_free(struct node_layer *layer)
{
	struct node_claim *next;

	for (struct node_claim *c = atomic_load(&layer->claims); c; c = next) {
		next = atomic_load(&c->next);
		claim_free(c);
	}
	atomic_store(&layer->claims, NULL);
}

/* NULL: no memory, or neither. */
static struct node_claim *claim_new(const char *image, const char *seeds)
{
	struct node_claim *c = calloc(1, sizeof(*c));
	const char *space = strrchr(image, ' ');

	if (!c)
		return NULL;
	c->image = strdup(image);
	c->seeds = strdup(seeds);
	c->ref = space ? strndup(image, (size_t)(space - image)) : NULL;
	if (!c->image || !c->seeds || (*image && !c->ref)) {
		claim_free(c);
		return NULL;
	}
	return c;
}

static struct node_claim *claim_of_line(const char *line, size_t len)
{
	CLEANUP(freep) char *text = strndup(line, len);
	size_t n = strlen(HELD);

	if (!text || !len)
		return NULL;
	if (strncmp(text, HELD, n) == 0)
		return claim_new("", text[n] ? text + n + 1 : "");
	return claim_new(text, "");
}

static bool is_same(const struct node_claim *a, const struct node_claim *b)
{
	return strcmp(a->image, b->image) == 0 && strcmp(a->seeds, b->seeds) == 0;
}

static void append(struct node_layer *layer, struct node_claim *c)
{
	struct node_claim *last = atomic_load(&layer->claims);

	if (!last) {
		atomic_store(&layer->claims, c);
		return;
	}
	while (atomic_load(&last->next))
		last = atomic_load(&last->next);
	atomic_store(&last->next, c);
}

void node_claims_load(struct node_layer *layer)
{
	char *text, *open;
	size_t size;

	if (flip_store_note_get(layer->node->store, "layer-open", layer->digest, (void **)&open, &size, NULL) == 0) {
		atomic_store(&layer->open, *open == '2' ? NODE_OPEN_BY_NAME : NODE_OPEN_BY_ID);
		free(open);
	}
	if (flip_store_note_get(layer->node->store, "layer-image", layer->digest, (void **)&text, &size, NULL) < 0)
		return;
	for (const char *line = text; *line;) {
		size_t len = strcspn(line, "\n");
		struct node_claim *c = claim_of_line(line, len);

		if (c)
			append(layer, c);
		line += len + (line[len] == '\n');
	}
	free(text);
}

static int append_line(struct base_buf *text, const char *image, const char *seeds)
{
	return base_buf_printf(text, "%s%s%s\n", *image ? image : HELD, *seeds ? " " : "", seeds);
}

static void keep(struct node_layer *layer)
{
	struct base_buf text = BASE_BUF_INIT(MAX_TEXT);
	unsigned n = 0;

	for (struct node_claim *c = atomic_load(&layer->claims); c && n < MAX_KEPT; c = atomic_load(&c->next)) {
		struct node_claim *before = atomic_load(&layer->claims);

		while (before != c && !is_same(before, c))
			before = atomic_load(&before->next);
		if (before != c) /* once more of before */
			continue;
		(void)append_line(&text, c->image, c->seeds);
		n++;
	}
	if (base_buf_error(&text) == 0)
		(void)flip_store_note_set(layer->node->store, "layer-image", layer->digest, text.data, text.len, NULL);
	base_buf_done(&text);
}

void node_claim_note(struct flip_node *node, const char *digest, const char *image, const char *seeds)
{
	struct base_buf text = BASE_BUF_INIT(MAX_TEXT);

	if (append_line(&text, image, seeds) == 0)
		(void)flip_store_note_set(node->store, "layer-image", digest, text.data, text.len, NULL);
	base_buf_done(&text);
}

int node_claim_use(struct node_layer *layer, const char *image, const char *seeds, struct err *err)
{
	struct node_claim *first, *c = claim_new(image, seeds);

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_rwlock_wrlock(&layer->node->layers_lock);
	first = atomic_load(&layer->claims);
	if (first && is_same(first, c)) {
		claim_free(c);
	} else {
		atomic_store(&c->next, first);
		atomic_store(&layer->claims, c);
		keep(layer);
	}
	pthread_rwlock_unlock(&layer->node->layers_lock);
	return 0;
}

void node_claim_add(struct node_layer *layer, const char *ref, const char *manifest)
{
	CLEANUP(freep) char *image = NULL;
	struct node_claim *c;

	if (!layer->node->peers || node_claims_name(layer, ref, true) || asprintf(&image, "%s %s", ref, manifest) < 0)
		return;
	c = claim_new(image, "");
	if (!c)
		return;
	pthread_rwlock_wrlock(&layer->node->layers_lock);
	append(layer, c);
	keep(layer);
	pthread_rwlock_unlock(&layer->node->layers_lock);
}

void node_layer_open_up(struct node_layer *layer, unsigned how)
{
	if (atomic_load(&layer->open) >= how)
		return;
	atomic_store(&layer->open, how);
	(void)flip_store_note_set(layer->node->store, "layer-open", layer->digest, how == NODE_OPEN_BY_NAME ? "2" : "1",
	                          1, NULL);
}

bool node_layer_can_fetch(const struct node_layer *layer)
{
	const struct node_claim *c = atomic_load(&layer->claims);

	return atomic_load(&layer->blob) || (c && *c->seeds && layer->node->peers);
}

bool node_ref_is_of(const char *a, const char *b, bool repository)
{
	struct img_reference x, y;
	bool is = false;

	if (img_reference_parse(a, &x, NULL) < 0)
		return false;
	if (img_reference_parse(b, &y, NULL) == 0) {
		is = strcmp(x.host, y.host) == 0 && (!repository || strcmp(x.name, y.name) == 0);
		img_reference_done(&y);
	}
	img_reference_done(&x);
	return is;
}

bool node_claims_name(const struct node_layer *layer, const char *ref, bool repository)
{
	for (const struct node_claim *c = atomic_load(&layer->claims); c; c = atomic_load(&c->next)) {
		if (c->ref && node_ref_is_of(c->ref, ref, repository))
			return true;
	}
	return layer->ref && !atomic_load(&layer->claims) && node_ref_is_of(layer->ref, ref, repository);
}
