/* Manifests of models, ours and (by the first byte) those of registries: what is taken is written and read again the
 * same, and becomes a layer. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/flip_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A manifest of a registry as a model. */
static void read_artifact(const uint8_t *data, size_t size)
{
	struct img_manifest doc;
	struct flip_artifact a;

	if (img_manifest_parse(data, size, "fuzz", &doc, NULL) < 0)
		return;
	if (flip_artifact_read(&doc, "fuzz", &a, NULL) == 0) {
		if (a.model->n_files + a.n_archives != doc.n_layers)
			abort();
		flip_artifact_done(&a);
	}
	img_manifest_done(&doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf text = BASE_BUF_INIT(64u << 20), again = BASE_BUF_INIT(64u << 20);
	struct flip_model *m, *same;
	struct flip_toc *toc;
	uint64_t n = 0;

	if (size && data[0] & 2)
		read_artifact(data + 1, size - 1);
	if (size < 1 || data[0] & 2 ||
	    flip_model_parse(data + 1, size - 1, "fuzz", data[0] & 1 ? "https://h/x/model.json?y" : NULL, &m, NULL) < 0)
		return 0;
	for (size_t i = 0; i < m->n_files; i++)
		n += m->files[i].size >> 20;
	if (flip_model_append(m, true, &text) < 0 ||
	    flip_model_parse(text.data, text.len, "again", NULL, &same, NULL) < 0 ||
	    flip_model_append(same, true, &again) < 0 || text.len != again.len ||
	    memcmp(text.data, again.data, text.len) != 0)
		abort();
	/* What has no digests of chunks may claim any size: only what is not made of millions of them is made. */
	if (n < 1 << 16) {
		if (flip_model_to_toc(m, &toc, NULL) < 0)
			abort();
		flip_toc_free(toc);
	}
	flip_model_free(m);
	flip_model_free(same);
	base_buf_done(&text);
	base_buf_done(&again);
	return 0;
}
