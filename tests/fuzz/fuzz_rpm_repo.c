/* Metadata of repositories. The first byte chooses the document: repomd, primary, filelists; the second how it is cut
 * into pieces. */
#include <stdint.h>
#include <string.h>

#include "rpm/rpm_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int found(struct img_rpm *p, void *arg, struct err *err)
{
	volatile size_t sum = strlen(p->name) + strlen(p->version) + strlen(p->location);

	(void)arg;
	(void)err;
	for (size_t i = 0; i < p->n_files; i++)
		sum += strlen(p->files[i].path);
	(void)sum;
	img_rpm_free(p);
	return 0;
}

static int listed(const char *name, const char *arch, uint32_t epoch, const char *version, const char *release,
                  const char *path, void *arg)
{
	volatile size_t sum = strlen(name) + strlen(arch) + epoch + strlen(version) + strlen(release) + strlen(path);

	(void)arg;
	(void)sum;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_rpm_repomd m = { 0 };
	struct img_rpm_xml *x = NULL;
	struct err err = { 0 };
	size_t piece;
	int r;

	if (size < 2)
		return 0;
	piece = (size_t)data[1] + 1;
	r = data[0] % 3 == 0   ? img_rpm_xml_repomd("repomd.xml", &m, &x)
	    : data[0] % 3 == 1 ? img_rpm_xml_primary("primary.xml", "dir", found, NULL, &x)
	                       : img_rpm_xml_filelists("filelists.xml", listed, NULL, &x);
	for (data += 2, size -= 2; r == 0 && size; data += piece, size -= piece) {
		piece = piece < size ? piece : size;
		r = img_rpm_xml_feed(x, data, piece, piece == size, &err);
	}
	img_rpm_xml_free(x);
	img_rpm_repomd_done(&m);
	return 0;
}
