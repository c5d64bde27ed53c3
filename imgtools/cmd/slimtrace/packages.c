/* Packages for the subcommands cut and slices; see packages.h. */
#include "packages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"

/* ---- Input ------------------------------------------------------------------------------------------------ */

static int add_package(void *set, const char *path, struct err *err)
{
	return img_rpm_set_add_package(set, path, err);
}

/* ---- What is left behind ----------------------------------------------------------------------------------
 *
 * A signal shall leave nothing. As long as other threads run they may make again what was just removed, or give it its
 * final name half empty. So the thread that takes the signal executes this program anew to remove it: that ends all
 * other threads first, whatever they are at, and stays the same process, which then dies of the signal. */

enum { REMOVE_ROUNDS = 1000 };

static const int watched[] = { SIGINT, SIGTERM, SIGHUP };
enum { N_WATCHED = 3 };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t written;
	char *spool, *unfinished; /* protected by lock */
	bool is_writing;          /* the same */
	atomic_bool must_stop;
	bool is_watching;
} leftovers = { .lock = PTHREAD_MUTEX_INITIALIZER, .written = PTHREAD_COND_INITIALIZER };

static void remove_at(int dir_fd, const char *name)
{
	const int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *de;

	while (d && (de = readdir(d))) {
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd(d), de->d_name, 0) < 0)
			remove_at(dirfd(d), de->d_name);
	}
	if (d)
		(void)closedir(d);
	else if (fd >= 0)
		(void)close(fd);
	(void)unlinkat(dir_fd, name, AT_REMOVEDIR);
}

void packages_remove_tree(const char *path)
{
	if (unlink(path) < 0 && errno != ENOENT)
		remove_at(AT_FDCWD, path);
}

static void set_leftover(char **slot, const char *path)
{
	(void)pthread_mutex_lock(&leftovers.lock);
	free(*slot);
	*slot = path ? strdup(path) : NULL;
	(void)pthread_mutex_unlock(&leftovers.lock);
}

void packages_unfinished(const char *path)
{
	set_leftover(&leftovers.unfinished, path);
}

/* No signal comes between the folder and the note of it. */
static int make_dir(char **slot, char *template, struct err *err)
{
	int r = 0;

	(void)pthread_mutex_lock(&leftovers.lock);
	if (mkdtemp(template)) {
		free(*slot);
		*slot = strdup(template);
	} else {
		r = err_set(err, -errno, "%s: %s", template, strerror(errno));
	}
	(void)pthread_mutex_unlock(&leftovers.lock);
	return r;
}

int packages_make_unfinished(char *template, struct err *err)
{
	return make_dir(&leftovers.unfinished, template, err);
}

void packages_write_begin(void)
{
	(void)pthread_mutex_lock(&leftovers.lock);
	leftovers.is_writing = true;
	(void)pthread_mutex_unlock(&leftovers.lock);
}

void packages_write_end(void)
{
	(void)pthread_mutex_lock(&leftovers.lock);
	leftovers.is_writing = false;
	(void)pthread_cond_signal(&leftovers.written);
	(void)pthread_mutex_unlock(&leftovers.lock);
	while (leftovers.must_stop)
		(void)pause(); /* until the thread that took the signal has ended us */
}

bool packages_must_stop(void)
{
	return leftovers.must_stop;
}

static void die_of(int sig) __attribute__((noreturn));
static void die_of(int sig)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	for (int i = 0; i < N_WATCHED; i++)
		(void)sigaddset(&signals, watched[i]);
	(void)signal(sig, SIG_DFL);
	(void)raise(sig);
	(void)pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
	_exit(128 + sig);
}

/* All other threads are no more when the new program begins. Returns when there is no /proc. */
static void remove_in_peace(int sig)
{
	char number[16];
	char *argv[] = { "slimtrace", PACKAGES_CLEANER, number, NULL, NULL, NULL };
	int n = 3;

	(void)snprintf(number, sizeof(number), "%d", sig);
	if (leftovers.unfinished)
		argv[n++] = leftovers.unfinished;
	if (leftovers.spool)
		argv[n++] = leftovers.spool;
	(void)execv("/proc/self/exe", argv);
}

