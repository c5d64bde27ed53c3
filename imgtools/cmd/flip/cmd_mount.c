/* flip mount, flip unmount: an image's files at a folder, by the daemon. */
#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

struct mount {
	const char *control;
};

const struct opt mount_opts[] = {
	{ "control", 0, OPT_STR, offsetof(struct mount, control), "PATH", "the daemon's control socket", NULL },
	{ 0 },
};

static int post(const struct mount *o, const char *path, const char *ref, const char *dir, struct err *err)
{
	struct base_buf query = BASE_BUF_INIT(32 << 10), body = BASE_BUF_INIT(1 << 20);
	struct flip_settings s = { 0 };
	char *real = realpath(dir, NULL);
	int r = real ? flip_settings_load(&s, err) : err_set(err, -errno, "%s: %s", dir, strerror(errno));

	if (r < 0)
		goto out;
	s.control = o->control ? o->control : s.control;
	(void)base_buf_printf(&query, "%s?dir=", path);
	flip_append_escaped(&query, real);
	if (ref) {
		(void)base_buf_puts(&query, "&ref=");
		flip_append_escaped(&query, ref);
	}
	r = base_buf_error(&query);
	r = r < 0 ? err_set(err, r, "the arguments are too long")
	          : flip_ask(&s, "POST", base_buf_text(&query), &body, err);
out:
	free(real);
	base_buf_done(&query);
	base_buf_done(&body);
	flip_settings_done(&s);
	return r;
}

static int run(int argc, char **argv, const char *name, const char *path, int n_wanted, const char *what)
{
	struct mount o = { 0 };
	struct err err = { 0 };
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n != n_wanted) {
		(void)err_set(&err, -EINVAL, "%s", what);
		return flip_usage(name, &err);
	}
	r = post(&o, path, n_wanted == 2 ? argv[0] : NULL, argv[n_wanted - 1], &err);
	return r < 0 ? flip_fail(&err) : 0;
}

int cmd_mount(int argc, char **argv)
{
	return run(argc, argv, "mount", "/v1/mount", 2, "an image and a folder are needed");
}

int cmd_unmount(int argc, char **argv)
{
	return run(argc, argv, "unmount", "/v1/unmount", 1, "a folder is needed");
}
