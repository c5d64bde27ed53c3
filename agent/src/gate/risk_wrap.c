/* Programs that run another command: sudo, env, timeout, xargs, bash -c, ssh and some seventy more. A table says how
 * their options are passed over; what is left is judged as a command of its own. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "risk_internal.h"

enum wrap_mode {
	WRAP_ARGV,  /* the rest is a command */
	WRAP_TEXT,  /* the rest, joined, is a line for a shell */
	WRAP_SHELL, /* a shell: -c LINE, a script, or standard input */
	WRAP_SU,    /* options and a user, then -c LINE or -- COMMAND */
	WRAP_XARGS, /* the rest is a command, with arguments that come later */
	WRAP_DASH,  /* only what follows "--", else -c LINE */
	WRAP_LAST,  /* the last word is a line for a shell (scl enable, flock -c) */
};

struct wrap {
	const char *names;
	const char *with_value; /* options that take the next word; '|' between */
	unsigned skip;          /* words before the command: timeout's duration, ssh's host */
	enum wrap_mode mode;
	unsigned flags;
};

static const struct wrap wraps[] = {
	{ "sudo|sudoedit",
	  "-u|--user|-g|--group|-h|--host|-p|--prompt|-C|--close-from|-r|--role|-t|--type|-D|--chdir|-R|--chroot|-T|--"
	  "command-timeout|-U|--other-user",
	  0, WRAP_ARGV, AG_GATE_ROOT },
	{ "doas|pkexec|run0|dzdo|please",
	  "-u|-C|--user|-a|-g|--group|-D|--chdir|--nice|--property|--unit|--slice|--description|--setenv|--background|-"
	  "-machine",
	  0, WRAP_ARGV, AG_GATE_ROOT },
	{ "su|runuser", "-s|--shell|-g|--group|-G|--supp-group|-w|--whitelist-environment|-u|--user", 0, WRAP_SU,
	  AG_GATE_ROOT },
	{ "env", "-u|--unset|-C|--chdir|--block-signal|--default-signal|--ignore-signal", 0, WRAP_ARGV, 0 },
	{ "nice", "-n|--adjustment", 0, WRAP_ARGV, 0 },
	{ "ionice", "-c|--class|-n|--classdata|-p|--pid|-P|--pgid|-u|--uid", 0, WRAP_ARGV, 0 },
	{ "nohup|setsid|command|builtin|exec|time|chronic|fakeroot|unbuffer|catchsegv|dbus-run-session|rlwrap|"
	  "eatmydata|coproc|then|else|do|!|nocache|linux32|linux64|i386|x86_64|torsocks|proxychains|proxychains4|with-"
	  "proxy|caffeinate|pipesz",
	  "-a|-f|--format|-o|--output|-p", 0, WRAP_ARGV, 0 },
	{ "timeout", "-s|--signal|-k|--kill-after", 1, WRAP_ARGV, 0 },
	{ "stdbuf", "-i|--input|-o|--output|-e|--error", 0, WRAP_ARGV, 0 },
	{ "xargs",
	  "-a|--arg-file|-d|--delimiter|-E|-I|-L|--max-lines|-n|--max-args|-P|--max-procs|-s|--max-chars|--process-"
	  "slot-var",
	  0, WRAP_XARGS, 0 },
	{ "parallel",
	  "-j|--jobs|-a|--arg-file|--colsep|-S|--sshlogin|-n|-N|-I|--joblog|--results|--delay|--timeout|--retries|--"
	  "tmpdir|-C|-L|-P",
	  0, WRAP_TEXT, 0 },
	{ "bash|sh|dash|zsh|ksh|ash|mksh|fish|rbash|csh|tcsh", "-O|+O|-o|+o|--rcfile|--init-file", 0, WRAP_SHELL, 0 },
	{ "eval", "", 0, WRAP_TEXT, 0 },
	{ "ssh|autossh|slogin", "-b|-B|-c|-D|-E|-e|-F|-I|-i|-J|-L|-l|-m|-O|-o|-p|-Q|-R|-S|-W|-w|-M|-P", 1, WRAP_TEXT,
	  AG_GATE_REMOTE | AG_GATE_NETWORK },
	{ "sshpass", "-p|-f|-d|-P", 0, WRAP_ARGV, 0 },
	{ "chroot|arch-chroot|proot", "--userspec|--groups|-u|-g", 1, WRAP_ARGV, 0 },
	{ "nsenter", "-t|--target|-S|--setuid|-G|--setgid|-W|--wdns|-N|--net-socket", 0, WRAP_ARGV, 0 },
	{ "unshare",
	  "-S|--setuid|-G|--setgid|-R|--root|-w|--wd|--propagation|--map-user|--map-group|--map-users|--map-groups|--"
	  "load-interp",
	  0, WRAP_ARGV, 0 },
	{ "watch", "-n|--interval|-q|--equexit|-s|--shotsdir", 0, WRAP_TEXT, 0 },
	{ "setpriv",
	  "--reuid|--regid|--groups|--inh-caps|--ambient-caps|--bounding-set|--securebits|--pdeathsig|--selinux-label|-"
	  "-apparmor-profile",
	  0, WRAP_ARGV, 0 },
	{ "chrt", "-T|-P|-D|-p|--sched-runtime|--sched-period|--sched-deadline", 1, WRAP_ARGV, 0 },
	{ "taskset|prlimit|choom", "-p|--pid|-n|--adjust", 1, WRAP_ARGV, 0 },
	{ "numactl", "-i|-m|-N|-C|-p|-P|--interleave|--membind|--cpunodebind|--physcpubind|--preferred", 0, WRAP_ARGV,
	  0 },
	{ "strace|ltrace", "-e|-o|-p|-s|-u|-a|-E|-I|-O|-P|-S|-X|-b|-l|-n|-x|-A|-D|-F|-w", 0, WRAP_ARGV, 0 },
	{ "systemd-run",
	  "-p|--property|-u|--unit|--description|--slice|--uid|--gid|--nice|--working-directory|-E|--setenv|--on-"
	  "active|--on-boot|--on-calendar|--on-unit-active|--timer-property|-M|--machine|-H|--host|--service-type|--"
	  "path-property|--socket-property",
	  0, WRAP_ARGV, 0 },
	{ "systemd-inhibit|systemd-cat", "-t|--identifier|-p|--priority|--what|--who|--why|--mode|--level-prefix", 0,
	  WRAP_ARGV, 0 },
	{ "flock", "-w|--timeout|--wait|-E|--conflict-exit-code", 1, WRAP_DASH, 0 },
	{ "script", "-o|--output-limit|-t|--log-timing|-T|-I|-O|-B|-E|-m", 0, WRAP_DASH, 0 },
	{ "scl", "", 0, WRAP_LAST, 0 },
	{ "busybox|toybox", "", 0, WRAP_ARGV, 0 },
	{ "cgexec|cgclassify", "-g", 0, WRAP_ARGV, 0 },
	{ "firejail|bwrap|runcon|sg|newgrp|capsh|machinectl|distrobox|toolbox|expect|at|batch|find_xargs", "", 0,
	  WRAP_DASH, 0 },
};

