/* flip snapshotter: the daemon, until a signal. SIGTERM and SIGINT leave the mounts to the next one. */
#include "commands.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/service.h"
#include "settings.h"

struct snapshotter {
	const char *root, *socket, *control, *log_level;
	bool show_config, unmount;
};

const struct opt snapshotter_opts[] = {
	{ "root", 0, OPT_STR, offsetof(struct snapshotter, root), "DIR", "folder of the store [/var/lib/flip]", NULL },
	{ "socket", 0, OPT_STR, offsetof(struct snapshotter, socket), "PATH",
	  "where containerd asks [/run/flip/flip.sock]", NULL },
	{ "control", 0, OPT_STR, offsetof(struct snapshotter, control), "PATH",
	  "where flip's own commands ask [/run/flip/control.sock]", NULL },
	{ "log-level", 0, OPT_CHOICE, offsetof(struct snapshotter, log_level), "LEVEL", "what is logged [info]",
	  "error,warn,info,debug" },
	{ "unmount", 0, OPT_FLAG, offsetof(struct snapshotter, unmount), NULL,
	  "at the end also unmount everything; running containers lose their files", NULL },
	{ "show-config", 0, OPT_FLAG, offsetof(struct snapshotter, show_config), NULL,
	  "print the merged configuration and where each value came from", NULL },
	{ 0 },
};

/* The folder of a socket under /run is made when it is missing. */
static void make_parent(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;

	if (slash && slash != copy) {
		*slash = '\0';
		(void)mkdir(copy, 0711);
	}
	free(copy);
}

static int serve(struct flip_settings *s, const sigset_t *signals, bool unmount, struct err *err)
{
	struct flip_grpc_server *server = NULL;
	struct flip_control *control = NULL;
	struct flip_node *node = NULL;
	struct flip_node_opts o;
	int r = flip_settings_node(s, &o, err), signal = 0;

	if (r == 0)
		r = flip_node_start(&o, &node, err);
	if (r < 0)
		return r;
	make_parent(s->socket);
	make_parent(s->control);
	r = flip_snapshots_serve(s->socket, &flip_node_snapshots_ops, node, &server, err);
	if (r == 0)
		r = flip_control_start(node, s->control, &control, err);
	if (r == 0) {
		base_log(BASE_LOG_INFO, "listening at %s", s->socket);
		base_service_notify("READY=1");
		(void)sigwait(signals, &signal);
		base_service_notify("STOPPING=1");
	}
	flip_grpc_stop(server);
	flip_control_stop(control);
	flip_node_stop(node, unmount);
	return r;
}

int cmd_snapshotter(int argc, char **argv)
{
	struct snapshotter o = { 0 };
	struct flip_settings s = { 0 };
	enum base_log_level level;
	struct err err = { 0 };
	sigset_t signals;
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n)
		return flip_usage(argv[0] ? "snapshotter" : "snapshotter",
		                  (err_set(&err, -EINVAL, "%s: not an argument", argv[0]), &err));
	r = flip_settings_load(&s, &err);
	if (r < 0)
		return flip_fail(&err);
	s.root = o.root ? o.root : s.root;
	s.socket = o.socket ? o.socket : s.socket;
	s.control = o.control ? o.control : s.control;
	s.log_level = o.log_level ? o.log_level : s.log_level;
	if (o.show_config) {
		base_config_show(s.config, &s, stdout);
		flip_settings_done(&s);
		return 0;
	}
	if (base_log_level_parse(s.log_level, &level, NULL) == 0)
		base_log_set_level(level);
	flip_block_signals(&signals);
	/* Threads that decode come and go through few arenas: less memory held for nothing. Fixed limits, as those that
	 * glibc learns from large buffers let an arena keep 64 MiB at its top, which malloc_trim() does not touch. */
	(void)mallopt(M_ARENA_MAX, 2);
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 1 << 20);
	r = serve(&s, &signals, o.unmount, &err);
	flip_settings_done(&s);
	return r < 0 ? flip_fail(&err) : 0;
}
