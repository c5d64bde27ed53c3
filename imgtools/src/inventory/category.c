/* What a file is for, by the conventions of where things lie (FHS 3.0, Python, RPM). The first row that fits counts. */
#include <fnmatch.h>
#include <string.h>

#include "inventory.h"

static const struct {
	const char *pattern;
	enum img_category category;
} rows[] = {
	{ "/var/lib/rpm/*", IMG_CAT_DATABASE },
	{ "/usr/lib/sysimage/rpm/*", IMG_CAT_DATABASE },
	{ "/root/.rpmdb/*", IMG_CAT_DATABASE },
	{ "/var/lib/dpkg/*", IMG_CAT_DATABASE },
	{ "/var/lib/dnf/*", IMG_CAT_DATABASE },
	{ "/usr/share/licenses/*", IMG_CAT_LICENCE },
	{ "/usr/share/common-licenses/*", IMG_CAT_LICENCE },
	{ "/usr/share/doc/*/copyright", IMG_CAT_LICENCE },
	{ "*/LICENSE*", IMG_CAT_LICENCE },
	{ "*/COPYING*", IMG_CAT_LICENCE },
	{ "/usr/share/doc/*", IMG_CAT_DOCUMENT },
	{ "/usr/share/man/*", IMG_CAT_DOCUMENT },
	{ "/usr/share/info/*", IMG_CAT_DOCUMENT },
	{ "/usr/share/locale/*", IMG_CAT_LOCALE },
	{ "/usr/share/i18n/*", IMG_CAT_LOCALE },
	{ "/usr/lib*/locale/*", IMG_CAT_LOCALE },
	{ "/usr/lib*/gconv/*", IMG_CAT_LOCALE },
	{ "/usr/lib/*/gconv/*", IMG_CAT_LOCALE },
	{ "/usr/share/zoneinfo*", IMG_CAT_TIMEZONE },
	{ "/etc/ssl/*", IMG_CAT_CERTIFICATE },
	{ "/etc/pki/*", IMG_CAT_CERTIFICATE },
	{ "/usr/share/ca-certificates/*", IMG_CAT_CERTIFICATE },
	{ "/usr/include/*", IMG_CAT_DEVELOPMENT },
	{ "*/pkgconfig/*", IMG_CAT_DEVELOPMENT },
	{ "*.a", IMG_CAT_DEVELOPMENT },
	{ "*.h", IMG_CAT_DEVELOPMENT },
	{ "*.so", IMG_CAT_LIBRARY },
	{ "*.so.*", IMG_CAT_LIBRARY },
	{ "*.py", IMG_CAT_PYTHON },
	{ "*.pyc", IMG_CAT_PYTHON },
	{ "/usr/lib*/python*", IMG_CAT_PYTHON },
	{ "/usr/local/lib*/python*", IMG_CAT_PYTHON },
	{ "/bin/*", IMG_CAT_PROGRAM },
	{ "/sbin/*", IMG_CAT_PROGRAM },
	{ "/usr/bin/*", IMG_CAT_PROGRAM },
	{ "/usr/sbin/*", IMG_CAT_PROGRAM },
	{ "/usr/local/bin/*", IMG_CAT_PROGRAM },
	{ "/usr/local/sbin/*", IMG_CAT_PROGRAM },
	{ "/usr/libexec/*", IMG_CAT_PROGRAM },
	{ "/etc/*", IMG_CAT_CONFIG },
};

static const char *const names[IMG_N_CATEGORIES] = {
	[IMG_CAT_PROGRAM] = "programs",
	[IMG_CAT_LIBRARY] = "libraries",
	[IMG_CAT_PYTHON] = "python",
	[IMG_CAT_CONFIG] = "configuration",
	[IMG_CAT_LOCALE] = "locale",
	[IMG_CAT_TIMEZONE] = "time zones",
	[IMG_CAT_CERTIFICATE] = "certificates",
	[IMG_CAT_DOCUMENT] = "documents",
	[IMG_CAT_LICENCE] = "licences",
	[IMG_CAT_DEVELOPMENT] = "development",
	[IMG_CAT_DATABASE] = "package database",
	[IMG_CAT_LINK] = "links",
	[IMG_CAT_DIRECTORY] = "directories",
	[IMG_CAT_OTHER] = "other",
};

enum img_category img_category_of(const struct img_node *n)
{
	if (n->type == IMG_DIR)
		return IMG_CAT_DIRECTORY;
	if (n->type == IMG_SYMLINK)
		return IMG_CAT_LINK;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		if (fnmatch(rows[i].pattern, n->path, 0) == 0)
			return rows[i].category;
	}
	return IMG_CAT_OTHER;
}

const char *img_category_name(enum img_category c)
{
	return names[c];
}
