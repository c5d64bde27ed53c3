/* Signatures of packages and of repository metadata, by librpm and the keys that a person gave.
 *
 * What is checked of a package is the signature over its header: the header holds a digest of each file, and every file
 * that is unpacked is compared with it. The header that librpm verified has to be the one that was parsed here, byte by
 * byte. An old signature over header and payload together does not count. Of a repository's metadata repomd.xml is
 * signed, where it is (repomd.xml.asc); it holds the checksums of all other files. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rpm/header.h>
#include <rpm/rpmbase64.h>
#include <rpm/rpmcrypto.h>
#include <rpm/rpmkeyring.h>
#include <rpm/rpmlib.h>
#include <rpm/rpmpgp.h>
#include <rpm/rpmtd.h>
#include <rpm/rpmts.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "rpm_internal.h"

enum { MAX_KEY_FILE = 4 << 20, MAX_METADATA = 64 << 20 };

struct img_rpm_keys {
	rpmKeyring ring;
	pthread_mutex_t lock; /* librpm: one thread at a time */
};

int img_rpm_keys_new(struct img_rpm_keys **ret_k, struct err *err)
{
	struct img_rpm_keys *k;
	int r = img_rpm_lib_init(err);

	if (r < 0)
		return r;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	(void)pthread_mutex_init(&k->lock, NULL);
	k->ring = rpmKeyringNew();
	*ret_k = k;
	return 0;
}

void img_rpm_keys_free(struct img_rpm_keys *k)
{
	if (!k)
		return;
	(void)rpmKeyringFree(k->ring);
	(void)pthread_mutex_destroy(&k->lock);
	free(k);
}

/* A key and its subkeys, which may be what signs. */
static int add_key(struct img_rpm_keys *k, const uint8_t *packets, size_t size)
{
	rpmPubkey key = rpmPubkeyNew(packets, size);
	rpmPubkey *subkeys;
	int n = 0;

	if (!key)
		return -EBADMSG;
	(void)rpmKeyringAddKey(k->ring, key);
	subkeys = rpmGetSubkeys(key, &n);
	for (int i = 0; i < n; i++) {
		(void)rpmKeyringAddKey(k->ring, subkeys[i]);
		(void)rpmPubkeyFree(subkeys[i]);
	}
	free(subkeys);
	(void)rpmPubkeyFree(key);
	return 0;
}

int img_rpm_keys_add(struct img_rpm_keys *k, const char *path, struct err *err)
{
	static const char begin[] = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
	struct base_buf text = BASE_BUF_INIT(MAX_KEY_FILE);
	size_t n = 0;
	int r = base_read_file(path, &text, err);

	/* A file may hold several keys, each in its own armour, or one without. */
	for (const char *at = r == 0 ? strstr(base_buf_text(&text), begin) : NULL; r == 0 && at;
	     at = strstr(at + 1, begin)) {
		uint8_t *packets = NULL;
		size_t size = 0;

		r = pgpParsePkts(at, &packets, &size) == PGPARMOR_PUBKEY ? add_key(k, packets, size) : -EBADMSG;
		free(packets);
		n++;
	}
	if (r == 0 && n == 0)
		r = text.len ? add_key(k, (const uint8_t *)text.data, text.len) : -EBADMSG;
	base_buf_done(&text);
	return r == -EBADMSG ? err_set(err, r, "%s: holds no public key in OpenPGP format", path) : r;
}

/* ---- Packages --------------------------------------------------------------------------------------------- */

/* What was verified is what was parsed. */
static bool is_same_header(Header h, const struct img_rpm *p)
{
	struct rpmtd_s td;
	bool same;

	if (!headerGet(h, RPMTAG_HEADERIMMUTABLE, &td, HEADERGET_DEFAULT))
		return false;
	same = td.count == p->header_size && memcmp(td.data, p->header, p->header_size) == 0;
	rpmtdFreeData(&td);
	return same;
}

/* "RSA/SHA256, ..., Key ID 0123456789abcdef" for people; to be freed. */
static char *signature_text(Header h)
{
	return headerFormat(h, headerIsEntry(h, RPMTAG_RSAHEADER) ? "%{RSAHEADER:pgpsig}" : "%{DSAHEADER:pgpsig}",
	                    NULL);
}

