#include "promptcache/speed.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/sha256.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is written as it lies in memory");

static const char magic[8] = "OCAISPD1";
static const double most = 1e18; /* tokens, and nanoseconds: thirty years */

enum { DIGEST_AT = ENG_PC_SPEED_BYTES - 32 };
static_assert(sizeof(magic) + sizeof(struct eng_pc_speed) == DIGEST_AT, "as in docs/formats/kv-page.md");

int eng_pc_speed_seal(const struct eng_pc_speed *speed, uint8_t file[ENG_PC_SPEED_BYTES])
{
	memcpy(file, magic, sizeof(magic));
	memcpy(file + sizeof(magic), speed, sizeof(*speed));
	return base_sha256_bytes(file, DIGEST_AT, file + DIGEST_AT);
}

static int check(double v)
{
	return isfinite(v) && v >= 0 && v <= most ? 0 : -EBADMSG;
}

int eng_pc_speed_parse(const uint8_t *file, size_t size, struct eng_pc_speed *ret_speed)
{
	uint8_t digest[BASE_SHA256_SIZE];
	struct eng_pc_speed s;
	int r;

	if (size != ENG_PC_SPEED_BYTES || memcmp(file, magic, sizeof(magic)) != 0)
		return -EBADMSG;
	r = base_sha256_bytes(file, DIGEST_AT, digest);
	if (r == 0 && memcmp(digest, file + DIGEST_AT, sizeof(digest)) != 0)
		r = -EBADMSG;
	memcpy(&s, file + sizeof(magic), sizeof(s));
	r = r < 0 ? r : check(s.read_ns);
	for (int i = 0; i < ENG_PC_SPEED_STEPS && r == 0; i++) {
		r = check(s.steps[i].n);
		r = r < 0 ? r : check(s.steps[i].ns);
	}
	if (r < 0)
		return r;
	*ret_speed = s;
	return 0;
}
