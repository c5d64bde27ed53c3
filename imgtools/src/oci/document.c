/* The JSON documents of images: indexes and manifests (OCI image specification 1.1, Docker image manifest 2.2, which
 * differ in their media types only), and the choice of one image among several. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/json.h"
#include "oci_internal.h"

enum { MAX_LIST = 4096, MAX_ANNOTATIONS = 256 };

static void descriptor_done(struct img_descriptor *d)
{
	for (size_t i = 0; i < d->n_annotations; i++) {
		free(d->names[i]);
		free(d->values[i]);
	}
	free(d->names);
	free(d->values);
	free(d->media_type);
	free(d->ref_name);
	free(d->os);
	free(d->arch);
	free(d->variant);
	*d = (struct img_descriptor){ 0 };
}

static int opt_text(const json_t *obj, const char *where, const char *key, char **slot, struct err *err)
{
	const char *text = NULL;
	int r = base_json_opt_string(obj, where, key, &text, err);

	if (r <= 0)
		return r;
	*slot = strdup(text);
	return *slot ? 0 : err_set(err, -ENOMEM, "%s: out of memory", where);
}

static int get_size(const json_t *obj, const char *where, uint64_t *ret, struct err *err)
{
	int64_t size = -1;
	int r = base_json_opt_i64(obj, where, "size", &size, err);

	if (r < 0)
		return r;
	if (size < 0)
		return err_set(err, -EBADMSG, "%s: size: missing or negative", where);
	*ret = (uint64_t)size;
	return 0;
}

static int parse_annotations(json_t *map, const char *where, struct img_descriptor *d, struct err *err)
{
	size_t n = json_object_size(map);
	const char *name;
	json_t *value;

	if (n > MAX_ANNOTATIONS)
		return err_set(err, -EBADMSG, "%s: more than %d annotations", where, MAX_ANNOTATIONS);
	d->names = calloc(n ? n : 1, sizeof(*d->names));
	d->values = calloc(n ? n : 1, sizeof(*d->values));
	if (!d->names || !d->values)
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	json_object_foreach(map, name, value)
	{
		if (!json_is_string(value))
			return err_set(err, -EBADMSG, "%s: annotation %.100s: expected a string", where, name);
		d->names[d->n_annotations] = strdup(name);
		d->values[d->n_annotations] = strdup(json_string_value(value));
		d->n_annotations++;
		if (!d->names[d->n_annotations - 1] || !d->values[d->n_annotations - 1])
			return err_set(err, -ENOMEM, "%s: out of memory", where);
	}
	return 0;
}

/* Fills d, which descriptor_done() empties also after a failure. */
static int parse_descriptor(const json_t *obj, const char *where, struct img_descriptor *d, struct err *err)
{
	json_t *annotations = NULL, *platform = NULL;
	const char *digest = NULL;
	int r;

	if (!json_is_object(obj))
		return err_set(err, -EBADMSG, "%s: a descriptor that is %s", where, base_json_type_name(obj));
	r = base_json_get_string(obj, where, "digest", &digest, err);
	if (r < 0)
		return r;
	if (!img_digest_is_valid(digest))
		return err_set(err, -EBADMSG, "%s: digest: \"%.80s\" is no SHA-256 digest", where, digest);
	memcpy(d->digest, digest, IMG_DIGEST_SIZE);
	if ((r = get_size(obj, where, &d->size, err)) < 0 ||
	    (r = opt_text(obj, where, "mediaType", &d->media_type, err)) < 0 ||
	    (r = base_json_opt_object(obj, where, "annotations", &annotations, err)) < 0 ||
	    (r = base_json_opt_object(obj, where, "platform", &platform, err)) < 0)
		return r;
	if (annotations && ((r = parse_annotations(annotations, where, d, err)) < 0 ||
	                    (r = opt_text(annotations, where, IMG_REF_NAME, &d->ref_name, err)) < 0))
		return r;
	if (platform && ((r = opt_text(platform, where, "os", &d->os, err)) < 0 ||
	                 (r = opt_text(platform, where, "architecture", &d->arch, err)) < 0 ||
	                 (r = opt_text(platform, where, "variant", &d->variant, err)) < 0))
		return r;
	return 0;
}

/* Errors of the getters (-ENOENT for what is missing, -EINVAL for a wrong type) are all a bad document. */
static int refuse(int r, struct err *err)
{
	if (r == -ENOENT || r == -EINVAL) {
		r = -EBADMSG;
		if (err)
			err->code = r;
	}
	return r;
}

