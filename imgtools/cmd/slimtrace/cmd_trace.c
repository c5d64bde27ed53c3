/* slimtrace trace: runs a command in a root, an image or here, and writes down what it touches. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "commands.h"
#include "image_progress.h"
#include "oci/oci.h"
#include "trace/tracer.h"

struct trace_options {
	const char *image, *root, *container, *output, *method, *user, *cwd, *scratch;
	struct opt_list env, mounts;
	double timeout_s;
	bool fresh_tmp, privileged, own_network_files, quiet;
};

const struct opt trace_opts[] = {
	{ "image", 'i', OPT_STR, offsetof(struct trace_options, image), "IMAGE",
	  "run in this image (oci:DIR:TAG, ...), with its environment, user and folder", NULL },
	{ "root", 'r', OPT_STR, offsetof(struct trace_options, root), "DIR",
	  "run in this root, which stays as it is; without a command: watch what others do in it", NULL },
	{ "container", 0, OPT_STR, offsetof(struct trace_options, container), "ID",
	  "watch this container of containerd, by fanotify; waits until it is there", NULL },
	{ "output", 'o', OPT_STR, offsetof(struct trace_options, output), "FILE", "the trace [slimtrace.trace]", NULL },
	{ "method", 'm', OPT_CHOICE, offsetof(struct trace_options, method), "HOW",
	  "ptrace: complete; stops: the same without seccomp notifications, slower; fanotify: cheap, sees only what is "
	  "opened [ptrace]",
	  "ptrace,stops,fanotify" },
	{ "user", 'u', OPT_STR, offsetof(struct trace_options, user), "USER[:GROUP]",
	  "run as this user of the root [the image's, root]", NULL },
	{ "cwd", 'C', OPT_STR, offsetof(struct trace_options, cwd), "DIR", "run in this folder [the image's, /]",
	  NULL },
	{ "env", 'e', OPT_LIST, offsetof(struct trace_options, env), "NAME=VALUE", "set in the environment; repeatable",
	  NULL },
	{ "mount", 'v', OPT_LIST, offsetof(struct trace_options, mounts), "SOURCE:TARGET[:ro]",
	  "show a file or folder of the host in the root; repeatable", NULL },
	{ "fresh-tmp", 0, OPT_FLAG, offsetof(struct trace_options, fresh_tmp), NULL, "empty /tmp and /run", NULL },
	{ "own-network-files", 0, OPT_FLAG, offsetof(struct trace_options, own_network_files), NULL,
	  "the root's own resolv.conf and hosts, not the host's", NULL },
	{ "scratch", 0, OPT_STR, offsetof(struct trace_options, scratch), "DIR",
	  "keep what the command writes in this folder meanwhile [memory]", NULL },
	{ "privileged", 0, OPT_FLAG, offsetof(struct trace_options, privileged), NULL, "keep all capabilities", NULL },
	{ "timeout", 't', OPT_DOUBLE, offsetof(struct trace_options, timeout_s), "SECONDS", "then end it [never]",
	  NULL },
	{ "quiet", 'q', OPT_FLAG, offsetof(struct trace_options, quiet), NULL, "no summary", NULL },
	{ 0 },
};

enum { MAX_MOUNTS = 64 };

/* What a run is made of, with all that has to live as long. */
struct setup {
	const struct trace_options *o;
	struct img_run run;
	const char *root;
	struct img_run_mount mounts[MAX_MOUNTS];
	char *mount_texts[MAX_MOUNTS];
	const char **env, **argv;
};

