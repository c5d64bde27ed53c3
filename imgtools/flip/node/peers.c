/* Peers and the node: what they may be given of its layers, and how the node asks them.
 *
 *   kind "layer"   pieces of a layer's blob, as members or frames or as chunks of the store; document "tail": what its
 *                  table of contents was made from; contents by their own digests
 *   kind "image"   document "manifest": the manifest of that digest; document "tag": what a reference named lately, by
 *                  the digest of the reference's text
 *   kind "model"   model_peers.c
 *
 * An owner that does not know a layer makes it ready as if somebody here had asked for it, from the image that the
 * asker names: so what it relays is verified as all else, and is in its store for the next. Nobody's snapshot needs it,
 * so it goes with the next collection of garbage. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/sha256.h"
#include "node/node_internal.h"
#include "oci/places.h"

enum { MAX_TAIL = 256 << 20 };

/* ---- Which layer ------------------------------------------------------------------------------------------------- */

int node_image_split(const char *image, char *ref, size_t ref_size, char digest[72])
{
	const char *space = strchr(image, ' ');
	size_t n = space ? (size_t)(space - image) : strlen(image);

	if (n == 0 || n >= ref_size)
		return -EBADMSG;
	memcpy(ref, image, n);
	ref[n] = '\0';
	digest[0] = '\0';
	if (!space)
		return 0;
	if (strncmp(space + 1, "sha256:", 7) != 0 || strlen(space + 1) != 71 ||
	    strspn(space + 8, "0123456789abcdef") != 64)
		return -EBADMSG;
	memcpy(digest, space + 1, 72);
	return 0;
}

/* Makes it ready from the image that the asker names. -EBUSY: that takes longer than an asker is patient; it is to come
 * again. */
static int adopt(struct flip_node *node, const struct flip_peer_ask *ask, unsigned wait_ms,
                 struct node_layer **ret_layer, struct err *err)
{
	char ref[1024], manifest[72];
	struct node_image *image;
	int r;

	if (!*ask->image && *ask->asker && strcmp(ask->kind, "model") == 0) {
		node_layer_start(node, NULL, ask->asker, ask->digest);
		return node_layer_wait(node, ask->digest, wait_ms, ret_layer, err);
	}
	if (node_image_split(ask->image, ref, sizeof(ref), manifest) < 0 || !manifest[0])
		return err_set(err, -ENOENT, "%.19s: not known here", ask->digest);
	r = node_image_get(node->images, node->fetch, ref, manifest, &image, err);
	if (r < 0)
		return err_set(err, -ENOENT, "%.19s: its image cannot be read here", ask->digest);
	r = node_image_layer(image, ask->digest) || node_model_is_of(image, ask->digest)
	            ? 0
	            : err_set(err, -ENOENT, "%s: has no layer %.19s", ref, ask->digest);
	if (r == 0) {
		node_layer_start(node, image, NULL, ask->digest);
		r = node_layer_wait(node, ask->digest, wait_ms, ret_layer, err);
	}
	node_image_unref(node->images, image);
	return r;
}

int node_peers_layer(struct flip_node *node, const struct flip_peer_ask *ask, unsigned wait_ms,
                     struct node_layer **ret_layer, struct err *err)
{
	if (node_layer_known(node, ask->digest, ret_layer, NULL) == 0)
		return 0;
	return wait_ms ? adopt(node, ask, wait_ms, ret_layer, err)
	               : err_set(err, -ENOENT, "%.19s: not known here", ask->digest);
}

/* ---- May they ---------------------------------------------------------------------------------------------------- */

