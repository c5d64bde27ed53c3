/* Certificates of the files that distributions keep them in: what is trusted for TLS servers ends in the bundle. */
#include "slices/certificates.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

/* A certificate of our own, as text. */
struct made {
	X509 *x;
	char *pem, *key; /* the key: PUBLIC KEY */
};

static char *text_of(BIO *bio)
{
	char *data;
	const long n = BIO_get_mem_data(bio, &data);
	char *copy = strndup(data, (size_t)n);

	BIO_free(bio);
	return copy;
}

static struct made make(const char *name, bool is_ca)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	struct made m = { .x = X509_new() };
	BIO *pem = BIO_new(BIO_s_mem()), *public = BIO_new(BIO_s_mem());
	X509_EXTENSION *e;

	X509_set_version(m.x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(m.x), 1);
	X509_gmtime_adj(X509_getm_notBefore(m.x), 0);
	X509_gmtime_adj(X509_getm_notAfter(m.x), 1000000);
	X509_set_pubkey(m.x, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(m.x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
	                           0);
	X509_set_issuer_name(m.x, X509_get_subject_name(m.x));
	e = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
	X509_add_ext(m.x, e, -1);
	X509_EXTENSION_free(e);
	assert_true(X509_sign(m.x, key, EVP_sha256()) > 0);
	PEM_write_bio_X509(pem, m.x);
	PEM_write_bio_PUBKEY(public, key);
	m.pem = text_of(pem);
	m.key = text_of(public);
	EVP_PKEY_free(key);
	return m;
}

static void made_done(struct made *m)
{
	X509_free(m->x);
	free(m->pem);
	free(m->key);
}

static void add(struct img_certs *c, enum img_certs_kind kind, const char *text)
{
	struct err err = { 0 };

	if (img_certs_add(c, kind, "x", text, strlen(text), &err) < 0)
		fail_msg("%s", err.msg);
}

/* The bundle is exactly these. */
static void expect(struct img_certs *c, const struct made *const *list, size_t n)
{
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	char want[1 << 14] = "";
	size_t n_written;

	for (size_t i = 0; i < n; i++)
		strncat(want, list[i]->pem, sizeof(want) - strlen(want) - 1);
	assert_int_equal(img_certs_write(c, &out, &n_written), 0);
	assert_int_equal(n_written, n);
	assert_string_equal(base_buf_text(&out), want);
	base_buf_done(&out);
	img_certs_free(c);
}

static char *object(const char *fields, const char *pem)
{
	char *text;

	if (asprintf(&text, "# a comment\n[p11-kit-object-v1]\nlabel: \"x\"\n%s\nmodifiable: false\n%s\n", fields,
	             pem) < 0)
		fail();
	return text;
}

static void anchors_are_trusted_as_they_are(void **state)
{
	struct made a = make("a", true), leaf = make("leaf", false);
	struct img_certs *c = img_certs_new();

	(void)state;
	add(c, IMG_CERTS_ANCHORS, a.pem);
	add(c, IMG_CERTS_ANCHORS, leaf.pem);
	add(c, IMG_CERTS_ANCHORS, a.pem); /* each once */
	expect(c, (const struct made *[]){ &a, &leaf }, 2);
	made_done(&a);
	made_done(&leaf);
}

static void p11_kit_says_what_is_trusted(void **state)
{
	static const char *const fields[] = { "trusted: true", "trusted: false", "x-distrusted: true",
		                              "trusted: true\nx-distrusted: true", "class: certificate" };
	struct img_certs *c = img_certs_new();
	struct made first = { 0 }, leaf = make("leaf", false);
	char *text;

	(void)state;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		struct made m = make("x", true);

		text = object(fields[i], m.pem);
		add(c, IMG_CERTS_SOURCE, text);
		free(text);
		if (i == 0)
			first = m;
		else
			made_done(&m);
	}
	/* trusted, but it cannot sign others */
	text = object("trusted: true", leaf.pem);
	add(c, IMG_CERTS_SOURCE, text);
	free(text);
	expect(c, (const struct made *[]){ &first }, 1);
	made_done(&first);
	made_done(&leaf);
}

