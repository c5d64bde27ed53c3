/* Which slice a file belongs to: a table of rules over its path and its package's flags, the first that fits. In
 * patterns `*` matches everything, '/' too. */
#include <fnmatch.h>
#include <string.h>

#include "slices.h"

enum { ANY = 0, DIRS = 1, LINKS = 2, FILES = 4, PROGRAMS = 8 /* files with an x bit */ };

struct rule {
	const char *role;
	const char *pattern; /* NULL: any path */
	uint32_t flags;      /* IMG_RPMFILE_*, any of them; 0: does not matter */
	int types;
};

static const struct rule rules[] = {
	{ "licenses", NULL, IMG_RPMFILE_LICENSE, FILES | LINKS },
	{ "licenses", "/usr/share/licenses/*", 0, FILES | LINKS },
	{ "docs", NULL, IMG_RPMFILE_DOC | IMG_RPMFILE_README, FILES | LINKS },
	{ "docs", "/usr/share/doc/*", 0, FILES | LINKS },
	{ "docs", "/usr/share/man/*", 0, FILES | LINKS },
	{ "docs", "/usr/share/info/*", 0, FILES | LINKS },
	{ "docs", "/usr/share/gtk-doc/*", 0, FILES | LINKS },
	{ "debug", "/usr/lib/debug/*", 0, ANY },
	{ "debug", "/usr/lib/.build-id/*", 0, ANY },
	{ "debug", "/usr/src/*", 0, ANY },
	{ "extras", "/usr/share/bash-completion/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/zsh/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/fish/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/lintian/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/bug/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/menu/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/doc-base/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/applications/*", 0, FILES | LINKS },
	{ "extras", "/usr/share/initramfs-tools/*", 0, FILES | LINKS },
	{ "locale", "/usr/share/locale/*", 0, FILES | LINKS },
	{ "locale", "/usr/lib/locale/*", 0, FILES | LINKS },
	{ "locale", "/usr/share/i18n/*", 0, FILES | LINKS },
	{ "gconv", "/usr/lib*/gconv/*", 0, FILES | LINKS },
	{ "zoneinfo", "/usr/share/zoneinfo/*", 0, FILES | LINKS },
	{ "terminfo", "/usr/share/terminfo/*", 0, FILES | LINKS },
	{ "terminfo", "/usr/lib/terminfo/*", 0, FILES | LINKS },
	{ "terminfo", "/lib/terminfo/*", 0, FILES | LINKS },
	{ "services", "/usr/lib/systemd/*", 0, FILES | LINKS },
	{ "services", "/lib/systemd/*", 0, FILES | LINKS },
	{ "services", "/etc/systemd/*", 0, FILES | LINKS },
	{ "services", "/etc/init.d/*", 0, FILES | LINKS },
	{ "services", "/usr/lib/sysusers.d/*", 0, FILES | LINKS },
	{ "services", "/usr/lib/tmpfiles.d/*", 0, FILES | LINKS },
	{ "services", "/usr/lib/udev/*", 0, FILES | LINKS },
	{ "config", NULL, IMG_RPMFILE_CONFIG, FILES | LINKS },
	{ "config", "/etc/*", 0, FILES | LINKS },
	{ "python", "/usr/lib*/python[0-9]*", 0, FILES | LINKS },
	{ "python", "/usr/share/python[0-9]*", 0, FILES | LINKS },
	{ "perl", "/usr/lib*/perl*/*", 0, FILES | LINKS },
	{ "perl", "/usr/share/perl*/*", 0, FILES | LINKS },
	{ "devel", "/usr/include/*", 0, FILES | LINKS },
	{ "devel", "*/pkgconfig/*", 0, FILES | LINKS },
	{ "devel", "/usr/lib*/cmake/*", 0, FILES | LINKS },
	{ "devel", "/usr/share/cmake*", 0, FILES | LINKS },
	{ "devel", "/usr/share/aclocal*", 0, FILES | LINKS },
	{ "devel", "/usr/lib*.a", 0, FILES | LINKS },
	{ "devel", "/usr/lib*.la", 0, FILES | LINKS },
	{ "devel", "/usr/lib*/crt?.o", 0, FILES | LINKS },
	{ "bins", "/usr/bin/*", 0, FILES | LINKS },
	{ "bins", "/usr/sbin/*", 0, FILES | LINKS },
	{ "bins", "/bin/*", 0, FILES | LINKS },
	{ "bins", "/sbin/*", 0, FILES | LINKS },
	{ "bins", "/usr/local/bin/*", 0, FILES | LINKS },
	{ "bins", "/usr/games/*", 0, FILES | LINKS },
	{ "bins", "/usr/libexec/*", 0, PROGRAMS | LINKS },
	{ "plugins", "/usr/lib*/*/*/*.so*", 0, FILES | LINKS },
	{ "plugins", "/usr/lib64/*/*.so*", 0, FILES | LINKS },
	{ "libs", "/usr/lib*.so*", 0, FILES | LINKS },
	{ "libs", "/lib*.so*", 0, FILES | LINKS },
	{ "libs", "/opt/*.so*", 0, FILES | LINKS },
	{ "bins", "/usr/lib*", 0, PROGRAMS },
	{ "links", "/*", 0, LINKS },
	{ "dirs", NULL, 0, DIRS },
	{ "data", NULL, 0, ANY },
};

