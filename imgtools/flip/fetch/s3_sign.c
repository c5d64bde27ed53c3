/* AWS Signature Version 4 of a request without a body.
 *
 *   canonical request   METHOD, path, query, headers (lower case, sorted), their names, SHA-256 of the payload; by
 * lines string to sign      "AWS4-HMAC-SHA256", date, DAY/REGION/s3/aws4_request, SHA-256 of the canonical request key
 * HMAC chain over "AWS4" SECRET: day, region, service, "aws4_request" */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "base/sha256.h"
#include "fetch/s3.h"

const char flip_s3_empty_payload[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

enum { MAX_REQUEST = 64 << 10, MAX_SECRET = 512, DAY = 8 };

static int hmac(const void *key, size_t size, const char *text, uint8_t ret[BASE_SHA256_SIZE])
{
	unsigned n = 0;

	return HMAC(EVP_sha256(), key, (int)size, (const uint8_t *)text, strlen(text), ret, &n) ? 0 : -EIO;
}

static int signing_key(const struct flip_s3_key *key, const char *day, uint8_t ret[BASE_SHA256_SIZE])
{
	char first[MAX_SECRET + 5];
	int n = snprintf(first, sizeof(first), "AWS4%s", key->secret);
	int r = n < 0 || (size_t)n >= sizeof(first) ? -EINVAL : hmac(first, (size_t)n, day, ret);

	OPENSSL_cleanse(first, sizeof(first));
	if (r == 0)
		r = hmac(ret, BASE_SHA256_SIZE, key->region, ret);
	if (r == 0)
		r = hmac(ret, BASE_SHA256_SIZE, "s3", ret);
	return r < 0 ? r : hmac(ret, BASE_SHA256_SIZE, "aws4_request", ret);
}

/* Host, Range, X-Amz-Content-Sha256, X-Amz-Date, X-Amz-Security-Token: that is their order. */
static void append_headers(struct base_buf *b, const struct flip_s3_key *key, const char *host, const char *range,
                           const char *date)
{
	(void)base_buf_printf(b, "host:%s\n", host);
	if (range)
		(void)base_buf_printf(b, "range:%s\n", range);
	(void)base_buf_printf(b, "x-amz-content-sha256:%s\nx-amz-date:%s\n", flip_s3_empty_payload, date);
	if (key->token)
		(void)base_buf_printf(b, "x-amz-security-token:%s\n", key->token);
}

static void append_names(struct base_buf *b, const struct flip_s3_key *key, const char *range)
{
	(void)base_buf_printf(b, "host%s;x-amz-content-sha256;x-amz-date%s", range ? ";range" : "",
	                      key->token ? ";x-amz-security-token" : "");
}

static int hash_request(const struct flip_s3_key *key, const char *method, const char *host, const char *path,
                        const char *query, const char *range, const char *date, char ret_hex[BASE_SHA256_HEX_SIZE])
{
	struct base_buf b = BASE_BUF_INIT(MAX_REQUEST);
	uint8_t sum[BASE_SHA256_SIZE];
	int r;

	(void)base_buf_printf(&b, "%s\n%s\n%s\n", method, path, query);
	append_headers(&b, key, host, range, date);
	(void)base_buf_putc(&b, '\n');
	append_names(&b, key, range);
	(void)base_buf_printf(&b, "\n%s", flip_s3_empty_payload);
	r = base_buf_error(&b);
	if (r == 0)
		r = base_sha256_bytes(b.data, b.len, sum);
	if (r == 0)
		base_sha256_hex(sum, ret_hex);
	base_buf_done(&b);
	return r;
}

int flip_s3_authorization(const struct flip_s3_key *key, const char *method, const char *host, const char *path,
                          const char *query, const char *range, const char *date, struct base_buf *ret)
{
	struct base_buf text = BASE_BUF_INIT(4096);
	char hex[BASE_SHA256_HEX_SIZE], day[DAY + 1];
	uint8_t sign[BASE_SHA256_SIZE], sum[BASE_SHA256_SIZE];
	int r;

	if (strlen(date) < DAY)
		return -EINVAL;
	memcpy(day, date, DAY);
	day[DAY] = '\0';
	r = hash_request(key, method, host, path, query, range, date, hex);
	if (r == 0)
		r = base_buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/s3/aws4_request\n%s", date, day, key->region,
		                    hex);
	if (r == 0)
		r = signing_key(key, day, sign);
	if (r == 0)
		r = hmac(sign, sizeof(sign), base_buf_text(&text), sum);
	OPENSSL_cleanse(sign, sizeof(sign));
	base_buf_done(&text);
	if (r < 0)
		return r;
	base_sha256_hex(sum, hex);
	(void)base_buf_printf(ret, "AWS4-HMAC-SHA256 Credential=%s/%s/%s/s3/aws4_request,SignedHeaders=", key->id, day,
	                      key->region);
	append_names(ret, key, range);
	return base_buf_printf(ret, ",Signature=%s", hex);
}
