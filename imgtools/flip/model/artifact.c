/* Artifacts of registries as models. Media types and annotations of
 *
 *   OCI 1.1 artifacts as ORAS writes them     one layer for each file, org.opencontainers.image.title
 *   the ModelPack specification (CNCF)        application/vnd.cncf.model.*, before that vnd.cnai.model.*; file paths in
 *                                             org.cncf.model.filepath; ".tar" types are archives
 *   Docker's model artifacts                  application/vnd.docker.ai.*; without a path before version 0.2 of their
 *                                             configuration: GGUF, safetensors, projectors, licences, templates
 *   ours                                      a configuration of FLIP_MODEL_TYPE that is a manifest with chunks */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/flip_model.h"
#include "model/model_internal.h"

void flip_artifact_done(struct flip_artifact *a)
{
	flip_model_free(a->model);
	free(a->archives);
	*a = (struct flip_artifact){ 0 };
}

static bool has_suffix(const char *text, const char *suffix)
{
	size_t n = strlen(text), m = strlen(suffix);

	return n >= m && strcmp(text + n - m, suffix) == 0;
}

static bool is_archive(const char *type)
{
	return has_suffix(type, ".tar") || has_suffix(type, ".tar+gzip") || has_suffix(type, ".tar+zstd") ||
	       has_suffix(type, ".tar.gzip");
}

static const char *path_of(const struct img_descriptor *d)
{
	static const char *const names[] = { "org.cncf.model.filepath", "org.cnai.model.filepath",
		                             "org.opencontainers.image.title" };

	for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++) {
		for (size_t i = 0; i < d->n_annotations; i++) {
			if (strcmp(d->names[i], names[k]) == 0)
				return d->values[i];
		}
	}
	return NULL;
}

/* Files that a media type names and a path does not. Several weights are the parts of one, in their order. */
static const struct kind {
	const char *type, *one, *many;
} kinds[] = {
	{ "application/vnd.docker.ai.gguf.v3", "model.gguf", "model-%05zu-of-%05zu.gguf" },
	{ "application/vnd.docker.ai.model.file.v1+gguf", "model.gguf", "model-%05zu-of-%05zu.gguf" },
	{ "application/vnd.cncf.model.weight.v1.gguf", "model.gguf", "model-%05zu-of-%05zu.gguf" },
	{ "application/vnd.docker.ai.safetensors", "model.safetensors", "model-%05zu-of-%05zu.safetensors" },
	{ "application/vnd.cncf.model.weight.v1.safetensors", "model.safetensors", "model-%05zu-of-%05zu.safetensors" },
	{ "application/vnd.docker.ai.mmproj", "mmproj.gguf", "mmproj-%05zu-of-%05zu.gguf" },
	{ "application/vnd.docker.ai.chat.template.jinja", "chat_template.jinja", "chat_template-%zu-of-%zu.jinja" },
	{ "application/vnd.docker.ai.license", "LICENSE", "LICENSE-%zu-of-%zu" },
};

static bool is_of_kind(const struct img_descriptor *d, const struct kind *k)
{
	return d->media_type && strcmp(d->media_type, k->type) == 0 && !path_of(d);
}

/* False: nothing says what the layer is called. */
static bool name_by_kind(const struct img_manifest *doc, size_t layer, char *ret, size_t size)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		size_t n = 0, at = 0;

		if (!is_of_kind(&doc->layers[layer], &kinds[i]))
			continue;
		for (size_t k = 0; k < doc->n_layers; k++) {
			n += is_of_kind(&doc->layers[k], &kinds[i]);
			if (k == layer)
				at = n;
		}
		if (n == 1) {
			(void)snprintf(ret, size, "%s", kinds[i].one);
		} else {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
			(void)snprintf(ret, size, kinds[i].many, at, n); /* of the table above */
#pragma GCC diagnostic pop
		}
		return true;
	}
	return false;
}

static int add_layer(struct flip_artifact *a, const struct img_manifest *doc, size_t i, const char *where,
                     struct err *err)
{
	const struct img_descriptor *d = &doc->layers[i];
	const char *path = path_of(d);
	struct flip_model_file *f;
	char name[64];
	int r;

	if (d->media_type && is_archive(d->media_type)) {
		a->archives[a->n_archives++] = i;
		return 0;
	}
	if (!path && !name_by_kind(doc, i, name, sizeof(name)))
		return err_set(err, -EBADMSG, "%s: layer %zu (%.100s): nothing says which file it is: not a model",
		               where, i + 1, d->media_type ? d->media_type : "of no type");
	r = flip_model_add(a->model, path ? path : name, &f, err);
	if (r < 0)
		return err_prefix(err, r, "%s: layer %zu: ", where, i + 1);
	f->size = d->size;
	return flip_model_parse_hex(d->digest + strlen("sha256:"), f->sha256, 32)
	               ? 0
	               : err_set(err, -EBADMSG, "%s: layer %zu: not a SHA-256 digest", where, i + 1);
}

int flip_artifact_read(const struct img_manifest *doc, const char *where, struct flip_artifact *ret_artifact,
                       struct err *err)
{
	struct flip_artifact a = { .model = calloc(1, sizeof(*a.model)),
		                   .archives = calloc(doc->n_layers + 1, sizeof(*a.archives)) };
	int r = a.model && a.archives ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r == 0 && doc->n_layers == 0)
		r = err_set(err, -EBADMSG, "%s: has no layers", where);
	if (r == 0)
		a.model->chunk_size = FLIP_MODEL_CHUNK;
	a.is_ours = doc->config.media_type && strcmp(doc->config.media_type, FLIP_MODEL_TYPE) == 0;
	for (size_t i = 0; r == 0 && i < doc->n_layers; i++)
		r = add_layer(&a, doc, i, where, err);
	if (r == 0)
		r = flip_model_settle(a.model, where, err);
	if (r < 0) {
		flip_artifact_done(&a);
		return r;
	}
	*ret_artifact = a;
	return 0;
}

static bool has_content(const struct flip_model *m, const struct flip_model_file *wanted)
{
	for (size_t i = 0; i < m->n_files; i++) {
		if (m->files[i].size == wanted->size && memcmp(m->files[i].sha256, wanted->sha256, 32) == 0)
			return true;
	}
	return wanted->size == 0;
}

int flip_artifact_set_manifest(struct flip_artifact *a, struct flip_model *model, const char *where, struct err *err)
{
	for (size_t i = 0; i < model->n_files; i++) {
		if (!has_content(a->model, &model->files[i])) {
			int r = err_set(err, -EBADMSG, "%s: %s: the artifact has no layer of it", where,
			                model->files[i].path);

			flip_model_free(model);
			return r;
		}
	}
	flip_model_free(a->model);
	a->model = model;
	return 0;
}
