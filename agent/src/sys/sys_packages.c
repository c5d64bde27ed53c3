/* Packages: the rpm database through librpm, opened at run time so that the program starts fast and works where rpm
 * is not. The database is opened read-only and only when it exists (librpm would make a new one for root).
 *
 * What "history" means here: rpm stores with each installed package the number and the time of the transaction that
 * brought it. Removals leave no trace in the database; they are in the package manager's own log. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/library.h"
#include "sys/sys_rpm.h"

enum { N_RECENT = 20, N_TRANSACTIONS = 20, MAX_PROBLEMS = 200 };

/* NULL when the library is not here or too different. */
static const struct rpm *rpm_library(void)
{
	static const char *const names[] = { "librpm.so.10", "librpm.so.9", "librpm.so.8", "librpm.so" };
	static struct rpm table;
	static bool is_loaded;
#define X(f) { #f, &table.f },
	static const struct base_symbol symbols[] = { RPM_FUNCTIONS(X) };
#undef X

	for (size_t i = 0; !is_loaded && i < sizeof(names) / sizeof(names[0]); i++)
		is_loaded = base_library_load(names[i], symbols, sizeof(symbols) / sizeof(symbols[0]), NULL) == 0;
	return is_loaded ? &table : NULL;
}

static bool has_database(const struct sys_ctx *ctx, const char *dir)
{
	static const char *const files[] = { "rpmdb.sqlite", "Packages.db", "Packages" };
	char path[4096];

	for (size_t i = 0; i < 3; i++) {
		if (ag_sys_path(ctx, path, sizeof(path), "%s/%s", dir, files[i]) == 0 && access(path, F_OK) == 0)
			return true;
	}
	return false;
}

/* Where the database is: as configured, else where the distributions put it. */
static bool find_database(const struct rpm *rpm, const struct sys_ctx *ctx)
{
	static const char *const usual[] = { "/usr/lib/sysimage/rpm", "/var/lib/rpm" };
	CLEANUP(freep) char *dir = rpm->rpmExpand("%{_dbpath}", NULL);
	char macro[128];

	if (dir && has_database(ctx, dir))
		return true;
	for (size_t i = 0; i < 2; i++) {
		if (!has_database(ctx, usual[i]))
			continue;
		(void)snprintf(macro, sizeof(macro), "_dbpath %s", usual[i]);
		return rpm->rpmDefineMacro(NULL, macro, 0) == 0;
	}
	return false;
}

static void put_name(const struct rpm *rpm, Header h, json_t *out)
{
	const char *name = rpm->headerGetString(h, RPMTAG_NAME), *version = rpm->headerGetString(h, RPMTAG_VERSION);
	const char *release = rpm->headerGetString(h, RPMTAG_RELEASE), *arch = rpm->headerGetString(h, RPMTAG_ARCH);
	char whole[512];

	ag_sys_set_text(out, "name", name ? name : "?");
	(void)snprintf(whole, sizeof(whole), "%s-%s%s%s", version ? version : "?", release ? release : "?",
	               arch ? "." : "", arch ? arch : "");
	ag_sys_set_text(out, "version", whole);
}

struct package {
	uint64_t time, transaction;
	json_t *object;
};

static int newest_first(const void *a, const void *b)
{
	const struct package *x = a, *y = b;

	if (x->transaction != y->transaction)
		return x->transaction > y->transaction ? -1 : 1;
	return x->time > y->time ? -1 : x->time < y->time;
}

static void put_transactions(const struct package *p, size_t n, json_t *out)
{
	for (size_t i = 0, n_groups = 0; i < n && n_groups < N_TRANSACTIONS; n_groups++) {
		json_t *group = json_object(), *names;
		size_t first = i;

		ag_sys_set_u64(group, "transaction", p[i].transaction);
		ag_sys_set_u64(group, "time_s", p[i].time);
		names = ag_sys_array(group, "first_packages");
		for (; i < n && p[i].transaction == p[first].transaction; i++) {
			if (i - first < 5)
				(void)json_array_append(names, json_object_get(p[i].object, "name"));
		}
		ag_sys_set_u64(group, "packages", i - first);
		ag_sys_append_take(out, group);
	}
}

/* Appends one record, the array grown by halves. */
static bool push(struct package **list, size_t *n, size_t *cap, struct package item)
{
	if (*n == *cap) {
		size_t want = *cap + *cap / 2 + 256;
		struct package *grown = realloc(*list, want * sizeof(*grown));

		if (!grown)
			return false;
		*list = grown;
		*cap = want;
	}
	(*list)[(*n)++] = item;
	return true;
}

