/* The labels by which clients tell a snapshotter what a layer is: containerd's own (CRI, nerdctl) and those of
 * ctr-remote. Names that say the same are tried in this order; where both are given they agree. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/remote.h"

enum { MAX_LAYERS = 512, DIGEST_TEXT = 71 }; /* "sha256:" and 64 digits */

static const char *const ref_names[] = { "containerd.io/snapshot/cri.image-ref",
	                                 "containerd.io/snapshot/remote/stargz.reference", NULL };
static const char *const layer_names[] = { "containerd.io/snapshot/cri.layer-digest",
	                                   "containerd.io/snapshot/remote/stargz.digest", NULL };
static const char *const layers_names[] = { "containerd.io/snapshot/cri.image-layers",
	                                    "containerd.io/snapshot/remote/stargz.layers", NULL };
static const char *const manifest_names[] = { "containerd.io/snapshot/cri.manifest-digest", NULL };
static const char *const target_names[] = { "containerd.io/snapshot.ref", NULL };

/* The first that has a value. */
static const char *find(const struct flip_label *labels, size_t n, const char *const *names)
{
	for (; *names; names++) {
		for (size_t i = 0; i < n; i++) {
			if (strcmp(labels[i].name, *names) == 0 && labels[i].value && labels[i].value[0])
				return labels[i].value;
		}
	}
	return NULL;
}

static bool is_digest(const char *text, size_t len)
{
	if (len != DIGEST_TEXT || strncmp(text, "sha256:", 7) != 0)
		return false;
	for (size_t i = 7; i < len; i++) {
		if (!(text[i] >= '0' && text[i] <= '9') && !(text[i] >= 'a' && text[i] <= 'f'))
			return false;
	}
	return true;
}

static int check_digest(const char *what, const char *text, struct err *err)
{
	if (!text || is_digest(text, strlen(text)))
		return 0;
	return err_set(err, -EINVAL, "the label of the %s is not a sha256 digest: %.100s", what, text);
}

/* Digests between commas; the list may be cut anywhere, and what follows a wrong one is not believed. */
static int read_layers(const char *list, struct flip_remote_labels *r)
{
	size_t n = 1;

	for (const char *c = list; *c; c++)
		n += *c == ',';
	r->layers = calloc(n < MAX_LAYERS ? n : MAX_LAYERS, sizeof(*r->layers));
	if (!r->layers)
		return -ENOMEM;
	while (r->n_layers < MAX_LAYERS) {
		size_t len = strcspn(list, ",");

		if (!is_digest(list, len))
			break;
		r->layers[r->n_layers] = strndup(list, len);
		if (!r->layers[r->n_layers])
			return -ENOMEM;
		r->n_layers++;
		if (list[len] == '\0')
			break;
		list += len + 1;
	}
	return 0;
}

int flip_remote_labels_read(const struct flip_label *labels, size_t n_labels, struct flip_remote_labels *ret_remote,
                            struct err *err)
{
	struct flip_remote_labels r = { .target = find(labels, n_labels, target_names),
		                        .ref = find(labels, n_labels, ref_names),
		                        .layer = find(labels, n_labels, layer_names),
		                        .manifest = find(labels, n_labels, manifest_names) };
	const char *list = find(labels, n_labels, layers_names);

	if (!r.target || !r.ref || !r.layer)
		return 0;
	if (check_digest("layer", r.layer, err) < 0 || check_digest("manifest", r.manifest, err) < 0)
		return -EINVAL;
	if (list && read_layers(list, &r) < 0) {
		flip_remote_labels_done(&r);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*ret_remote = r;
	return 1;
}

void flip_remote_labels_done(struct flip_remote_labels *r)
{
	for (size_t i = 0; i < r->n_layers; i++)
		free(r->layers[i]);
	free(r->layers);
	*r = (struct flip_remote_labels){ 0 };
}
