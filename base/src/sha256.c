/* SHA-256 (FIPS 180-4) by OpenSSL. A failure inside OpenSSL after a successful start can only be a lack of memory
 * or a broken provider; it is remembered and yields the all-zero digest, which no content has. */
#include "base/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct base_sha256 {
	EVP_MD_CTX *ctx;
	bool failed;
};

int base_sha256_new(struct base_sha256 **ret_state)
{
	struct base_sha256 *state = calloc(1, sizeof(*state));

	if (!state)
		return -ENOMEM;
	state->ctx = EVP_MD_CTX_new();
	if (!state->ctx || EVP_DigestInit_ex(state->ctx, EVP_sha256(), NULL) != 1) {
		base_sha256_free(state);
		return -ENOMEM;
	}
	*ret_state = state;
	return 0;
}

void base_sha256_update(struct base_sha256 *state, const void *data, size_t len)
{
	if (len && EVP_DigestUpdate(state->ctx, data, len) != 1)
		state->failed = true;
}

void base_sha256_final(struct base_sha256 *state, uint8_t digest[BASE_SHA256_SIZE])
{
	if (state->failed || EVP_DigestFinal_ex(state->ctx, digest, NULL) != 1)
		memset(digest, 0, BASE_SHA256_SIZE);
	/* Ready for the next message. */
	state->failed = EVP_DigestInit_ex(state->ctx, EVP_sha256(), NULL) != 1;
}

void base_sha256_free(struct base_sha256 *state)
{
	if (!state)
		return;
	EVP_MD_CTX_free(state->ctx);
	free(state);
}

int base_sha256_bytes(const void *data, size_t len, uint8_t digest[BASE_SHA256_SIZE])
{
	/* EVP_Digest wants a pointer even for nothing. */
	return EVP_Digest(len ? data : "", len, digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

void base_sha256_hex(const uint8_t digest[BASE_SHA256_SIZE], char hex[BASE_SHA256_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < BASE_SHA256_SIZE; i++) {
		hex[2 * i] = digits[digest[i] >> 4];
		hex[2 * i + 1] = digits[digest[i] & 15];
	}
	hex[BASE_SHA256_HEX_SIZE - 1] = '\0';
}