/* A registry's word counts for what we have of that registry; else whoever runs one could vouch for anything. */
static int vouched_layer(struct flip_node *node, const struct flip_peer_ask *ask, const char *ref, struct err *err)
{
	struct node_wanted w = { .ref = ref, .digest = ask->digest };
	struct node_layer *layer;
	bool vouches;

	if (node_layer_known(node, ask->digest, &layer, NULL) == 0) {
		vouches = node_claims_name(layer, ref, false);
		w.had = vouches && node_claims_name(layer, ref, true);
		node_layer_unref(layer);
		if (!vouches)
			return err_set(err, -EACCES, "%.19s: we have it from another registry than %s", ask->digest,
			               ref);
	}
	return node_may_have(node, &w, ask->grant, err);
}

static int vouched_manifest(struct flip_node *node, const char *ref, const char *manifest, const char *grant,
                            struct err *err)
{
	struct node_wanted w = { .ref = ref, .digest = manifest, .is_manifest = true };
	CLEANUP(freep) char *of = NULL;
	size_t size;

	if (flip_store_note_get(node->store, "manifest-of", manifest, (void **)&of, &size, NULL) == 0) {
		if (!node_ref_is_of(of, ref, false))
			return err_set(err, -EACCES, "%.19s: we have it from another registry than %s", manifest, ref);
		w.had = node_ref_is_of(of, ref, true);
	}
	return node_may_have(node, &w, grant, err);
}

static int allow(void *arg, const struct flip_peer_ask *ask, struct err *err)
{
	struct flip_node *node = arg;
	char ref[1024], manifest[72];

	if (node->opts.trust_peers)
		return 0;
	if (node_image_split(ask->image, ref, sizeof(ref), manifest) < 0)
		return err_set(err, -EACCES, "the asker names no image");
	if (strcmp(ask->kind, "layer") == 0)
		return vouched_layer(node, ask, ref, err);
	if (!manifest[0]) /* what a tag means is no secret to those who know its name */
		return 0;
	return strcmp(manifest, ask->digest) == 0
	               ? vouched_manifest(node, ref, manifest, ask->grant, err)
	               : err_set(err, -EACCES, "%.19s: not what the asker names", ask->digest);
}

/* ---- Pieces ---- */

static int by_place(const void *a, const void *b, void *arg)
{
	const struct flip_index *ix = arg;
	const struct flip_index_chunk *x = flip_index_chunk(ix, *(const uint32_t *)a);
	const struct flip_index_chunk *y = flip_index_chunk(ix, *(const uint32_t *)b);

	if (x->blob_offset != y->blob_offset)
		return x->blob_offset < y->blob_offset ? -1 : 1;
	return x->inner_offset < y->inner_offset ? -1 : x->inner_offset > y->inner_offset;
}

/* Made when the first peer asks; several at once may make it, one of them is kept. */
static const uint32_t *chunks_by_place(struct node_layer *layer)
{
	uint32_t *list = atomic_load(&layer->by_blob), *expected = NULL;
	size_t n = flip_index_n_chunks(layer->index);

	if (list)
		return list;
	list = malloc((n + 1) * sizeof(*list));
	if (!list)
		return NULL;
	for (size_t i = 0; i < n; i++)
		list[i] = (uint32_t)i;
	qsort_r(list, n, sizeof(*list), by_place, layer->index);
	if (!atomic_compare_exchange_strong(&layer->by_blob, &expected, list)) {
		free(list);
		list = expected;
	}
	return list;
}

