/* Files in object stores that speak S3: where "s3://BUCKET/KEY" is, and requests signed by AWS Signature Version 4
 * (Signature Version 4 signing process, and "Authenticating Requests: Using the Authorization Header" of Amazon S3's
 * API reference).
 *
 * Who we are comes from where the other tools look: the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
 * AWS_SESSION_TOKEN), else the profile AWS_PROFILE (or "default") of AWS_SHARED_CREDENTIALS_FILE (or
 * ~/.aws/credentials); the region from AWS_REGION, AWS_DEFAULT_REGION or AWS_CONFIG_FILE (or ~/.aws/config); another
 * endpoint from AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or that file. Without a key requests are not signed: public
 * buckets. Roles that a machine's metadata service gives are not asked for. */
#ifndef FLIP_FETCH_S3_H
#define FLIP_FETCH_S3_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/err.h"

struct flip_s3_opts {         /* NULL members: as above */
	const char *endpoint; /* "https://minio.example:9000": buckets are the first part of its paths */
	const char *region;
	const char *credentials_file;
};

struct flip_s3;

/* Reads the files. A file that is named and cannot be read is an error. */
int flip_s3_new(const struct flip_s3_opts *o, struct flip_s3 **ret_s3, struct err *err);
void flip_s3_free(struct flip_s3 *s);

bool flip_s3_is_url(const char *url); /* "s3://..." */
/* The http or https address of "s3://BUCKET/KEY", %-encoded as it is signed; appended. -EINVAL: no bucket or key. */
int flip_s3_address(const struct flip_s3 *s, const char *url, struct base_buf *ret, struct err *err);

/* What a GET of such an address comes with: up to FLIP_S3_MAX_HEADERS lines "Name: value", each to be freed, NULL
 * behind the last; none without a key. `range`: the value of the Range header, "bytes=0-9"; NULL: none. Keys are read
 * again when their file is another one than a minute ago. One thread at a time. */
enum { FLIP_S3_MAX_HEADERS = 4 };
int flip_s3_headers(struct flip_s3 *s, const char *address, const char *range, time_t now,
                    char *ret_lines[FLIP_S3_MAX_HEADERS + 1], struct err *err);
void flip_s3_headers_free(char *lines[FLIP_S3_MAX_HEADERS + 1]);

/* ---- The signature by itself ---- */

struct flip_s3_key {
	const char *id, *secret, *token; /* token: NULL */
	const char *region;
};
/* The value of the Authorization header. `path` and `query` as they are signed: every byte that is not unreserved as
 * %XX, the query sorted, "" when there is none; `date` "20130524T000000Z"; `range` NULL or the header's value, which is
 * signed too. The payload is empty. */
int flip_s3_authorization(const struct flip_s3_key *key, const char *method, const char *host, const char *path,
                          const char *query, const char *range, const char *date, struct base_buf *ret);
extern const char flip_s3_empty_payload[]; /* its SHA-256: the value of x-amz-content-sha256 */

#endif
