/* Certificates and the trust in them; see certificates.h. X.509 itself is OpenSSL's. */
#include "certificates.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"

enum { MAX_CERTS = 10000, MAX_FIELD = 4096 };

enum trust { UNKNOWN, TRUSTED, DISTRUSTED };

struct cert {
	X509 *x;
	enum trust trust;
	bool other_purpose; /* trusted, but not for TLS servers */
	bool is_anchor;     /* someone put it among the anchors: it need not be able to sign others */
};

/* What certificates of a key are good for: a stapled extension. */
struct purpose {
	unsigned char *key; /* SubjectPublicKeyInfo, DER; OpenSSL's memory */
	int key_size;
	bool is_server;
};

struct img_certs {
	struct cert *certs;
	struct purpose *purposes;
	size_t n_certs, cap_certs, n_purposes, cap_purposes;
};

struct img_certs *img_certs_new(void)
{
	return calloc(1, sizeof(struct img_certs));
}

void img_certs_free(struct img_certs *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_certs; i++)
		X509_free(c->certs[i].x);
	for (size_t i = 0; i < c->n_purposes; i++)
		OPENSSL_free(c->purposes[i].key);
	free(c->certs);
	free(c->purposes);
	free(c);
}

static int grow(void **list, size_t *cap, size_t n, size_t size)
{
	const size_t want = *cap ? *cap * 2 : 64;
	void *grown;

	if (n >= MAX_CERTS)
		return -E2BIG;
	if (n < *cap)
		return 0;
	grown = reallocarray(*list, want, size);
	if (!grown)
		return -ENOMEM;
	*list = grown;
	*cap = want;
	return 0;
}

static enum trust trust_of(enum img_certs_kind kind)
{
	return kind == IMG_CERTS_ANCHORS ? TRUSTED : kind == IMG_CERTS_BLOCKED ? DISTRUSTED : UNKNOWN;
}

/* Takes x. */
static int add_cert(struct img_certs *c, X509 *x, enum img_certs_kind kind, enum trust trust, bool other_purpose)
{
	const int r = grow((void **)&c->certs, &c->cap_certs, c->n_certs, sizeof(*c->certs));

	if (r < 0) {
		X509_free(x);
		return r;
	}
	c->certs[c->n_certs++] = (struct cert){ x, trust, other_purpose, kind == IMG_CERTS_ANCHORS };
	return 0;
}

/* ---- OpenSSL's own word about trust ----------------------------------------------------------------------- */

static bool names_server(STACK_OF(ASN1_OBJECT) * list)
{
	for (int i = 0; list && i < sk_ASN1_OBJECT_num(list); i++) {
		const int nid = OBJ_obj2nid(sk_ASN1_OBJECT_value(list, i));

		if (nid == NID_server_auth || nid == NID_anyExtendedKeyUsage)
			return true;
	}
	return false;
}

/* ---- p11-kit ---------------------------------------------------------------------------------------------- */

struct object {      /* fields of the object at hand */
	bool is_p11; /* there was a header: what is trusted is said */
	enum trust trust;
	bool is_usage; /* the extension that lists purposes */
	bool is_server;
};

/* Is one of the purposes in this percent-encoded DER? The object identifiers are looked for as bytes: nothing else of
 * an extended key usage looks like them. */
static bool value_names_server(const char *text, size_t size)
{
	static const unsigned char server[] = { 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1 },
	                           any[] = { 6, 4, 0x55, 0x1d, 0x25, 0 };
	unsigned char bytes[MAX_FIELD];
	size_t n = 0;

	for (size_t i = 0; i < size && n < sizeof(bytes); i++) {
		if (text[i] == '%' && i + 2 < size && base_hex_value(text[i + 1]) >= 0 &&
		    base_hex_value(text[i + 2]) >= 0) {
			bytes[n++] = (unsigned char)(base_hex_value(text[i + 1]) << 4 | base_hex_value(text[i + 2]));
			i += 2;
		} else if (text[i] != '"') {
			bytes[n++] = (unsigned char)text[i];
		}
	}
	return memmem(bytes, n, server, sizeof(server)) || memmem(bytes, n, any, sizeof(any));
}

