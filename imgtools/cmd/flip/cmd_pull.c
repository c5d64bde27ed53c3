/* flip pull: an image made known to containerd: manifest and configuration into its content store, its layers as
 * snapshots of ours, which for lazy layers takes a request or two. */
#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/sha256.h"
#include "grpc/containerd.h"
#include "node/image.h"
#include "oci/oci.h"
#include "settings.h"

struct pull {
	const char *address, *ns, *snapshotter, *control;
	bool insecure, quiet, preheat;
};

const struct opt pull_opts[] = {
	{ "address", 'a', OPT_STR, offsetof(struct pull, address), "PATH",
	  "containerd's socket [/run/containerd/containerd.sock]", NULL },
	{ "namespace", 'n', OPT_STR, offsetof(struct pull, ns), "NAME", "containerd's namespace [default]", NULL },
	{ "snapshotter", 0, OPT_STR, offsetof(struct pull, snapshotter), "NAME",
	  "what containerd's configuration calls us [flip]", NULL },
	{ "insecure", 0, OPT_FLAG, offsetof(struct pull, insecure), NULL,
	  "plain HTTP beyond this host, TLS without verification, for the manifest", NULL },
	{ "preheat", 0, OPT_FLAG, offsetof(struct pull, preheat), NULL,
	  "then have the daemon fetch all of it, below all else, slower while the machine is busy", NULL },
	{ "control", 0, OPT_STR, offsetof(struct pull, control), "PATH", "the daemon's control socket, for --preheat",
	  NULL },
	{ "quiet", 'q', OPT_FLAG, offsetof(struct pull, quiet), NULL, "print nothing", NULL },
	{ 0 },
};

enum { LEASE_S = 24 * 3600, MAX_LABELS = 1100 };

struct job {
	const struct pull *o;
	struct flip_containerd *c;
	struct node_image *image;
	struct img_config *config;
	char chain[IMG_DIGEST_SIZE]; /* of the layers so far */
};

/* A growing list of labels whose texts are its own. */
struct labels {
	struct flip_label items[MAX_LABELS];
	size_t n;
};

static int add_label(struct labels *l, const char *name, const char *value)
{
	if (l->n == MAX_LABELS)
		return -E2BIG;
	l->items[l->n] = (struct flip_label){ strdup(name), strdup(value) };
	if (!l->items[l->n].name || !l->items[l->n].value) {
		free(l->items[l->n].name);
		free(l->items[l->n].value);
		return -ENOMEM;
	}
	l->n++;
	return 0;
}

static void labels_free(struct labels *l)
{
	for (size_t i = 0; l && i < l->n; i++) {
		free(l->items[i].name);
		free(l->items[i].value);
	}
	free(l);
}

/* The name of a stack of layers: sha256 of "chain-below SPACE diff-id". */
static int next_chain(char chain[IMG_DIGEST_SIZE], const char *diff_id)
{
	uint8_t sum[BASE_SHA256_SIZE];
	char text[2 * IMG_DIGEST_SIZE], hex[BASE_SHA256_HEX_SIZE];
	int r;

	if (!*chain) {
		(void)snprintf(chain, IMG_DIGEST_SIZE, "%s", diff_id);
		return 0;
	}
	(void)snprintf(text, sizeof(text), "%s %s", chain, diff_id);
	r = base_sha256_bytes(text, strlen(text), sum);
	if (r < 0)
		return r;
	base_sha256_hex(sum, hex);
	(void)snprintf(chain, IMG_DIGEST_SIZE, "sha256:%s", hex);
	return 0;
}

