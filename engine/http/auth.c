/* API keys: a file with one key per line ('#' begins a comment), for its owner's eyes only. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "http_internal.h"

enum { MAX_KEY_FILE = 1 << 20, MAX_KEYS = 4096 };

static int check_mode(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: not a regular file", path);
	if (st.st_mode & 077)
		return err_set(err, -EACCES, "%s: its mode is %04o, others may read the keys; use chmod 600", path,
		               st.st_mode & 07777u);
	return 0;
}

/* Digests are kept and compared: equal length, no difference in time. */
static void add_key(struct http_keys *keys, const char *text, size_t len)
{
	(void)SHA256((const unsigned char *)text, len, keys->digests[keys->n++]);
}

static int add_line(struct http_keys *keys, const char *path, const char *line, size_t len, struct err *err)
{
	while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == ' ' || line[len - 1] == '\t'))
		len--;
	while (len > 0 && (*line == ' ' || *line == '\t')) {
		line++;
		len--;
	}
	if (len == 0 || *line == '#')
		return 0;
	if (keys->n == MAX_KEYS)
		return err_set(err, -E2BIG, "%s: more than %d keys", path, MAX_KEYS);
	add_key(keys, line, len);
	return 0;
}

int http_keys_read(const char *path, struct http_keys *keys, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_KEY_FILE);
	const char *at, *end;
	int r = check_mode(path, err);

	if (r == 0)
		r = base_read_file(path, &text, err);
	if (r < 0)
		return r;
	keys->digests = calloc(MAX_KEYS, sizeof(*keys->digests));
	if (!keys->digests)
		return err_set(err, -ENOMEM, "out of memory");
	at = base_buf_text(&text);
	for (const char *last = at + text.len; at < last && r == 0; at = end + 1) {
		end = memchr(at, '\n', (size_t)(last - at));
		end = end ? end : last;
		r = add_line(keys, path, at, (size_t)(end - at), err);
	}
	OPENSSL_cleanse(text.data, text.len);
	if (r == 0 && keys->n == 0)
		r = err_set(err, -EINVAL, "%s: holds no key", path);
	return r;
}

void http_keys_done(struct http_keys *keys)
{
	free(keys->digests);
	memset(keys, 0, sizeof(*keys));
}

static bool is_key(const struct http_keys *keys, const char *given)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	int found = 0;

	(void)SHA256((const unsigned char *)given, strlen(given), digest);
	for (size_t i = 0; i < keys->n; i++)
		found |= CRYPTO_memcmp(digest, keys->digests[i], sizeof(digest)) == 0;
	return found != 0;
}

bool http_is_allowed(const struct http_keys *keys, const char *authorization, const char *x_api_key)
{
	if (keys->n == 0)
		return true;
	if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0 && is_key(keys, authorization + 7))
		return true;
	return x_api_key && is_key(keys, x_api_key);
}
