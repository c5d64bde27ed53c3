/* gpu_rt over ordinary memory, for the host shim: everything happens at once, and there are no graphs but what a test
 * takes for some. There are as many devices as anybody asks for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/rt.h"

enum { MOST_FILLED = 16 << 20 };

/* What tests choose: devices that a library takes for some (they have streams), and that do not reach each other. */
extern bool gpu_rt_host_streams, gpu_rt_host_apart;
bool gpu_rt_host_streams, gpu_rt_host_apart;
/* Called wherever a device may be late; NULL: none is. */
extern void (*gpu_rt_host_delay)(void);
void (*gpu_rt_host_delay)(void);
/* Graphs, as a test makes them; NULL: there are none. Nothing shall happen between begin and end; a launch launches the
 * same again. */
struct gpu_rt_host_graphs {
	int (*begin)(struct gpu_rt *rt);
	int (*end)(struct gpu_rt *rt);
	int (*launch)(struct gpu_rt *rt);
};
extern const struct gpu_rt_host_graphs *gpu_rt_host_graphs;
const struct gpu_rt_host_graphs *gpu_rt_host_graphs;
extern _Thread_local bool gpu_rt_host_captures;
_Thread_local bool gpu_rt_host_captures; /* what this thread launches */

static void delay(void)
{
	if (gpu_rt_host_delay)
		gpu_rt_host_delay();
}

int gpu_rt_open(struct gpu_rt *rt, uint32_t device, char *reason, size_t reason_bytes)
{
	(void)reason;
	(void)reason_bytes;
	*rt = (struct gpu_rt){ .name = "host shim", .device = (int)device };
	rt->stream = gpu_rt_host_streams ? rt : NULL;
	rt->has_graphs = gpu_rt_host_graphs != NULL;
	return 0;
}

void gpu_rt_several(void)
{
}

int gpu_rt_reach(struct gpu_rt *rt, int other)
{
	(void)rt;
	(void)other;
	return gpu_rt_host_apart ? -ENOTSUP : 0;
}

void *gpu_rt_shared_alloc(struct gpu_rt *rt, size_t bytes)
{
	return gpu_rt_alloc(rt, bytes);
}

void gpu_rt_shared_free(struct gpu_rt *rt, void *p)
{
	gpu_rt_free(rt, p);
}

void gpu_rt_close(struct gpu_rt *rt)
{
	(void)rt;
}

const char *gpu_rt_error(void)
{
	return "none";
}

void *gpu_rt_alloc(struct gpu_rt *rt, size_t bytes)
{
	void *p = NULL;

	(void)rt;
	if (posix_memalign(&p, 256, bytes ? bytes : 1) != 0)
		return NULL;
	/* As little to be relied on as a device's; of the 64 MiB that weights are taken in a small model uses no more.
	 */
	memset(p, 0xff, bytes < MOST_FILLED ? bytes : MOST_FILLED);
	return p;
}

void gpu_rt_free(struct gpu_rt *rt, void *p)
{
	(void)rt;
	free(p);
}

void *gpu_rt_host_alloc(struct gpu_rt *rt, size_t bytes)
{
	void *p = NULL;

	(void)rt;
	/* Pinned memory is whole pages, which direct reads rely on. */
	return posix_memalign(&p, 4096, bytes ? bytes : 1) == 0 ? p : NULL;
}

void gpu_rt_host_free(struct gpu_rt *rt, void *p)
{
	(void)rt;
	free(p);
}

int gpu_rt_memory(struct gpu_rt *rt, uint64_t *ret_free, uint64_t *ret_total)
{
	(void)rt;
	*ret_free = *ret_total = 64ull << 20;
	return 0;
}

int gpu_rt_to_device(struct gpu_rt *rt, void *dst, const void *host, size_t bytes)
{
	delay();
	(void)rt;
	memcpy(dst, host, bytes);
	return 0;
}

int gpu_rt_copy(struct gpu_rt *rt, void *dst, const void *src, size_t bytes)
{
	(void)rt;
	memcpy(dst, src, bytes);
	return 0;
}

