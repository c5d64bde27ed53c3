/* The catalogue of the tree, opened once for a group of tests: its setup and its teardown. */
#ifndef TEST_AGENT_CATALOGUE_H
#define TEST_AGENT_CATALOGUE_H

#include "../../../agent/src/know/know.h"
#include "../test.h"

static inline int open_catalogue(void **state)
{
	char path[4096];
	struct err err = { 0 };
	struct ag_know *k = NULL;

	(void)snprintf(path, sizeof(path), "%s/../agent/knowledge", test_dir());
	if (ag_know_open(path, &k, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		return -1;
	}
	*state = k;
	return 0;
}

static inline int close_catalogue(void **state)
{
	ag_know_close(*state);
	return 0;
}

#endif