static size_t first_at(const struct flip_index *ix, const uint32_t *list, uint64_t offset)
{
	size_t lo = 0, hi = flip_index_n_chunks(ix);

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (flip_index_chunk(ix, list[mid])->blob_offset < offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct owed { /* a chunk that was promised to a peer */
	struct flip_peer_answer *answer;
	struct node_layer *layer;  /* a reference */
	struct flip_object *store; /* a reference */
	uint32_t chunk;
};

static void release_object(void *arg)
{
	flip_object_unref(arg);
}

/* As it came, when that is still in memory; else out of the store. */
static void give(struct flip_peer_answer *answer, const struct flip_index_chunk *c, struct flip_object *store)
{
	int fd;

	if (flip_peer_give_remembered(answer, c->blob_offset))
		return;
	fd = flip_object_fd(store);
	if (fd < 0 || !flip_object_has(store, c->offset, c->size))
		flip_peer_refuse(answer, c->blob_offset, c->inner_offset);
	else
		flip_peer_give_plain(answer, c->blob_offset, c->inner_offset, fd, c->offset, c->size, release_object,
		                     flip_object_ref(store));
}

static void owed_came(void *arg, int r)
{
	struct owed *o = arg;
	const struct flip_index_chunk *c = flip_index_chunk(o->layer->index, o->chunk);

	if (r < 0)
		flip_peer_refuse(o->answer, c->blob_offset, c->inner_offset);
	else
		give(o->answer, c, o->store);
	flip_peer_settle(o->answer);
	flip_object_unref(o->store);
	node_layer_unref(o->layer);
	free(o);
}

static void owe(struct node_layer *layer, uint32_t chunk, struct flip_object *store, const struct flip_peer_ask *ask,
                struct flip_peer_answer *answer)
{
	const struct flip_index_chunk *c = flip_index_chunk(layer->index, chunk);
	struct owed *o = ask->role == FLIP_PEER_HOLDER || !node_layer_can_fetch(layer) ? NULL : malloc(sizeof(*o));

	if (!o || flip_peer_promise(answer, 1) < 0) {
		free(o);
		flip_peer_refuse(answer, c->blob_offset, c->inner_offset);
		return;
	}
	*o = (struct owed){ answer, layer, flip_object_ref(store), chunk };
	atomic_fetch_add(&layer->n_refs, 1);
	if (node_load_for_peer(layer, chunk, store, ask->priority,
	                       ask->role == FLIP_PEER_RELAY ? (int)FLIP_PEER_OWNER : NODE_ORIGIN, owed_came, o) < 0)
		owed_came(o, -EIO);
}

static int serve_range(struct node_layer *layer, const struct flip_peer_ask *ask, const struct flip_range *range,
                       struct flip_peer_answer *answer)
{
	const uint32_t *list = chunks_by_place(layer);
	size_t n = flip_index_n_chunks(layer->index);
	uint64_t end = range->offset + range->size, given = UINT64_MAX;

	if (!list)
		return -ENOMEM;
	for (size_t i = first_at(layer->index, list, range->offset); i < n; i++) {
		const struct flip_index_chunk *c = flip_index_chunk(layer->index, list[i]);
		const struct flip_index_object *o = flip_index_chunk_object(layer->index, list[i]);
		struct flip_object *store;

		if (c->blob_offset + c->blob_size > end)
			break;
		if (c->blob_offset == given) /* its member was sent whole */
			continue;
		if (flip_object_open(layer->node->store, o->digest, o->size, &store, NULL) < 0) {
			flip_peer_refuse(answer, c->blob_offset, c->inner_offset);
			continue;
		}
		/* What another layer's table says of it may have been written; without digests of chunks it lies apart
		 * until it is whole. */
		if (!flip_object_is_complete(store) &&
		    (node_object_is_contested(layer->node, o->digest) || flip_index_is_unverified(layer->index, o))) {
			flip_peer_refuse(answer, c->blob_offset, c->inner_offset);
			flip_object_unref(store);
			continue;
		}
		if (!flip_object_has(store, c->offset, c->size))
			owe(layer, list[i], store, ask, answer);
		else if (flip_peer_give_remembered(answer, c->blob_offset))
			given = c->blob_offset;
		else
			give(answer, c, store);
		flip_object_unref(store);
	}
	return 0;
}

int node_peers_serve(struct node_layer *layer, const struct flip_peer_ask *ask, struct flip_peer_answer *answer)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ask->n_ranges; i++)
		r = serve_range(layer, ask, &ask->ranges[i], answer);
	return r;
}

