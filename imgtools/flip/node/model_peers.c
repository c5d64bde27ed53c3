/* Models and peers: what members are given of a model, and a model that only members have.
 *
 *   kind "model"   pieces of the joined files of the model with this id, as chunks of the store; documents "manifest"
 *                  (its list of files), "list" (the same with addresses), "have" ("HERE ALL", bytes) and, by the digest
 *                  of a name, "name": the id of the model that is called so; contents by their own digests
 *
 * Who may have what: of a model that came from an address or from somebody's folder the cluster is let have all, by its
 * id, which is the digest of its list; and a folder's by its name too. A registry's artifact: what the registry gives
 * the asker: the artifact's manifest, and each file that is asked for, which is a blob of the same repository. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "node/node_internal.h"
#include "oci/places.h"

enum { MAX_SEEDS = FLIP_PEER_MAX_SEEDS };

/* ---- May they ---------------------------------------------------------------------------------------------------- */

static bool is_open(struct flip_node *node, const struct node_layer *layer)
{
	return node->opts.trust_peers || atomic_load(&layer->open);
}

static int artifact_is_given(struct flip_node *node, const struct node_layer *layer, const struct flip_peer_ask *ask,
                             struct err *err)
{
	char ref[1024], manifest[72];
	struct node_wanted w = { .ref = ref, .digest = manifest, .is_manifest = true };

	if (node_image_split(ask->image, ref, sizeof(ref), manifest) < 0 || !manifest[0])
		return err_set(err, -ENOENT, "%.19s: not known here as a model of the cluster", ask->digest);
	if (layer && !node_claims_name(layer, ref, false))
		return err_set(err, -EACCES, "%.19s: we have it from another registry than %s", ask->digest, ref);
	w.had = layer && node_claims_name(layer, ref, true);
	return node_may_have(node, &w, ask->grant, err);
}

/* A blob of the repository that the asker names; of the artifact's manifest we know already. */
static int blob_is_given(struct node_layer *layer, const struct flip_peer_ask *ask, const char *digest, struct err *err)
{
	char ref[1024], manifest[72];
	struct node_wanted w = { .ref = ref, .digest = digest };

	if (is_open(layer->node, layer))
		return 0;
	if (node_image_split(ask->image, ref, sizeof(ref), manifest) < 0 || !node_claims_name(layer, ref, false))
		return err_set(err, -EACCES, "%.19s: we have it from another registry", ask->digest);
	w.had = node_claims_name(layer, ref, true);
	return node_may_have(layer->node, &w, ask->grant, err);
}

/* A list says of a file what it likes, and whoever makes one opens it: so what the store has of a registry's layer is
 * not given by a list that names the same file. */
static int file_is_given(struct node_layer *layer, const struct flip_peer_ask *ask, const uint8_t *file,
                         struct err *err)
{
	struct flip_node *node = layer->node;
	char digest[IMG_DIGEST_SIZE] = "sha256:";
	bool is_closed = false;

	base_sha256_hex(file, digest + strlen(digest));
	if (node->opts.trust_peers || atomic_load(&layer->open) != NODE_OPEN_BY_ID)
		return blob_is_given(layer, ask, digest, err);
	pthread_rwlock_rdlock(&node->layers_lock);
	for (size_t i = 0; i < node->n_layers && !is_closed; i++) {
		const struct node_layer *l = node->layers[i];

		is_closed = l && l != layer && !atomic_load(&l->open) && flip_index_find(l->index, file);
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return is_closed ? err_set(err, -EACCES, "%.19s: is of a registry's layer here", digest) : 0;
}

/* Contents lie in the joined files in the order of the index's first chunks: all that the ranges touch. */
static int files_are_given(struct node_layer *layer, const struct flip_peer_ask *ask, struct err *err)
{
	const struct flip_index *ix = layer->index;
	int r = 0;

	for (size_t i = 0; r == 0 && i < flip_index_n_objects(ix); i++) {
		const struct flip_index_object *o = flip_index_object(ix, i);
		uint64_t start = flip_index_chunk(ix, o->first_chunk)->blob_offset;
		bool is_asked_for = false;

		for (size_t k = 0; k < ask->n_ranges && !is_asked_for; k++)
			is_asked_for = ask->ranges[k].offset < start + o->size &&
			               ask->ranges[k].offset + ask->ranges[k].size > start;
		r = is_asked_for ? file_is_given(layer, ask, o->digest, err) : 0;
	}
	return r;
}

static int allow(void *arg, const struct flip_peer_ask *ask, struct err *err)
{
	struct flip_node *node = arg;
	struct node_layer *layer = NULL;
	int r = 0;

	/* Only those are found by name that are open by it. */
	if (node->opts.trust_peers || (ask->document && strcmp(ask->document, "name") == 0))
		return 0;
	(void)node_layer_known(node, ask->digest, &layer, NULL);
	/* Of one that is not known here the asker tells us all, if it shall be relayed. */
	if (layer ? !is_open(node, layer)
	          : *ask->image || ask->role == FLIP_PEER_HOLDER || ask->document || ask->content)
		r = artifact_is_given(node, layer, ask, err);
	node_layer_unref(layer);
	return r;
}

/* ---- What they are given ---- */

static int get_layer(struct flip_node *node, const struct flip_peer_ask *ask, bool may_wait,
                     struct node_layer **ret_layer, struct err *err)
{
	struct node_layer *layer;
	int r = node_peers_layer(node, ask, may_wait && ask->role != FLIP_PEER_HOLDER ? NODE_PEER_WAIT_MS : 0, &layer,
	                         err);

