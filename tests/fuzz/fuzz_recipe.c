/* Recipes: whatever is read answers, and what was taken makes a configuration that reads back; a refusal has words. */
#include <stdint.h>
#include <stdlib.h>

#include "oci/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf b = BASE_BUF_INIT(16 << 20);
	struct img_config *copy = NULL;
	struct img_recipe *r = NULL;
	struct err err = { 0 };

	if (img_recipe_new(NULL, &r) < 0)
		return 0;
	(void)img_recipe_define(r, "V=1", NULL);
	if (img_recipe_parse(r, "fuzz", NULL, (const char *)data, size, &err) < 0) {
		if (!err.msg[0])
			abort();
	} else if (img_config_append(r->config, &b) == 0 && img_config_parse(b.data, b.len, "again", &copy, &err) < 0)
		abort();
	img_config_free(copy);
	base_buf_done(&b);
	img_recipe_free(r);
	return 0;
}
