/* Requests to object stores: the examples of Amazon S3's API reference ("Signature Calculations for the Authorization
 * Header"), where keys come from, and what becomes of names that must be escaped. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fetch/s3.h"

static const struct flip_s3_key example = { .id = "AKIAIOSFODNN7EXAMPLE",
	                                    .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	                                    .region = "us-east-1" };

static void the_published_examples_are_signed_as_published(void **state)
{
	static const struct {
		const char *path, *query, *range, *names, *signature;
	} cases[] = {
		{ "/test.txt", "", "bytes=0-9", "host;range;x-amz-content-sha256;x-amz-date",
		  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },
		{ "/", "lifecycle=", NULL, "host;x-amz-content-sha256;x-amz-date",
		  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
		{ "/", "max-keys=2&prefix=J", NULL, "host;x-amz-content-sha256;x-amz-date",
		  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf b = BASE_BUF_INIT(4096);
		char expected[400];

		(void)snprintf(expected, sizeof(expected),
		               "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
		               "SignedHeaders=%s,Signature=%s",
		               cases[i].names, cases[i].signature);
		assert_int_equal(flip_s3_authorization(&example, "GET", "examplebucket.s3.amazonaws.com", cases[i].path,
		                                       cases[i].query, cases[i].range, "20130524T000000Z", &b),
		                 0);
		assert_string_equal(base_buf_text(&b), expected);
		base_buf_done(&b);
	}
}

/* ---- Where, and who ---- */

static const char *const names[] = { "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	                             "AWS_REGION",        "AWS_DEFAULT_REGION",    "AWS_ENDPOINT_URL_S3",
	                             "AWS_ENDPOINT_URL",  "AWS_PROFILE",           "AWS_SHARED_CREDENTIALS_FILE",
	                             "AWS_CONFIG_FILE" };
static char home[] = "/tmp/test-s3-XXXXXX";

static int nobody(void **state)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert_int_equal(unsetenv(names[i]), 0);
	return setenv("HOME", home, 1);
}

static void write_file(const char *name, const char *text)
{
	char path[200];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/.aws/%s", home, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(close(fd), 0);
}

static int make_home(void **state)
{
	char path[200];

	if (!mkdtemp(home))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/.aws", home);
	return mkdir(path, 0700);
}

static int remove_home(void **state)
{
	static const char *const left[] = { "/.aws/credentials", "/.aws/config", "/.aws", "" };

	for (size_t i = 0; i < sizeof(left) / sizeof(*left); i++) {
		char path[200];

		(void)snprintf(path, sizeof(path), "%s%s", home, left[i]);
		(void)remove(path);
	}
	return 0;
}

static void assert_address(const struct flip_s3_opts *o, const char *url, const char *expected)
{
	struct base_buf b = BASE_BUF_INIT(4096);
	struct flip_s3 *s = NULL;

	assert_int_equal(flip_s3_new(o, &s, NULL), 0);
	assert_int_equal(flip_s3_address(s, url, &b, NULL), 0);
	assert_string_equal(base_buf_text(&b), expected);
	base_buf_done(&b);
	flip_s3_free(s);
}

static void files_are_found_and_their_names_escaped_once(void **state)
{
	const struct flip_s3_opts minio = { .endpoint = "http://127.0.0.1:9000/" },
	                          usual = { .region = "eu-central-1" };

	assert_address(&usual, "s3://models/a/b.gguf", "https://models.s3.eu-central-1.amazonaws.com/a/b.gguf");
	assert_address(&usual, "s3://my.models/a", "https://s3.eu-central-1.amazonaws.com/my.models/a");
	assert_address(&minio, "s3://models/a%20b%2bc+d=e", "http://127.0.0.1:9000/models/a%20b%2Bc%2Bd%3De");
	assert_address(&minio, "s3://models/100%", "http://127.0.0.1:9000/models/100%25");
}

