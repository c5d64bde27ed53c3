/* A folder for the cache on disk: of one test, made and removed by its setup and teardown. */
#ifndef CACHE_DIR_H
#define CACHE_DIR_H

#include <stdio.h>
#include <stdlib.h>

static char cache_dir[64];

static int make_cache_dir(void **state)
{
	(void)state;
	(void)snprintf(cache_dir, sizeof(cache_dir), "/tmp/ocai-sched-XXXXXX");
	return mkdtemp(cache_dir) ? 0 : -1;
}

static int remove_cache_dir(void **state)
{
	char cmd[128];

	(void)state;
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", cache_dir);
	return system(cmd);
}

#endif
