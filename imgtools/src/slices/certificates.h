/* Certificates out of the files that distributions keep them in, for one bundle that TLS libraries read.
 *
 * Read are PEM ("CERTIFICATE", "TRUSTED CERTIFICATE" of OpenSSL), DER, PKCS #12 without a password, and p11-kit's own
 * text format (trust bundles of Red Hat and others): objects that begin with a line "[p11-kit-object-v1]", have lines
 * "name: value" (trusted, x-distrusted, class, object-id, value) and a PEM block. An object of the class
 * x-certificate-extension with the object-id 2.5.29.37 and a PUBLIC KEY says what certificates of that key are good
 * for.
 *
 * One thread per collection. */
#ifndef IMG_SLICES_CERTIFICATES_H
#define IMG_SLICES_CERTIFICATES_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct img_certs;

enum img_certs_kind {
	IMG_CERTS_ANCHORS, /* certificates without a word about trust are trusted */
	IMG_CERTS_SOURCE,  /* they are not */
	IMG_CERTS_BLOCKED, /* they are distrusted, whatever other files say */
};

struct img_certs *img_certs_new(void); /* NULL: no memory */
void img_certs_free(struct img_certs *c);
/* Takes what a file holds; `name` is for errors. A file of none of the formats adds nothing; -EBADMSG when it begins
 * like one of them and is broken, -E2BIG beyond 10000 certificates. */
int img_certs_add(struct img_certs *c, enum img_certs_kind kind, const char *name, const void *data, size_t size,
                  struct err *err);
/* Appends what is trusted to identify TLS servers as PEM, each once, in the order it came. Of certificates
 * that are no anchors only authorities: what may not sign others is left out. */
int img_certs_write(const struct img_certs *c, struct base_buf *out, size_t *ret_n);

#endif
