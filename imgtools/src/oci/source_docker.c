/* What `docker save` writes: manifest.json lists images with the names of their configuration and of their layers,
 * which are tar files beside it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "oci_internal.h"

/* "name" is "name:latest", and what docker calls "name" may be "docker.io/library/name". */
static bool is_called(const char *tag, const char *ref)
{
	static const char *const forms[][2] = {
		{ "", "" }, { "", ":latest" }, { "docker.io/library/", "" }, { "docker.io/", "" }
	};
	char text[1024];

	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
		int n = snprintf(text, sizeof(text), "%s%s%s", forms[i][0], ref, forms[i][1]);

		if (n > 0 && n < (int)sizeof(text) && strcmp(text, tag) == 0)
			return true;
	}
	return false;
}

static int choose_image(const json_t *list, const char *ref, const char *where, const json_t **ret_image,
                        struct err *err)
{
	const json_t *image, *tag;
	char there[256] = "";
	size_t i, k;

	if (!json_is_array(list))
		return err_set(err, -EBADMSG, "%s: manifest.json: expected a list, got %s", where,
		               base_json_type_name(list));
	json_array_foreach(list, i, image)
	{
		if (!json_is_object(image))
			return err_set(err, -EBADMSG, "%s: manifest.json: an image that is %s", where,
			               base_json_type_name(image));
		if (!ref && json_array_size(list) == 1) {
			*ret_image = image;
			return 0;
		}
		json_array_foreach(json_object_get(image, "RepoTags"), k, tag)
		{
			size_t used = strlen(there);

			if (!json_is_string(tag))
				continue;
			if (ref && is_called(json_string_value(tag), ref)) {
				*ret_image = image;
				return 0;
			}
			(void)snprintf(there + used, sizeof(there) - used, "%s%.60s", used ? ", " : "",
			               json_string_value(tag));
		}
	}
	return err_set(err, -ENOENT, "%s: %s%s; there are: %s", where, ref ? "no image is called " : "no name given",
	               ref ? ref : "", there[0] ? there : "none");
}

static int find_parts(const struct img_archive *a, const json_t *image, const char *where, struct img_docker_archive *d,
                      struct err *err)
{
	const char *config = NULL;
	json_t *layers = NULL;
	struct img_blob b = { 0 };
	int r;

	if ((r = base_json_get_string(image, where, "Config", &config, err)) < 0 ||
	    (r = base_json_get_array(image, where, "Layers", &layers, err)) < 0)
		return r == -ENOMEM ? r : err ? (err->code = -EBADMSG) : -EBADMSG;
	if (json_array_size(layers) > IMG_MAX_LAYERS)
		return err_set(err, -EBADMSG, "%s: %zu layers are too many", where, json_array_size(layers));
	r = img_archive_find(a, config, &b, err);
	if (r == 0)
		r = img_blob_read(&b, &d->config, &d->config_size, err);
	img_blob_done(&b);
	d->layers = calloc(json_array_size(layers) + 1, sizeof(*d->layers));
	if (r == 0 && !d->layers)
		r = err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < json_array_size(layers); i++) {
		const char *name = json_string_value(json_array_get(layers, i));

		if (!name)
			return err_set(err, -EBADMSG, "%s: manifest.json: a layer that is no name", where);
		r = img_archive_find(a, name, &d->layers[i], err);
		d->n_layers = i + 1;
	}
	return r;
}

int img_docker_archive_open(const struct img_name *name, const char *work_dir, struct img_docker_archive *ret,
                            struct err *err)
{
	struct img_docker_archive d = { 0 };
	struct img_archive *a = NULL;
	const json_t *image = NULL;
	json_t *list = NULL;
	struct img_blob b = { 0 };
	CLEANUP(freep) char *text = NULL;
	size_t size = 0;
	int r = img_archive_open(name->path, work_dir, &a, err);

	if (r < 0)
		return r;
	r = img_archive_find(a, "manifest.json", &b, err);
	if (r == -ENOENT)
		r = err_set(err, r, "%s: not a docker archive (it has no manifest.json)", name->path);
	if (r == 0)
		r = img_blob_read(&b, &text, &size, err);
	if (r == 0)
		r = base_json_parse("manifest.json", text, size, &list, err);
	if (r == 0)
		r = choose_image(list, name->tag, name->path, &image, err);
	if (r == 0)
		r = find_parts(a, image, name->path, &d, err);
	img_blob_done(&b);
	json_decref(list);
	img_archive_close(a);
	if (r < 0) {
		img_docker_archive_done(&d);
		return r;
	}
	*ret = d;
	return 0;
}

void img_docker_archive_done(struct img_docker_archive *a)
{
	for (size_t i = 0; i < a->n_layers; i++)
		img_blob_done(&a->layers[i]);
	free(a->layers);
	free(a->config);
	*a = (struct img_docker_archive){ 0 };
}
