/* gpu_rt over CUDA's or HIP's runtime: the names differ in their first letters only. */
#include "gpu/rt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__HIPCC__) || defined(__HIP__)
#include <hip/hip_runtime.h>
#define RT(name) hip##name
#define RT_HOST_ALLOC(p, n) hipHostMalloc((p), (n), hipHostMallocPortable)
#define RT_HOST_FREE(p) hipHostFree(p)
#else
#include <cuda_runtime.h>
#define RT(name) cuda##name
#define RT_HOST_ALLOC(p, n) cudaHostAlloc((p), (n), cudaHostAllocPortable)
#define RT_HOST_FREE(p) cudaFreeHost(p)
#endif

typedef RT(Stream_t) stream_t;

static thread_local RT(Error_t) last = RT(Success);

static int done(RT(Error_t) e)
{
	if (e == RT(Success))
		return 0;
	last = e;
	(void)RT(GetLastError)(); /* a sticky error shows again by itself */
	return -EIO;
}

extern "C" const char *gpu_rt_error(void)
{
	return RT(GetErrorString)(last);
}

/* The runtime has a current device for each thread. */
static RT(Error_t) use(const struct gpu_rt *rt)
{
	static thread_local int current = -1;
	RT(Error_t) e = RT(Success);

	if (current != rt->device)
		e = RT(SetDevice)(rt->device);
	current = e == RT(Success) ? rt->device : -1;
	return e;
}

static RT(Error_t) use_open(const struct gpu_rt *rt)
{
	return rt->stream ? use(rt) : RT(Success);
}

/* Code that is loaded at its first launch may have to wait for all that its device does, while what that waits for is not
 * launched yet: with several devices all of it is loaded at once. */
extern "C" void gpu_rt_several(void)
{
	(void)setenv("CUDA_MODULE_LOADING", "EAGER", 0);
	/* Memory that is taken in a stream's order (gpu_rt.in_order) is its own device's alone. */
	(void)setenv("NCCL_P2P_DIRECT_DISABLE", "1", 0);
}

extern "C" int gpu_rt_open(struct gpu_rt *rt, uint32_t device, char *reason, size_t reason_bytes)
{
	int n = 0;
	stream_t stream;
	RT(Error_t) e = RT(GetDeviceCount)(&n);

	if (e == RT(Success) && n == 0) {
		(void)snprintf(reason, reason_bytes, "the driver shows no device");
		return -ENODEV;
	}
	if (e == RT(Success) && device >= (uint32_t)n) {
		(void)snprintf(reason, reason_bytes, "there is no device %u: the driver shows %d", device, n);
		return -ENODEV;
	}
	rt->device = (int)device;
	if (e == RT(Success))
		e = use(rt);
	if (e == RT(Success))
		e = RT(StreamCreateWithFlags)(&stream, RT(StreamNonBlocking));
	if (e != RT(Success)) {
		(void)done(e);
		(void)snprintf(reason, reason_bytes, "%s", gpu_rt_error());
		return -ENODEV;
	}
	rt->stream = stream;
	rt->has_graphs = true;
	return 0;
}

extern "C" void gpu_rt_close(struct gpu_rt *rt)
{
	if (rt->stream) {
		(void)use(rt);
		(void)RT(StreamDestroy)((stream_t)rt->stream);
	}
	rt->stream = NULL;
}

extern "C" void *gpu_rt_alloc(struct gpu_rt *rt, size_t bytes)
{
	void *p = NULL;

	(void)use(rt);
#if !defined(__HIPCC__) && !defined(__HIP__)
	if (rt->in_order)
		return done(cudaMallocAsync(&p, bytes, (stream_t)rt->stream)) == 0 ? p : NULL;
#endif
	return done(RT(Malloc)(&p, bytes)) == 0 ? p : NULL;
}

extern "C" void gpu_rt_free(struct gpu_rt *rt, void *p)
{
	(void)use_open(rt);
#if !defined(__HIPCC__) && !defined(__HIP__)
	if (p && rt->in_order) {
		(void)done(cudaFreeAsync(p, (stream_t)rt->stream));
		return;
	}
#endif
	if (p)
		(void)done(RT(Free)(p));
}

extern "C" void *gpu_rt_host_alloc(struct gpu_rt *rt, size_t bytes)
{
	void *p = NULL;

	(void)use(rt);
	return done(RT_HOST_ALLOC(&p, bytes)) == 0 ? p : NULL;
}

extern "C" void gpu_rt_host_free(struct gpu_rt *rt, void *p)
{
	(void)use_open(rt);
	if (p)
		(void)done(RT_HOST_FREE(p));
}

