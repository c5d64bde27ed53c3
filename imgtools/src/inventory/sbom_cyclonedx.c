/* CycloneDX 1.5 as JSON (ECMA-424 is its successor). The image is the subject of the document; packages are its
 * components, with their files as components of their own below; files of no package stand beside the packages. */
#include <stdio.h>
#include <string.h>

#include "sbom_internal.h"

static void set(json_t *obj, const char *key, const char *text)
{
	if (text && text[0])
		(void)json_object_set_new(obj, key, img_sbom_text(text, 4096));
}

static json_t *property(const char *name, const char *value)
{
	json_t *o = json_object();

	set(o, "name", name);
	set(o, "value", value);
	return o;
}

static json_t *file_object(const struct img_sbom_file *f)
{
	json_t *o = json_object();

	set(o, "type", "file");
	set(o, "name", f->node->path);
	(void)json_object_set_new(o, "hashes",
	                          json_pack("[{s:s, s:s}, {s:s, s:s}]", "alg", "SHA-1", "content", f->sha1, "alg",
	                                    "SHA-256", "content", f->sha256));
	return o;
}

static json_t *licences_of(const char *tag)
{
	json_t *licence = json_object();

	if (img_sbom_is_expression(tag)) {
		set(licence, "expression", tag);
		return json_pack("[o]", licence);
	}
	set(licence, "name", tag);
	return json_pack("[{s:o}]", "license", licence);
}

static json_t *package_object(const struct img_sbom *b, size_t i)
{
	const struct img_sbom_package *p = &b->packages[i];
	json_t *o = json_object(), *files = json_array();
	char text[64];

	set(o, "type", "library");
	set(o, "bom-ref", p->id);
	if (p->rpm->vendor && p->rpm->vendor[0]) {
		json_t *supplier = json_object();

		set(supplier, "name", p->rpm->vendor);
		(void)json_object_set_new(o, "supplier", supplier);
	}
	set(o, "name", p->rpm->name);
	set(o, "version", p->version);
	set(o, "description", p->rpm->summary);
	if (p->rpm->license && p->rpm->license[0])
		(void)json_object_set_new(o, "licenses", licences_of(p->rpm->license));
	set(o, "purl", p->purl);
	(void)snprintf(text, sizeof(text), "%zu of %zu", p->n_present, p->n_files);
	(void)json_object_set_new(o, "properties", json_pack("[o]", property("slimtrace:files-present", text)));
	for (size_t k = 0; k < b->n_files; k++) {
		if (b->files[k].node->package == (int32_t)i)
			(void)json_array_append_new(files, file_object(&b->files[k]));
	}
	if (json_array_size(files))
		(void)json_object_set_new(o, "components", files);
	else
		json_decref(files);
	return o;
}

static json_t *dependencies(const struct img_sbom *b)
{
	json_t *list = json_array(), *all = json_array();

	for (size_t i = 0; i < b->n_packages; i++)
		(void)json_array_append_new(all, json_string(b->packages[i].id));
	(void)json_array_append_new(list, json_pack("{s:s, s:o}", "ref", "image", "dependsOn", all));
	for (size_t i = 0; i < b->n_packages; i++) {
		json_t *needs = json_array();

		for (size_t k = 0; k < b->packages[i].n_needs; k++)
			(void)json_array_append_new(needs, json_string(b->packages[b->packages[i].needs[k]].id));
		(void)json_array_append_new(list,
		                            json_pack("{s:s, s:o}", "ref", b->packages[i].id, "dependsOn", needs));
	}
	return list;
}

static json_t *metadata(const struct img_sbom *b)
{
	json_t *subject = json_object();

	set(subject, "type", b->subject->image ? "container" : "operating-system");
	set(subject, "bom-ref", "image");
	set(subject, "name", b->name);
	set(subject, "version", b->version);
	return json_pack("{s:s, s:{s:[{s:s, s:s, s:s}]}, s:o}", "timestamp", b->created, "tools", "components", "type",
	                 "application", "name", "slimtrace", "version", OCAI_VERSION, "component", subject);
}

/* A UUID made of the content's digest: version 8, of the maker's own (RFC 9562). */
static json_t *serial_number(const struct img_sbom *b)
{
	const char *d = b->digest;
	char text[64];

	(void)snprintf(text, sizeof(text), "urn:uuid:%.8s-%.4s-8%.3s-a%.3s-%.12s", d, d + 8, d + 12, d + 15, d + 18);
	return json_string(text);
}

json_t *img_sbom_cyclonedx(const struct img_sbom *b)
{
	json_t *doc = json_object(), *components = json_array();

	for (size_t i = 0; i < b->n_packages; i++)
		(void)json_array_append_new(components, package_object(b, i));
	for (size_t i = 0; i < b->n_files; i++) {
		if (b->files[i].node->package < 0)
			(void)json_array_append_new(components, file_object(&b->files[i]));
	}
	set(doc, "bomFormat", "CycloneDX");
	set(doc, "specVersion", "1.5");
	(void)json_object_set_new(doc, "serialNumber", serial_number(b));
	(void)json_object_set_new(doc, "version", json_integer(1));
	(void)json_object_set_new(doc, "metadata", metadata(b));
	(void)json_object_set_new(doc, "components", components);
	(void)json_object_set_new(doc, "dependencies", dependencies(b));
	return doc;
}
