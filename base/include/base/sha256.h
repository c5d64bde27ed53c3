/* SHA-256 by OpenSSL's EVP. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { BASE_SHA256_SIZE = 32, BASE_SHA256_HEX_SIZE = 65 /* with the NUL */ };

struct base_sha256; /* running state */

int base_sha256_new(struct base_sha256 **ret_state);
void base_sha256_update(struct base_sha256 *state, const void *data, size_t len);
void base_sha256_final(struct base_sha256 *state, uint8_t digest[BASE_SHA256_SIZE]);
void base_sha256_free(struct base_sha256 *state);

int base_sha256_bytes(const void *data, size_t len, uint8_t digest[BASE_SHA256_SIZE]);
void base_sha256_hex(const uint8_t digest[BASE_SHA256_SIZE], char hex[BASE_SHA256_HEX_SIZE]);

#endif