static void put_installed(const struct rpm *rpm, rpmts ts, json_t *out)
{
	CLEANUP(freep) struct package *list = NULL;
	size_t n = 0, cap = 0;
	rpmdbMatchIterator it = rpm->rpmtsInitIterator(ts, RPMDBI_PACKAGES, NULL, 0);
	uint64_t bytes = 0;
	Header h;

	while (it && (h = rpm->rpmdbNextIterator(it))) {
		struct package p = { rpm->headerGetNumber(h, RPMTAG_INSTALLTIME),
			             rpm->headerGetNumber(h, RPMTAG_INSTALLTID), json_object() };

		bytes += rpm->headerGetNumber(h, RPMTAG_LONGSIZE);
		put_name(rpm, h, p.object);
		ag_sys_set_u64(p.object, "time_s", p.time);
		if (!push(&list, &n, &cap, p)) {
			json_decref(p.object);
			break;
		}
	}
	rpm->rpmdbFreeIterator(it);
	if (n)
		qsort(list, n, sizeof(*list), newest_first);
	ag_sys_set_u64(out, "count", n);
	ag_sys_set_u64(out, "installed_bytes", bytes);
	put_transactions(list, n, ag_sys_array(out, "transactions"));
	for (size_t i = 0; i < n; i++) {
		if (i < N_RECENT)
			(void)json_array_append(ag_sys_array(out, "recent"), list[i].object);
		json_decref(list[i].object);
	}
}

static size_t put_owners(const struct rpm *rpm, rpmts ts, const char *path, json_t *owners)
{
	rpmdbMatchIterator it = rpm->rpmtsInitIterator(ts, RPMDBI_INSTFILENAMES, path, 0);
	Header h;

	while (it && (h = rpm->rpmdbNextIterator(it))) {
		json_t *owner = json_object();

		put_name(rpm, h, owner);
		ag_sys_append_take(owners, owner);
	}
	rpm->rpmdbFreeIterator(it);
	return json_array_size(owners);
}

static void put_owns(const struct rpm *rpm, const struct sys_ctx *ctx, rpmts ts, json_t *out)
{
	json_t *owns = ag_sys_object(out, "owns"), *owners = ag_sys_array(owns, "packages");
	const char *slash = strrchr(ctx->opt->owns, '/');
	CLEANUP(freep) char *folder = NULL;
	CLEANUP(freep) char *folder_real = NULL;
	char path[PATH_MAX];

	ag_sys_set_text(owns, "file", ctx->opt->owns);
	if (put_owners(rpm, ts, ctx->opt->owns, owners))
		return;
	/* /bin/sh is recorded as /usr/bin/sh; the file itself may be a link that a package owns. */
	folder = slash == NULL
	                 ? strdup(".")
	                 : strndup(ctx->opt->owns, slash == ctx->opt->owns ? 1 : (size_t)(slash - ctx->opt->owns));
	folder_real = folder && !*ctx->root ? realpath(folder, NULL) : NULL;
	if (folder_real && snprintf(path, sizeof(path), "%s/%s", strcmp(folder_real, "/") == 0 ? "" : folder_real,
	                            slash ? slash + 1 : ctx->opt->owns) < (int)sizeof(path))
		(void)put_owners(rpm, ts, path, owners);
	if (json_array_size(owners) == 0)
		ag_sys_note(owns, "No installed package owns {file}.", "没有已安装的软件包拥有 {file}。",
		            json_pack("{s:O}", "file", json_object_get(owns, "file")));
}

static const struct {
	uint32_t bit;
	const char *word;
} verify_words[] = { { RPMVERIFY_LSTATFAIL, "missing" },  { RPMVERIFY_FILEDIGEST, "content" },
	             { RPMVERIFY_FILESIZE, "size" },      { RPMVERIFY_LINKTO, "link" },
	             { RPMVERIFY_USER, "owner" },         { RPMVERIFY_GROUP, "group" },
	             { RPMVERIFY_MTIME, "time" },         { RPMVERIFY_MODE, "mode" },
	             { RPMVERIFY_RDEV, "device" },        { RPMVERIFY_CAPS, "capabilities" },
	             { RPMVERIFY_READFAIL, "unreadable" } };

static void put_file_problem(const struct rpm *rpm, rpmfi fi, json_t *verify)
{
	rpmfileAttrs attrs = rpm->rpmfiFFlags(fi);
	uint32_t bad;
	json_t *problem;

	if (attrs & RPMFILE_GHOST)
		return;
	bad = rpm->rpmfiVerify(fi, 0);
	if (!bad || json_array_size(json_object_get(verify, "problems")) >= MAX_PROBLEMS)
		return;
	problem = json_object();
	ag_sys_set_text(problem, "file", rpm->rpmfiFN(fi));
	(void)json_object_set_new(problem, "configuration", json_boolean(attrs & RPMFILE_CONFIG));
	for (size_t i = 0; i < sizeof(verify_words) / sizeof(verify_words[0]); i++) {
		if (bad & verify_words[i].bit)
			ag_sys_append_take(ag_sys_array(problem, "differs"), json_string(verify_words[i].word));
	}
	ag_sys_append_take(ag_sys_array(verify, "problems"), problem);
}

