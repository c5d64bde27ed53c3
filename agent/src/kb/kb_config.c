/* kb.conf: what `ocai kb` and the answers that cite documents both need. */
#include "kb/kb.h"

#include <stddef.h>
#include <string.h>

#define AT(field) offsetof(struct ag_kb_config, field)

static const struct base_config_key keys[] = {
	{ "kb", "max-file-size", NULL, OPT_SIZE, AT(max_file_bytes), "larger files are skipped", NULL },
	{ "kb", "max-total-size", NULL, OPT_SIZE, AT(max_total_bytes), "text kept in all", NULL },
	{ "embeddings", "url", "OCAI_EMBEDDINGS_URL", OPT_STR, AT(embedder.url), "server of vectors", NULL },
	{ "embeddings", "model", NULL, OPT_STR, AT(embedder.model), "model of vectors", NULL },
	{ "embeddings", "api-key-file", NULL, OPT_STR, AT(embedder.api_key_file), "file that holds the server's key",
	  NULL },
	{ "embeddings", "allow-remote", "OCAI_EMBEDDINGS_ALLOW_REMOTE", OPT_FLAG, AT(embedder.allow_remote),
	  "passages may leave this machine", NULL },
	{ 0 }
};

int ag_kb_config_load(struct ag_kb_config *c, struct base_config **ret_config, struct err *err)
{
	static const struct base_config_paths paths = { .product = "ocai", .program = "kb", .user = true };

	*c = (struct ag_kb_config){ .max_file_bytes = 4u << 20, .max_total_bytes = 512u << 20 };
	return base_config_load(&paths, keys, c, ret_config, err);
}
