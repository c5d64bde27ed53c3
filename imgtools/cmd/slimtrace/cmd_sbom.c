/* slimtrace sbom: what is in an image or a root, for scanners: SPDX 2.3 or CycloneDX 1.5. */
#include <errno.h>
#include <stdio.h>

#include "commands.h"
#include "image_progress.h"
#include "inventory/inventory.h"

struct sbom {
	const char *format, *output, *auth_file, *arch, *work_dir;
	bool files, compact, insecure;
};

const struct opt sbom_opts[] = {
	{ "format", 'f', OPT_CHOICE, offsetof(struct sbom, format), "FORMAT", "spdx (2.3) or cyclonedx (1.5) [spdx]",
	  "spdx,cyclonedx" },
	{ "output", 'o', OPT_STR, offsetof(struct sbom, output), "FILE", "write to this file [standard output]", NULL },
	{ "files", 0, OPT_FLAG, offsetof(struct sbom, files), NULL, "list the files with their digests [on]", NULL },
	{ "compact", 0, OPT_FLAG, offsetof(struct sbom, compact), NULL, "one line, not indented", NULL },
	{ "arch", 0, OPT_STR, offsetof(struct sbom, arch), "ARCH", "of an image for several, which [this machine's]",
	  NULL },
	{ "work-dir", 0, OPT_STR, offsetof(struct sbom, work_dir), "DIR",
	  "where layers are unpacked [$TMPDIR, /var/tmp]", NULL },
	{ "auth-file", 0, OPT_STR, offsetof(struct sbom, auth_file), "FILE",
	  "registry credentials, as docker's config.json", NULL },
	{ "insecure", 0, OPT_FLAG, offsetof(struct sbom, insecure), NULL,
	  "registry by plain HTTP or without verifying it", NULL },
	{ 0 },
};

static int print_sbom(const struct sbom *o, const struct img_subject *s, const struct img_sbom_opts *so,
                      struct err *err)
{
	struct base_buf b = BASE_BUF_INIT((size_t)4 << 30);
	struct image_output out;
	int r = img_sbom_append(s, so, &b, err);

	if (r == 0)
		r = image_output_open(o->output, &out, err);
	if (r == 0) {
		bool is_written = fwrite(b.data, 1, b.len, out.file) == b.len;

		r = image_output_close(&out, is_written, err);
	}
	base_buf_done(&b);
	return r;
}

int cmd_sbom(int argc, char **argv)
{
	struct sbom o = { .format = "spdx", .files = true };
	struct img_sbom_opts so = { 0 };
	struct img_subject s = { 0 };
	struct err err = { 0 };
	int n = 0, r = slimtrace_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n != 1) {
		(void)err_set(&err, -EINVAL, "sbom wants one image or root, not %d", n);
		return slimtrace_usage("sbom", &err);
	}
	so.format = o.format[0] == 's' ? IMG_SBOM_SPDX : IMG_SBOM_CYCLONEDX;
	so.without_files = !o.files;
	so.is_pretty = !o.compact;
	so.is_canceled = image_is_interrupted;
	r = img_source_date_epoch(&so.epoch, &err);
	if (r == 0) {
		struct img_open_opts oo = { .work_dir = o.work_dir,
			                    .arch = o.arch,
			                    .auth_file = o.auth_file,
			                    .insecure = o.insecure,
			                    .progress = image_progress() };

		r = img_subject_open(argv[0], &oo, &s, &err);
		image_progress_clear();
	}
	if (r == 0)
		r = print_sbom(&o, &s, &so, &err);
	img_subject_close(&s);
	return r < 0 ? slimtrace_fail(&err) : 0;
}
