/* SPDX 2.3 as JSON (https://spdx.github.io/spdx-spec/v2.3). The document describes one package, the image or root; that
 * contains the RPM packages, those contain their files, and what belongs to no package hangs at the image itself. A
 * package of which files were left out says so in a comment: its verification code is that of the files that are there.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "sbom_internal.h"

enum { ID_SIZE = 512 };

static void set(json_t *obj, const char *key, const char *text)
{
	if (text && text[0])
		(void)json_object_set_new(obj, key, img_sbom_text(text, 4096));
}

static void file_id(const struct img_sbom *b, size_t i, char out[ID_SIZE])
{
	(void)snprintf(out, ID_SIZE, "SPDXRef-File-%zu-%.16s", i + 1, b->files[i].sha1);
}

static void package_id(const struct img_sbom_package *p, char out[ID_SIZE])
{
	(void)snprintf(out, ID_SIZE, "SPDXRef-Package-%.400s", p->id);
}

static int compare_sha1(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* SHA-1 over the sorted SHA-1s of the package's files, as text (section 7.9). */
static json_t *verification_code(const struct img_sbom *b, int32_t package)
{
	CLEANUP(freep) const char **sums = calloc(b->n_files + 1, sizeof(char *));
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char digest[EVP_MAX_MD_SIZE];
	char text[41] = "";
	size_t n = 0;
	bool ok = sums && md && EVP_DigestInit_ex(md, EVP_sha1(), NULL);

	for (size_t i = 0; ok && i < b->n_files; i++) {
		if (b->files[i].node->package == package)
			sums[n++] = b->files[i].sha1;
	}
	if (ok)
		qsort(sums, n, sizeof(*sums), compare_sha1);
	for (size_t i = 0; ok && i < n; i++)
		ok = EVP_DigestUpdate(md, sums[i], 40);
	ok = ok && EVP_DigestFinal_ex(md, digest, NULL);
	EVP_MD_CTX_free(md);
	for (size_t i = 0; ok && i < 20; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", digest[i]);
	return ok ? json_pack("{s:s}", "packageVerificationCodeValue", text) : NULL;
}

static bool has_files(const struct img_sbom *b, int32_t package)
{
	for (size_t i = 0; i < b->n_files; i++) {
		if (b->files[i].node->package == package)
			return true;
	}
	return false;
}

/* A tag that is no expression becomes a LicenseRef, quoted once. */
static const char *licence_of(const char *tag, json_t *extracted, char ref[64])
{
	json_t *item;
	size_t i;

	if (!tag || !tag[0])
		return "NOASSERTION";
	if (img_sbom_is_expression(tag))
		return tag;
	json_array_foreach(extracted, i, item)
	{
		json_t *text = img_sbom_text(tag, 4096);
		bool is_same = json_equal(json_object_get(item, "extractedText"), text);

		json_decref(text);
		if (is_same)
			break;
	}
	(void)snprintf(ref, 64, "LicenseRef-rpm-%zu", i + 1);
	if (i == json_array_size(extracted)) {
		item = json_pack("{s:s}", "licenseId", ref);
		set(item, "extractedText", tag);
		set(item, "name", tag);
		set(item, "comment", "the License tag of the RPM package");
		(void)json_array_append_new(extracted, item);
	}
	return ref;
}

static json_t *package_object(const struct img_sbom *b, size_t i, json_t *extracted)
{
	const struct img_sbom_package *p = &b->packages[i];
	bool analyzed = has_files(b, (int32_t)i);
	char id[ID_SIZE], text[512], ref[64];
	json_t *o = json_object(), *code;

	package_id(p, id);
	set(o, "SPDXID", id);
	set(o, "name", p->rpm->name);
	set(o, "versionInfo", p->version);
	if (p->rpm->vendor && p->rpm->vendor[0]) {
		(void)snprintf(text, sizeof(text), "Organization: %.400s", p->rpm->vendor);
		set(o, "supplier", text);
	} else {
		set(o, "supplier", "NOASSERTION");
	}
	set(o, "downloadLocation", "NOASSERTION");
	(void)json_object_set_new(o, "filesAnalyzed", json_boolean(analyzed));
	code = analyzed ? verification_code(b, (int32_t)i) : NULL;
	if (code)
		(void)json_object_set_new(o, "packageVerificationCode", code);
	set(o, "licenseConcluded", "NOASSERTION");
	if (analyzed)
		(void)json_object_set_new(o, "licenseInfoFromFiles", json_pack("[s]", "NOASSERTION"));
	set(o, "licenseDeclared", licence_of(p->rpm->license, extracted, ref));
	set(o, "copyrightText", "NOASSERTION");
	set(o, "summary", p->rpm->summary);
	if (p->rpm->url && (strncmp(p->rpm->url, "http://", 7) == 0 || strncmp(p->rpm->url, "https://", 8) == 0))
		set(o, "homepage", p->rpm->url);
	if (p->rpm->source_rpm && p->rpm->source_rpm[0]) {
		(void)snprintf(text, sizeof(text), "built from %.400s", p->rpm->source_rpm);
		set(o, "sourceInfo", text);
	}
	(void)snprintf(text, sizeof(text), "%zu of %zu files are present", p->n_present, p->n_files);
	set(o, "comment", text);
	(void)json_object_set_new(o, "externalRefs",
	                          json_pack("[{s:s, s:s, s:s}]", "referenceCategory", "PACKAGE-MANAGER",
	                                    "referenceType", "purl", "referenceLocator", p->purl));
	return o;
}

static json_t *image_object(const struct img_sbom *b)
{
	json_t *o = json_object();

	set(o, "SPDXID", "SPDXRef-Image");
	set(o, "name", b->name);
	set(o, "versionInfo", b->version);
	set(o, "downloadLocation", "NOASSERTION");
	(void)json_object_set_new(o, "filesAnalyzed", json_false());
	set(o, "licenseConcluded", "NOASSERTION");
	set(o, "licenseDeclared", "NOASSERTION");
	set(o, "copyrightText", "NOASSERTION");
	set(o, "primaryPackagePurpose", b->subject->image ? "CONTAINER" : "OPERATING_SYSTEM");
	return o;
}

static json_t *file_object(const struct img_sbom *b, size_t i)
{
	const struct img_sbom_file *f = &b->files[i];
	char id[ID_SIZE], name[IMG_PATH_MAX + 2];
	json_t *o = json_object();

	file_id(b, i, id);
	(void)snprintf(name, sizeof(name), ".%s", f->node->path);
	set(o, "SPDXID", id);
	(void)json_object_set_new(o, "fileName", img_sbom_text(name, sizeof(name)));
	(void)json_object_set_new(o, "checksums",
	                          json_pack("[{s:s, s:s}, {s:s, s:s}]", "algorithm", "SHA1", "checksumValue", f->sha1,
	                                    "algorithm", "SHA256", "checksumValue", f->sha256));
	set(o, "licenseConcluded", "NOASSERTION");
	(void)json_object_set_new(o, "licenseInfoInFiles", json_pack("[s]", "NOASSERTION"));
	set(o, "copyrightText", "NOASSERTION");
	return o;
}

static void relate(json_t *list, const char *from, const char *type, const char *to)
{
	(void)json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "spdxElementId", from, "relationshipType", type,
	                                            "relatedSpdxElement", to));
}