static int judge(rpmRC rc, Header h, const struct img_rpm *p, struct err *err)
{
	const char *path = p->location;
	char *text;
	int r;

	if (rc == RPMRC_NOTFOUND || !h)
		return err_set(err, -EBADMSG, "%s: signature or digests are wrong", path);
	if (!headerIsEntry(h, RPMTAG_RSAHEADER) && !headerIsEntry(h, RPMTAG_DSAHEADER))
		return err_set(err, -EKEYREJECTED, "%s: is not signed", path);
	if (rc == RPMRC_OK)
		return is_same_header(h, p) ? 0 : err_set(err, -EBADMSG, "%s: changed while it was read", path);
	text = signature_text(h);
	r = rc == RPMRC_NOKEY || rc == RPMRC_NOTTRUSTED
	            ? err_set(err, -EKEYREJECTED, "%s: is signed by none of the keys given (%.120s)", path,
	                      text ? text : "")
	            : err_set(err, -EBADMSG, "%s: signature or digests are wrong", path);
	free(text);
	return r;
}

int img_rpm_keys_check(struct img_rpm_keys *k, const struct img_rpm *p, struct err *err)
{
	Header h = NULL;
	rpmRC rc;
	rpmts ts;
	FD_t fd;
	int r;

	fd = Fopen(p->location, "r.ufdio");
	if (!fd || Ferror(fd)) {
		(void)Fclose(fd);
		return err_set(err, -EIO, "%s: cannot be opened again", p->location);
	}
	(void)pthread_mutex_lock(&k->lock);
	ts = rpmtsCreate();
	(void)rpmtsSetVSFlags(ts, RPMVSF_DEFAULT);
	(void)rpmtsSetKeyring(ts, k->ring);
	rc = rpmReadPackageFile(ts, fd, p->location, &h);
	r = judge(rc, h, p, err);
	(void)headerFree(h);
	(void)rpmtsFree(ts);
	(void)pthread_mutex_unlock(&k->lock);
	(void)Fclose(fd);
	return r;
}

/* ---- Metadata --------------------------------------------------------------------------------------------- */

/* The packets of a signature in armour: base64 between an empty line and the checksum, which begins with '='. librpm
 * takes armour off keys only. */
static int take_armour_off(const char *armour, uint8_t **ret_packets, size_t *ret_size)
{
	const char *at = strstr(armour, "-----BEGIN PGP SIGNATURE-----"), *end;
	void *packets = NULL;
	char *text;
	int r;

	while (at && (at = strchr(at, '\n')) && strspn(++at, " \t\r\n") == 0)
		;
	end = at ? strstr(at, "\n=") : NULL;
	if (at && !end)
		end = strstr(at, "\n-----END");
	if (!end)
		return -EBADMSG;
	text = strndup(at, (size_t)(end - at));
	if (!text)
		return -ENOMEM;
	r = rpmBase64Decode(text, &packets, ret_size) == 0 ? 0 : -EBADMSG;
	free(text);
	*ret_packets = packets;
	return r;
}

static rpmRC verify(struct img_rpm_keys *k, const char *armour, const struct base_buf *data)
{
	pgpDigParams signature = NULL;
	uint8_t *packets = NULL;
	rpmRC rc = RPMRC_FAIL;
	size_t size = 0;
	DIGEST_CTX digest;

	if (take_armour_off(armour, &packets, &size) == 0 &&
	    pgpPrtParams(packets, size, PGPTAG_SIGNATURE, &signature) == 0) {
		digest = rpmDigestInit((int)pgpDigParamsAlgo(signature, PGPVAL_HASHALGO), RPMDIGEST_NONE);
		if (digest && rpmDigestUpdate(digest, data->data, data->len) == 0)
			rc = rpmKeyringVerifySig(k->ring, signature, digest);
		if (digest)
			(void)rpmDigestFinal(digest, NULL, NULL, 0);
	}
	pgpDigParamsFree(signature);
	free(packets);
	return rc;
}

int img_rpm_keys_check_file(struct img_rpm_keys *k, const char *path, struct err *err)
{
	struct base_buf data = BASE_BUF_INIT(MAX_METADATA), armour = BASE_BUF_INIT(MAX_KEY_FILE);
	CLEANUP(freep) char *signature = NULL;
	rpmRC rc = RPMRC_FAIL;
	int r;

	if (asprintf(&signature, "%s.asc", path) < 0)
		return -ENOMEM;
	if (access(signature, F_OK) < 0)
		return 0;
	r = base_read_file(path, &data, err);
	if (r == 0)
		r = base_read_file(signature, &armour, err);
	if (r == 0) {
		(void)pthread_mutex_lock(&k->lock);
		rc = verify(k, base_buf_text(&armour), &data);
		(void)pthread_mutex_unlock(&k->lock);
	}
	base_buf_done(&data);
	base_buf_done(&armour);
	if (r < 0 || rc == RPMRC_OK)
		return r;
	return rc == RPMRC_NOKEY || rc == RPMRC_NOTTRUSTED
	               ? err_set(err, -EKEYREJECTED, "%s: is signed by none of the keys given", path)
	               : err_set(err, -EBADMSG, "%s: the signature is wrong", path);
}
