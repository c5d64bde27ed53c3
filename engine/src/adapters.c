/* LoRA adapters by name: loaded with the model, and again with every other that takes its place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine_internal.h"

enum { MAX_ADAPTERS = ENG_KV_MAX_FAMILIES - 1 };

int eng_adapters_keep(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	if (o->n_loras > MAX_ADAPTERS)
		return err_set(err, -EINVAL, "%zu adapters, at most %d", o->n_loras, MAX_ADAPTERS);
	e->adapters = calloc(o->n_loras + 1, sizeof(*e->adapters));
	if (!e->adapters)
		return err_set(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < o->n_loras; i++) {
		const struct eng_lora *lora = &o->loras[i];

		if (!lora->name[0] || strcmp(lora->name, e->served_name) == 0 || eng_engine_adapter(e, lora->name) > 0)
			return err_set(err, -EINVAL, "%s: an adapter needs a name of its own, not \"%s\"", lora->folder,
			               lora->name);
		e->adapters[i].name = strdup(lora->name);
		e->adapters[i].folder = strdup(lora->folder);
		e->n_adapters = i + 1;
		if (!e->adapters[i].name || !e->adapters[i].folder)
			return err_set(err, -ENOMEM, "no memory");
	}
	return 0;
}

int eng_adapters_load(const struct eng_engine *e, struct eng_model *model, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < e->n_adapters && r >= 0; i++)
		r = eng_model_add_lora(model, e->adapters[i].folder, err);
	return r < 0 ? r : 0;
}

void eng_adapters_done(struct eng_engine *e)
{
	for (size_t i = 0; i < e->n_adapters; i++) {
		free(e->adapters[i].name);
		free(e->adapters[i].folder);
	}
	free(e->adapters);
}

uint32_t eng_engine_adapter(const struct eng_engine *e, const char *name)
{
	for (size_t i = 0; i < e->n_adapters; i++) {
		if (e->adapters[i].name && strcmp(e->adapters[i].name, name) == 0)
			return (uint32_t)i + 1;
	}
	return 0;
}

const char *eng_engine_adapter_name(const struct eng_engine *e, uint32_t adapter)
{
	return adapter > 0 && adapter <= e->n_adapters ? e->adapters[adapter - 1].name : NULL;
}
