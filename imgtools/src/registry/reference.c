/* Names of images in registries: "ghcr.io/org/app:1.2", "localhost:5000/x@sha256:...", "debian". */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "registry_internal.h"

bool img_is_loopback(const char *host)
{
	return strncmp(host, "localhost", 9) == 0 ? host[9] == '\0' || host[9] == ':'
	                                          : strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0;
}

void img_reference_done(struct img_reference *ref)
{
	free(ref->host);
	free(ref->name);
	free(ref->tag);
	free(ref->digest);
	*ref = (struct img_reference){ 0 };
}

/* Components of lower-case letters, digits and single separators within. */
static bool name_is_valid(const char *name)
{
	if (!name[0] || strlen(name) > 255)
		return false;
	for (const char *p = name; *p; p++) {
		bool is_separator = strchr("._-/", *p) != NULL;

		if (!is_separator && !islower((unsigned char)*p) && !isdigit((unsigned char)*p))
			return false;
		if (*p == '/' && (p == name || !p[1] || strchr("._-/", p[1]) || strchr("._-/", p[-1])))
			return false;
		if (*p == '.' && p[1] == '.')
			return false;
	}
	return isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[strlen(name) - 1]);
}

static bool tag_is_valid(const char *tag)
{
	if (!tag[0] || strlen(tag) > 128 || tag[0] == '.' || tag[0] == '-')
		return false;
	for (const char *p = tag; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return false;
	}
	return true;
}

static bool digest_is_valid(const char *digest)
{
	return strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 71 &&
	       strspn(digest + 7, "0123456789abcdef") == 64;
}

static bool host_is_valid(const char *host)
{
	for (const char *p = host; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr(".-_:[]", *p))
			return false;
	}
	return host[0] != '\0' && host[0] != '-';
}

/* The first component is a host when it looks like one; else all is a name at docker.io. */
static int split_host(const char *text, struct img_reference *ref)
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : 0;
	bool is_host = slash && (memchr(text, '.', len) || memchr(text, ':', len) ||
	                         (len == 9 && !memcmp(text, "localhost", 9)));

	if (is_host) {
		ref->host = strndup(text, len);
		ref->name = strdup(slash + 1);
		if (ref->host && ref->name &&
		    (strcmp(ref->host, "docker.io") == 0 || strcmp(ref->host, "index.docker.io") == 0)) {
			CLEANUP(freep) char *rest = ref->name;

			free(ref->host);
			ref->host = NULL;
			ref->name = NULL;
			return split_host(rest, ref);
		}
	} else {
		ref->host = strdup("registry-1.docker.io");
		if (asprintf(&ref->name, "%s%s", slash ? "" : "library/", text) < 0)
			ref->name = NULL;
	}
	return ref->host && ref->name ? 0 : -ENOMEM;
}

int img_reference_parse(const char *text, struct img_reference *ret_ref, struct err *err)
{
	CLEANUP(freep) char *copy = strdup(text);
	struct img_reference ref = { 0 };
	char *at = copy ? strchr(copy, '@') : NULL, *slash, *colon;
	int r;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	if (at) {
		*at = '\0';
		ref.digest = strdup(at + 1);
	}
	slash = strrchr(copy, '/');
	colon = strchr(slash ? slash : copy, ':');
	if (colon) {
		*colon = '\0';
		ref.tag = strdup(colon + 1);
	} else if (!at) {
		ref.tag = strdup("latest");
	}
	r = split_host(copy, &ref);
	if (r == 0 && (!host_is_valid(ref.host) || !name_is_valid(ref.name)))
		r = -EINVAL;
	if (r == 0 && ((ref.tag && !tag_is_valid(ref.tag)) || (ref.digest && !digest_is_valid(ref.digest))))
		r = -EINVAL;
	if (r < 0) {
		img_reference_done(&ref);
		return err_set(err, r, "%s: %s", text, r == -EINVAL ? "not the name of an image" : "out of memory");
	}
	*ret_ref = ref;
	return 0;
}
