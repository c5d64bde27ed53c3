/* Runs kernels on the host, so that their results can be tested where no GPU is: a block's threads are fibers
 * (ucontext) of one thread, blocks run one after another. Slow on purpose: it answers "is it right", never "is it
 * fast".
 *
 * A fiber stops at __syncthreads() until all of its block that have not ended are there, and in a shuffle until its
 * group of 32 is. A kernel whose threads wait for each other for ever is told and ends the program. */
#ifndef TUTORIAL_GPU_HOST_H
#define TUTORIAL_GPU_HOST_H

#include <functional>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__ static
#define __device__
#define __shared__ static
#define __restrict__ __restrict

struct dim3 {
	unsigned x;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host
{
enum { MAX_THREADS = 1024, STACK_BYTES = 64 << 10, LANES = 32 };
enum state { READY, AT_BLOCK, AT_GROUP, ENDED };

struct fiber {
	ucontext_t context;
	state at;
};
static fiber fibers[MAX_THREADS];
static float slots[MAX_THREADS];
static ucontext_t scheduler;
static unsigned current;
static std::function<void()> body;

static void begin()
{
	body();
	fibers[current].at = ENDED; /* uc_link leads back to the scheduler */
}

static void wait(state what)
{
	fiber *me = &fibers[current];

	me->at = what;
	swapcontext(&me->context, &scheduler);
}

/* Sets those of [from, to) that wait for `what` going when nobody among them is still to come. */
static bool release(unsigned from, unsigned to, state what)
{
	bool any = false;

	for (unsigned i = from; i < to; i++)
		if (fibers[i].at != what && fibers[i].at != ENDED)
			return false;
	for (unsigned i = from; i < to; i++)
		if (fibers[i].at == what) {
			fibers[i].at = READY;
			any = true;
		}
	return any;
}

static void prepare(fiber *f, char *stack)
{
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = stack;
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = &scheduler;
	makecontext(&f->context, begin, 0);
	f->at = READY;
}

static void run_block(char *stacks)
{
	const unsigned n = blockDim.x;

	for (unsigned i = 0; i < n; i++)
		prepare(&fibers[i], stacks + (size_t)i * STACK_BYTES);
	for (;;) {
		unsigned n_ended = 0;
		bool going = false;

		for (current = 0; current < n; current++)
			if (fibers[current].at == READY) {
				threadIdx = { current };
				swapcontext(&scheduler, &fibers[current].context);
			}
		for (unsigned i = 0; i < n; i++)
			n_ended += fibers[i].at == ENDED;
		if (n_ended == n)
			return;
		for (unsigned i = 0; i < n; i += LANES)
			going |= release(i, i + LANES < n ? i + LANES : n, AT_GROUP);
		if (!going && !release(0, n, AT_BLOCK)) {
			fprintf(stderr, "the threads of a block wait for each other for ever\n");
			abort();
		}
	}
}

template <class Call> static void launch(unsigned grid, unsigned block, Call call)
{
	char *stacks = (char *)malloc((size_t)block * STACK_BYTES);

	if (!stacks || block > MAX_THREADS)
		abort();
	body = call;
	gridDim = { grid };
	blockDim = { block };
	for (unsigned i = 0; i < grid; i++) {
		blockIdx = { i };
		run_block(stacks);
	}
	free(stacks);
}

[[maybe_unused]] static float shuffle(float value, unsigned mask)
{
	const unsigned from = current ^ mask;
	float other;

	slots[current] = value;
	wait(AT_GROUP); /* all have written */
	other = slots[from < blockDim.x ? from : current];
	wait(AT_GROUP); /* all have read */
	return other;
}
} // namespace host

static inline void __syncthreads(void)
{
	host::wait(host::AT_BLOCK);
}
#define GPU_SHFL_XOR(value, mask) host::shuffle((value), (mask))
#define GPU_LAUNCH(kernel, grid, block, ...) host::launch((grid), (block), [=] { kernel(__VA_ARGS__); })

/* The calls of the run time that the tutorial makes; the names gpu.h puts together. */
typedef int hostError_t;
enum { hostSuccess = 0, hostErrorMemoryAllocation = 2 };
enum hostMemcpyKind { hostMemcpyHostToDevice, hostMemcpyDeviceToHost };

template <class T> static hostError_t hostMalloc(T **ret, size_t size_bytes)
{
	*ret = (T *)malloc(size_bytes);
	return *ret ? hostSuccess : hostErrorMemoryAllocation;
}
static inline hostError_t hostFree(void *p)
{
	free(p);
	return hostSuccess;
}
static inline hostError_t hostMemcpy(void *to, const void *from, size_t size_bytes, hostMemcpyKind)
{
	memcpy(to, from, size_bytes);
	return hostSuccess;
}
static inline hostError_t hostGetLastError(void)
{
	return hostSuccess;
}
static inline hostError_t hostDeviceSynchronize(void)
{
	return hostSuccess;
}
static inline const char *hostGetErrorString(hostError_t e)
{
	return e ? "out of memory" : "no error";
}

#endif