int gpu_rt_to_host(struct gpu_rt *rt, void *host, const void *src, size_t bytes)
{
	delay();
	(void)rt;
	memcpy(host, src, bytes);
	return 0;
}

int gpu_rt_clear(struct gpu_rt *rt, void *dst, size_t bytes)
{
	(void)rt;
	memset(dst, 0, bytes);
	return 0;
}

int gpu_rt_sync(struct gpu_rt *rt)
{
	delay();
	(void)rt;
	return 0;
}

int gpu_rt_event_new(struct gpu_rt *rt, void **ret_event)
{
	(void)rt;
	*ret_event = NULL;
	return 0;
}

void gpu_rt_event_free(struct gpu_rt *rt, void *event)
{
	(void)rt;
	free(event);
}

int gpu_rt_timer_new(struct gpu_rt *rt, void **ret_event)
{
	(void)rt;
	*ret_event = calloc(1, sizeof(struct timespec));
	return *ret_event ? 0 : -ENOMEM;
}

int gpu_rt_elapsed(struct gpu_rt *rt, void *from, void *to, uint64_t *ret_ns)
{
	const struct timespec *a = from, *b = to;

	(void)rt;
	*ret_ns = (uint64_t)((b->tv_sec - a->tv_sec) * 1000000000ll + b->tv_nsec - a->tv_nsec);
	return 0;
}

int gpu_rt_event_record(struct gpu_rt *rt, void *event)
{
	(void)rt;
	if (event)
		(void)clock_gettime(CLOCK_MONOTONIC, event);
	return 0;
}

int gpu_rt_event_wait(struct gpu_rt *rt, void *event)
{
	delay();
	(void)rt;
	(void)event;
	return 0;
}

int gpu_rt_stream_new(struct gpu_rt *rt, void **ret_stream)
{
	(void)rt;
	*ret_stream = NULL;
	return 0;
}

void gpu_rt_stream_free(struct gpu_rt *rt, void *stream)
{
	(void)rt;
	(void)stream;
}

int gpu_rt_event_record_on(struct gpu_rt *rt, void *stream, void *event)
{
	(void)stream;
	return gpu_rt_event_record(rt, event);
}

int gpu_rt_stream_wait(struct gpu_rt *rt, void *stream, void *event)
{
	(void)rt;
	(void)stream;
	(void)event;
	return 0;
}

int gpu_rt_event_done(struct gpu_rt *rt, void *event)
{
	(void)rt;
	(void)event;
	return 1;
}

int gpu_rt_copy_rows(struct gpu_rt *rt, void *stream, bool to_host, void *dst, size_t dst_step, const void *src,
                     size_t src_step, size_t bytes, size_t n_rows)
{
	(void)rt;
	(void)stream;
	(void)to_host;
	for (size_t i = 0; i < n_rows; i++)
		memcpy((char *)dst + i * dst_step, (const char *)src + i * src_step, bytes);
	return 0;
}

int gpu_rt_copy_peer(struct gpu_rt *rt, void *stream, int other, void *dst, size_t dst_step, const void *src,
                     size_t src_step, size_t bytes, size_t n_rows)
{
	(void)other;
	return gpu_rt_copy_rows(rt, stream, false, dst, dst_step, src, src_step, bytes, n_rows);
}

int gpu_rt_capture_begin(struct gpu_rt *rt)
{
	int r = gpu_rt_host_graphs ? gpu_rt_host_graphs->begin(rt) : -ENOTSUP;

	delay();
	gpu_rt_host_captures = r == 0;
	return r;
}

int gpu_rt_capture_end(struct gpu_rt *rt, void **ret_graph)
{
	int r = gpu_rt_host_graphs->end(rt);

	gpu_rt_host_captures = false;
	delay();
	if (r < 0)
		return r;
	*ret_graph = malloc(1);
	return *ret_graph ? 0 : -ENOMEM;
}

int gpu_rt_graph_launch(struct gpu_rt *rt, void *graph)
{
	(void)graph;
	delay();
	return gpu_rt_host_graphs->launch(rt);
}

void gpu_rt_graph_free(struct gpu_rt *rt, void *graph)
{
	(void)rt;
	free(graph);
}