	if (r == 0 && !layer->model) {
		node_layer_unref(layer);
		r = err_set(err, -ENOENT, "%.19s: no model", ask->digest);
	}
	if (r == 0)
		*ret_layer = layer;
	return r;
}

static int serve(void *arg, const struct flip_peer_ask *ask, struct flip_peer_answer *answer, struct err *err)
{
	struct node_layer *layer;
	int r = get_layer(arg, ask, true, &layer, err);

	if (r < 0)
		return r;
	r = files_are_given(layer, ask, err);
	if (r == 0)
		r = node_peers_serve(layer, ask, answer);
	node_layer_unref(layer);
	return r;
}

static int give_name(struct flip_node *node, const struct flip_peer_ask *ask, struct base_buf *ret, struct err *err)
{
	char id[IMG_DIGEST_SIZE];

	return node_model_by_name(node, ask->digest, id) < 0
	               ? err_set(err, -ENOENT, "%.19s: no model of this name", ask->digest)
	               : base_buf_puts(ret, id);
}

static int give_document(void *arg, const struct flip_peer_ask *ask, const char *document, struct base_buf *ret,
                         struct err *err)
{
	struct node_layer *layer;
	uint64_t here, all;
	int r;

	if (strcmp(document, "name") == 0)
		return give_name(arg, ask, ret, err);
	if (strcmp(document, "manifest") != 0 && strcmp(document, "have") != 0 && strcmp(document, "list") != 0)
		return err_set(err, -ENOENT, "%s: no document of a model", document);
	r = get_layer(arg, ask, strcmp(document, "manifest") == 0, &layer, err);
	if (r < 0)
		return r;
	/* The list is the artifact's configuration, a blob of its repository. */
	r = blob_is_given(layer, ask, ask->digest, err);
	if (r == 0 && strcmp(document, "have") == 0) {
		node_layer_here(layer, &here, &all);
		r = base_buf_printf(ret, "%llu %llu\n", (unsigned long long)here, (unsigned long long)all);
	} else if (r == 0) {
		/* A folder's addresses were of the command that put it into the store. */
		r = node_model_document(
		        layer, strcmp(document, "list") == 0 && atomic_load(&layer->open) == NODE_OPEN_BY_ID, ret, err);
	}
	node_layer_unref(layer);
	return r;
}

static int give_content(void *arg, const struct flip_peer_ask *ask, const char *content, uint64_t offset, uint64_t size,
                        int *ret_fd, uint64_t *ret_size, struct err *err)
{
	uint8_t file[FLIP_DIGEST_SIZE];
	struct node_layer *layer;
	int r = get_layer(arg, ask, false, &layer, err);

	if (r < 0)
		return r;
	r = node_digest_bytes(content, file) == 0 ? file_is_given(layer, ask, file, err)
	                                          : err_set(err, -ENOENT, "%.19s: no digest", content);
	if (r == 0)
		r = node_peers_content(layer, content, offset, size, ret_fd, ret_size, err);
	node_layer_unref(layer);
	return r;
}

/* Weights do not get smaller by zstd's first level at the speed of a link. */
const struct flip_peer_provider node_model_provider = {
	.is_dense = true, .allow = allow, .serve = serve, .document = give_document, .content = give_content
};

/* ---- A model that members have ---- */

static bool digest_is_valid(const char *text, size_t size)
{
	return size == 71 && strncmp(text, "sha256:", 7) == 0 && strspn(text + 7, "0123456789abcdef") >= 64;
}

struct found_ids {
	char id[72];
	char other[72]; /* what somebody else said */
	char by[FLIP_PEER_NAME], by_other[FLIP_PEER_NAME];
};

static void note_id(void *arg, const char *member, const char *text, size_t size)
{
	struct found_ids *f = arg;

	if (!digest_is_valid(text, size))
		return;
	if (!f->id[0]) {
		(void)snprintf(f->id, sizeof(f->id), "%s", text);
		(void)snprintf(f->by, sizeof(f->by), "%s", member);
	} else if (strcmp(f->id, text) != 0) {
		(void)snprintf(f->other, sizeof(f->other), "%s", text);
		(void)snprintf(f->by_other, sizeof(f->by_other), "%s", member);
	}
}

/* A name is whatever members call so: believed when all of them say the same. */
static int find_id(struct flip_node *node, const char *name, char ret_id[72], struct err *err)
{
	char digest[IMG_DIGEST_SIZE];
	struct flip_peer_blob blob = { .kind = "model", .digest = digest, .grant = "held" };
	struct found_ids found = { 0 };
	int r;

	if (!node->opts.peers_tags)
		return err_set(err, -EACCES,
		               "%s%s: peers are not believed what a name means (peers.tags): give %s@sha256:...",
		               NODE_PEERS_SOURCE, name, name);
	img_digest_of(name, strlen(name), digest);
	r = flip_peers_everyone(node->peers, &blob, "name", note_id, &found, err);
	if (r < 0)
		return r;
	if (!found.id[0])
		return err_set(err, -ENOENT, "%s%s: no member of the cluster has such a model (flip model seed)",
		               NODE_PEERS_SOURCE, name);
	if (found.other[0])
		return err_set(err, -EBADMSG, "%s%s: is %.19s at %s and %.19s at %s: give %s@sha256:...",
		               NODE_PEERS_SOURCE, name, found.id, found.by, found.other, found.by_other, name);
	memcpy(ret_id, found.id, sizeof(found.id));
	return 0;
}

struct found_seeds {
	struct base_buf names; /* who has all of it */
	unsigned n;
	char most[FLIP_PEER_NAME]; /* who has the most */
	unsigned long long most_here;
};

static void note_seed(void *arg, const char *member, const char *text, size_t size)
{
	unsigned long long here, all;
	struct found_seeds *f = arg;

	if (size > 64 || sscanf(text, "%llu %llu", &here, &all) != 2 || here > all)
		return;
	if (here >= f->most_here) {
		f->most_here = here;
		(void)snprintf(f->most, sizeof(f->most), "%s", member);
	}
	if (here == all && f->n < MAX_SEEDS)
		(void)base_buf_printf(&f->names, "%s%s", f->n++ ? "," : "", member);
}

static int find_seeds(struct flip_node *node, const char *id, char **ret_seeds, struct err *err)
{
	struct flip_peer_blob blob = { .kind = "model", .digest = id, .grant = "held" };
	struct found_seeds found = { .names = BASE_BUF_INIT(MAX_SEEDS * FLIP_PEER_NAME) };
	int r = flip_peers_everyone(node->peers, &blob, "have", note_seed, &found, err);

	if (r >= 0 && !found.n && found.most[0])
		(void)base_buf_puts(&found.names, found.most);
	if (r >= 0 && !found.names.len)
		r = err_set(err, -ENOENT, "%.19s: no member of the cluster has it", id);
	if (r >= 0 && !(*ret_seeds = base_buf_take(&found.names)))
		r = err_set(err, -ENOMEM, "out of memory");
	base_buf_done(&found.names);
	return r < 0 ? r : 0;
}

struct wanted_list {
	const char *id;
	struct flip_model *model;
};

static int list_is_of(void *arg, const struct base_buf *text, struct err *err)
{
	struct wanted_list *w = arg;
	struct flip_model *model = NULL;
	char digest[IMG_DIGEST_SIZE];
	int r = flip_model_parse(text->data, text->len, w->id, NULL, &model, err);

	if (r == 0)
		r = flip_model_digest(model, digest, err);
	if (r == 0 && strcmp(digest, w->id) != 0)
		r = err_set(err, -EBADMSG, "%.19s: a list of files with another digest", w->id);
	if (r == 0)
		w->model = model;
	else
		flip_model_free(model);
	return r;
}

/* The list of files, from `members` before others. */
static int get_list(struct flip_node *node, const char *id, const char *members, const char *document,
                    struct flip_model **ret_model, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	struct wanted_list w = { .id = id };
	struct node_question q = { .kind = "model",
		                   .digest = id,
		                   .document = document,
		                   .seeds = members,
		                   .anyone = true,
		                   .check = list_is_of,
		                   .arg = &w };
	int r = node_peers_document(node, &q, &text, err);

	if (r == 0)
		*ret_model = w.model;
	return r;
}

/* Of the files that have any bytes. */
static void count_addresses(const struct flip_model *m, size_t *ret_with, size_t *ret_without)
{
	*ret_with = *ret_without = 0;
	for (size_t i = 0; i < m->n_files; i++) {
		*ret_with += m->files[i].n_urls > 0;
		*ret_without += m->files[i].size && !m->files[i].n_urls;
	}
}

int node_model_adopt_held(struct flip_node *node, const char *member, const char *digest, struct err *err)
{
	CLEANUP(freep) char *source = NULL;
	struct node_model_source s = { .open = NODE_OPEN_BY_ID };
	struct node_layer *layer = NULL;
	size_t n_with, n_without = 0;
	int r = get_list(node, digest, member, "list", &s.model, err);

	if (r == 0)
		count_addresses(s.model, &n_with, &n_without);
	if (n_without)
		r = find_seeds(node, digest, &s.seeds, err);
	if (r == 0 && asprintf(&source, "%s%s", s.seeds ? NODE_PEERS_SOURCE : "", s.seeds ? digest : "") < 0) {
		source = NULL;
		r = err_set(err, -ENOMEM, "out of memory");
	}
	if (r == 0) {
		pthread_mutex_lock(&node->models_lock);
		if (node_layer_known(node, digest, &layer, NULL) < 0) /* else somebody here was faster */
			r = node_model_layer(node, &s, source, false, &layer, err);
		pthread_mutex_unlock(&node->models_lock);
	}
	node_layer_unref(layer);
	node_model_source_done(node, &s);
	return r;
}

int node_model_of_peers(struct flip_node *node, const char *source, struct node_model_source *ret, struct err *err)
{
	const char *name = source + strlen(NODE_PEERS_SOURCE), *at = strchr(name, '@');
	CLEANUP(freep) char *called = strndup(name, at ? (size_t)(at - name) : strlen(name));
	size_t n_with, n_without;
	char id[72] = "";
	int r = 0;

	if (!node->peers)
		return err_set(err, -ENOENT, "%s: this node has no peers (peers.listen, peers.members)", source);
	if (!called)
		return err_set(err, -ENOMEM, "out of memory");
	if (at || digest_is_valid(name, strlen(name)))
		(void)snprintf(id, sizeof(id), "%s", at ? at + 1 : name);
	if (at ? !digest_is_valid(at + 1, strlen(at + 1)) : !id[0] && !flip_model_name_is_valid(called))
		return err_set(err, -EINVAL,
		               "%.200s: not " NODE_PEERS_SOURCE "NAME, " NODE_PEERS_SOURCE "NAME@sha256:...", source);
	if (!id[0])
		r = find_id(node, called, id, err);
	if (r == 0)
		r = find_seeds(node, id, &ret->seeds, err);
	if (r == 0)
		r = get_list(node, id, ret->seeds, "manifest", &ret->model, err);
	if (r == 0) { /* those who gave it are its origin */
		count_addresses(ret->model, &n_with, &n_without);
		r = n_with ? err_set(err, -EBADMSG, "%s: a list of files with addresses", source) : 0;
	}
	ret->open = NODE_OPEN_BY_NAME;
	return r;
}
