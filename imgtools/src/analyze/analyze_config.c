/* Configuration that names files: each kind of file is a row. Only what is loaded without anybody's code naming it is
 * looked for here: name services, PAM modules, the commands of units, included files. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"
#include "base/cleanup.h"

enum { CONFIG_MAX = 4 << 20 };

/* A library of one of the folders, or of a subfolder of them. */
static int need_library_file(struct img_look *k, const char *subdir, const char *name, bool is_weak)
{
	char path[IMG_PATH_MAX];

	for (size_t i = 0; i < k->a->library_dirs.n; i++) {
		struct img_node *to;

		if (snprintf(path, sizeof(path), "%s/%s%s", k->a->library_dirs.v[i], subdir, name) >= (int)sizeof(path))
			continue;
		to = img_look_resolve(k, path, is_weak);
		if (to)
			return img_look_need(k, IMG_NEED_CONFIG, name, to, is_weak);
	}
	return is_weak ? 0 : img_look_need(k, IMG_NEED_CONFIG, name, NULL, true);
}

/* "passwd: files systemd [NOTFOUND=return]": libnss_files.so.2, ... (files and dns are inside libc since glibc 2.34).
 */
static int nsswitch_line(struct img_look *k, char *line)
{
	char *colon = strchr(line, ':'), *save = NULL, name[128];

	for (char *w = colon ? strtok_r(colon + 1, " \t", &save) : NULL; w && k->stopped == 0;
	     w = strtok_r(NULL, " \t", &save)) {
		if (w[0] == '[' || strlen(w) > 64)
			continue;
		(void)snprintf(name, sizeof(name), "libnss_%s.so.2", w);
		(void)need_library_file(k, "", name, true);
	}
	return k->stopped;
}

/* "auth required pam_unix.so nullok": the third word, or the one behind [..]; "@include common-auth", "auth include x".
 */
static int pam_line(struct img_look *k, char *line)
{
	char *save = NULL, path[IMG_PATH_MAX];

	for (char *w = strtok_r(line, " \t", &save); w && k->stopped == 0; w = strtok_r(NULL, " \t", &save)) {
		size_t len = strlen(w);

		if (len > 3 && strcmp(w + len - 3, ".so") == 0) {
			if (w[0] == '/')
				(void)img_look_need(k, IMG_NEED_CONFIG, w, img_look_resolve(k, w, false), false);
			else
				(void)need_library_file(k, "security/", w, true);
			break;
		}
		if (strcmp(w, "@include") == 0 || strcmp(w, "include") == 0 || strcmp(w, "substack") == 0) {
			char *file = strtok_r(NULL, " \t", &save);
			struct img_node *to;

			if (!file || snprintf(path, sizeof(path), "/etc/pam.d/%s", file) >= (int)sizeof(path))
				break;
			to = img_look_resolve(k, path, false);
			if (to)
				(void)img_look_need(k, IMG_NEED_CONFIG, file, to, false);
			break;
		}
	}
	return k->stopped;
}

/* "ExecStart=-/usr/sbin/x -f /etc/x.conf": the program, and absolute paths among the arguments. */
static int unit_line(struct img_look *k, char *line)
{
	char *save = NULL, *value = strchr(line, '=');
	bool is_program = true;

	if (strncmp(line, "Exec", 4) != 0 && strncmp(line, "EnvironmentFile", 15) != 0)
		return 0;
	for (char *w = value ? strtok_r(value + 1, " \t", &save) : NULL; w && k->stopped == 0;
	     w = strtok_r(NULL, " \t", &save)) {
		struct img_node *to;

		w += strspn(w, is_program ? "-@:+!" : "");
		to = w[0] == '/' ? img_look_resolve(k, w, !is_program) : NULL;
		if (to && to->type == IMG_FILE)
			(void)img_look_need(k, IMG_NEED_CONFIG, w, to, !is_program);
		is_program = false;
	}
	return k->stopped;
}

/* "include /etc/nginx/conf.d/x.conf;", "Include conf.d/x": one path without patterns. */
static int include_line(struct img_look *k, char *line)
{
	char *save = NULL, *word = strtok_r(line, " \t", &save), *file = strtok_r(NULL, " \t;\"", &save);
	struct img_node *to;

	if (!word || !file || strcasecmp(word, "include") != 0 || file[0] != '/')
		return 0;
	to = img_look_resolve(k, file, true);
	return to ? img_look_need(k, IMG_NEED_CONFIG, file, to, false) : k->stopped;
}

static const struct {
	const char *pattern;
	int (*line)(struct img_look *k, char *line);
} kinds[] = {
	{ "/etc/nsswitch.conf", nsswitch_line },
	{ "/etc/pam.d/*", pam_line },
	{ "*/systemd/*.service", unit_line },
	{ "/etc/*.conf", include_line },
};

int img_analyze_config(struct img_look *k)
{
	CLEANUP(freep) char *text = NULL;
	char *save = NULL;
	size_t size, i = 0;

	while (i < sizeof(kinds) / sizeof(*kinds) && fnmatch(kinds[i].pattern, k->n->path, 0) != 0)
		i++;
	if (i == sizeof(kinds) / sizeof(*kinds))
		return 0;
	text = img_look_text(k, CONFIG_MAX, &size);
	for (char *line = text ? strtok_r(text, "\r\n", &save) : NULL; line && k->stopped == 0;
	     line = strtok_r(NULL, "\r\n", &save)) {
		line += strspn(line, " \t");
		if (line[0] != '#' && line[0] != ';')
			(void)kinds[i].line(k, line);
	}
	return k->stopped;
}
