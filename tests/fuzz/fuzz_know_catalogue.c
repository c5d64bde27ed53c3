/* Bytes as a *.tasks file; what it makes of them is asked a question. */
#include <stddef.h>
#include <stdint.h>

#include "../../agent/src/know/know.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ag_know_match m[3];
	struct ag_know *k = NULL;
	struct err err;
	int n;

	if (ag_know_parse("fuzz", (const char *)data, size, &k, &err) < 0)
		return 0;
	n = ag_know_match(k, "show 安装 nginx in /var/log a 80 10M 1.2.3.4", m, 3);
	if (n > 0)
		ag_know_matches_done(m, (size_t)n);
	ag_know_close(k);
	return 0;
}
