/* Fibers for gpu_host.h. A switch saves the callee-saved registers and changes stacks: a dozen instructions, where
 * swapcontext() would make two system calls for each shuffle of each thread; other machines than x86-64 take that. */
#include "gpu/gpu_host.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FIBERS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBERS_ASAN 1
#endif
#endif
#ifdef FIBERS_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace gpu_host
{
thread_local int current;
thread_local void *dynamic_shared;
size_t shared_bytes = MOST_SHARED;
static thread_local int refused;

int take_error()
{
	const int e = refused;

	refused = 0;
	return e;
}
thread_local uint8_t slots[2][MAX_THREADS][SLOT];
thread_local uint8_t parity[MAX_THREADS];
thread_local named named_barriers[MAX_CLUSTER][16];
thread_local unsigned rank;
thread_local uint8_t *cluster_shared[MAX_CLUSTER];

namespace
{
/* Large enough for instrumented kernels whose register arrays live on the stack. */
enum { STACK = 256 << 10 };
enum state { READY, AT_BARRIER, AT_CLUSTER, IN_GROUP, PAUSED, ENDED };
enum { SHARED_ALIGN = 1024 };
/* Rounds in which every thread did nothing but pause: no work between two pauses is as long. */
enum { PATIENCE = 100000 };

struct fiber {
#ifdef __x86_64__
	void *sp;
#else
	ucontext_t context;
#endif
	char *stack;
	dim3 thread, block;
	unsigned rank;
	state at;
	int width; /* IN_GROUP */
	void *fake;
};

/* A thread's own, given back when it ends. */
struct fiber_set {
	fiber at[MAX_THREADS];
	~fiber_set()
	{
		for (fiber &f : at) {
			if (f.stack)
				(void)munmap(f.stack, STACK);
		}
	}
};

thread_local fiber_set all_fibers;
#define fibers all_fibers.at
thread_local fiber scheduler;
thread_local const std::function<void()> *kernel;
pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
#ifdef FIBERS_ASAN
thread_local const void *scheduler_stack;
thread_local size_t scheduler_size;
#endif

#ifdef __x86_64__
extern "C" void gpu_host_switch(void **save_sp, void *sp);
__asm__(".text\n"
        ".type gpu_host_switch, @function\n"
        "gpu_host_switch:\n"
        "	pushq %rbp\n	pushq %rbx\n	pushq %r12\n	pushq %r13\n	pushq %r14\n	pushq %r15\n"
        "	movq %rsp, (%rdi)\n"
        "	movq %rsi, %rsp\n"
        "	popq %r15\n	popq %r14\n	popq %r13\n	popq %r12\n	popq %rbx\n	popq %rbp\n"
        "	ret\n"
        ".size gpu_host_switch, . - gpu_host_switch\n");
#endif

void change(fiber *from, fiber *to, bool ends)
{
#ifdef FIBERS_ASAN
	__sanitizer_start_switch_fiber(ends ? nullptr : &from->fake, to == &scheduler ? scheduler_stack : to->stack,
	                               to == &scheduler ? scheduler_size : (size_t)STACK);
#else
	(void)ends;
#endif
#ifdef __x86_64__
	gpu_host_switch(&from->sp, to->sp);
#else
	swapcontext(&from->context, &to->context);
#endif
#ifdef FIBERS_ASAN
	__sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

void first_step()
{
#ifdef FIBERS_ASAN
	__sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
	(*kernel)();
	fibers[current].at = ENDED;
	change(&fibers[current], &scheduler, true);
	abort(); /* an ended fiber is never resumed */
}

void prepare(fiber *f)
{
	if (!f->stack) {
		f->stack = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (f->stack == MAP_FAILED)
			abort();
	}
	f->at = READY;
	f->fake = nullptr;
#ifdef __x86_64__
	/* What gpu_host_switch() pops: six registers and the address; then the stack is as after a call. */
	void **sp = (void **)(f->stack + STACK) - 8;

	memset(sp, 0, 8 * sizeof(*sp));
	sp[6] = (void *)first_step;
	f->sp = sp;
#else
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = f->stack;
	f->context.uc_stack.ss_size = STACK;
	f->context.uc_link = nullptr;
	makecontext(&f->context, first_step, 0);
#endif
}

/* Lets go the aligned groups all of whose threads wait with the same width. */
bool release_groups(int n)
{
	bool any = false;

	for (int i = 0; i < n; i++) {
		int width = fibers[i].width, begin = i & ~(width - 1), end = begin + width < n ? begin + width : n;
		bool all = true;

		if (fibers[i].at != IN_GROUP)
			continue;
		for (int k = begin; k < end && all; k++)
			all = fibers[k].at == ENDED || (fibers[k].at == IN_GROUP && fibers[k].width == width);
		for (int k = begin; k < end && all; k++) {
			if (fibers[k].at == IN_GROUP)
				fibers[k].at = READY;
		}
		any |= all;
	}
	return any;
}

/* Threads [begin, end), all of which are there or have ended. */
bool release_barrier(int begin, int end, state where)
{
	bool any = false;

	for (int i = begin; i < end; i++) {
		if (fibers[i].at != where && fibers[i].at != ENDED)
			return false;
	}
	for (int i = begin; i < end; i++) {
		any |= fibers[i].at == where;
		if (fibers[i].at == where)
			fibers[i].at = READY;
	}
	return any;
}

bool release_barriers(int n, int per_block)
{
	bool any = release_barrier(0, n, AT_CLUSTER);

	for (int i = 0; i < n; i += per_block)
		any |= release_barrier(i, i + per_block, AT_BARRIER);
	return any;
}

/* A block, or those of a cluster, of per_block threads each. One of these runs as long as it can before another one's
 * turn: so what it may not do before the others have done something shows. */
void run_block(int n, int per_block)
{
	const unsigned n_blocks = (unsigned)(n / per_block);
	unsigned turn_of = 0, n_stuck = 0;
	int n_ended = 0, n_idle = 0;

	memset(parity, 0, sizeof(parity));
	memset(named_barriers, 0, sizeof(named_barriers));
	for (int i = 0; i < n; i++)
		prepare(&fibers[i]);
	while (n_ended < n) {
		bool ran = false, went_on = false;

		for (int i = 0; i < n; i++) {
			if (fibers[i].rank != turn_of || (fibers[i].at != READY && fibers[i].at != PAUSED))
				continue;
			current = i;
			threadIdx = fibers[i].thread;
			blockIdx = fibers[i].block;
			rank = fibers[i].rank;
			dynamic_shared = cluster_shared[rank];
			change(&scheduler, &fibers[i], false);
			n_ended += fibers[i].at == ENDED;
			ran = true;
			went_on |= fibers[i].at != PAUSED;
		}
		if (n_ended == n)
			break;
		n_idle = went_on ? 0 : n_idle + 1;
		n_stuck = release_groups(n) || release_barriers(n, per_block) || ran ? 0 : n_stuck + 1;
		if (!went_on)
			turn_of = (turn_of + 1) % n_blocks;
		if (n_stuck == n_blocks || n_idle > PATIENCE) {
			fprintf(stderr, "block (%u, %u, %u): no thread can go on\n", blockIdx.x, blockIdx.y, blockIdx.z);
			abort();
		}
	}
}

void suspend(state at, int width)
{
	int me = current;

	fibers[me].at = at;
	fibers[me].width = width;
	change(&fibers[me], &scheduler, false);
}
} // namespace

void wait_block()
{
	suspend(AT_BARRIER, 1);
}

void wait_cluster()
{
	suspend(AT_CLUSTER, 1);
}

void wait_group(int width)
{
	suspend(IN_GROUP, width);
}

void pause()
{
	suspend(PAUSED, 1);
}

void spin()
{
	pthread_mutex_unlock(&turn);
	sched_yield();
	pthread_mutex_lock(&turn);
}

void launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &body, unsigned cluster)
{
	const int per_block = (int)(block.x * block.y * block.z), n = per_block * (int)cluster;

	if (per_block < 1 || per_block > MAX_BLOCK || n > MAX_THREADS || cluster > MAX_CLUSTER || grid.x % cluster) {
		fprintf(stderr, "blocks of %d threads, %u together\n", per_block, cluster);
		abort();
	}
	if (shared > shared_bytes) {
		refused = 1;
		return;
	}
	pthread_mutex_lock(&turn);
	kernel = &body;
	gridDim = grid;
	blockDim = block;
	for (unsigned i = 0; i < grid.x * grid.y * grid.z; i += cluster) {
		for (int k = 0; k < n; k++) {
			const unsigned thread = (unsigned)(k % per_block), at = i + (unsigned)(k / per_block);

			fibers[k].thread =
			        dim3(thread % block.x, thread / block.x % block.y, thread / (block.x * block.y));
			fibers[k].block = dim3(at % grid.x, at / grid.x % grid.y, at / (grid.x * grid.y));
			fibers[k].rank = (unsigned)(k / per_block);
		}
		for (unsigned r = 0; r < cluster; r++) {
			void *p = nullptr;

			/* One block's may begin anywhere, so that tests see who counts on more. */
			if (shared && cluster == 1)
				p = malloc(shared);
			else if (shared && posix_memalign(&p, SHARED_ALIGN, shared))
				abort();
			if (shared)
				memset(p, 0xa5, shared);
			cluster_shared[r] = (uint8_t *)p;
		}
		run_block(n, per_block);
		for (unsigned r = 0; r < cluster; r++)
			free(cluster_shared[r]);
	}
	dynamic_shared = nullptr;
	pthread_mutex_unlock(&turn);
}
} // namespace gpu_host