/* "perf record CMD", "ip netns exec NS CMD", "docker exec C CMD": the words that lead to the command. */
static const struct {
	const char *program, *words, *with_value;
	unsigned skip, flags;
} nested[] = {
	{ "ip", "netns exec", "", 1, 0 },
	{ "ip", "vrf exec", "", 1, 0 },
	{ "perf", "record|stat|trace", "-e|-o|-F|-C|-p|-t|-I|-r|--call-graph|-g", 0, 0 },
	{ "docker|podman|nerdctl|crictl", "exec", "-u|--user|-e|--env|-w|--workdir|--env-file|--detach-keys", 1,
	  AG_GATE_REMOTE },
	{ "docker|podman|nerdctl", "container exec", "-u|--user|-e|--env|-w|--workdir|--env-file|--detach-keys", 1,
	  AG_GATE_REMOTE },
	{ "docker-compose", "exec", "-u|--user|-e|--env|-w|--workdir|--index", 1, AG_GATE_REMOTE },
	{ "docker|podman", "compose exec", "-u|--user|-e|--env|-w|--workdir|--index", 1, AG_GATE_REMOTE },
	{ "lxc|incus", "exec", "--env|--cwd|--user|--group", 1, AG_GATE_REMOTE },
	{ "kubectl|oc", "exec", "-n|--namespace|-c|--container|--context|--kubeconfig|-f", 1, AG_GATE_REMOTE },
	{ "cargo|bundle|poetry|pipenv|npm|npx|uv", "exec|run", "", 0, 0 },
};

