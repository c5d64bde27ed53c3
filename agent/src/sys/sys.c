/* The room's front: which sections there are, and collecting them into one document. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>

#include "sys/sys_internal.h"
#include "sys/sys_systemd.h"

static const struct {
	const char *name;
	unsigned bit;
	void (*collect)(const struct sys_ctx *ctx, json_t *out);
} sections[] = {
	{ "host", AG_SYS_HOST, ag_sys_host },
	{ "hardware", AG_SYS_HARDWARE, ag_sys_hardware },
	{ "gpu", AG_SYS_GPU, ag_sys_gpu },
	{ "packages", AG_SYS_PACKAGES, ag_sys_packages },
	{ "services", AG_SYS_SERVICES, ag_sys_services },
	{ "logs", AG_SYS_LOGS, ag_sys_logs },
	{ "network", AG_SYS_NETWORK, ag_sys_network },
	{ "storage", AG_SYS_STORAGE, ag_sys_storage },
	{ "users", AG_SYS_USERS, ag_sys_users },
	{ "perf", AG_SYS_PERF, ag_sys_perf },
};

enum { N_SECTIONS = sizeof(sections) / sizeof(sections[0]) };

static const struct {
	const char *word;
	unsigned bits;
} aliases[] = { { "cpu", AG_SYS_HARDWARE },
	        { "memory", AG_SYS_HARDWARE },
	        { "disk", AG_SYS_STORAGE },
	        { "net", AG_SYS_NETWORK },
	        { "all", AG_SYS_QUICK } };

int ag_sys_section_parse(const char *word, unsigned *ret_section, struct err *err)
{
	for (size_t i = 0; i < N_SECTIONS; i++) {
		if (strcmp(word, sections[i].name) == 0) {
			*ret_section = sections[i].bit;
			return 0;
		}
	}
	for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
		if (strcmp(word, aliases[i].word) == 0) {
			*ret_section = aliases[i].bits;
			return 0;
		}
	}
	return err_set(err, -EINVAL,
	               "there is no section \"%s\" (host, hardware, gpu, packages, services, logs, network, storage, "
	               "users, perf, all)",
	               word);
}

const char *ag_sys_section_name(unsigned i)
{
	return i < N_SECTIONS ? sections[i].name : NULL;
}

static int open_context(const struct ag_sys_options *opt, char *root, size_t size, struct sys_ctx *ctx, struct err *err)
{
	const char *given = opt->root ? opt->root : "";
	size_t n = strlen(given);
	char path[4096];

	while (n && given[n - 1] == '/')
		n--;
	if (n >= size)
		return err_set(err, -ENAMETOOLONG, "the root's path is too long");
	memcpy(root, given, n);
	root[n] = '\0';
	*ctx = (struct sys_ctx){ .opt = opt, .root = root, .proc_fd = -1 };
	if (n && access(root, X_OK) < 0)
		return err_set(err, -errno, "%s: %s", root, strerror(errno));
	if (ag_sys_path(ctx, path, sizeof(path), "/proc") == 0)
		ctx->proc_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return 0;
}

int ag_sys_collect(unsigned wanted, const struct ag_sys_options *options, json_t **ret_document, struct err *err)
{
	static const struct ag_sys_options defaults;
	const struct ag_sys_options *opt = options ? options : &defaults;
	char root[3072];
	struct sys_ctx ctx;
	json_t *document;
	int r;

	if (!isfinite(opt->seconds) || opt->seconds < 0 || opt->seconds > 3600)
		return err_set(err, -EINVAL, "a sample takes more than 0 and at most 3600 seconds");
	r = open_context(opt, root, sizeof(root), &ctx, err);
	if (r < 0)
		return r;
	document = json_object();
	for (size_t i = 0; i < N_SECTIONS && document; i++) {
		json_t *section = (wanted & sections[i].bit) ? ag_sys_object(document, sections[i].name) : NULL;

		if (section)
			sections[i].collect(&ctx, section);
	}
	if (ctx.proc_fd >= 0)
		(void)close(ctx.proc_fd);
	if (!document || ag_sys_judge(document) < 0) {
		json_decref(document);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*ret_document = document;
	return 0;
}

int ag_sys_unit_log(const char *unit, unsigned n, const struct ag_sys_options *options, json_t **ret_lines,
                    struct err *err)
{
	static const struct ag_sys_options defaults;
	const struct systemd *sd = ag_sys_systemd();
	sd_journal *j = NULL;
	char root[3072];
	struct sys_ctx ctx;
	json_t *lines;
	int r;

	if (!sd)
		return err_set(err, -ENOENT,
		               "libsystemd is not on this machine, or too old: the journal cannot be read");
	r = open_context(options ? options : &defaults, root, sizeof(root), &ctx, err);
	if (r < 0)
		return r;
	/* A journal of no file opens too; below a root, with no folder, it does not. */
	if (ag_sys_journal_open(sd, &ctx, &j) < 0 ||
	    (!*ctx.root && sd->sd_journal_has_runtime_files(j) <= 0 && sd->sd_journal_has_persistent_files(j) <= 0))
		r = err_set(err, -ENOENT, "there is no journal here, or it may not be read");
	if (j)
		sd->sd_journal_close(j);
	if (ctx.proc_fd >= 0)
		(void)close(ctx.proc_fd);
	if (r < 0)
		return r;
	lines = json_array();
	if (!lines)
		return err_set(err, -ENOMEM, "out of memory");
	ag_sys_journal_tail(sd, &ctx, unit, n, lines);
	*ret_lines = lines;
	return 0;
}
