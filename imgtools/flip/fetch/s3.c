/* Who we are to an object store, and where its files are: fetch/s3.h. */
#include "fetch/s3.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

enum { AGAIN_S = 60, MAX_HEADER = 16 << 10 };

struct flip_s3 {
	char *profile, *credentials_file, *config_file;
	char *endpoint, *region;   /* "": the usual one */
	char *id, *secret, *token; /* NULL: none */
	bool is_of_environment;    /* they do not change then */
	struct timespec changed;   /* the credentials' file, when it was read */
	time_t looked_at;
};

static const char *said(const char *text)
{
	return text && *text ? text : NULL;
}

static void forget(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

void flip_s3_free(struct flip_s3 *s)
{
	if (!s)
		return;
	forget(&s->id);
	forget(&s->secret);
	forget(&s->token);
	free(s->profile);
	free(s->credentials_file);
	free(s->config_file);
	free(s->endpoint);
	free(s->region);
	free(s);
}

/* ---- Files ---- */

/* The last one counts, as in other readers of these files. */
static void set(char **member, const char *value)
{
	forget(member);
	*member = strdup(value);
}

static int on_credential(void *arg, const char *section, const char *name, const char *value)
{
	struct flip_s3 *s = arg;

	if (strcmp(section, s->profile) != 0)
		return 1;
	if (strcmp(name, "aws_access_key_id") == 0)
		set(&s->id, value);
	else if (strcmp(name, "aws_secret_access_key") == 0)
		set(&s->secret, value);
	else if (strcmp(name, "aws_session_token") == 0)
		set(&s->token, value);
	return 1;
}

/* Sections are "default" and "profile NAME" there. */
static int on_config(void *arg, const char *section, const char *name, const char *value)
{
	struct flip_s3 *s = arg;

	if (strncmp(section, "profile ", 8) == 0)
		section += 8;
	if (strcmp(section, s->profile) != 0)
		return 1;
	if (strcmp(name, "region") == 0 && !s->region)
		s->region = strdup(value);
	else if (strcmp(name, "endpoint_url") == 0 && !s->endpoint)
		s->endpoint = strdup(value);
	return 1;
}

static int read_credentials(struct flip_s3 *s, bool must_be_there, struct err *err)
{
	struct stat st;

	forget(&s->id);
	forget(&s->secret);
	forget(&s->token);
	if (!s->credentials_file || stat(s->credentials_file, &st) < 0)
		return must_be_there ? err_set(err, -errno, "%s: %s",
		                               s->credentials_file ? s->credentials_file : "HOME", strerror(errno))
		                     : 0;
	s->changed = st.st_mtim;
	if (ini_parse(s->credentials_file, on_credential, s) < 0)
		return err_set(err, -EACCES, "%s: cannot be read", s->credentials_file);
	if (!s->id || !s->secret) { /* half of them is none */
		forget(&s->id);
		forget(&s->secret);
	}
	return 0;
}

static char *below_home(const char *name)
{
	const char *home = said(getenv("HOME"));
	char *path = NULL;

	return home && asprintf(&path, "%s/.aws/%s", home, name) >= 0 ? path : NULL;
}

static char *first_of(const char *a, const char *b, const char *c)
{
	const char *text = a && *a ? a : b ? b : c;

	return text ? strdup(text) : NULL;
}

int flip_s3_new(const struct flip_s3_opts *o, struct flip_s3 **ret_s3, struct err *err)
{
	const char *id = said(getenv("AWS_ACCESS_KEY_ID")), *secret = said(getenv("AWS_SECRET_ACCESS_KEY"));
	const char *token = said(getenv("AWS_SESSION_TOKEN"));
	bool is_named = o->credentials_file || said(getenv("AWS_SHARED_CREDENTIALS_FILE"));
	struct flip_s3 *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->profile = first_of(said(getenv("AWS_PROFILE")), "default", NULL);
	s->credentials_file = first_of(o->credentials_file, said(getenv("AWS_SHARED_CREDENTIALS_FILE")), NULL);
	if (!s->credentials_file)
		s->credentials_file = below_home("credentials");
	s->config_file = first_of(said(getenv("AWS_CONFIG_FILE")), NULL, NULL);
	if (!s->config_file)
		s->config_file = below_home("config");
	s->region = first_of(o->region, said(getenv("AWS_REGION")), said(getenv("AWS_DEFAULT_REGION")));
	s->endpoint = first_of(o->endpoint, said(getenv("AWS_ENDPOINT_URL_S3")), said(getenv("AWS_ENDPOINT_URL")));
	if (!s->profile)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && s->config_file)
		(void)ini_parse(s->config_file, on_config, s); /* it may not be there */
	if (!s->region)
		s->region = strdup("us-east-1");
	if (!s->endpoint)
		s->endpoint = strdup("");
	if (r == 0 && (!s->region || !s->endpoint))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && *s->endpoint && strncmp(s->endpoint, "http://", 7) != 0 &&
	    strncmp(s->endpoint, "https://", 8) != 0)
		r = err_set(err, -EINVAL, "s3.endpoint: \"%.200s\": neither http nor https", s->endpoint);
	s->is_of_environment = id && secret && !o->credentials_file;
	if (r == 0 && s->is_of_environment) {
		s->id = strdup(id);
		s->secret = strdup(secret);
		s->token = token ? strdup(token) : NULL;
		r = s->id && s->secret && (!token || s->token) ? 0 : err_set(err, -ENOMEM, "out of memory");
	} else if (r == 0) {
		r = read_credentials(s, is_named, err);
	}
	if (r < 0) {
		flip_s3_free(s);
		return r;
	}
	*ret_s3 = s;
	return 0;
}