static void what_is_no_place_is_refused(void **state)
{
	static const char *const wrong[] = { "s3://",           "s3://bucket",  "s3://bucket/",
		                             "s3:///key",       "s3://b@d/key", "s3://bucket/key?versionId=1",
		                             "s3://buc ket/key" };
	const struct flip_s3_opts o = { 0 }, bad = { .endpoint = "ftp://x" };
	struct flip_s3 *s = NULL;

	assert_int_equal(flip_s3_new(&bad, &s, NULL), -EINVAL);
	assert_int_equal(flip_s3_new(&o, &s, NULL), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct base_buf b = BASE_BUF_INIT(4096);

		assert_int_equal(flip_s3_address(s, wrong[i], &b, NULL), -EINVAL);
		base_buf_done(&b);
	}
	flip_s3_free(s);
}

static unsigned headers_of(const struct flip_s3_opts *o, const char *credential, const char *token)
{
	char *lines[FLIP_S3_MAX_HEADERS + 1];
	struct flip_s3 *s = NULL;
	unsigned n = 0;

	assert_int_equal(flip_s3_new(o, &s, NULL), 0);
	assert_int_equal(flip_s3_headers(s, "http://127.0.0.1:9000/b/k", "bytes=0-9", 1369353600, lines, NULL), 0);
	for (; lines[n]; n++) {
		if (strncmp(lines[n], "Authorization: ", 15) == 0)
			assert_non_null(strstr(lines[n], credential));
		if (strncmp(lines[n], "x-amz-date: ", 12) == 0)
			assert_string_equal(lines[n] + 12, "20130524T000000Z");
		if (strncmp(lines[n], "x-amz-security-token: ", 22) == 0)
			assert_string_equal(lines[n] + 22, token);
	}
	flip_s3_headers_free(lines);
	flip_s3_free(s);
	return n;
}

static void keys_come_from_the_environment_or_the_usual_files(void **state)
{
	const struct flip_s3_opts none = { 0 }, missing = { .credentials_file = "/nowhere/credentials" };
	struct flip_s3 *s = NULL;

	assert_int_equal(headers_of(&none, "", ""), 0); /* a public bucket */
	write_file("credentials", "[default]\naws_access_key_id = ONE\naws_secret_access_key = s1\n"
	                          "[work]\naws_access_key_id=TWO\naws_secret_access_key=s2\naws_session_token=t2\n"
	                          "[half]\naws_access_key_id=THREE\n");
	write_file("config", "[profile work]\nregion = eu-west-1\n[default]\nregion = us-west-2\n");
	assert_int_equal(headers_of(&none, "Credential=ONE/20130524/us-west-2/s3/", ""), 3);
	assert_int_equal(setenv("AWS_PROFILE", "work", 1), 0);
	assert_int_equal(headers_of(&none, "Credential=TWO/20130524/eu-west-1/s3/", "t2"), 4);
	assert_int_equal(setenv("AWS_PROFILE", "half", 1), 0);
	assert_int_equal(headers_of(&none, "", ""), 0);
	assert_int_equal(setenv("AWS_ACCESS_KEY_ID", "FOUR", 1), 0);
	assert_int_equal(setenv("AWS_SECRET_ACCESS_KEY", "s4", 1), 0);
	assert_int_equal(setenv("AWS_REGION", "here", 1), 0);
	assert_int_equal(headers_of(&none, "Credential=FOUR/20130524/here/s3/", ""), 3);
	assert_int_equal(flip_s3_new(&missing, &s, NULL), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_published_examples_are_signed_as_published),
		cmocka_unit_test_setup(files_are_found_and_their_names_escaped_once, nobody),
		cmocka_unit_test_setup(what_is_no_place_is_refused, nobody),
		cmocka_unit_test_setup(keys_come_from_the_environment_or_the_usual_files, nobody),
	};

	return cmocka_run_group_tests(tests, make_home, remove_home);
}
