/* Names of images and digests. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "oci_internal.h"

static const struct {
	const char *prefix;
	enum img_place place;
} places[] = {
	{ "oci:", IMG_PLACE_LAYOUT },
	{ "oci-archive:", IMG_PLACE_OCI_ARCHIVE },
	{ "docker-archive:", IMG_PLACE_DOCKER_ARCHIVE },
	{ "docker://", IMG_PLACE_REGISTRY },
};

bool img_name_is_image(const char *name)
{
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		if (strncmp(name, places[i].prefix, strlen(places[i].prefix)) == 0)
			return true;
	}
	return false;
}

/* A path and, behind the first colon, the tag: tags of docker archives have colons of their own, so paths cannot. */
static int split(const char *rest, struct img_name *n)
{
	const char *colon = strchr(rest, ':');

	n->path = colon ? strndup(rest, (size_t)(colon - rest)) : strdup(rest);
	if (colon && colon[1])
		n->tag = strdup(colon + 1);
	return n->path && (!colon || !colon[1] || n->tag) ? 0 : -ENOMEM;
}

int img_name_parse(const char *text, struct img_name *ret_name, struct err *err)
{
	struct img_name n = { 0 };
	const char *rest = NULL;
	int r;

	for (size_t i = 0; i < sizeof(places) / sizeof(*places) && !rest; i++) {
		if (strncmp(text, places[i].prefix, strlen(places[i].prefix)) == 0) {
			rest = text + strlen(places[i].prefix);
			n.place = places[i].place;
		}
	}
	if (!rest)
		return err_set(err, -EINVAL,
		               "%s: not the name of an image (oci:DIR:TAG, oci-archive:FILE, docker-archive:FILE, "
		               "docker://HOST/NAME:TAG)",
		               text);
	if (n.place == IMG_PLACE_REGISTRY)
		r = (n.path = strdup(rest)) ? 0 : -ENOMEM;
	else
		r = split(rest, &n);
	if (r == 0 && !n.path[0])
		r = -EINVAL;
	if (r < 0) {
		img_name_done(&n);
		return err_set(err, r, "%s: %s", text, r == -EINVAL ? "says no place" : "out of memory");
	}
	*ret_name = n;
	return 0;
}

void img_name_done(struct img_name *name)
{
	free(name->path);
	free(name->tag);
	*name = (struct img_name){ 0 };
}

bool img_digest_is_valid(const char *digest)
{
	if (strncmp(digest, "sha256:", 7) != 0 || strlen(digest) != IMG_DIGEST_SIZE - 1)
		return false;
	return strspn(digest + 7, "0123456789abcdef") == 64;
}

void img_digest_set(char ret_digest[IMG_DIGEST_SIZE], const uint8_t sha256[32])
{
	memcpy(ret_digest, "sha256:", 7);
	base_sha256_hex(sha256, ret_digest + 7);
}

void img_digest_of(const void *data, size_t size, char ret_digest[IMG_DIGEST_SIZE])
{
	uint8_t digest[BASE_SHA256_SIZE] = { 0 };

	if (base_sha256_bytes(data, size, digest) < 0)
		ret_digest[0] = '\0';
	else
		img_digest_set(ret_digest, digest);
}