static int set_mounts(struct setup *s, struct err *err)
{
	if (s->o->mounts.n > MAX_MOUNTS)
		return err_set(err, -E2BIG, "more than %d mounts", MAX_MOUNTS);
	for (size_t i = 0; i < s->o->mounts.n; i++) {
		char *source = strdup(s->o->mounts.items[i]), *target, *flag;
		struct img_run_mount *m = &s->mounts[i];

		if (!source)
			return err_set(err, -ENOMEM, "out of memory");
		s->mount_texts[i] = source;
		target = strchr(source, ':');
		if (target)
			*target++ = '\0';
		flag = target ? strchr(target, ':') : NULL;
		if (flag)
			*flag++ = '\0';
		if (!target || target[0] != '/' || (flag && strcmp(flag, "ro") != 0))
			return err_set(err, -EINVAL, "--mount %s: not SOURCE:/TARGET or SOURCE:/TARGET:ro",
			               s->o->mounts.items[i]);
		*m = (struct img_run_mount){ source, target, flag != NULL };
	}
	s->run.mounts = s->mounts;
	s->run.n_mounts = s->o->mounts.n;
	return 0;
}

/* `base` first, then what was asked for (which wins: the last of a name counts, so earlier ones are left out). */
static int set_env(struct setup *s, const char *const *base, struct err *err)
{
	size_t n = 0;

	while (base[n])
		n++;
	s->env = calloc(n + s->o->env.n + 1, sizeof(*s->env));
	if (!s->env)
		return err_set(err, -ENOMEM, "out of memory");
	n = 0;
	for (size_t i = 0; i < s->o->env.n; i++) {
		if (!strchr(s->o->env.items[i], '='))
			return err_set(err, -EINVAL, "--env %s: not NAME=VALUE", s->o->env.items[i]);
		s->env[n++] = s->o->env.items[i];
	}
	for (; *base; base++) {
		size_t len = strcspn(*base, "="), i = 0;

		while (i < s->o->env.n && strncmp(s->o->env.items[i], *base, len + 1) != 0)
			i++;
		if (i == s->o->env.n)
			s->env[n++] = *base;
	}
	s->run.env = s->env;
	return 0;
}

static void setup_done(struct setup *s)
{
	for (size_t i = 0; i < MAX_MOUNTS; i++)
		free(s->mount_texts[i]);
	free(s->env);
	free(s->argv);
}

static void print_summary(const struct img_trace *t, const char *file)
{
	size_t n[IMG_N_ACCESS] = { 0 };

	for (size_t i = 0; i < img_trace_count(t); i++)
		n[img_trace_at(t, i)->access]++;
	(void)fprintf(
	        stderr,
	        "slimtrace: %s: %zu opened, %zu executed, %zu by the kernel, %zu looked at, %zu links, %zu listed, "
	        "%zu made, %zu missed; %zu processes\n",
	        file, n[IMG_ACCESS_OPEN], n[IMG_ACCESS_EXEC], n[IMG_ACCESS_KERNEL], n[IMG_ACCESS_STAT],
	        n[IMG_ACCESS_READLINK], n[IMG_ACCESS_READDIR], n[IMG_ACCESS_CREATE], n[IMG_ACCESS_MISS],
	        img_trace_n_processes(t));
}

static int finish(const struct trace_options *o, const struct img_trace *t, int code, struct err *err)
{
	const char *file = o->output ? o->output : "slimtrace.trace";

	if (img_trace_write(t, file, err) < 0)
		return slimtrace_fail(err);
	if (!o->quiet)
		print_summary(t, file);
	return code;
}

/* ---- Running ---------------------------------------------------------------------------------------------- */

static enum img_trace_method method_of(const struct trace_options *o)
{
	if (o->method && strcmp(o->method, "fanotify") == 0)
		return IMG_TRACE_FANOTIFY;
	return o->method && strcmp(o->method, "stops") == 0 ? IMG_TRACE_STOPS : IMG_TRACE_PTRACE;
}

static int run_traced(struct setup *s, struct err *err)
{
	const struct trace_options *o = s->o;
	struct img_run_result result = { 0 };
	struct img_trace *trace = NULL;
	int code;

	if (img_trace_run(&s->run, method_of(o), &trace, &result, err) < 0)
		return slimtrace_fail(err);
	if (result.notes[0] && !o->quiet)
		(void)fprintf(stderr, "slimtrace: %s\n", result.notes);
	if (result.timed_out)
		(void)fprintf(stderr, "slimtrace: %s: ended after %g s\n", s->run.argv[0], o->timeout_s);
	code = finish(o, trace, result.exit_code, err);
	img_trace_free(trace);
	img_run_result_done(&result);
	return code;
}

