/* What is kept of a process's speed beside the prompt cache: what is accepted seals to the same bytes again, and is
 * made of numbers that can be reckoned with. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "promptcache/speed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t file[ENG_PC_SPEED_BYTES];
	struct eng_pc_speed speed;

	if (eng_pc_speed_parse(data, size, &speed) < 0)
		return 0;
	if (size != sizeof(file) || eng_pc_speed_seal(&speed, file) < 0 || memcmp(file, data, size) != 0)
		abort();
	for (int i = 0; i < ENG_PC_SPEED_STEPS; i++) {
		if (!(speed.steps[i].n >= 0 && speed.steps[i].ns >= 0 &&
		      isfinite(speed.steps[i].ns * speed.steps[i].n)))
			abort();
	}
	return 0;
}
