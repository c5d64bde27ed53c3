/* The one place that includes cmocka, in the order it needs, plus what every test wants. */
#ifndef TEST_H
#define TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The tests directory of the source tree; set by the runner, else "tests". */
static inline const char *test_dir(void)
{
	const char *dir = getenv("TESTS_DIR");

	return dir ? dir : "tests";
}

/* "<tests>/fixtures/<rest>" in a static buffer that the next call reuses. */
static inline const char *test_fixture(const char *rest)
{
	static char path[4096];

	(void)snprintf(path, sizeof(path), "%s/fixtures/%s", test_dir(), rest);
	return path;
}

#endif
