/* ocai config: the merged configuration and where each value came from. */
#include <string.h>

#include "front.h"

const struct opt config_opts[] = { { 0 } };

int cmd_config(int argc, char **argv)
{
	struct front f;
	int code;

	if (front_begin(&f, "config", argc, argv, &code))
		return code;
	if (f.n_words && strcmp(argv[0], "show") != 0)
		return front_end(&f, front_usage(&f, "config only shows"), NULL);
	base_config_show(f.config, &f.s, stdout);
	return front_end(&f, 0, NULL);
}