static bool field_is(const char *line, size_t len, const char *name, const char **ret_value, size_t *ret_size)
{
	const size_t n = strlen(name);

	if (len <= n || strncmp(line, name, n) != 0 || line[n] != ':')
		return false;
	line += n + 1;
	len -= n + 1;
	while (len && (*line == ' ' || *line == '\t')) {
		line++;
		len--;
	}
	*ret_value = line;
	*ret_size = len;
	return true;
}

static void read_line(struct object *o, const char *line, size_t len)
{
	const char *value;
	size_t size;

	if (len && line[0] == '[')
		*o = (struct object){ .is_p11 = len >= 8 && strncmp(line, "[p11-kit", 8) == 0 };
	else if (field_is(line, len, "trusted", &value, &size) && o->trust != DISTRUSTED)
		o->trust = size >= 4 && strncmp(value, "true", 4) == 0 ? TRUSTED : UNKNOWN;
	else if (field_is(line, len, "x-distrusted", &value, &size) && size >= 4 && strncmp(value, "true", 4) == 0)
		o->trust = DISTRUSTED;
	else if (field_is(line, len, "object-id", &value, &size))
		o->is_usage = size >= 9 && strncmp(value, "2.5.29.37", 9) == 0 && (size == 9 || value[9] == '\r');
	else if (field_is(line, len, "value", &value, &size))
		o->is_server = value_names_server(value, size);
}

/* ---- PEM -------------------------------------------------------------------------------------------------- */

static int add_key(struct img_certs *c, const struct object *o, const unsigned char *der, long size)
{
	unsigned char *key;
	int r;

	if (!o->is_p11 || !o->is_usage)
		return 0;
	r = grow((void **)&c->purposes, &c->cap_purposes, c->n_purposes, sizeof(*c->purposes));
	if (r < 0)
		return r;
	key = OPENSSL_memdup(der, (size_t)size);
	if (!key)
		return -ENOMEM;
	c->purposes[c->n_purposes++] = (struct purpose){ key, (int)size, o->is_server };
	return 0;
}

static int add_block(struct img_certs *c, enum img_certs_kind kind, const struct object *o, const char *name,
                     const unsigned char *der, long size)
{
	const bool is_aux = strcmp(name, PEM_STRING_X509_TRUSTED) == 0;
	enum trust trust = trust_of(kind);
	bool other = false;
	X509 *x;

	if (strcmp(name, PEM_STRING_PUBLIC) == 0)
		return add_key(c, o, der, size);
	if (!is_aux && strcmp(name, PEM_STRING_X509) != 0 && strcmp(name, PEM_STRING_X509_OLD) != 0)
		return 0;
	x = is_aux ? d2i_X509_AUX(NULL, &der, size) : d2i_X509(NULL, &der, size);
	if (!x)
		return -EBADMSG;
	if (is_aux && kind != IMG_CERTS_BLOCKED) {
		STACK_OF(ASN1_OBJECT) *trusted = X509_get0_trust_objects(x);

		trust = names_server(X509_get0_reject_objects(x)) ? DISTRUSTED : TRUSTED;
		other = trusted && !names_server(trusted);
	} else if (o->is_p11 && kind != IMG_CERTS_BLOCKED) {
		trust = o->trust;
	}
	return add_cert(c, x, kind, trust, other);
}

/* Text: lines of objects, and PEM blocks between them. */
static int add_text(struct img_certs *c, enum img_certs_kind kind, const char *text, size_t size)
{
	static const char begin[] = "-----BEGIN ";
	const char *end = text + size;
	struct object o = { 0 };
	int r = 0;

	while (r == 0 && text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const size_t len = newline ? (size_t)(newline - text) : (size_t)(end - text);
		char *name = NULL, *header = NULL;
		unsigned char *der = NULL;
		long der_size = 0;
		BIO *bio;

		if (len < sizeof(begin) - 1 || strncmp(text, begin, sizeof(begin) - 1) != 0) {
			read_line(&o, text, len);
			text += len + (newline != NULL);
			continue;
		}
		bio = end - text <= INT32_MAX ? BIO_new_mem_buf(text, (int)(end - text)) : NULL;
		if (!bio)
			return -ENOMEM;
		if (PEM_read_bio(bio, &name, &header, &der, &der_size) != 1)
			r = -EBADMSG;
		else
			r = add_block(c, kind, &o, name, der, der_size);
		text = end - BIO_pending(bio);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_free(der);
		(void)BIO_free(bio);
	}
	return r;
}

