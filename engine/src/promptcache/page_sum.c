/* What a page is compared by: eight numbers, each mixed with every eighth word by steps that can be undone, so that one
 * bit more or less changes the sum. It tells damage, not malice: who writes where pages lie can write sums, too.
 * docs/formats/kv-page.md has it in words. */
#include "promptcache/page_sum.h"

#include <string.h>

enum { LANES = 8, STREAMS = 4, LINE = LANES * sizeof(uint64_t) };

static const uint64_t odd = 0x9fb21c651e98df25u;

/* By hand: made into vectors by a compiler for which 64-bit products are several, it is half as fast. */
#define MIX(i) lane##i = (lane##i ^ words[i]) * odd, lane##i ^= lane##i >> 29

/* Eight numbers, each mixed by a step that can be undone, so that one bit more or less changes the sum; side by side,
 * for a processor makes several products at a time. A line of each quarter in turn: a core that reads memory in four
 * places gets three times as much of it as in one. n: whole lines of all quarters. */
static void sum_lines(const uint8_t *bytes, size_t n, uint64_t *lane)
{
	uint64_t lane0 = lane[0], lane1 = lane[1], lane2 = lane[2], lane3 = lane[3], lane4 = lane[4], lane5 = lane[5],
	         lane6 = lane[6], lane7 = lane[7];
	size_t quarter = n / STREAMS;

	for (size_t at = 0; at < quarter; at += LINE) {
		for (size_t s = 0; s < STREAMS; s++) {
			uint64_t words[LANES];

			memcpy(words, bytes + s * quarter + at, sizeof(words));
			MIX(0), MIX(1), MIX(2), MIX(3), MIX(4), MIX(5), MIX(6), MIX(7);
		}
	}
	memcpy(lane, (uint64_t[LANES]){ lane0, lane1, lane2, lane3, lane4, lane5, lane6, lane7 }, LINE);
}

uint64_t eng_pc_page_sum(const void *page, size_t n)
{
	const uint8_t *bytes = page;
	uint64_t lane[LANES], sum = n;
	size_t at = n / (STREAMS * LINE) * (STREAMS * LINE);

	for (int i = 0; i < LANES; i++)
		lane[i] = odd * (uint64_t)(i + 1);
	sum_lines(bytes, at, lane);
	for (; at < n; at++)
		lane[at % LANES] = (lane[at % LANES] ^ bytes[at]) * odd;
	for (int i = 0; i < LANES; i++) {
		sum = (sum ^ lane[i]) * odd;
		sum ^= sum >> 32;
	}
	return sum;
}
