#include "peer/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/sha256.h"

struct peer_token {
	uint8_t bytes[PEER_TOKEN_MAX];
	size_t n;
};

int peer_token_load(const char *path, struct peer_token **ret_token, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct peer_token *t;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0)
		return err_set(err, -EACCES, "%s: others than its owner may read it (mode %03o, 600 is right)", path,
		               (unsigned)st.st_mode & 0777);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, -ENOMEM, "out of memory");
	n = read(fd, t->bytes, sizeof(t->bytes));
	while (n > 0 && strchr(" \t\r\n", t->bytes[n - 1]) && t->bytes[n - 1])
		n--;
	t->n = n > 0 ? (size_t)n : 0;
	if (t->n < PEER_TOKEN_MIN || t->n == sizeof(t->bytes)) {
		peer_token_free(t);
		return err_set(err, -EINVAL, "%s: a secret has %d bytes or more", path, PEER_TOKEN_MIN);
	}
	*ret_token = t;
	return 0;
}

void peer_token_free(struct peer_token *t)
{
	if (!t)
		return;
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
}

int peer_token_hmac(const struct peer_token *t, const char *const *parts, size_t n, char ret_hex[65])
{
	struct base_buf text = BASE_BUF_INIT(256 << 10);
	uint8_t sum[BASE_SHA256_SIZE];
	unsigned size = sizeof(sum);
	int r;

	/* Each with its length, so that no two lists make the same text. */
	for (size_t i = 0; i < n; i++)
		(void)base_buf_printf(&text, "%zu:%s\n", strlen(parts[i]), parts[i]);
	r = base_buf_error(&text);
	if (r == 0 &&
	    !HMAC(EVP_sha256(), t->bytes, (int)t->n, (const uint8_t *)base_buf_text(&text), text.len, sum, &size))
		r = -ENOMEM;
	base_buf_done(&text);
	if (r == 0)
		base_sha256_hex(sum, ret_hex);
	return r;
}

static int hmac_of(const struct peer_token *t, const char *const *parts, size_t n, const char *time, const char *nonce,
                   char ret_hex[65])
{
	const char *all[PEER_N_SIGNED + 3] = { "flip-auth-1", time, nonce };

	if (n > PEER_N_SIGNED)
		return -EINVAL;
	memcpy(all + 3, parts, n * sizeof(*parts));
	return peer_token_hmac(t, all, n + 3, ret_hex);
}

int peer_auth_sign(const struct peer_token *t, const char *const *parts, size_t n, int64_t now_s,
                   char ret[PEER_AUTH_SIZE])
{
	uint8_t random[12];
	char nonce[2 * sizeof(random) + 1], time[24], hex[65];
	int r;

	if (RAND_bytes(random, sizeof(random)) != 1)
		return -EIO;
	for (size_t i = 0; i < sizeof(random); i++)
		(void)snprintf(nonce + 2 * i, 3, "%02x", random[i]);
	(void)snprintf(time, sizeof(time), "%lld", (long long)now_s);
	r = hmac_of(t, parts, n, time, nonce, hex);
	if (r == 0)
		(void)snprintf(ret, PEER_AUTH_SIZE, "1 %s %s %s", time, nonce, hex);
	return r;
}

int peer_auth_check(const struct peer_token *t, const char *value, const char *const *parts, size_t n, int64_t now_s)
{
	char time[24], nonce[65], given[65], hex[65], *end;
	int at = 0;
	long long then;

	if (sscanf(value, "1 %23[0-9] %64[0-9a-f] %64[0-9a-f]%n", time, nonce, given, &at) != 3 || value[at] ||
	    strlen(given) != 64)
		return -EACCES;
	errno = 0;
	then = strtoll(time, &end, 10);
	if (errno || *end || then > now_s + PEER_AUTH_WINDOW_S || then < now_s - PEER_AUTH_WINDOW_S)
		return -EACCES;
	if (hmac_of(t, parts, n, time, nonce, hex) < 0)
		return -EACCES;
	return CRYPTO_memcmp(given, hex, 64) == 0 ? 0 : -EACCES;
}