static int serve(void *arg, const struct flip_peer_ask *ask, struct flip_peer_answer *answer, struct err *err)
{
	struct node_layer *layer;
	int r = node_peers_layer(arg, ask, ask->role != FLIP_PEER_HOLDER ? NODE_PEER_WAIT_MS : 0, &layer, err);

	if (r < 0)
		return r;
	r = node_peers_serve(layer, ask, answer);
	node_layer_unref(layer);
	return r;
}

/* ---- Documents and contents ---- */

static int append_file(const char *path, struct base_buf *ret, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int r = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, errno == ENOENT ? -ENOENT : -EIO, "%s: %s", path, strerror(errno));
	if (st.st_size > MAX_TAIL)
		return err_set(err, -EFBIG, "%s: too large", path);
	r = base_buf_reserve(ret, (size_t)st.st_size);
	if (r == 0 && read(fd, ret->data + ret->len, (size_t)st.st_size) != st.st_size)
		r = -EIO;
	if (r == 0)
		ret->len += (size_t)st.st_size;
	return r < 0 ? err_set(err, r, "%s: %s", path, strerror(-r)) : 0;
}

static int give_document(void *arg, const struct flip_peer_ask *ask, const char *document, struct base_buf *ret,
                         struct err *err)
{
	struct node_layer *layer;
	char path[NODE_PATH + 32];
	int r;

	if (strcmp(document, "tail") != 0)
		return err_set(err, -ENOENT, "%s: no document of a layer", document);
	r = node_peers_layer(arg, ask, ask->role != FLIP_PEER_HOLDER ? NODE_PEER_WAIT_MS : 0, &layer, err);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/tail", layer->dir);
	r = append_file(path, ret, err);
	node_layer_unref(layer);
	return r;
}

int node_digest_bytes(const char *text, uint8_t ret[FLIP_DIGEST_SIZE])
{
	for (size_t i = 0; i < FLIP_DIGEST_SIZE; i++) {
		unsigned v;

		if (sscanf(text + 7 + 2 * i, "%2x", &v) != 1)
			return -EBADMSG;
		ret[i] = (uint8_t)v;
	}
	return 0;
}

int node_peers_content(struct node_layer *layer, const char *content, uint64_t offset, uint64_t size, int *ret_fd,
                       uint64_t *ret_size, struct err *err)
{
	const struct flip_index_object *o = NULL;
	uint8_t digest[FLIP_DIGEST_SIZE];
	struct flip_object *store = NULL;
	int r, fd;

	/* Only what the layer has: that is what the asker may have. */
	if (node_digest_bytes(content, digest) == 0)
		o = flip_index_find(layer->index, digest);
	r = o ? flip_object_open(layer->node->store, o->digest, o->size, &store, err) : -ENOENT;
	if (r == 0 && (offset > o->size || size > o->size - offset ||
	               !flip_object_has(store, offset, size ? size : o->size - offset)))
		r = -ENOENT;
	if (r == 0) {
		fd = flip_object_fd(store);
		fd = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 3);
		r = fd < 0 ? -EIO : 0;
		*ret_fd = fd;
		*ret_size = o->size;
	}
	flip_object_unref(store);
	return r < 0 ? err_set(err, r, "%.19s: not all of it is here", content) : 0;
}

static int give_content(void *arg, const struct flip_peer_ask *ask, const char *content, uint64_t offset, uint64_t size,
                        int *ret_fd, uint64_t *ret_size, struct err *err)
{
	struct node_layer *layer;
	int r = node_peers_layer(arg, ask, 0, &layer, err);

	if (r < 0)
		return r;
	r = node_peers_content(layer, content, offset, size, ret_fd, ret_size, err);
	node_layer_unref(layer);
	return r;
}

static int give_image(void *arg, const struct flip_peer_ask *ask, const char *document, struct base_buf *ret,
                      struct err *err)
{
	return node_document_find(arg, ask->digest, document, ret, err);
}

/* ---- Asking ---- */

