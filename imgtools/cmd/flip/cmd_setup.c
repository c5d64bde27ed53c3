/* flip setup containerd: the lines that make containerd use us, between two marks in its configuration, so that --undo
 * finds them again. What is already configured otherwise is not touched. */
#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/mapfile.h"
#include "settings.h"

#define BEGIN "# begin of flip's lines (flip setup containerd --undo takes them back)\n"
#define END "# end of flip's lines\n"

enum { MAX_CONFIG = 4 << 20 };

struct setup {
	const char *config, *socket, *name;
	bool undo, print, cri;
};

const struct opt setup_opts[] = {
	{ "config", 'c', OPT_STR, offsetof(struct setup, config), "FILE",
	  "containerd's configuration [/etc/containerd/config.toml]", NULL },
	{ "socket", 0, OPT_STR, offsetof(struct setup, socket), "PATH", "where the daemon listens", NULL },
	{ "name", 0, OPT_STR, offsetof(struct setup, name), "NAME", "what containerd calls us [flip]", NULL },
	{ "cri", 0, OPT_FLAG, offsetof(struct setup, cri), NULL, "also let Kubernetes start its containers by us",
	  NULL },
	{ "undo", 0, OPT_FLAG, offsetof(struct setup, undo), NULL, "take the lines out again", NULL },
	{ "print", 0, OPT_FLAG, offsetof(struct setup, print), NULL, "print what would be written", NULL },
	{ 0 },
};

/* The file without what we wrote before. */
static int without_ours(const char *text, struct base_buf *out, const char *path, struct err *err)
{
	const char *begin = strstr(text, BEGIN), *end = begin ? strstr(begin, END) : NULL;

	if (begin && !end)
		return err_set(err, -EBADMSG, "%s: the line \"%.*s\" is missing behind ours", path,
		               (int)strlen(END) - 1, END);
	if (!begin)
		return base_buf_puts(out, text);
	(void)base_buf_append(out, text, (size_t)(begin - text));
	return base_buf_puts(out, end + strlen(END));
}

/* Where the settings are by which Kubernetes's images are made ready: version 3 of the file (containerd 2) has another
 * table for them than those before. */
static const char *const cri_tables[][2] = {
	{ "[plugins.\"io.containerd.grpc.v1.cri\".containerd]", "[plugins.'io.containerd.grpc.v1.cri'.containerd]" },
	{ "[plugins.\"io.containerd.cri.v1.images\"]", "[plugins.'io.containerd.cri.v1.images']" },
};

static const char *const *cri_table(const char *text)
{
	int version;

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (sscanf(line, "version = %d", &version) == 1)
			return cri_tables[version >= 3];
	}
	return cri_tables[0];
}

static int add_ours(struct base_buf *out, const struct setup *o, struct err *err)
{
	const char *text = base_buf_text(out), *const *cri = cri_table(text);
	char plugin[128];

	(void)snprintf(plugin, sizeof(plugin), "[proxy_plugins.%.90s]", o->name);
	if (strstr(text, plugin))
		return err_set(err, -EEXIST, "%s: has a %s already", o->config, plugin);
	if (o->cri && (strstr(text, cri[0]) || strstr(text, cri[1])))
		return err_set(err, -EEXIST,
		               "%s: has a table %s; put snapshotter = \"%s\" and disable_snapshot_annotations = "
		               "false into it",
		               o->config, cri[0], o->name);
	if (!out->len)
		(void)base_buf_puts(out, "version = 2\n");
	else if (out->data[out->len - 1] != '\n')
		(void)base_buf_putc(out, '\n');
	(void)base_buf_printf(out, BEGIN "%s\n  type = \"snapshot\"\n  address = \"%s\"\n", plugin, o->socket);
	if (o->cri)
		(void)base_buf_printf(out, "%s\n  snapshotter = \"%s\"\n  disable_snapshot_annotations = false\n",
		                      cri[0], o->name);
	return base_buf_puts(out, END);
}

static int setup(const struct setup *o, struct err *err)
{
	struct base_buf old = BASE_BUF_INIT(MAX_CONFIG), new = BASE_BUF_INIT(MAX_CONFIG + 4096);
	int r = base_read_file(o->config, &old, err);

	if (r == -ENOENT)
		r = 0;
	if (r == 0 && old.len && strlen(old.data) != old.len)
		r = err_set(err, -EBADMSG, "%s: is no text", o->config);
	if (r == 0)
		r = without_ours(base_buf_text(&old), &new, o->config, err);
	if (r == 0 && !o->undo)
		r = add_ours(&new, o, err);
	if (r == 0 && o->print) {
		(void)printf("%s", base_buf_text(&new));
	} else if (r == 0 && strcmp(base_buf_text(&old), base_buf_text(&new)) != 0) {
		r = base_write_file_atomic(o->config, base_buf_text(&new), new.len, 0644, err);
		if (r == 0)
			(void)printf("%s: %s; restart containerd\n", o->config,
			             o->undo ? "flip's lines are out" : "written");
	}
	base_buf_done(&old);
	base_buf_done(&new);
	return r;
}

int cmd_setup(int argc, char **argv)
{
	struct setup o = { .config = "/etc/containerd/config.toml", .name = "flip" };
	struct flip_settings s = { 0 };
	struct err err = { 0 };
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n != 1 || strcmp(argv[0], "containerd") != 0) {
		(void)err_set(&err, -EINVAL, "what is to be set up? \"containerd\"");
		return flip_usage("setup", &err);
	}
	if (strspn(o.name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != strlen(o.name) ||
	    !*o.name) {
		(void)err_set(&err, -EINVAL, "--name: letters, digits, '-' and '_' only");
		return flip_usage("setup", &err);
	}
	r = flip_settings_load(&s, &err);
	if (r == 0) {
		o.socket = o.socket ? o.socket : s.socket;
		r = strpbrk(o.socket, "\"\\\n") ? err_set(&err, -EINVAL, "%s: cannot stand in the file", o.socket)
		                                : setup(&o, &err);
	}
	flip_settings_done(&s);
	return r < 0 ? flip_fail(&err) : 0;
}