/* ---- DER -------------------------------------------------------------------------------------------------- */

/* Certificates of a PKCS #12 file without a password. */
static int add_pkcs12(struct img_certs *c, enum img_certs_kind kind, PKCS12 *p12)
{
	STACK_OF(X509) *list = NULL;
	EVP_PKEY *key = NULL;
	X509 *own = NULL;
	int r = 0;

	if (PKCS12_parse(p12, "", &key, &own, &list) != 1)
		return -EBADMSG;
	EVP_PKEY_free(key);
	if (own)
		r = add_cert(c, own, kind, trust_of(kind), false);
	for (int i = 0; r == 0 && list && i < sk_X509_num(list); i++) {
		X509 *x = sk_X509_value(list, i);

		r = X509_up_ref(x) ? add_cert(c, x, kind, trust_of(kind), false) : -ENOMEM;
	}
	sk_X509_pop_free(list, X509_free);
	return r;
}

static int add_der(struct img_certs *c, enum img_certs_kind kind, const unsigned char *data, size_t size)
{
	const unsigned char *at = data;
	X509 *x = d2i_X509(NULL, &at, (long)size);
	PKCS12 *p12;
	int r;

	if (x)
		return add_cert(c, x, kind, trust_of(kind), false);
	at = data;
	p12 = d2i_PKCS12(NULL, &at, (long)size);
	r = p12 ? add_pkcs12(c, kind, p12) : -EBADMSG;
	PKCS12_free(p12);
	return r;
}

/* ---- Together --------------------------------------------------------------------------------------------- */

int img_certs_add(struct img_certs *c, enum img_certs_kind kind, const char *name, const void *data, size_t size,
                  struct err *err)
{
	int r;

	if (size > INT32_MAX)
		return err_set(err, -E2BIG, "%s: larger than certificates are", name);
	/* DER begins with a sequence; text does not begin with '0' and a length of several bytes. */
	if (size > 4 && ((const unsigned char *)data)[0] == 0x30 && ((const unsigned char *)data)[1] & 0x80)
		r = add_der(c, kind, data, size);
	else
		r = add_text(c, kind, data, size);
	ERR_clear_error();
	if (r == -EBADMSG)
		return err_set(err, r, "%s: a certificate in it cannot be read", name);
	return r < 0 ? err_set(err, r, "%s: %s", name, strerror(-r)) : 0;
}

static bool has_purpose(const struct img_certs *c, X509 *x)
{
	unsigned char *key = NULL;
	bool found = false, is_server = false;
	const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &key);

	for (size_t i = 0; size > 0 && i < c->n_purposes; i++) {
		const struct purpose *p = &c->purposes[i];

		if (p->key_size == size && memcmp(p->key, key, (size_t)size) == 0) {
			found = true;
			is_server |= p->is_server;
		}
	}
	OPENSSL_free(key);
	return !found || is_server;
}

/* Trusted here, distrusted nowhere, and not written before. */
static bool is_wanted(const struct img_certs *c, size_t i)
{
	const struct cert *cert = &c->certs[i];

	if (cert->trust != TRUSTED || cert->other_purpose || (!cert->is_anchor && X509_check_ca(cert->x) == 0) ||
	    !has_purpose(c, cert->x))
		return false;
	for (size_t k = 0; k < c->n_certs; k++) {
		const struct cert *other = &c->certs[k];

		if ((other->trust == DISTRUSTED || (k < i && other->trust == TRUSTED && !other->other_purpose)) &&
		    X509_cmp(cert->x, other->x) == 0)
			return false;
	}
	return true;
}

int img_certs_write(const struct img_certs *c, struct base_buf *out, size_t *ret_n)
{
	BIO *bio = BIO_new(BIO_s_mem());
	size_t n = 0;
	char *text;
	int r = bio ? 0 : -ENOMEM;
	long size;

	for (size_t i = 0; r == 0 && i < c->n_certs; i++) {
		if (!is_wanted(c, i))
			continue;
		r = PEM_write_bio_X509(bio, c->certs[i].x) == 1 ? 0 : -ENOMEM;
		n++;
	}
	size = r == 0 ? BIO_get_mem_data(bio, &text) : 0;
	if (size > 0)
		r = base_buf_append(out, text, (size_t)size);
	(void)BIO_free(bio);
	ERR_clear_error();
	*ret_n = n;
	return r;
}