int node_peers_read(struct node_layer *layer, const struct flip_peer_piece *pieces, size_t n,
                    enum flip_priority priority, int most, flip_peer_done done, void *arg)
{
	struct flip_node *node = layer->node;
	const struct node_claim *claim = atomic_load(&layer->claims);
	CLEANUP(freep) char *grant = NULL;
	struct flip_peer_blob blob = { .kind = layer->model ? "model" : "layer", .digest = layer->digest };

	if (!claim || !node->peers)
		return -ENOENT;
	grant = claim->ref ? node_grant_of(node, claim->ref) : strdup("held");
	if (!grant)
		return -ENOMEM;
	blob.image = claim->image;
	blob.seeds = claim->seeds;
	blob.grant = grant;
	return flip_peers_read(node->peers, &blob, pieces, n, priority, (enum flip_peer_role)most, NULL, done, arg);
}

int node_document_is(const char *digest, const struct base_buf *text, struct err *err)
{
	char own[IMG_DIGEST_SIZE];

	img_digest_of(base_buf_text(text), text->len, own);
	return strcmp(own, digest) == 0 ? 0 : err_set(err, -EBADMSG, "another document than %.19s", digest);
}

/* One answer, and whether it is right. */
static int ask_for_document(struct flip_node *node, const struct node_question *q, const struct flip_peer_blob *blob,
                            struct base_buf *ret, struct err *err)
{
	struct err why = { 0 };
	unsigned from = 0;
	int r = flip_peers_document(node->peers, blob, q->document, q->anyone ? FLIP_PEER_HOLDER : FLIP_PEER_OWNER, ret,
	                            &from, &why);
	bool has_come = r == 0;

	if (r == 0 && q->sum)
		r = node_document_is(q->sum, ret, &why);
	if (r == 0 && q->check)
		r = q->check(q->arg, ret, &why);
	if (r == 0)
		return 0;
	if (has_come && r == -EBADMSG)
		flip_peers_blame(node->peers, from, err_text(&why));
	base_buf_reset(ret);
	return err_set(err, r, "%s", err_text(&why));
}

int node_peers_document(struct flip_node *node, const struct node_question *q, struct base_buf *ret, struct err *err)
{
	CLEANUP(freep) char *grant = NULL;
	CLEANUP(freep) char *image = NULL;
	struct flip_peer_blob blob = { .kind = q->kind, .digest = q->digest, .grant = "held", .seeds = q->seeds };
	int r = -EBADMSG;

	if (!flip_peers_are_there(node->peers))
		return err_set(err, -ENOENT, "no peers");
	if (q->ref) {
		grant = node_grant_of(node, q->ref);
		if (!grant ||
		    asprintf(&image, "%s%s%s", q->ref, q->manifest ? " " : "", q->manifest ? q->manifest : "") < 0)
			return err_set(err, -ENOMEM, "out of memory");
		blob.image = image;
		blob.grant = grant;
	}
	for (unsigned i = 0; r == -EBADMSG && i < NODE_PEER_LIES; i++)
		r = ask_for_document(node, q, &blob, ret, err);
	return r;
}

/* ---- Start ---- */

int node_peers_start(struct flip_node *node, struct err *err)
{
	static const struct flip_peer_provider layers = {
		.allow = allow, .serve = serve, .document = give_document, .content = give_content
	};
	static const struct flip_peer_provider images = { .allow = allow, .document = give_image };
	int r;

	if (!node->peers)
		return 0;
	r = flip_peers_provide(node->peers, "layer", &layers, node);
	if (r == 0)
		r = flip_peers_provide(node->peers, "image", &images, node);
	if (r == 0)
		r = flip_peers_provide(node->peers, "model", &node_model_provider, node);
	return r < 0 ? r : flip_peers_start(node->peers, err);
}

int flip_node_peers(struct flip_node *node, struct base_buf *buf)
{
	return flip_peers_stat(node->peers, buf);
}
