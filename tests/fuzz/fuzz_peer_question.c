/* What a question of a peer, a list of members, a signature and the kernel's pressure files are made of: texts, which
 * of them is said by the first byte. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer/auth.h"
#include "peer/limit.h"
#include "peer/membership.h"
#include "peer/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_ranges(const char *text)
{
	struct flip_range ranges[16], again[16];
	struct base_buf b = BASE_BUF_INIT(4096);
	size_t n, m;

	if (peer_ranges_parse(text, ranges, 16, 1 << 30, &n) < 0)
		return;
	if (peer_ranges_write(ranges, n, &b) < 0 || peer_ranges_parse(base_buf_text(&b), again, 16, 1 << 30, &m) < 0 ||
	    n != m || memcmp(ranges, again, n * sizeof(*ranges)) != 0)
		abort();
	base_buf_done(&b);
}

static void try_names(const char *text)
{
	char name[FLIP_PEER_NAME];
	struct peer_named *named;
	const char *p = text;
	size_t n;

	while (peer_name_next(&p, name) > 0) {
		if (!peer_name_is_valid(name))
			abort();
	}
	if (peer_list_parse(text, &named, &n, NULL) == 0) {
		for (size_t i = 0; i < n; i++) {
			if (!peer_name_is_valid(named[i].name))
				abort();
		}
		free(named);
	}
	(void)peer_digest_is_valid(text);
}

static void try_signature(const char *text)
{
	static struct peer_token *token;
	const char *const parts[] = { "/flip/1/layer/x", "bytes=0-1" };

	if (!token) {
		char path[] = "/tmp/fuzz-token-XXXXXX";
		int fd = mkstemp(path);

		if (fd < 0 || write(fd, "0123456789abcdef\n", 17) != 17 || peer_token_load(path, &token, NULL) < 0)
			abort();
		(void)close(fd);
		(void)unlink(path);
	}
	if (peer_auth_check(token, text, parts, 2, 1700000000) == 0 && strlen(text) < 60)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t total;
	double v;
	char *text;

	if (size == 0 || !(text = strndup((const char *)data + 1, size - 1)))
		return 0;
	switch (data[0] % 4) {
	case 0:
		try_ranges(text);
		break;
	case 1:
		try_names(text);
		break;
	case 2:
		try_signature(text);
		break;
	default:
		if (peer_psi_parse((const char *)data + 1, size - 1, &v, &total) == 0 && !(v >= 0 && v <= 100))
			abort();
	}
	free(text);
	return 0;
}
