/* Manifests, and what references meant: noted in the store when they were read, given to peers, and asked of peers
 * while the registry is away, so that what one node has started others can start too.
 *
 *   note "manifest", "sha256:..."            the bytes, which are verified by their name
 *   note "manifest-of", "sha256:..."         the reference that it was had by
 *   note "tag", digest of the reference      the digest that the registry gave it last
 *   note "config", "sha256:..."              the configuration that this manifest names
 *
 * What a tag means cannot be verified: it is believed of peers only while the registry cannot be reached, and only when
 * peers.tags says so. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "node/node_internal.h"
#include "oci/places.h"

enum { MAX_DOCUMENT = 8 << 20, DIGEST_TEXT = 71 };

static void keep(void *arg, const struct node_image *image)
{
	struct flip_node *node = arg;
	char name[IMG_DIGEST_SIZE];

	(void)flip_store_note_set(node->store, "manifest", image->manifest, image->manifest_data, image->manifest_size,
	                          NULL);
	(void)flip_store_note_set(node->store, "manifest-of", image->manifest, image->ref, strlen(image->ref), NULL);
	if (image->index_data) {
		(void)flip_store_note_set(node->store, "manifest", image->top, image->index_data, image->index_size,
		                          NULL);
		(void)flip_store_note_set(node->store, "manifest-of", image->top, image->ref, strlen(image->ref), NULL);
	}
	img_digest_of(image->ref, strlen(image->ref), name);
	(void)flip_store_note_set(node->store, "tag", name, image->top, DIGEST_TEXT, NULL);
}

int node_document_find(struct flip_node *node, const char *digest, const char *document, struct base_buf *ret,
                       struct err *err)
{
	void *data;
	size_t size;
	int r = strcmp(document, "manifest") != 0 && strcmp(document, "tag") != 0 && strcmp(document, "config") != 0
	                ? -ENOENT
	                : flip_store_note_get(node->store, document, digest, &data, &size, NULL);

	if (r < 0)
		return err_set(err, -ENOENT, "%.19s: no such document here", digest);
	r = base_buf_append(ret, data, size);
	free(data);
	return r;
}

/* Our own, or that of anybody: its bytes say whether they are right. */
static int get_by_digest(struct flip_node *node, const char *ref, const char *digest, struct base_buf *ret,
                         struct err *err)
{
	struct node_question q = { .kind = "image",
		                   .digest = digest,
		                   .document = "manifest",
		                   .ref = ref,
		                   .manifest = digest,
		                   .anyone = true,
		                   .sum = digest };

	return node_document_find(node, digest, "manifest", ret, NULL) == 0 ? node_document_is(digest, ret, err)
	                                                                    : node_peers_document(node, &q, ret, err);
}

static int get_tag(struct flip_node *node, const char *ref, char ret_digest[72], struct err *err)
{
	struct base_buf text = BASE_BUF_INIT(DIGEST_TEXT);
	char name[IMG_DIGEST_SIZE];
	struct node_question q = { .kind = "image", .digest = name, .document = "tag", .ref = ref, .anyone = true };
	int r;

	img_digest_of(ref, strlen(ref), name);
	r = node_document_find(node, name, "tag", &text, err);
	if (r == -ENOENT && node->opts.peers_tags)
		r = node_peers_document(node, &q, &text, err);
	if (r == 0 && (text.len != DIGEST_TEXT || strncmp(text.data, "sha256:", 7) != 0 ||
	               strspn(text.data + 7, "0123456789abcdef") != 64))
		r = err_set(err, -EBADMSG, "%s: not a digest", ref);
	if (r == 0)
		memcpy(ret_digest, text.data, DIGEST_TEXT + 1);
	base_buf_done(&text);
	return r;
}

static void media_type_of(const struct base_buf *doc, char ret[128])
{
	json_t *o = NULL;
	const char *text = NULL;

	if (base_json_parse("manifest", doc->data, doc->len, &o, NULL) == 0)
		text = json_string_value(json_object_get(o, "mediaType"));
	(void)snprintf(ret, 128, "%s", text ? text : "application/vnd.oci.image.manifest.v1+json");
	json_decref(o);
}

static int get(void *arg, const char *ref, const char *which, char **ret_data, size_t *ret_size, char ret_digest[72],
               char ret_media_type[128], struct err *err)
{
	struct flip_node *node = arg;
	struct base_buf doc = BASE_BUF_INIT(MAX_DOCUMENT);
	char digest[72];
	int r = 0;

	if (which)
		(void)snprintf(digest, sizeof(digest), "%s", which);
	else if (strstr(ref, "@sha256:"))
		(void)snprintf(digest, sizeof(digest), "%s", strstr(ref, "@sha256:") + 1);
	else
		r = get_tag(node, ref, digest, err);
	if (r == 0)
		r = get_by_digest(node, ref, digest, &doc, err);
	if (r == 0) {
		base_log(BASE_LOG_WARN, "%s: the registry is away; going on with %.19s as it was known lately", ref,
		         digest);
		media_type_of(&doc, ret_media_type);
		memcpy(ret_digest, digest, sizeof(digest));
		*ret_size = doc.len;
		*ret_data = base_buf_take(&doc);
		r = *ret_data ? 0 : -ENOMEM;
	}
	base_buf_done(&doc);
	return r;
}

static int get_config(void *arg, const struct node_image *image, char *ret_data)
{
	struct flip_node *node = arg;
	struct base_buf doc = BASE_BUF_INIT(MAX_DOCUMENT);
	struct node_question q = { .kind = "image",
		                   .digest = image->manifest,
		                   .document = "config",
		                   .ref = image->ref,
		                   .manifest = image->manifest,
		                   .anyone = true,
		                   .sum = image->doc.config.digest };
	int r = node_document_find(node, image->manifest, "config", &doc, NULL);

	if (r < 0)
		r = node_peers_document(node, &q, &doc, NULL);
	if (r == 0 && doc.len != image->doc.config.size)
		r = -EBADMSG;
	if (r == 0)
		memcpy(ret_data, doc.data, doc.len);
	base_buf_done(&doc);
	return r;
}

void node_keep_config(struct flip_node *node, const struct node_image *image)
{
	struct base_buf known = BASE_BUF_INIT(MAX_DOCUMENT);
	char *data = NULL;

	if (node_document_find(node, image->manifest, "config", &known, NULL) < 0 &&
	    node_image_config(node->fetch, node->images, image, &data, NULL) == 0)
		(void)flip_store_note_set(node->store, "config", image->manifest, data, image->doc.config.size, NULL);
	free(data);
	base_buf_done(&known);
}

int flip_node_image(struct flip_node *node, const char *ref, struct base_buf *buf, struct err *err)
{
	struct node_image *image;
	json_t *o;
	int r = node_image_read_here(node->images, node->fetch, ref, &image, err);

	if (r < 0)
		return r;
	keep(node, image);
	o = node_image_json(image);
	r = o ? base_json_append(buf, o) : err_set(err, -EBADMSG, "%s: its documents are no text", ref);
	json_decref(o);
	node_image_free(image);
	return r;
}

void node_documents_use(struct flip_node *node)
{
	static const struct node_elsewhere ops = { get, get_config, keep };

	node_images_elsewhere(node->images, &ops, node);
}