static void plain_pem_beside_objects_is_no_anchor(void **state)
{
	struct img_certs *c = img_certs_new();
	struct made a = make("a", true);

	(void)state;
	add(c, IMG_CERTS_SOURCE, a.pem);
	expect(c, NULL, 0);
	made_done(&a);
}

static void a_stapled_extension_limits_purposes(void **state)
{
	static const char usage[] = "class: x-certificate-extension\nobject-id: 2.5.29.37\nvalue: \"%s\"";
	static const char mail[] = "%30%13%06%03%55%1d%25%04%0c%30%0a%06%08%2b%06%01%05%05%07%03%04";
	static const char server[] = "%30%13%06%03U%1d%25%04%0c0%0a%06%08%2b%06%01%05%05%07%03%01";
	struct made a = make("a", true), b = make("b", true);
	struct img_certs *c = img_certs_new();
	char fields[256], *text;

	(void)state;
	(void)snprintf(fields, sizeof(fields), usage, mail);
	text = object(fields, a.key);
	add(c, IMG_CERTS_SOURCE, text);
	free(text);
	(void)snprintf(fields, sizeof(fields), usage, server);
	text = object(fields, b.key);
	add(c, IMG_CERTS_SOURCE, text);
	free(text);
	for (int i = 0; i < 2; i++) {
		text = object("trusted: true", i ? b.pem : a.pem);
		add(c, IMG_CERTS_SOURCE, text);
		free(text);
	}
	expect(c, (const struct made *[]){ &b }, 1);
	made_done(&a);
	made_done(&b);
}

static void what_is_blocked_is_trusted_nowhere(void **state)
{
	struct made a = make("a", true), b = make("b", true);
	struct img_certs *c = img_certs_new();

	(void)state;
	add(c, IMG_CERTS_ANCHORS, a.pem);
	add(c, IMG_CERTS_ANCHORS, b.pem);
	add(c, IMG_CERTS_BLOCKED, a.pem);
	expect(c, (const struct made *[]){ &b }, 1);
	made_done(&a);
	made_done(&b);
}

static void der_and_pkcs12_are_read(void **state)
{
	struct made a = make("a", true), b = make("b", true);
	struct img_certs *c = img_certs_new();
	STACK_OF(X509) *list = sk_X509_new_null();
	unsigned char *der = NULL;
	PKCS12 *p12;
	int size;

	(void)state;
	size = i2d_X509(a.x, &der);
	assert_int_equal(img_certs_add(c, IMG_CERTS_ANCHORS, "x", der, (size_t)size, NULL), 0);
	OPENSSL_free(der);
	sk_X509_push(list, b.x);
	p12 = PKCS12_create("", NULL, NULL, NULL, list, 0, 0, 0, 0, 0);
	assert_non_null(p12);
	der = NULL;
	size = i2d_PKCS12(p12, &der);
	assert_int_equal(img_certs_add(c, IMG_CERTS_ANCHORS, "x", der, (size_t)size, NULL), 0);
	OPENSSL_free(der);
	PKCS12_free(p12);
	sk_X509_free(list);
	expect(c, (const struct made *[]){ &a, &b }, 2);
	made_done(&a);
	made_done(&b);
}

static void broken_certificates_are_refused(void **state)
{
	static const char *const texts[] = { "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		                             "-----BEGIN CERTIFICATE-----\nMIIB", "\x30\x82\x01\x01zzzz" };
	struct img_certs *c = img_certs_new();

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct err err = { 0 };

		assert_int_equal(img_certs_add(c, IMG_CERTS_ANCHORS, "f.crt", texts[i], strlen(texts[i]), &err),
		                 -EBADMSG);
		assert_non_null(strstr(err.msg, "f.crt"));
	}
	assert_int_equal(img_certs_add(c, IMG_CERTS_ANCHORS, "README", "no certificate", 14, NULL), 0);
	expect(c, NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(anchors_are_trusted_as_they_are),
		cmocka_unit_test(p11_kit_says_what_is_trusted),
		cmocka_unit_test(plain_pem_beside_objects_is_no_anchor),
		cmocka_unit_test(a_stapled_extension_limits_purposes),
		cmocka_unit_test(what_is_blocked_is_trusted_nowhere),
		cmocka_unit_test(der_and_pkcs12_are_read),
		cmocka_unit_test(broken_certificates_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
