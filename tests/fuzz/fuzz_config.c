/* The configuration loader on any bytes: an error or values, never a crash, a leak or a read outside. */
#include <stdint.h>
#include <string.h>

#include "base/log.h"
#include "config_internal.h"

struct dest {
	bool flag;
	const char *text, *choice;
	uint32_t u32;
	uint64_t u64, size;
	double number;
	struct opt_list list;
};

static const struct base_config_key keys[] = {
	{ "a", "flag", NULL, OPT_FLAG, offsetof(struct dest, flag), "", NULL },
	{ "a", "text", NULL, OPT_STR, offsetof(struct dest, text), "", NULL },
	{ "a", "choice", NULL, OPT_CHOICE, offsetof(struct dest, choice), "", "x,yy,zzz" },
	{ "a", "u32", NULL, OPT_UINT, offsetof(struct dest, u32), "", NULL },
	{ "b", "u64", NULL, OPT_U64, offsetof(struct dest, u64), "", NULL },
	{ "b", "size", NULL, OPT_SIZE, offsetof(struct dest, size), "", NULL },
	{ "b", "number", NULL, OPT_DOUBLE, offsetof(struct dest, number), "", NULL },
	{ "b", "list", NULL, OPT_LIST, offsetof(struct dest, list), "", NULL },
	{ 0 },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_config *config = NULL;
	struct dest d = { 0 };
	struct err err = { 0 };
	FILE *out;

	base_log_set_level(BASE_LOG_ERROR);
	if (base_config_new(keys, &config) < 0)
		return 0;
	if (base_config_parse(config, "f", (const char *)data, size, &d, &err) == 0) {
		out = fopen("/dev/null", "w");
		if (out) {
			base_config_show(config, &d, out);
			(void)fclose(out);
		}
	}
	opt_list_done(&d.list);
	base_config_free(config);
	return 0;
}