extern "C" int gpu_rt_reach(struct gpu_rt *rt, int other)
{
	int can = 0;
	RT(Error_t) e = use(rt);

	if (e == RT(Success))
		e = RT(DeviceCanAccessPeer)(&can, rt->device, other);
	if (e != RT(Success) || !can) {
		(void)done(e);
		return -ENOTSUP;
	}
	e = RT(DeviceEnablePeerAccess)(other, 0);
	if (e != RT(ErrorPeerAccessAlreadyEnabled) && e != RT(Success)) {
		(void)done(e);
		return -ENOTSUP;
	}
	(void)RT(GetLastError)();
	return 0;
}

extern "C" void *gpu_rt_shared_alloc(struct gpu_rt *rt, size_t bytes)
{
	void *p = NULL;

	(void)use(rt);
#if defined(__HIPCC__) || defined(__HIP__)
	/* What other devices write is seen only here while a kernel runs. */
	return done(hipExtMallocWithFlags(&p, bytes, hipDeviceMallocFinegrained)) == 0 ? p : NULL;
#else
	return done(cudaMalloc(&p, bytes)) == 0 ? p : NULL;
#endif
}

extern "C" void gpu_rt_shared_free(struct gpu_rt *rt, void *p)
{
	(void)use(rt);
	if (p)
		(void)done(RT(Free)(p));
}

extern "C" int gpu_rt_memory(struct gpu_rt *rt, uint64_t *ret_free, uint64_t *ret_total)
{
	size_t f = 0, t = 0;
	int r = done(use(rt));

	r = r < 0 ? r : done(RT(MemGetInfo)(&f, &t));
	*ret_free = f;
	*ret_total = t;
	return r;
}

extern "C" int gpu_rt_to_device(struct gpu_rt *rt, void *dst, const void *host, size_t bytes)
{
	(void)use(rt);
	return done(RT(MemcpyAsync)(dst, host, bytes, RT(MemcpyHostToDevice), (stream_t)rt->stream));
}

extern "C" int gpu_rt_to_host(struct gpu_rt *rt, void *host, const void *src, size_t bytes)
{
	(void)use(rt);
	return done(RT(MemcpyAsync)(host, src, bytes, RT(MemcpyDeviceToHost), (stream_t)rt->stream));
}

extern "C" int gpu_rt_copy(struct gpu_rt *rt, void *dst, const void *src, size_t bytes)
{
	(void)use(rt);
	return done(RT(MemcpyAsync)(dst, src, bytes, RT(MemcpyDeviceToDevice), (stream_t)rt->stream));
}

extern "C" int gpu_rt_clear(struct gpu_rt *rt, void *dst, size_t bytes)
{
	(void)use(rt);
	return done(RT(MemsetAsync)(dst, 0, bytes, (stream_t)rt->stream));
}

extern "C" int gpu_rt_sync(struct gpu_rt *rt)
{
	(void)use(rt);
	return done(RT(StreamSynchronize)((stream_t)rt->stream));
}

extern "C" int gpu_rt_event_new(struct gpu_rt *rt, void **ret_event)
{
	RT(Event_t) e;
	int r = done(use(rt));

	r = r < 0 ? r : done(RT(EventCreateWithFlags)(&e, RT(EventDisableTiming)));
	if (r == 0)
		*ret_event = e;
	return r;
}

extern "C" int gpu_rt_timer_new(struct gpu_rt *rt, void **ret_event)
{
	RT(Event_t) e;
	int r = done(use(rt));

	r = r < 0 ? r : done(RT(EventCreate)(&e));
	if (r == 0)
		*ret_event = e;
	return r;
}

extern "C" int gpu_rt_elapsed(struct gpu_rt *rt, void *from, void *to, uint64_t *ret_ns)
{
	float ms = 0;
	int r = done(RT(EventElapsedTime)(&ms, (RT(Event_t))from, (RT(Event_t))to));

	(void)rt;
	*ret_ns = r == 0 ? (uint64_t)((double)ms * 1e6) : 0;
	return r;
}

extern "C" void gpu_rt_event_free(struct gpu_rt *rt, void *event)
{
	(void)rt;
	if (event)
		(void)done(RT(EventDestroy)((RT(Event_t))event));
}

extern "C" int gpu_rt_event_record(struct gpu_rt *rt, void *event)
{
	(void)use(rt);
	return done(RT(EventRecord)((RT(Event_t))event, (stream_t)rt->stream));
}

extern "C" int gpu_rt_event_wait(struct gpu_rt *rt, void *event)
{
	(void)use(rt);
	return done(RT(EventSynchronize)((RT(Event_t))event));
}

static stream_t stream_of(const struct gpu_rt *rt, void *stream)
{
	return (stream_t)(stream ? stream : rt->stream);
}

extern "C" int gpu_rt_stream_new(struct gpu_rt *rt, void **ret_stream)
{
	stream_t stream;
	int r = done(use(rt));

	r = r < 0 ? r : done(RT(StreamCreateWithFlags)(&stream, RT(StreamNonBlocking)));
	if (r == 0)
		*ret_stream = stream;
	return r;
}

