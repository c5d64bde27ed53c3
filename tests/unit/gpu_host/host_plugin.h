/* The plugin whose device is the host, for tests of the engine. */
#ifndef HOST_PLUGIN_H
#define HOST_PLUGIN_H

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "test.h"

/* From here on the engine finds it beside this program. */
static inline void use_host_plugin(void)
{
	char exe[4096], path[4200];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	assert_true(n > 0);
	exe[n] = '\0';
	(void)snprintf(path, sizeof(path), "%s/../../plugin-host", dirname(exe));
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", path, 1), 0);
}

/* An engine of these options is not opened, for the reason that has these words. */
static inline void engine_is_refused(const struct eng_options *o, int error, const char *words)
{
	struct eng_engine *e = NULL;
	struct err err = { 0 };

	assert_int_equal(eng_engine_open(o, &e, &err), error);
	if (!strstr(err_text(&err), words))
		fail_msg("%s", err_text(&err));
	assert_null(e);
}

#endif