static void put_verify(const struct rpm *rpm, const struct sys_ctx *ctx, rpmts ts, json_t *out)
{
	json_t *verify = ag_sys_object(out, "verify");
	rpmdbMatchIterator it;
	uint64_t files = 0, packages = 0;
	Header h;

	ag_sys_set_text(verify, "package", ctx->opt->verify);
	if (*ctx->root) {
		ag_sys_note(verify, "Files can be verified on the running system only.",
		            "只能校验正在运行的系统的文件。", NULL);
		return;
	}
	it = rpm->rpmtsInitIterator(ts, RPMDBI_LABEL, ctx->opt->verify, 0);
	(void)ag_sys_array(verify, "problems");
	while (it && (h = rpm->rpmdbNextIterator(it))) {
		rpmfi fi = rpm->rpmfiNew(ts, h, RPMTAG_BASENAMES, RPMFI_KEEPHEADER);

		packages++;
		while (rpm->rpmfiNext(fi) >= 0) {
			files++;
			put_file_problem(rpm, fi, verify);
		}
		rpm->rpmfiFree(fi);
	}
	rpm->rpmdbFreeIterator(it);
	ag_sys_set_u64(verify, "files_checked", files);
	if (packages == 0)
		ag_sys_note(verify, "No package {name} is installed.", "没有安装软件包 {name}。",
		            json_pack("{s:O}", "name", json_object_get(verify, "package")));
}

/* What the database says of a package, of every installed version and architecture. */
static void put_query(const struct rpm *rpm, const struct sys_ctx *ctx, rpmts ts, json_t *out)
{
	static const struct {
		rpmTag tag;
		const char *key;
	} texts[] = { { RPMTAG_SUMMARY, "summary" },
		      { RPMTAG_VENDOR, "vendor" },
		      { RPMTAG_URL, "url" },
		      { RPMTAG_LICENSE, "license" },
		      { RPMTAG_SOURCERPM, "source" } };
	json_t *query = ag_sys_object(out, "query"), *found = ag_sys_array(query, "packages");
	rpmdbMatchIterator it = rpm->rpmtsInitIterator(ts, RPMDBI_LABEL, ctx->opt->package, 0);
	Header h;

	ag_sys_set_text(query, "package", ctx->opt->package);
	while (it && (h = rpm->rpmdbNextIterator(it))) {
		json_t *one = json_object();

		put_name(rpm, h, one);
		for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
			const char *text = rpm->headerGetString(h, texts[i].tag);

			if (text)
				ag_sys_set_text(one, texts[i].key, text);
		}
		ag_sys_set_u64(one, "installed_bytes", rpm->headerGetNumber(h, RPMTAG_LONGSIZE));
		ag_sys_set_u64(one, "time_s", rpm->headerGetNumber(h, RPMTAG_INSTALLTIME));
		ag_sys_append_take(found, one);
	}
	rpm->rpmdbFreeIterator(it);
	if (json_array_size(found) == 0)
		ag_sys_note(query, "No package {name} is installed.", "没有安装软件包 {name}。",
		            json_pack("{s:O}", "name", json_object_get(query, "package")));
}

void ag_sys_packages(const struct sys_ctx *ctx, json_t *out)
{
	const struct rpm *rpm = rpm_library();
	rpmts ts;

	if (!rpm) {
		ag_sys_note(out, "librpm is not on this machine, or too old: the package database cannot be read.",
		            "本机没有 librpm,或版本太旧:无法读取软件包数据库。", NULL);
		return;
	}
	(void)rpm->rpmlogSetMask(RPMLOG_UPTO(RPMLOG_EMERG)); /* what it would say goes into notes */
	if (rpm->rpmReadConfigFiles(NULL, NULL) != 0 || !find_database(rpm, ctx)) {
		ag_sys_note(out, "There is no rpm database here.", "这里没有 rpm 数据库。", NULL);
		return;
	}
	ts = rpm->rpmtsCreate();
	(void)rpm->rpmtsSetRootDir(ts, *ctx->root ? ctx->root : "/");
	/* Signatures were checked when the packages came; checking each header again takes seconds. */
	(void)rpm->rpmtsSetVSFlags(ts, RPMVSF_MASK_NODIGESTS | RPMVSF_MASK_NOSIGNATURES);
	put_installed(rpm, ts, out);
	if (ctx->opt->owns)
		put_owns(rpm, ctx, ts, out);
	if (ctx->opt->verify)
		put_verify(rpm, ctx, ts, out);
	if (ctx->opt->package)
		put_query(rpm, ctx, ts, out);
	if (ctx->opt->updates)
		ag_sys_updates(rpm, ctx, ts, out);
	(void)rpm->rpmtsCloseDB(ts);
	(void)rpm->rpmtsFree(ts);
}