static const struct {
	const char *role, *help;
	bool is_runtime;
} roles[] = {
	{ "bins", "programs", true },
	{ "libs", "shared libraries", true },
	{ "plugins", "libraries that are opened by name", true },
	{ "python", "Python modules", true },
	{ "perl", "Perl modules", true },
	{ "config", "configuration", true },
	{ "data", "everything else that is read", true },
	{ "links", "symbolic links outside the other roles", true },
	{ "dirs", "empty folders", true },
	{ "parents", "folders with files in them, which come with those", false },
	{ "gconv", "character set conversions", false },
	{ "locale", "translations and locales", false },
	{ "terminfo", "terminal descriptions", false },
	{ "zoneinfo", "time zones", false },
	{ "services", "units, users, temporary files, device rules", false },
	{ "licenses", "licences", false },
	{ "docs", "documentation", false },
	{ "devel", "headers, link libraries, build files", false },
	{ "debug", "debugging information, sources", false },
	{ "extras", "completions, menus, hints for other tools", false },
};

static bool type_fits(const struct img_rpm_file *f, int types)
{
	if (types == ANY)
		return true;
	switch (f->type) {
	case IMG_DIR:
		return types & DIRS;
	case IMG_SYMLINK:
		return types & LINKS;
	case IMG_FILE:
		return types & FILES || (types & PROGRAMS && f->mode & 0111);
	default:
		return false;
	}
}

/* libx.so -> libx.so.1: only the linker of a compiler asks for the name without a version. */
static bool is_devel_link(const struct img_rpm_file *f)
{
	const size_t n = strlen(f->path);

	return f->type == IMG_SYMLINK && n > 3 && strcmp(f->path + n - 3, ".so") == 0 && strstr(f->target, ".so.");
}

/* Folders with something of the same package in them come with that; only the others have to be named. */
static bool has_children(const struct img_rpm *p, const struct img_rpm_file *f)
{
	const size_t len = strlen(f->path);

	if (f->type != IMG_DIR || !p || !p->files)
		return false;
	/* Sorted bytewise: "/a-b" stands between "/a" and "/a/b". */
	for (const struct img_rpm_file *next = f + 1; next < p->files + p->n_files; next++) {
		if (strncmp(next->path, f->path, len) != 0)
			return false;
		if (next->path[len] == '/')
			return true;
	}
	return false;
}

const char *img_slice_role(const struct img_rpm *p, const struct img_rpm_file *f)
{
	if (has_children(p, f))
		return "parents";
	if (is_devel_link(f) && strncmp(f->path, "/usr/lib", 8) == 0)
		return "devel";
	for (size_t i = 0;; i++) {
		const struct rule *r = &rules[i];

		if (type_fits(f, r->types) && (!r->flags || f->flags & r->flags) &&
		    (!r->pattern || fnmatch(r->pattern, f->path, 0) == 0))
			return r->role; /* the last rule fits all */
	}
}

bool img_slice_role_is_runtime(const char *role)
{
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		if (strcmp(roles[i].role, role) == 0)
			return roles[i].is_runtime;
	}
	return false;
}

const char *img_slice_role_at(size_t i, const char **ret_help)
{
	if (i >= sizeof(roles) / sizeof(roles[0]))
		return NULL;
	if (ret_help)
		*ret_help = roles[i].help;
	return roles[i].role;
}