static json_t *relationships(const struct img_sbom *b)
{
	char from[ID_SIZE], to[ID_SIZE];
	json_t *list = json_array();

	relate(list, "SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image");
	for (size_t i = 0; i < b->n_packages; i++) {
		package_id(&b->packages[i], to);
		relate(list, "SPDXRef-Image", "CONTAINS", to);
	}
	for (size_t i = 0; i < b->n_packages; i++) {
		package_id(&b->packages[i], from);
		for (size_t k = 0; k < b->packages[i].n_needs; k++) {
			package_id(&b->packages[b->packages[i].needs[k]], to);
			relate(list, from, "DEPENDS_ON", to);
		}
	}
	for (size_t i = 0; i < b->n_files; i++) {
		int32_t package = b->files[i].node->package;

		file_id(b, i, to);
		if (package >= 0)
			package_id(&b->packages[package], from);
		relate(list, package >= 0 ? from : "SPDXRef-Image", "CONTAINS", to);
	}
	return list;
}

json_t *img_sbom_spdx(const struct img_sbom *b)
{
	json_t *doc = json_object(), *packages = json_array(), *files = json_array(), *extracted = json_array();
	char space[256];

	(void)snprintf(space, sizeof(space), "urn:slimtrace:spdx:%s", b->digest);
	(void)json_array_append_new(packages, image_object(b));
	for (size_t i = 0; i < b->n_packages; i++)
		(void)json_array_append_new(packages, package_object(b, i, extracted));
	for (size_t i = 0; i < b->n_files; i++)
		(void)json_array_append_new(files, file_object(b, i));
	set(doc, "spdxVersion", "SPDX-2.3");
	set(doc, "dataLicense", "CC0-1.0");
	set(doc, "SPDXID", "SPDXRef-DOCUMENT");
	set(doc, "name", b->name);
	set(doc, "documentNamespace", space);
	(void)json_object_set_new(
	        doc, "creationInfo",
	        json_pack("{s:s, s:[s]}", "created", b->created, "creators", "Tool: slimtrace-" OCAI_VERSION));
	(void)json_object_set_new(doc, "packages", packages);
	if (b->n_files)
		(void)json_object_set_new(doc, "files", files);
	else
		json_decref(files);
	if (json_array_size(extracted))
		(void)json_object_set_new(doc, "hasExtractedLicensingInfos", extracted);
	else
		json_decref(extracted);
	(void)json_object_set_new(doc, "relationships", relationships(b));
	return doc;
}
