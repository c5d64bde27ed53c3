/* The backend `ref`, opened once for a group of tests: its setup and its teardown. */
#ifndef TEST_ENGINE_REF_BACKEND_H
#define TEST_ENGINE_REF_BACKEND_H

#include "kernels.h"

static struct kn_backend *be;

static inline int open_backend(void **state)
{
	const struct kn_config config = { .max_tokens = 128 };

	(void)state;
	return kn_ref_open(&config, &be, NULL);
}

static inline int close_backend(void **state)
{
	(void)state;
	kn_backend_close(be);
	return 0;
}

#endif