int packages_clean(int n, char **args)
{
	const long sig = n > 0 ? strtol(args[0], NULL, 10) : 0;

	for (int i = 1; i < n; i++)
		packages_remove_tree(args[i]);
	for (int i = 0; i < N_WATCHED; i++) {
		if (watched[i] == sig)
			die_of(watched[i]);
	}
	return 2;
}

/* Other threads go on writing meanwhile, until the folder that they write into is gone. */
static void remove_leftover(const char *path)
{
	for (int round = 0; path && round < REMOVE_ROUNDS && access(path, F_OK) == 0; round++)
		packages_remove_tree(path);
}

/* Waits for the signals that all other threads have blocked. */
static void *watch(void *arg)
{
	const sigset_t *signals = arg;
	int which = SIGTERM;

	(void)sigwait(signals, &which);
	leftovers.must_stop = true;
	(void)pthread_mutex_lock(&leftovers.lock); /* for good */
	while (leftovers.is_writing)
		(void)pthread_cond_wait(&leftovers.written, &leftovers.lock);
	remove_in_peace(which);
	remove_leftover(leftovers.unfinished);
	remove_leftover(leftovers.spool);
	die_of(which);
}

/* Before other threads are made, since they inherit what is blocked. */
static void watch_signals(void)
{
	static sigset_t signals;
	pthread_t thread;

	if (leftovers.is_watching)
		return;
	(void)sigemptyset(&signals);
	for (int i = 0; i < N_WATCHED; i++)
		(void)sigaddset(&signals, watched[i]);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	leftovers.is_watching = pthread_create(&thread, NULL, watch, &signals) == 0;
	if (leftovers.is_watching)
		(void)pthread_detach(thread);
	else
		(void)pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN); /* writing fails, and what lies in the folder is removed as ever */
}

/* Whatever is unpacked or made meanwhile, databases too, lies in one folder, so that a signal takes it all away. */
static int make_spool(struct packages *p, struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	int r;

	watch_signals();
	(void)snprintf(p->spool, sizeof(p->spool), "%s/slimtrace-XXXXXX",
	               tmp && *tmp && strlen(tmp) < sizeof(p->spool) - 32 ? tmp : "/tmp");
	r = make_dir(&leftovers.spool, p->spool, err);
	if (r < 0) {
		p->spool[0] = 0;
		return r;
	}
	return setenv("TMPDIR", p->spool, 1) == 0 ? 0 : -ENOMEM;
}

/* Without keys nobody knows where packages come from: that is said, but to who said --no-gpg. */
static int read_keys(const struct packages_opts *o, struct packages *p, struct err *err)
{
	int r = 0;

	if (!o->keys.n) {
		if (!o->root && !o->no_gpg)
			(void)fprintf(stderr,
			              "slimtrace: signatures of packages are not checked (see --gpg-key, --no-gpg)\n");
		return 0;
	}
	r = img_rpm_keys_new(&p->keys, err);
	for (size_t i = 0; r == 0 && i < o->keys.n; i++)
		r = img_rpm_keys_add(p->keys, o->keys.items[i], err);
	if (r == 0)
		img_rpm_set_keys(p->set, p->keys);
	return r;
}