static bool takes_value(const char *options, const char *option)
{
	return *options && ag_gate_glob(options, option);
}

/* The first word that is neither an option nor an option's value. Bundles such as -nE5 hold their value themselves;
 * "-iu root" takes the next word for its last letter. */
static size_t skip_options(char **argv, size_t argc, size_t i, const char *with_value)
{
	for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
		const char *a = argv[i];
		char last[3] = { '-', a[strlen(a) - 1], '\0' }, first[3] = { '-', a[1], '\0' };

		if (strcmp(a, "--") == 0)
			return i + 1;
		if (takes_value(with_value, a))
			i++;
		else if (a[1] != '-' && strlen(a) > 2 && !takes_value(with_value, first) &&
		         takes_value(with_value, last))
			i++;
	}
	return i < argc ? i : argc;
}

static char *join(struct gate_eval *ev, char **argv, size_t argc)
{
	struct base_buf b = BASE_BUF_INIT(64 * 1024);

	for (size_t i = 0; i < argc; i++)
		(void)base_buf_printf(&b, "%s%s", i ? " " : "", argv[i]);
	return ag_gate_pool_take(ev, &b);
}

/* A shell's own standard input, or text known only later. */
static void unknown_text(struct gate_eval *ev, char **argv, size_t argc, bool from_stdin)
{
	bool fetched = ev->risk->flags & AG_GATE_NETWORK;
	struct gate_opinion o = { 0 };

	ag_gate_opinion_raise(&o, from_stdin || fetched ? AG_GATE_DESTRUCTIVE : AG_GATE_CHANGE, AG_GATE_UNKNOWN,
	                      fetched ? "runs what was just fetched from the network"
	                              : "runs text that is only known when it runs",
	                      argv[0]);
	ag_gate_add(ev, argv, argc, &o, false);
}

static void eval_line(struct gate_eval *ev, char **argv, size_t argc, const char *text)
{
	const char *end = strchr(text, GATE_UNKNOWN_BYTE);
	const char *start = text + strspn(text, " \t\n");

	/* unknown arguments are one thing, an unknown program another */
	if (end && end == start)
		unknown_text(ev, argv, argc, false);
	else
		ag_gate_eval_text(ev, text);
}

static void shell(struct gate_eval *ev, char **argv, size_t argc, const char *with_value)
{
	struct gate_opinion o = { 0 };
	bool line = false, from_stdin = false;
	size_t i = 1;

	for (; i < argc && (argv[i][0] == '-' || argv[i][0] == '+') && argv[i][1]; i++) {
		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		}
		if (argv[i][1] != '-' && argv[i][0] == '-' && strchr(argv[i], 'c'))
			line = true;
		from_stdin |= argv[i][1] != '-' && argv[i][0] == '-' && strchr(argv[i], 's') != NULL;
		if (ag_gate_glob("--version|--help", argv[i])) {
			ag_gate_add(ev, argv, argc, &o, false);
			return;
		}
		if (ag_gate_glob(with_value, argv[i]))
			i++;
	}
	if (line && i < argc) {
		ag_gate_add(ev, argv, 1, &o, true);
		for (size_t k = i + 1; k < argc && k - i < 10; k++) {
			char name[4] = { (char)('0' + (int)(k - i - 1)), '\0' };

			ag_gate_var_set(ev, ag_gate_pool_text(ev, name, 1), argv[k], false);
		}
		eval_line(ev, argv, argc, argv[i]);
	} else if (i < argc && strncmp(argv[i], "/dev/fd/", 8) == 0) {
		unknown_text(ev, argv, argc, true);
	} else if (i < argc && !from_stdin && strcmp(argv[i], "-") != 0 && strcmp(argv[i], "/dev/stdin") != 0) {
		bool check = ag_gate_has_option(argv, i, "-n") && !line;

		if (!check)
			ag_gate_opinion_raise(&o, AG_GATE_CHANGE, AG_GATE_UNKNOWN, "runs a script", argv[i]);
		ag_gate_add(ev, argv, argc, &o, false);
	} else if (ev->piped && ev->stdin_text) {
		ag_gate_add(ev, argv, argc, &o, true);
		ag_gate_eval_text(ev, ev->stdin_text);
	} else if (ev->piped) {
		unknown_text(ev, argv, argc, true);
	} else {
		ag_gate_opinion_raise(&o, AG_GATE_CHANGE, AG_GATE_UNKNOWN, "opens a shell", argv[0]);
		ag_gate_add(ev, argv, argc, &o, false);
	}
}