/* ---- Images ----------------------------------------------------------------------------------------------- */

/* An image as a root in a temporary folder. */
struct unpacked {
	struct img_image *image;
	char *folder;
	char *root;
};

static int make_folder(struct unpacked *u, struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	int r;

	if (asprintf(&u->folder, "%s/slimtrace-image-XXXXXX", tmp && tmp[0] == '/' ? tmp : "/var/tmp") < 0) {
		u->folder = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	if (!mkdtemp(u->folder)) {
		r = err_set(err, -errno, "%s: %s", u->folder, strerror(errno));
		free(u->folder);
		u->folder = NULL;
		return r;
	}
	if (asprintf(&u->root, "%s/root", u->folder) < 0) {
		u->root = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* Ctrl-C ends it between two blocks of a layer; what lies there by then goes with the folder. Files are moved from
 * where the layers were unpacked, so the second step takes no time worth looking for signals in. */
static int unpack(const char *name, struct unpacked *u, struct err *err)
{
	struct img_open_opts o = { .progress = image_progress() };
	size_t n_skipped = 0;
	int r = make_folder(u, err);

	if (r < 0)
		return r;
	o.work_dir = u->folder;
	r = img_image_open(name, &o, &u->image, err);
	image_progress_clear();
	if (r == 0)
		r = img_image_unpack(u->image, u->root, &n_skipped, err);
	return r == 0 && image_is_interrupted(NULL) ? err_set(err, -ECANCELED, "%s: interrupted", name) : r;
}

static void unpacked_done(struct unpacked *u)
{
	img_image_close(u->image);
	if (u->folder)
		img_run_remove_tree(u->folder);
	free(u->root);
	free(u->folder);
}

/* What the image says of how to run it, where the command line does not. */
static int set_image(struct setup *s, const struct img_config *c, struct err *err)
{
	size_t n = 0;

	if (!s->run.user && c->user && c->user[0])
		s->run.user = c->user;
	if (!s->run.cwd && c->workdir && c->workdir[0] == '/')
		s->run.cwd = c->workdir;
	if (s->run.argv[0])
		return 0;
	s->argv = calloc(c->entrypoint.n + c->cmd.n + 1, sizeof(*s->argv));
	if (!s->argv)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < c->entrypoint.n; i++)
		s->argv[n++] = c->entrypoint.items[i];
	for (size_t i = 0; i < c->cmd.n; i++)
		s->argv[n++] = c->cmd.items[i];
	s->run.argv = s->argv;
	return n ? 0 : err_set(err, -EINVAL, "no command: neither here nor in the image");
}

static int set_image_env(struct setup *s, const struct img_config *c, struct err *err)
{
	const char **base = calloc(c->env.n + 1, sizeof(*base));
	int r;

	if (!base)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < c->env.n; i++)
		base[i] = c->env.items[i];
	r = set_env(s, base, err);
	free(base);
	return r;
}

static int trace_command(const struct trace_options *o, const char *const *argv)
{
	static const char *const empty[] = { NULL };
	struct setup s = { .o = o, .root = o->root };
	struct unpacked u = { 0 };
	struct err err = { 0 };
	int code, r;

	s.run = (struct img_run){ .argv = argv,
		                  .cwd = o->cwd,
		                  .user = o->user,
		                  .roots = &s.root,
		                  .n_roots = o->root || o->image,
		                  .scratch = o->scratch,
		                  .fresh_tmp = o->fresh_tmp,
		                  .own_network_files = o->own_network_files,
		                  .privileged = o->privileged,
		                  .timeout_ms = o->timeout_s > 0 ? (uint64_t)(o->timeout_s * 1000) + 1 : 0,
		                  .forward_signals = true };
	if (set_mounts(&s, &err) < 0) {
		code = slimtrace_usage("trace", &err);
		goto out;
	}
	r = o->image ? unpack(o->image, &u, &err) : 0;
	if (r == 0 && o->image) {
		s.root = u.root;
		r = set_image(&s, u.image->config, &err);
		if (r == 0)
			r = set_image_env(&s, u.image->config, &err);
	} else if (r == 0) {
		r = set_env(&s, o->root ? empty : (const char *const *)environ, &err);
	}
	code = r < 0 ? slimtrace_fail(&err) : run_traced(&s, &err);
out:
	setup_done(&s);
	unpacked_done(&u);
	return code;
}

/* ---- Watching --------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t must_stop;

static void on_stop_signal(int sig)
{
	must_stop = sig;
}

static void *run_beside(void *arg)
{
	struct img_run_result result = { 0 };
	struct err err = { 0 };
	intptr_t code;

	if (img_run(arg, &result, &err) < 0) {
		code = slimtrace_fail(&err);
	} else {
		code = result.exit_code;
		img_run_result_done(&result);
	}
	must_stop = 1;
	return (void *)code;
}

/* Listens until the command ends, which runs here and not in the root; without one until a signal says stop. */
static int watch(const struct trace_options *o, const char *const *argv)
{
	struct img_run run = { .argv = argv, .cwd = o->cwd };
	struct sigaction sa = { .sa_handler = on_stop_signal };
	CLEANUP(freep) char *root = NULL;
	struct img_trace *trace = NULL;
	struct err err = { 0 };
	void *code = NULL;
	pthread_t thread;
	int r;

	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
	if (argv[0] && pthread_create(&thread, NULL, run_beside, &run) != 0)
		return slimtrace_fail(&(struct err){ .msg = "a thread cannot be started" });
	r = o->container ? img_trace_find_container(o->container, &must_stop, 0, &root, &err) : 0;
	if (r == 0 && !o->quiet && !argv[0])
		(void)fprintf(stderr, "slimtrace: watching %s, until Ctrl-C\n", root ? root : o->root);
	if (r == 0)
		r = img_trace_watch(root ? root : o->root, &must_stop, &trace, &err);
	if (argv[0])
		(void)pthread_join(thread, &code);
	if (r < 0)
		return slimtrace_fail(&err);
	r = finish(o, trace, (int)(intptr_t)code, &err);
	img_trace_free(trace);
	return r;
}

static int check_options(const struct trace_options *o, bool has_command, struct err *err)
{
	if ((o->image != NULL) + (o->root != NULL) + (o->container != NULL) > 1)
		return err_set(err, -EINVAL, "--image, --root and --container exclude each other");
	if (o->container && o->method && strcmp(o->method, "fanotify") != 0)
		return err_set(err, -EINVAL, "a container is watched by fanotify, not by %s", o->method);
	if (!has_command && !o->image && !o->container && !(o->root && o->method && strcmp(o->method, "fanotify") == 0))
		return err_set(err, -EINVAL, "no command");
	if (o->scratch && o->scratch[0] != '/')
		return err_set(err, -EINVAL, "--scratch %s: not an absolute path", o->scratch);
	if (o->timeout_s < 0 || o->timeout_s > 1e9)
		return err_set(err, -EINVAL, "--timeout: not a time");
	return 0;
}

int cmd_trace(int argc, char **argv)
{
	struct trace_options o = { 0 };
	struct err err = { 0 };
	int n_args, code;

	code = slimtrace_options(argc, argv, &o, &n_args);
	if (code >= 0)
		goto out;
	argv[n_args] = NULL;
	if (check_options(&o, n_args > 0, &err) < 0)
		code = slimtrace_usage("trace", &err);
	else if (o.container || (o.root && n_args == 0))
		code = watch(&o, (const char *const *)argv);
	else
		code = trace_command(&o, (const char *const *)argv);
out:
	opt_list_done(&o.env);
	opt_list_done(&o.mounts);
	return code;
}