static int parse_list(const json_t *array, const char *where, const char *key, size_t max, struct img_descriptor **ret,
                      size_t *ret_n, struct err *err)
{
	size_t n = json_array_size(array);
	struct img_descriptor *list;
	int r = 0;

	if (n > max)
		return err_set(err, -EBADMSG, "%s: %s: %zu of them, more than are taken", where, key, n);
	list = calloc(n ? n : 1, sizeof(*list));
	if (!list)
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = parse_descriptor(json_array_get(array, i), where, &list[i], err);
		if (r < 0)
			(void)err_prefix(err, r, "%s %zu: ", key, i);
	}
	if (r < 0) {
		for (size_t i = 0; i < n; i++)
			descriptor_done(&list[i]);
		free(list);
		return refuse(r, err);
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

static int parse_object(const void *data, size_t size, const char *where, json_t **ret_doc, struct err *err)
{
	json_t *doc = NULL;
	int r = base_json_parse(where, data, size, &doc, err);

	if (r < 0)
		return r;
	if (!json_is_object(doc)) {
		r = err_set(err, -EBADMSG, "%s: expected an object, got %s", where, base_json_type_name(doc));
		json_decref(doc);
		return r;
	}
	*ret_doc = doc;
	return 0;
}

int img_document_kind(const void *data, size_t size, const char *where, enum img_document *ret_kind, struct err *err)
{
	const char *type = NULL;
	json_t *doc = NULL;
	int r = parse_object(data, size, where, &doc, err);

	if (r < 0)
		return r;
	r = base_json_opt_string(doc, where, "mediaType", &type, err);
	if (r < 0) {
		r = refuse(r, err);
	} else if (json_is_array(json_object_get(doc, "manifests"))) {
		*ret_kind = IMG_DOC_INDEX;
		r = 0;
	} else if (json_is_object(json_object_get(doc, "config"))) {
		*ret_kind = IMG_DOC_MANIFEST;
		r = 0;
	} else if (json_integer_value(json_object_get(doc, "schemaVersion")) == 1) {
		r = err_set(err, -EBADMSG, "%s: an image manifest of version 1, which nothing writes any more", where);
	} else {
		r = err_set(err, -EBADMSG, "%s: neither an index nor a manifest (%s)", where, type ? type : "no type");
	}
	json_decref(doc);
	return r;
}

int img_index_parse(const void *data, size_t size, const char *where, struct img_index *ret_index, struct err *err)
{
	json_t *doc = NULL, *list = NULL;
	int r = parse_object(data, size, where, &doc, err);

	if (r < 0)
		return r;
	r = base_json_get_array(doc, where, "manifests", &list, err);
	r = r < 0 ? refuse(r, err)
	          : parse_list(list, where, "manifests", MAX_LIST, &ret_index->list, &ret_index->n, err);
	json_decref(doc);
	return r;
}

void img_index_done(struct img_index *index)
{
	for (size_t i = 0; i < index->n; i++)
		descriptor_done(&index->list[i]);
	free(index->list);
	*index = (struct img_index){ 0 };
}

int img_manifest_parse(const void *data, size_t size, const char *where, struct img_manifest *ret_manifest,
                       struct err *err)
{
	json_t *doc = NULL, *config = NULL, *layers = NULL;
	struct img_manifest m = { 0 };
	int r = parse_object(data, size, where, &doc, err);

	if (r < 0)
		return r;
	if ((r = base_json_get_object(doc, where, "config", &config, err)) < 0 ||
	    (r = base_json_get_array(doc, where, "layers", &layers, err)) < 0)
		r = refuse(r, err);
	if (r == 0) {
		r = refuse(parse_descriptor(config, where, &m.config, err), err);
		if (r < 0)
			(void)err_prefix(err, r, "config: ");
	}
	if (r == 0)
		r = parse_list(layers, where, "layers", IMG_MAX_LAYERS, &m.layers, &m.n_layers, err);
	json_decref(doc);
	if (r < 0) {
		img_manifest_done(&m);
		return r;
	}
	*ret_manifest = m;
	return 0;
}

void img_manifest_done(struct img_manifest *m)
{
	for (size_t i = 0; i < m->n_layers; i++)
		descriptor_done(&m->layers[i]);
	free(m->layers);
	descriptor_done(&m->config);
	*m = (struct img_manifest){ 0 };
}

const char *img_host_arch(void)
{
	static const char *const names[][2] = { { "x86_64", "amd64" },    { "aarch64", "arm64" },
		                                { "armv7l", "arm" },      { "i686", "386" },
		                                { "ppc64le", "ppc64le" }, { "s390x", "s390x" },
		                                { "riscv64", "riscv64" }, { "loongarch64", "loong64" } };
	struct utsname u;

	if (uname(&u) == 0) {
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
			if (strcmp(u.machine, names[i][0]) == 0)
				return names[i][1];
		}
	}
	return "amd64";
}

int img_index_choose(const struct img_index *index, const char *os, const char *arch, const char *variant,
                     const char *where, const struct img_descriptor **ret_desc, struct err *err)
{
	const struct img_descriptor *any = NULL;
	char there[300] = "";

	os = os ? os : "linux";
	arch = arch ? arch : img_host_arch();
	for (size_t i = 0; i < index->n; i++) {
		const struct img_descriptor *d = &index->list[i];
		size_t used = strlen(there);

		if (!d->os && !d->arch) { /* of no platform: right for all when it is alone */
			if (index->n == 1)
				any = d;
			continue;
		}
		(void)snprintf(there + used, sizeof(there) - used, "%s%s/%s%s%s", used ? ", " : "", d->os ? d->os : "?",
		               d->arch ? d->arch : "?", d->variant ? "/" : "", d->variant ? d->variant : "");
		if (!d->os || !d->arch || strcmp(d->os, os) != 0 || strcmp(d->arch, arch) != 0)
			continue;
		if (variant && d->variant && strcmp(d->variant, variant) == 0) {
			*ret_desc = d;
			return 0;
		}
		if (!any)
			any = d;
	}
	if (!any)
		return err_set(err, -ENOENT, "%s: no image for %s/%s; there are: %s", where, os, arch,
		               there[0] ? there : "none");
	*ret_desc = any;
	return 0;
}