/* -c LINE anywhere: the line, or NULL. */
static const char *c_option(char **argv, size_t argc)
{
	for (size_t i = 1; i < argc; i++) {
		if (i + 1 < argc && ag_gate_glob("-c|--command|--session-command|-lc|-qc|-ec|-qec", argv[i]))
			return argv[i + 1];
		if (strncmp(argv[i], "--command=", 10) == 0)
			return argv[i] + 10;
	}
	return NULL;
}

static void opens_shell(struct gate_eval *ev, char **argv, size_t argc, unsigned flags)
{
	struct gate_opinion o = { AG_GATE_CHANGE, AG_GATE_UNKNOWN | flags, "opens a shell or starts an unknown command",
		                  argv[0] };

	ag_gate_add(ev, argv, argc, &o, false);
}

static void wrapped(struct gate_eval *ev, const struct wrap *w, char **argv, size_t argc)
{
	struct gate_opinion o = { .flags = w->flags };
	const char *line = w->mode == WRAP_SU || w->mode == WRAP_DASH ? c_option(argv, argc) : NULL;
	size_t i = skip_options(argv, argc, 1, w->with_value), dashes = 1;
	bool is_env = strcmp(argv[0], "env") == 0;

	while (i < argc && (ag_gate_glob("sudo|doas|env|exec|nohup", argv[0])) && strchr(argv[i], '=') &&
	       argv[i][0] != '=' && !strchr(argv[i], ' ')) { /* VAR=value before the command */
		const char *eq = strchr(argv[i], '=');

		if (ag_gate_glob("LD_PRELOAD=*|LD_LIBRARY_PATH=*|LD_AUDIT=*|PATH=*|BASH_ENV=*", argv[i]))
			ag_gate_opinion_raise(&o, AG_GATE_CHANGE, 0, "changes what programs load", argv[i]);
		ag_gate_var_set(ev, ag_gate_pool_text(ev, argv[i], (size_t)(eq - argv[i])), eq + 1, false);
		i++;
	}
	if (w->mode != WRAP_SU || line)
		i += w->skip;
	ag_gate_add(ev, argv, argc, &o, true);
	ev->inherited |= w->flags;
	for (size_t k = 1; is_env && k + 1 < argc; k++)
		if (ag_gate_glob("-S|--split-string", argv[k]))
			line = argv[k + 1];
	while (dashes < argc && strcmp(argv[dashes], "--") != 0)
		dashes++;
	if (line) {
		eval_line(ev, argv, argc, line);
	} else if ((w->mode == WRAP_SU || w->mode == WRAP_DASH) && dashes + 1 < argc) {
		ag_gate_eval_argv(ev, argv + dashes + 1, argc - dashes - 1);
	} else if (w->mode == WRAP_DASH && strcmp(argv[0], "flock") == 0 && i < argc) {
		ag_gate_eval_argv(ev, argv + i, argc - i);
	} else if (w->mode == WRAP_SU && strcmp(argv[0], "runuser") == 0 && ag_gate_has_option(argv, argc, "-u") &&
	           i < argc) {
		ag_gate_eval_argv(ev, argv + i, argc - i);
	} else if (w->mode == WRAP_SU || w->mode == WRAP_DASH) {
		opens_shell(ev, argv, argc, w->flags);
	} else if (w->mode == WRAP_LAST && argc > 2) {
		eval_line(ev, argv, argc, argv[argc - 1]);
	} else if (i >= argc) {
		if (w->mode == WRAP_XARGS || is_env ||
		    ag_gate_glob("nice|time|busybox|toybox|command|exec|ionice|strace|ltrace|chronic", argv[0]))
			return; /* prints: echo, the environment, the priority */
		if (strcmp(argv[0], "sudo") == 0 &&
		    (ag_gate_has_option(argv, argc, "-l") || ag_gate_has_option(argv, argc, "-v") ||
		     ag_gate_has_option(argv, argc, "-k") || ag_gate_has_option(argv, argc, "-V")))
			return;
		opens_shell(ev, argv, argc, w->flags);
	} else if (w->mode == WRAP_TEXT) {
		eval_line(ev, argv, argc, join(ev, argv + i, argc - i));
	} else if (w->mode == WRAP_XARGS) {
		char **more = ag_gate_pool_alloc(ev, (argc - i + 2) * sizeof(*more));

		if (!more)
			return;
		memcpy(more, argv + i, (argc - i) * sizeof(*more));
		more[argc - i] = ag_gate_pool_text(ev, "\1", 1);
		ag_gate_eval_argv(ev, more, argc - i + 1);
	} else {
		ag_gate_eval_argv(ev, argv + i, argc - i);
	}
}

