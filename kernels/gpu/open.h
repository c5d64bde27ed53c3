/* How plugins and tests open the backend. */
#ifndef GPU_OPEN_H
#define GPU_OPEN_H

#include "kernels.h"

struct gpu_open {
	bool no_fusion; /* tests: every operation a launch of its own */
	/* The operation that failed, and what the device called it; NULL: nobody is told. */
	void (*on_failure)(const char *backend, const char *op, const char *text);
	/* A library (of products, between devices) is not here, and why; NULL: nobody is told. */
	void (*on_note)(const char *backend, const char *text);
	/* Tests of several devices; 0: as measured or chosen. Sums of so many bytes, and those of programs that are
	 * kept as graphs, go our own way; ranks that wait so long are looked at. */
	size_t one_shot_bytes, captured_bytes;
	uint32_t watch_ms;
};

/* kind: the name that the table gets, borrowed for good. o may be NULL. -ENODEV with the reason. */
int gpu_backend_open(const char *kind, const struct kn_config *config, const struct gpu_open *o,
                     struct kn_backend **ret_backend, struct err *err);

#endif
