/* A folder of the test's own, which is its home and working folder: made for a group of tests, removed after it. */
#ifndef TEST_AGENT_OWN_HOME_H
#define TEST_AGENT_OWN_HOME_H

#include "../test.h"

#include <unistd.h>

static char dir[64];

/* Makes and enters it; HOME and the XDG folders are it. `name` is part of its name. */
static inline int own_home_make(const char *name)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/ocai-%s-XXXXXX", name);
	if (!mkdtemp(dir))
		return -1;
	(void)setenv("HOME", dir, 1);
	(void)setenv("XDG_DATA_HOME", dir, 1);
	(void)setenv("XDG_STATE_HOME", dir, 1);
	(void)setenv("XDG_CONFIG_HOME", dir, 1);
	return chdir(dir);
}

/* A group's teardown. */
static inline int own_home_remove(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "cd / && rm -rf %s", dir);
	return chdir("/") || system(command);
}

/* A file in it; its path is valid until the next call. */
static inline const char *write_here(const char *name, const char *text)
{
	static char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	assert_non_null(f);
	(void)fputs(text, f);
	assert_int_equal(fclose(f), 0);
	return path;
}

#endif