/* "docker exec -it C sh -c ...": the index of the command in argv, or 0. */
static size_t nested_command(char **argv, size_t argc, unsigned *ret_flags)
{
	for (size_t k = 0; k < sizeof(nested) / sizeof(nested[0]); k++) {
		const char *word = nested[k].words;
		size_t i = 1;
		bool same = ag_gate_glob(nested[k].program, argv[0]);

		for (; same && *word; word += strcspn(word, " "), word += *word == ' ') {
			char one[32];

			(void)snprintf(one, sizeof(one), "%.*s", (int)strcspn(word, " "), word);
			i = skip_options(argv, argc, i, "-H|--host|-n|--namespace|--context|--kubeconfig|-l|-f|-p");
			same = i < argc && ag_gate_glob(one, argv[i]);
			i++;
		}
		if (!same)
			continue;
		i = skip_options(argv, argc, i, nested[k].with_value) + nested[k].skip;
		while (i < argc && (argv[i][0] == '-')) { /* kubectl exec POD -c X -- CMD */
			bool end = strcmp(argv[i], "--") == 0;

			i += !end && takes_value(nested[k].with_value, argv[i]) ? 2 : 1;
			if (end)
				break;
		}
		*ret_flags = nested[k].flags;
		return i < argc ? i : 0;
	}
	return 0;
}

bool ag_gate_wrapper(struct gate_eval *ev, char **argv, size_t argc)
{
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash && slash[1] ? slash + 1 : argv[0];
	struct gate_opinion o = { 0 };
	unsigned flags = 0;
	size_t at;
	char **copy;

	if (strcmp(name, "command") == 0 && argc > 1 && ag_gate_glob("-v|-V|-pv", argv[1])) {
		ag_gate_add(ev, argv, argc, &o, false);
		return true;
	}
	if (strcmp(name, "sudoedit") == 0 ||
	    (strcmp(name, "sudo") == 0 && ag_gate_has_option(argv, argc < 2 ? argc : 2, "-e")) ||
	    (ag_gate_glob("prlimit|ionice|taskset|chrt|choom", name) &&
	     ag_gate_has_option(argv, argc < 3 ? argc : 3, "-p")))
		return false; /* these work on files or running processes: the table knows */
	if (slash && ag_gate_glob("./*|../*|*/tmp/*", argv[0]))
		return false;
	copy = ag_gate_pool_alloc(ev, (argc + 1) * sizeof(*copy));
	if (!copy)
		return true;
	memcpy(copy, argv, argc * sizeof(*copy));
	copy[0] = (char *)name;
	if (strcmp(name, "trap") == 0 && argc > 2) {
		ag_gate_add(ev, copy, argc, &o, true);
		eval_line(ev, copy, argc, argv[1]);
		return true;
	}
	at = nested_command(copy, argc, &flags);
	if (at) {
		o.flags = flags;
		ag_gate_add(ev, copy, argc, &o, true);
		ev->inherited |= flags;
		ag_gate_eval_argv(ev, copy + at, argc - at);
		return true;
	}
	for (size_t i = 0; i < sizeof(wraps) / sizeof(wraps[0]); i++) {
		if (!ag_gate_glob(wraps[i].names, name))
			continue;
		if (wraps[i].mode == WRAP_SHELL)
			shell(ev, copy, argc, wraps[i].with_value);
		else
			wrapped(ev, &wraps[i], copy, argc);
		return true;
	}
	return false;
}
