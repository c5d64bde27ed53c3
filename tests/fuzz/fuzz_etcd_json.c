/* What etcd answers: members only, and none that could not stand in a URL. */
#include <stdint.h>
#include <stdlib.h>

#include "peer/membership.h"
#include "peer/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct etcd_answer a;

	if (etcd_answer_parse(data, size, &a, NULL) < 0)
		return 0;
	for (size_t i = 0; i < a.n; i++) {
		if (!peer_name_is_valid(a.items[i].named.name) || !a.items[i].key)
			abort();
	}
	etcd_answer_done(&a);
	return 0;
}
