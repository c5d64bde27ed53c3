/* Against the examples of FIPS 180-4 (NIST, "SHA-256 Example") and the digest of nothing. */
#include "base/sha256.h"

#include "test.h"

static const struct {
	const char *text;
	const char *hex;
} cases[] = {
	{ "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
	{ "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
	{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
	  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
};

static void published_digests_are_met(void **state)
{
	uint8_t digest[BASE_SHA256_SIZE];
	char hex[BASE_SHA256_HEX_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(base_sha256_bytes(cases[i].text, strlen(cases[i].text), digest), 0);
		base_sha256_hex(digest, hex);
		assert_string_equal(hex, cases[i].hex);
	}
	assert_int_equal(base_sha256_bytes(NULL, 0, digest), 0);
}

static void pieces_give_the_digest_of_the_whole(void **state)
{
	uint8_t digest[BASE_SHA256_SIZE];
	char hex[BASE_SHA256_HEX_SIZE];
	struct base_sha256 *sha = NULL;

	(void)state;
	assert_int_equal(base_sha256_new(&sha), 0);
	/* The state is ready for the next message after each digest. */
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (const char *p = cases[i].text; *p; p++)
			base_sha256_update(sha, p, 1);
		base_sha256_update(sha, NULL, 0);
		base_sha256_final(sha, digest);
		base_sha256_hex(digest, hex);
		assert_string_equal(hex, cases[i].hex);
	}
	base_sha256_free(sha);
	base_sha256_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_digests_are_met),
		cmocka_unit_test(pieces_give_the_digest_of_the_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