extern "C" void gpu_rt_stream_free(struct gpu_rt *rt, void *stream)
{
	(void)rt;
	if (stream)
		(void)done(RT(StreamDestroy)((stream_t)stream));
}

extern "C" int gpu_rt_event_record_on(struct gpu_rt *rt, void *stream, void *event)
{
	return done(RT(EventRecord)((RT(Event_t))event, stream_of(rt, stream)));
}

extern "C" int gpu_rt_stream_wait(struct gpu_rt *rt, void *stream, void *event)
{
	return done(RT(StreamWaitEvent)(stream_of(rt, stream), (RT(Event_t))event, 0));
}

extern "C" int gpu_rt_event_done(struct gpu_rt *rt, void *event)
{
	RT(Error_t) e = RT(EventQuery)((RT(Event_t))event);

	(void)rt;
	if (e == RT(ErrorNotReady)) {
		(void)RT(GetLastError)();
		return 0;
	}
	return done(e) == 0 ? 1 : -EIO;
}

static const size_t most_step = (1u << 31) - 1; /* the drivers' limit of a pitch */

extern "C" int gpu_rt_copy_rows(struct gpu_rt *rt, void *stream, bool to_host, void *dst, size_t dst_step,
                                const void *src, size_t src_step, size_t bytes, size_t n_rows)
{
	const RT(MemcpyKind) kind = to_host ? RT(MemcpyDeviceToHost) : RT(MemcpyHostToDevice);
	int r = 0;

	if (n_rows > 1 && dst_step <= most_step && src_step <= most_step)
		return done(
		        RT(Memcpy2DAsync)(dst, dst_step, src, src_step, bytes, n_rows, kind, stream_of(rt, stream)));
	for (size_t i = 0; i < n_rows && r == 0; i++)
		r = done(RT(MemcpyAsync)((char *)dst + i * dst_step, (const char *)src + i * src_step, bytes, kind,
		                         stream_of(rt, stream)));
	return r;
}

/* Where devices do not reach each other, the runtime goes by way of host memory. */
extern "C" int gpu_rt_copy_peer(struct gpu_rt *rt, void *stream, int other, void *dst, size_t dst_step, const void *src,
                                size_t src_step, size_t bytes, size_t n_rows)
{
	int r = done(use(rt));

#if !defined(__HIPCC__) && !defined(__HIP__)
	if (r == 0 && n_rows > 1 && dst_step <= most_step && src_step <= most_step) {
		cudaMemcpy3DPeerParms p = {};

		p.srcDevice = other;
		p.srcPtr = make_cudaPitchedPtr(const_cast<void *>(src), src_step, bytes, n_rows);
		p.dstDevice = rt->device;
		p.dstPtr = make_cudaPitchedPtr(dst, dst_step, bytes, n_rows);
		p.extent = make_cudaExtent(bytes, n_rows, 1);
		return done(cudaMemcpy3DPeerAsync(&p, stream_of(rt, stream)));
	}
#endif
	for (size_t i = 0; i < n_rows && r == 0; i++)
		r = done(RT(MemcpyPeerAsync)((char *)dst + i * dst_step, rt->device,
		                             (const char *)src + i * src_step, other, bytes,
		                             stream_of(rt, stream)));
	return r;
}

extern "C" int gpu_rt_capture_begin(struct gpu_rt *rt)
{
	(void)use(rt);
	return done(RT(StreamBeginCapture)((stream_t)rt->stream, RT(StreamCaptureModeThreadLocal)));
}

extern "C" int gpu_rt_capture_end(struct gpu_rt *rt, void **ret_graph)
{
	RT(Graph_t) graph = NULL;
	RT(GraphExec_t) exec = NULL;
	int r = done(RT(StreamEndCapture)((stream_t)rt->stream, &graph));

	if (r == 0)
		r = done(RT(GraphInstantiateWithFlags)(&exec, graph, 0));
	if (graph)
		(void)RT(GraphDestroy)(graph);
#if !defined(__HIPCC__) && !defined(__HIP__)
	/* The memory that its launch takes is taken now, while no device waits for another one's launch. */
	if (r == 0 && rt->in_order) {
		r = done(cudaGraphUpload(exec, (stream_t)rt->stream));
		if (r < 0)
			(void)cudaGraphExecDestroy(exec);
	}
#endif
	if (r == 0)
		*ret_graph = exec;
	return r;
}

extern "C" int gpu_rt_graph_launch(struct gpu_rt *rt, void *graph)
{
	(void)use(rt);
	return done(RT(GraphLaunch)((RT(GraphExec_t))graph, (stream_t)rt->stream));
}

extern "C" void gpu_rt_graph_free(struct gpu_rt *rt, void *graph)
{
	(void)rt;
	if (graph)
		(void)done(RT(GraphExecDestroy)((RT(GraphExec_t))graph));
}
