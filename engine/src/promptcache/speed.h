/* How fast things went, kept beside the pages for the next process: what prompts took on which device, and what reading
 * a page took. The file is of the size ENG_PC_SPEED_BYTES; docs/formats/kv-page.md. */
#ifndef ENG_PC_SPEED_H
#define ENG_PC_SPEED_H

#include <stddef.h>
#include <stdint.h>

enum { ENG_PC_SPEED_STEPS = 16, ENG_PC_SPEED_BYTES = 8 + 8 + 8 + 16 * ENG_PC_SPEED_STEPS + 32 };

struct eng_pc_speed {
	uint64_t device; /* a number for its name */
	double read_ns;  /* of a page; 0: not known */
	struct {
		double n, ns; /* tokens of a step with prompts, and its time; 0: not known */
	} steps[ENG_PC_SPEED_STEPS];
};

int eng_pc_speed_seal(const struct eng_pc_speed *speed, uint8_t file[ENG_PC_SPEED_BYTES]);
/* -EBADMSG: it is no such file, or says what cannot be. */
int eng_pc_speed_parse(const uint8_t *file, size_t size, struct eng_pc_speed *ret_speed);

#endif