/* What Prepare of a layer says of it: the labels that containerd's own unpacker and the kubelet use. */
static int layer_labels(const struct job *j, size_t i, const char *target, struct labels *l)
{
	const struct node_image *image = j->image;
	struct base_buf others = BASE_BUF_INIT(256 << 10);
	int r = 0;

	for (size_t k = i; k < image->doc.n_layers; k++)
		(void)base_buf_printf(&others, "%s%s", k > i ? "," : "", image->doc.layers[k].digest);
	r = base_buf_error(&others);
	if (r == 0)
		r = add_label(l, "containerd.io/snapshot.ref", target);
	if (r == 0)
		r = add_label(l, "containerd.io/snapshot/cri.image-ref", image->ref);
	if (r == 0)
		r = add_label(l, "containerd.io/snapshot/cri.manifest-digest", image->manifest);
	if (r == 0)
		r = add_label(l, "containerd.io/snapshot/cri.layer-digest", image->doc.layers[i].digest);
	if (r == 0)
		r = add_label(l, "containerd.io/snapshot/cri.image-layers", base_buf_text(&others));
	base_buf_done(&others);
	return r;
}

static int prepare_layer(struct job *j, size_t i, struct err *err)
{
	char parent[IMG_DIGEST_SIZE], key[128];
	struct labels *l;
	int r;

	memcpy(parent, j->chain, sizeof(parent));
	r = next_chain(j->chain, j->config->diff_ids.items[i]);
	if (r < 0)
		return err_set(err, r, "out of memory");
	if (flip_containerd_stat_snapshot(j->c, j->o->snapshotter, j->chain, NULL) == 0)
		return 0;
	l = calloc(1, sizeof(*l));
	r = l ? layer_labels(j, i, j->chain, l) : -ENOMEM;
	if (r == 0) {
		(void)snprintf(key, sizeof(key), "flip-pull-%ld-%zu %s", (long)getpid(), i, j->chain);
		r = flip_containerd_prepare(j->c, j->o->snapshotter, key, parent, l->items, l->n, err);
		if (r == 0) {
			(void)flip_containerd_remove_snapshot(j->c, j->o->snapshotter, key, NULL);
			r = err_set(err, -EIO, "layer %s could not be made ready; the daemon's log says why",
			            j->image->doc.layers[i].digest);
		}
	} else {
		r = err_set(err, r, "out of memory");
	}
	labels_free(l);
	return r < 0 ? r : 0;
}

/* Manifest, configuration and index, each with labels that keep what it refers to. */
static int put_documents(struct job *j, struct err *err)
{
	const struct node_image *image = j->image;
	struct labels *l = calloc(1, sizeof(*l));
	char name[128];
	int r = l ? 0 : -ENOMEM;

	(void)snprintf(name, sizeof(name), "containerd.io/gc.ref.snapshot.%s", j->o->snapshotter);
	if (r == 0)
		r = add_label(l, name, j->chain);
	if (r == 0)
		r = flip_containerd_put_content(j->c, image->doc.config.digest, image->config_data,
		                                image->doc.config.size, l->items, l->n, err);
	labels_free(l);
	l = r == 0 ? calloc(1, sizeof(*l)) : NULL;
	if (r == 0)
		r = l ? add_label(l, "containerd.io/gc.ref.content.config", image->doc.config.digest) : -ENOMEM;
	for (size_t i = 0; r == 0 && i < image->doc.n_layers; i++) {
		(void)snprintf(name, sizeof(name), "containerd.io/gc.ref.content.l.%zu", i);
		r = add_label(l, name, image->doc.layers[i].digest);
	}
	if (r == 0)
		r = flip_containerd_put_content(j->c, image->manifest, image->manifest_data, image->manifest_size,
		                                l->items, l->n, err);
	labels_free(l);
	if (r == 0 && image->index_data) {
		struct flip_label index = { (char *)"containerd.io/gc.ref.content.m.0", (char *)image->manifest };

		r = flip_containerd_put_content(j->c, image->top, image->index_data, image->index_size, &index, 1, err);
	}
	return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
}

static int pull_into(struct job *j, struct err *err)
{
	const struct node_image *image = j->image;
	int r = img_config_parse(image->config_data, image->doc.config.size, image->ref, &j->config, err);

	if (r < 0)
		return r;
	if (j->config->diff_ids.n != image->doc.n_layers || !image->doc.n_layers)
		return err_set(err, -EBADMSG, "%s: the configuration tells of %zu layers, the manifest of %zu",
		               image->ref, j->config->diff_ids.n, image->doc.n_layers);
	for (size_t i = 0; r == 0 && i < image->doc.n_layers; i++)
		r = prepare_layer(j, i, err);
	if (r == 0)
		r = put_documents(j, err);
	if (r == 0)
		r = flip_containerd_put_image(j->c, image->ref,
		                              image->index_data ? image->index_type : image->manifest_type, image->top,
		                              image->index_data ? image->index_size : image->manifest_size, err);
	return r;
}