int packages_open(const struct packages_opts *o, struct packages *p, struct err *err)
{
	int r;

	if (!o->repos.n && !o->rpms.n && !o->root)
		return err_set(err, -EINVAL, "no packages are given: --repo, --rpm or --root");
	if (o->root && (o->repos.n || o->rpms.n))
		return err_set(err, -EINVAL, "--root stands alone: what is installed is what there is to choose from");
	if (o->root && o->keys.n)
		return err_set(err, -EINVAL, "--gpg-key: what is installed in a root is no longer signed");
	if (o->no_gpg && o->keys.n)
		return err_set(err, -EINVAL, "--gpg-key and --no-gpg contradict each other");
	r = make_spool(p, err);
	if (r == 0)
		r = img_rpm_set_new(o->arch, &p->set);
	if (r == 0)
		r = read_keys(o, p, err);
	if (r == 0)
		r = img_rules_new(&p->rules);
	for (size_t i = 0; r == 0 && i < o->repos.n; i++)
		r = img_rpm_set_add_repo(p->set, o->repos.items[i], err);
	for (size_t i = 0; r == 0 && i < o->rpms.n; i++)
		r = base_each_file(o->rpms.items[i], ".rpm", add_package, p->set, err);
	if (r == 0 && o->root)
		r = img_rpm_set_add_root(p->set, o->root, err);
	for (size_t i = 0; r == 0 && i < o->rules.n; i++)
		r = img_rules_read(p->rules, o->rules.items[i], err);
	if (r == 0 && img_rpm_set_count(p->set) == 0)
		r = err_set(err, -ENOENT, "there are no packages for this architecture");
	return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
}

void packages_close(struct packages *p)
{
	if (p->spool[0])
		packages_remove_tree(p->spool);
	set_leftover(&leftovers.spool, NULL);
	img_rpm_set_free(p->set);
	img_rpm_keys_free(p->keys);
	img_rules_free(p->rules);
	memset(p, 0, sizeof(*p));
}

void packages_opts_done(struct packages_opts *o)
{
	opt_list_done(&o->repos);
	opt_list_done(&o->rpms);
	opt_list_done(&o->rules);
	opt_list_done(&o->keys);
}

const char *packages_size(uint64_t bytes, char buf[32])
{
	if (bytes < 100000)
		(void)snprintf(buf, 32, "%.1f kB", (double)bytes / 1e3);
	else
		(void)snprintf(buf, 32, "%.2f MB", (double)bytes / 1e6);
	return buf;
}

/* ---- Progress --------------------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	const char *what;
	uint64_t done, total; /* protected by lock */
	struct timespec begin, shown;
} bar = { .lock = PTHREAD_MUTEX_INITIALIZER };

static double seconds_since(const struct timespec *t)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

static void bar_begin(const char *what, uint64_t total, void *arg)
{
	(void)arg;
	(void)pthread_mutex_lock(&bar.lock);
	bar.what = what;
	bar.done = 0;
	bar.total = total;
	(void)clock_gettime(CLOCK_MONOTONIC, &bar.begin);
	bar.shown = bar.begin;
	(void)pthread_mutex_unlock(&bar.lock);
}

static void bar_step(uint64_t bytes, void *arg)
{
	double past, rate;

	(void)arg;
	(void)pthread_mutex_lock(&bar.lock);
	bar.done += bytes;
	past = seconds_since(&bar.begin);
	rate = past > 0 ? (double)bar.done / past : 0;
	if (seconds_since(&bar.shown) > 0.1 && bar.total && rate > 0) {
		const uint64_t left = bar.total > bar.done ? bar.total - bar.done : 0;

		(void)clock_gettime(CLOCK_MONOTONIC, &bar.shown);
		(void)fprintf(stderr, "\r\033[K%s  %3.0f %%  %.0f MB/s  %.0f s left", bar.what,
		              100.0 * (double)(bar.total - left) / (double)bar.total, rate / 1e6, (double)left / rate);
	}
	(void)pthread_mutex_unlock(&bar.lock);
}

static void bar_end(void *arg)
{
	(void)arg;
	(void)fputs("\r\033[K", stderr);
}

const struct img_cut_progress *packages_progress(void)
{
	static const struct img_cut_progress progress = { bar_begin, bar_step, bar_end, NULL };
	const char *term = getenv("TERM");

	return isatty(2) && term && strcmp(term, "dumb") != 0 ? &progress : NULL;
}