/* ---- Addresses ---- */

bool flip_s3_is_url(const char *url)
{
	return strncmp(url, "s3://", 5) == 0;
}

static int digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
	                              : -1;
}

/* As S3 signs a path: what is unreserved as it is, everything else as %XX, once, however it was written. */
static void append_path(struct base_buf *b, const char *path)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";

	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;

		if (c == '%' && digit(path[1]) >= 0 && digit(path[2]) >= 0) {
			c = (unsigned char)(digit(path[1]) << 4 | digit(path[2]));
			path += 2;
		}
		if (c && strchr(plain, c))
			(void)base_buf_putc(b, (char)c);
		else
			(void)base_buf_printf(b, "%%%02X", c);
	}
}

int flip_s3_address(const struct flip_s3 *s, const char *url, struct base_buf *ret, struct err *err)
{
	const char *bucket = url + strlen("s3://"), *key = strchr(bucket, '/');
	int n = key ? (int)(key - bucket) : 0;
	size_t end = strlen(s->endpoint);

	if (n < 1 || !key[1] || strpbrk(key, "?#") ||
	    strspn(bucket, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_") < (size_t)n)
		return err_set(err, -EINVAL, "%.200s: not s3://BUCKET/KEY", url);
	while (end && s->endpoint[end - 1] == '/')
		end--;
	if (end) /* the bucket in the path: what stands in for S3 has one name */
		(void)base_buf_printf(ret, "%.*s/%.*s", (int)end, s->endpoint, n, bucket);
	else if (memchr(bucket, '.', (size_t)n)) /* a certificate of S3's is for names without more dots */
		(void)base_buf_printf(ret, "https://s3.%s.amazonaws.com/%.*s", s->region, n, bucket);
	else
		(void)base_buf_printf(ret, "https://%.*s.s3.%s.amazonaws.com", n, bucket, s->region);
	append_path(ret, key);
	return base_buf_error(ret) < 0 ? err_set(err, base_buf_error(ret), "%.200s: too long", url) : 0;
}

/* ---- Requests ---- */

void flip_s3_headers_free(char *lines[FLIP_S3_MAX_HEADERS + 1])
{
	for (size_t i = 0; lines[i]; i++)
		forget(&lines[i]);
}

/* Keys for a while are written anew by whoever got them. */
static void look_again(struct flip_s3 *s, time_t now)
{
	struct stat st;

	if (s->is_of_environment || now - s->looked_at < AGAIN_S)
		return;
	s->looked_at = now;
	if (s->credentials_file && stat(s->credentials_file, &st) == 0 &&
	    (st.st_mtim.tv_sec != s->changed.tv_sec || st.st_mtim.tv_nsec != s->changed.tv_nsec))
		(void)read_credentials(s, false, NULL);
}

int flip_s3_headers(struct flip_s3 *s, const char *address, const char *range, time_t now,
                    char *ret_lines[FLIP_S3_MAX_HEADERS + 1], struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf value = BASE_BUF_INIT(MAX_HEADER);
	const char *host = strstr(address, "://"), *path = host ? strchr(host + 3, '/') : NULL;
	CLEANUP(freep) char *name = path ? strndup(host + 3, (size_t)(path - host - 3)) : NULL;
	struct flip_s3_key key;
	char date[24];
	size_t n = 0;
	struct tm tm;
	int r;

	memset(ret_lines, 0, (FLIP_S3_MAX_HEADERS + 1) * sizeof(*ret_lines));
	look_again(s, now);
	if (!s->id)
		return 0;
	if (!name || !gmtime_r(&now, &tm) || !strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &tm))
		return err_set(err, -EINVAL, "%.200s: no address", address);
	key = (struct flip_s3_key){ .id = s->id, .secret = s->secret, .token = s->token, .region = s->region };
	r = flip_s3_authorization(&key, "GET", name, path, "", range, date, &value);
	if (r == 0 && (asprintf(&ret_lines[n], "Authorization: %s", base_buf_text(&value)) < 0 ||
	               asprintf(&ret_lines[++n], "x-amz-content-sha256: %s", flip_s3_empty_payload) < 0 ||
	               asprintf(&ret_lines[++n], "x-amz-date: %s", date) < 0 ||
	               (s->token && asprintf(&ret_lines[++n], "x-amz-security-token: %s", s->token) < 0))) {
		ret_lines[n] = NULL;
		r = -ENOMEM;
	}
	if (value.data)
		explicit_bzero(value.data, value.len);
	if (r < 0) {
		flip_s3_headers_free(ret_lines);
		return err_set(err, r, "%.200s: cannot be signed", address);
	}
	return 0;
}