static int preheat(struct flip_settings *s, const struct pull *o, const char *ref, struct err *err)
{
	struct base_buf query = BASE_BUF_INIT(32 << 10), body = BASE_BUF_INIT(1 << 20);
	int r;

	s->control = o->control ? o->control : s->control;
	(void)base_buf_puts(&query, "/v1/preheat?ref=");
	flip_append_escaped(&query, ref);
	r = base_buf_error(&query) < 0 ? err_set(err, -E2BIG, "the name is too long")
	                               : flip_ask(s, "POST", base_buf_text(&query), &body, err);
	base_buf_done(&query);
	base_buf_done(&body);
	return r;
}

/* While the registry is away: by the daemon, who may know the image, or a peer of whom does. */
static int ask_daemon(const struct flip_settings *s, const char *ref, struct node_image **ret_image)
{
	struct base_buf path = BASE_BUF_INIT(8192), body = { 0 };
	struct err err = { 0 };
	json_t *o = NULL;
	int r;

	(void)base_buf_puts(&path, "/v1/image?ref=");
	flip_append_escaped(&path, ref);
	r = flip_ask(s, "GET", base_buf_text(&path), &body, &err);
	if (r == 0)
		r = base_json_parse("the daemon's answer", body.data, body.len, &o, &err);
	if (r == 0)
		r = node_image_of_json(o, ret_image, &err);
	json_decref(o);
	base_buf_done(&path);
	base_buf_done(&body);
	return r;
}

static int read_image(const struct flip_settings *s, struct flip_fetch *fetch, const char *ref,
                      struct node_image **ret_image, struct err *err)
{
	int r = node_image_read(fetch, ref, NULL, true, ret_image, err);

	if (r == 0 || r == -EACCES || r == -ENOENT || r == -EBADMSG || r == -EINVAL)
		return r;
	return ask_daemon(s, ref, ret_image) == 0 ? 0 : r;
}

static int pull(const struct pull *o, const char *ref, struct err *err)
{
	struct job j = { .o = o };
	struct flip_settings s = { 0 };
	struct flip_node_opts node;
	struct flip_fetch *fetch = NULL;
	int r = flip_settings_load(&s, err);

	if (r == 0)
		r = flip_settings_node(&s, &node, err);
	if (r == 0) {
		node.fetch.insecure = node.fetch.insecure || o->insecure;
		r = flip_fetch_new(&node.fetch, &fetch, err);
	}
	if (r == 0)
		r = flip_containerd_open(o->address, o->ns, &j.c, err);
	if (r == 0)
		r = read_image(&s, fetch, ref, &j.image, err);
	if (r == 0)
		r = flip_containerd_lease(j.c, LEASE_S, err);
	if (r == 0) {
		r = pull_into(&j, err);
		(void)flip_containerd_end_lease(j.c, NULL);
	}
	if (r == 0 && o->preheat)
		r = preheat(&s, o, ref, err);
	if (r == 0 && !o->quiet)
		(void)printf("%s %s\n", ref, j.image->top);
	img_config_free(j.config);
	node_image_free(j.image);
	if (j.c)
		flip_containerd_close(j.c);
	flip_fetch_free(fetch);
	flip_settings_done(&s);
	return r;
}

int cmd_pull(int argc, char **argv)
{
	struct pull o = { .snapshotter = "flip" };
	struct err err = { 0 };
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n != 1) {
		(void)err_set(&err, -EINVAL, "one image is needed");
		return flip_usage("pull", &err);
	}
	return pull(&o, argv[0], &err) < 0 ? flip_fail(&err) : 0;
}
