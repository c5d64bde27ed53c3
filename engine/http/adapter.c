/* Which adapter a request asks for: by the name of its model, or by SGLang's lora_path. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gen.h"
#include "http_internal.h"

int http_model_not_found(struct http_error *e, const char *field, const char *name)
{
	*e = (struct http_error){ .status = 404, .type = "invalid_request_error", .code = "model_not_found" };
	(void)snprintf(e->param, sizeof(e->param), "%s", field);
	(void)snprintf(e->message, sizeof(e->message), "the model \"%.128s\" is not served here", name);
	return -ENOENT;
}

int http_pick_adapter(struct exchange *x, const json_t *body, struct http_error *e)
{
	const struct eng_engine *engine = x->http->engine;
	const char *field = json_is_string(json_object_get(body, "lora_path")) ? "lora_path" : "model";
	const char *name = json_string_value(json_object_get(body, field));

	x->adapter = name ? eng_engine_adapter(engine, name) : 0;
	/* Without adapters any name means the one model there is, as clients have fixed ones. With adapters a wrong
	 * name would quietly be answered by the model without them. */
	if (x->adapter > 0 || !name || strcmp(name, eng_engine_info(engine)->served_name) == 0 ||
	    (!eng_engine_adapter_name(engine, 1) && strcmp(field, "model") == 0))
		return 0;
	return http_model_not_found(e, field, name);
}
