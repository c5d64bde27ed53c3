/* What the host side needs of a device's runtime: rt.cu over CUDA or HIP, rt_host.c over ordinary memory for tests. One
 * device and one stream per object; one thread drives it, and each call makes the device that thread's. Functions
 * return 0 or -EIO (-ENOMEM for memory), and gpu_rt_error() says what the runtime called it. */
#ifndef GPU_RT_H
#define GPU_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gpu_rt {
	int device;
	void *stream;
	bool has_graphs;
	/* Set by the caller before anything is allocated: memory is taken and given back in the stream's order. Else
	 * that may wait for what runs on any device that reaches it, which may be waiting for this one. */
	bool in_order;
	char name[128];
};

/* The device of that number. -ENODEV with the reason: no driver, no such device. */
int gpu_rt_open(struct gpu_rt *rt, uint32_t device, char *reason, size_t reason_bytes);
/* Before the first one is opened: several devices will be used by several threads at once. */
void gpu_rt_several(void);
void gpu_rt_close(struct gpu_rt *rt);
const char *gpu_rt_error(void); /* of the last failure of this thread */

void *gpu_rt_alloc(struct gpu_rt *rt, size_t bytes); /* NULL: none left */
void gpu_rt_free(struct gpu_rt *rt, void *p);
/* Host memory that the device copies from and to without help; any thread may ask for it. */
void *gpu_rt_host_alloc(struct gpu_rt *rt, size_t bytes);
void gpu_rt_host_free(struct gpu_rt *rt, void *p);
/* Kernels of rt's device read and write memory of the other one from now on. -ENOTSUP: they cannot. */
int gpu_rt_reach(struct gpu_rt *rt, int other);
/* Memory of this device that kernels of others use while it does. */
void *gpu_rt_shared_alloc(struct gpu_rt *rt, size_t bytes);
void gpu_rt_shared_free(struct gpu_rt *rt, void *p);
int gpu_rt_memory(struct gpu_rt *rt, uint64_t *ret_free, uint64_t *ret_total);

/* In the stream's order. Host memory is in use until gpu_rt_sync() or an event behind it. */
int gpu_rt_to_device(struct gpu_rt *rt, void *dst, const void *host, size_t bytes);
int gpu_rt_to_host(struct gpu_rt *rt, void *host, const void *src, size_t bytes);
int gpu_rt_copy(struct gpu_rt *rt, void *dst, const void *src, size_t bytes); /* on the device */
int gpu_rt_clear(struct gpu_rt *rt, void *dst, size_t bytes);
int gpu_rt_sync(struct gpu_rt *rt);

int gpu_rt_event_new(struct gpu_rt *rt, void **ret_event);
void gpu_rt_event_free(struct gpu_rt *rt, void *event);
int gpu_rt_event_record(struct gpu_rt *rt, void *event);
int gpu_rt_event_wait(struct gpu_rt *rt, void *event); /* the host waits */
/* An event that knows when it was. Between two that were waited for: */
int gpu_rt_timer_new(struct gpu_rt *rt, void **ret_event);
int gpu_rt_elapsed(struct gpu_rt *rt, void *from, void *to, uint64_t *ret_ns);

/* Other streams, for copies beside the kernels. `stream`: one of these, or NULL for the object's own. */
int gpu_rt_stream_new(struct gpu_rt *rt, void **ret_stream);
void gpu_rt_stream_free(struct gpu_rt *rt, void *stream);
int gpu_rt_event_record_on(struct gpu_rt *rt, void *stream, void *event);
/* What is put on the stream from now on goes behind the event as it was recorded last. */
int gpu_rt_stream_wait(struct gpu_rt *rt, void *stream, void *event);
int gpu_rt_event_done(struct gpu_rt *rt, void *event); /* 1: it is; 0: not yet */
/* n_rows rows of `bytes`, dst_step and src_step bytes apart, each at least `bytes`. */
int gpu_rt_copy_rows(struct gpu_rt *rt, void *stream, bool to_host, void *dst, size_t dst_step, const void *src,
                     size_t src_step, size_t bytes, size_t n_rows);
/* The same from memory of another device. */
int gpu_rt_copy_peer(struct gpu_rt *rt, void *stream, int other, void *dst, size_t dst_step, const void *src,
                     size_t src_step, size_t bytes, size_t n_rows);

/* What is put on the stream between begin and end becomes a graph instead of running. */
int gpu_rt_capture_begin(struct gpu_rt *rt);
int gpu_rt_capture_end(struct gpu_rt *rt, void **ret_graph); /* also on failure: ends the capture */
int gpu_rt_graph_launch(struct gpu_rt *rt, void *graph);
void gpu_rt_graph_free(struct gpu_rt *rt, void *graph);

#ifdef __cplusplus
}
#endif

#endif
