/* Any bytes as each of the JSON documents of an image. What is accepted as a configuration must come back the same when
 * it is written; names of images and of what is in registries are fed with the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "oci/oci_internal.h"
#include "registry/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_config(const uint8_t *data, size_t size)
{
	struct base_buf one = BASE_BUF_INIT(16 << 20), two = BASE_BUF_INIT(16 << 20);
	struct img_config *c = NULL, *again = NULL;
	struct err err = { 0 };

	if (img_config_parse(data, size, "config", &c, &err) < 0) {
		if (!err.code || !err.msg[0])
			abort();
		return;
	}
	(void)img_config_env(c, "PATH");
	if (img_config_append(c, &one) < 0 || img_config_parse(one.data, one.len, "again", &again, NULL) < 0 ||
	    img_config_append(again, &two) < 0 || one.len != two.len || memcmp(one.data, two.data, one.len) != 0)
		abort();
	img_config_free(c);
	img_config_free(again);
	base_buf_done(&one);
	base_buf_done(&two);
}

static void try_documents(const uint8_t *data, size_t size)
{
	const struct img_descriptor *d = NULL;
	struct img_manifest manifest = { 0 };
	struct img_index index = { 0 };
	enum img_document kind;
	struct err err = { 0 };

	(void)img_document_kind(data, size, "document", &kind, &err);
	if (img_index_parse(data, size, "index", &index, &err) == 0) {
		(void)img_index_choose(&index, NULL, "amd64", "v1", "index", &d, &err);
		(void)img_index_by_tag(&index, "latest", "index", &d, &err);
		for (size_t i = 0; i < index.n; i++) {
			if (!img_digest_is_valid(index.list[i].digest))
				abort();
		}
		img_index_done(&index);
	}
	if (img_manifest_parse(data, size, "manifest", &manifest, &err) == 0) {
		if (!img_digest_is_valid(manifest.config.digest) || manifest.n_layers > IMG_MAX_LAYERS)
			abort();
		img_manifest_done(&manifest);
	}
}

static void try_names(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size < 4096 ? size : 4096);
	struct img_reference ref = { 0 };
	struct img_name name = { 0 };
	struct err err = { 0 };

	if (!text)
		return;
	if (img_reference_parse(text, &ref, &err) == 0) {
		if (strpbrk(ref.host, "/\r\n @?#") || strstr(ref.name, "..") || strpbrk(ref.name, "\r\n ?#%"))
			abort(); /* they become parts of an address */
		img_reference_done(&ref);
	}
	if (img_name_parse(text, &name, &err) == 0)
		img_name_done(&name);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_config(data, size);
	try_documents(data, size);
	try_names(data, size);
	return 0;
}
