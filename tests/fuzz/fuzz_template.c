/* Parses the input as a chat template and renders it over a conversation with tools. The bytes up to the
 * first NUL are the template; what follows, if it is JSON, is the context instead. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "template/template.h"

static const char default_context[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"You help.\"},{\"role\":\"user\",\"content\":\"磁盘 <x> "
        "'q'\"},"
        "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"r\",\"tool_calls\":[{\"id\":\"call_0001\","
        "\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5,true,null]}}}]},{\"role\":\"tool\","
        "\"content\":"
        "\"ok\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}"
        "],"
        "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"n\":7}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
	size_t len = nul ? (size_t)(nul - data) : size;
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	struct eng_template *tmpl = NULL;
	struct err err = { 0 };
	json_t *context = NULL;

	if (eng_template_parse("fuzz", (const char *)data, len, &tmpl, &err) < 0)
		return 0;
	if (nul)
		(void)base_json_parse("fuzz", nul + 1, size - len - 1, &context, &err);
	if (!json_is_object(context)) {
		json_decref(context);
		context = NULL;
		(void)base_json_parse("fuzz", default_context, sizeof(default_context) - 1, &context, &err);
	}
	(void)eng_template_render(tmpl, context, &out, &err);
	json_decref(context);
	eng_template_free(tmpl);
	base_buf_done(&out);
	return 0;
}
