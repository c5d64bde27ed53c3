/* One line that is written over, at most ten times a second. Signals set a flag that the next call reports as a wish to
 * stop: the library then takes back what it has begun. */
#include "base/clock.h"
#include "image_progress.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile sig_atomic_t is_interrupted;
static double started;
static const char *shown;

static void on_signal(int signal)
{
	(void)signal;
	is_interrupted = 1;
}

const char *image_size_text(uint64_t bytes, char buf[16])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1000 && u + 1 < sizeof(units) / sizeof(*units)) {
		v /= 1000;
		u++;
	}
	(void)snprintf(buf, 16, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

static int show(const struct img_progress *p, void *arg)
{
	char done[16], total[16], rate[16];
	double t = base_now_s();

	(void)arg;
	if (is_interrupted)
		return -1;
	if (!isatty(STDERR_FILENO))
		return 0;
	if (shown != p->what) {
		shown = p->what;
		started = t;
		return 0;
	}
	if (t - started < 0.3 || p->done == 0)
		return 0;
	(void)fprintf(stderr, "\r\033[K%s %s", p->what, image_size_text(p->done, done));
	if (p->total)
		(void)fprintf(stderr, " of %s", image_size_text(p->total, total));
	(void)fprintf(stderr, ", %s/s", image_size_text((uint64_t)((double)p->done / (t - started)), rate));
	if (p->total > p->done)
		(void)fprintf(stderr, ", %.0f s left", (double)(p->total - p->done) * (t - started) / (double)p->done);
	(void)fflush(stderr);
	return 0;
}

img_progress_fn image_progress(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND }; /* the second one ends us */

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		(void)sigaction(signals[i], &sa, NULL);
	return show;
}

int image_is_interrupted(void *ignored)
{
	(void)ignored;
	return is_interrupted;
}

void image_progress_clear(void)
{
	if (shown && isatty(STDERR_FILENO))
		(void)fputs("\r\033[K", stderr);
	shown = NULL;
}

int image_output_open(const char *path, struct image_output *ret_out, struct err *err)
{
	struct image_output out = { .file = stdout };
	int fd;

	if (path && strcmp(path, "-") != 0) {
		out.path = path;
		if (asprintf(&out.temp, "%s.XXXXXX", path) < 0)
			return err_set(err, -ENOMEM, "out of memory");
		fd = mkstemp(out.temp);
		out.file = fd < 0 ? NULL : fdopen(fd, "w");
		if (!out.file) {
			int r = err_set(err, -errno, "%s: %s", path, strerror(errno));

			free(out.temp);
			return r;
		}
	}
	*ret_out = out;
	return 0;
}

int image_output_close(struct image_output *out, bool keep, struct err *err)
{
	int r = 0;

	if (!out->temp)
		return fflush(stdout) == 0 ? 0 : err_set(err, -errno, "standard output: %s", strerror(errno));
	(void)fchmod(fileno(out->file), 0644);
	if (fflush(out->file) != 0 || fsync(fileno(out->file)) < 0)
		r = -errno;
	if (fclose(out->file) != 0 && r == 0)
		r = -errno;
	if (keep && r == 0 && rename(out->temp, out->path) < 0)
		r = -errno;
	if (!keep || r < 0)
		(void)unlink(out->temp);
	if (r < 0)
		(void)err_set(err, r, "%s: %s", out->path, strerror(-r));
	free(out->temp);
	return r;
}
