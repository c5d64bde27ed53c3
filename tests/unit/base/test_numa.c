/* Which nodes count, over a table of our own; on the machine itself, memory that was spread is memory like any. */
#include "base/numa.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "numa_internal.h"
#include "test.h"

static char dir[64];

static void put_node(unsigned node, const char *cpus)
{
	char path[128];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/node%u", dir, node);
	(void)mkdir(path, 0700);
	(void)snprintf(path, sizeof(path), "%s/node%u/cpulist", dir, node);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(cpus, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static uint64_t nodes_for(unsigned first, unsigned last)
{
	bool allowed[BASE_NUMA_CPUS] = { false };

	for (unsigned i = first; i <= last; i++)
		allowed[i] = true;
	return base_numa_nodes_at(dir, allowed);
}

static void nodes_with_processors_of_ours_count(void **state)
{
	char cmd[96];

	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/test-numa-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(nodes_for(0, 15), 0);
	put_node(0, "0-3,8-11\n");
	assert_int_equal(nodes_for(0, 15), 1);
	put_node(1, "4-7,12-15\n");
	put_node(2, "\n"); /* memory without processors */
	put_node(5, "16\n");
	assert_int_equal(nodes_for(0, 31), 1 | 2 | 32);
	assert_int_equal(nodes_for(0, 3), 1);
	assert_int_equal(nodes_for(12, 12), 2);
	assert_int_equal(nodes_for(11, 12), 3);
	assert_int_equal(nodes_for(16, 4000), 32);
	assert_int_equal(nodes_for(17, 4000), 0);
	put_node(0, "what is this");
	put_node(1, "5-");
	put_node(5, "9999999-1,4294967295");
	assert_int_equal(nodes_for(0, 4000), 0);
	put_node(63, "0-4294967295");
	assert_int_equal(nodes_for(7, 7), 1ull << 63);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
}

static void spread_memory_is_memory(void **state)
{
	enum { BYTES = 1 << 20 };
	unsigned char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_true(p != MAP_FAILED);
	base_numa_spread(p, BYTES);
	memset(p, 5, BYTES);
	assert_int_equal(p[BYTES - 1], 5);
	(void)munmap(p, BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nodes_with_processors_of_ours_count),
		cmocka_unit_test(spread_memory_is_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
