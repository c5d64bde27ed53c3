/* flip stat, flip top: what the daemon holds and does, once or again and again. */
#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "settings.h"

struct stat_args {
	const char *control;
	bool json, metrics;
	double interval;
	uint32_t count;
};

const struct opt stat_opts[] = {
	{ "json", 0, OPT_FLAG, offsetof(struct stat_args, json), NULL, "machine-readable output", NULL },
	{ "metrics", 0, OPT_FLAG, offsetof(struct stat_args, metrics), NULL, "as Prometheus reads it", NULL },
	{ "control", 0, OPT_STR, offsetof(struct stat_args, control), "PATH", "the daemon's control socket", NULL },
	{ 0 },
};

const struct opt top_opts[] = {
	{ "interval", 'd', OPT_DOUBLE, offsetof(struct stat_args, interval), "SECONDS", "between two looks [1]", NULL },
	{ "count", 'n', OPT_UINT, offsetof(struct stat_args, count), "N", "end after so many looks; 0: never [0]",
	  NULL },
	{ "control", 0, OPT_STR, offsetof(struct stat_args, control), "PATH", "the daemon's control socket", NULL },
	{ 0 },
};

static double at(const json_t *o, const char *group, const char *name)
{
	return json_number_value(json_object_get(json_object_get(o, group), name));
}

static void print_stat(const json_t *o)
{
	const json_t *layers = json_object_get(o, "layers");

	(void)printf("store     %.0f contents, %.1f MB; %.0f arriving, %.1f MB of them here; %.1f GB free\n",
	             at(o, "store", "objects"), at(o, "store", "object_bytes") / 1e6, at(o, "store", "partials"),
	             at(o, "store", "partial_bytes") / 1e6, at(o, "store", "free_bytes") / 1e9);
	(void)printf("fetched   %.1f MB in %.0f requests (%.1f MB between ranges), %.0f retries, round trip %.1f ms\n",
	             at(o, "fetch", "wire_bytes") / 1e6, at(o, "fetch", "requests"), at(o, "fetch", "gap_bytes") / 1e6,
	             at(o, "fetch", "retries"), at(o, "fetch", "rtt_us") / 1e3);
	(void)printf("for       reads %.1f MB, prefetch %.1f MB, background %.1f MB\n",
	             at(o, "reads", "foreground_bytes") / 1e6, at(o, "reads", "prefetch_bytes") / 1e6,
	             at(o, "reads", "background_bytes") / 1e6);
	(void)printf("reads     %.0f, %.0f waited (%.1f ms each), %.0f failed, %.0f bad chunks\n",
	             at(o, "reads", "reads"), at(o, "reads", "waited"),
	             at(o, "reads", "reads") ? at(o, "reads", "wait_us") / 1e3 / at(o, "reads", "reads") : 0.0,
	             at(o, "reads", "errors"), at(o, "reads", "bad_chunks"));
	(void)printf("daemon    %.1f MB resident, %.1f s of CPU; layers by %s%s%s\n",
	             json_number_value(json_object_get(o, "rss_bytes")) / 1e6,
	             json_number_value(json_object_get(o, "cpu_s")), json_string_value(json_object_get(o, "lower")),
	             json_is_true(json_object_get(json_object_get(o, "fuse"), "passthrough")) ? ", passthrough" : "",
	             json_is_true(json_object_get(json_object_get(o, "fuse"), "io_uring")) ? ", io_uring" : "");
	for (size_t i = 0; i < json_array_size(layers); i++) {
		const json_t *l = json_array_get(layers, i);

		(void)printf("layer     %.19s  %s  %8.1f MB  %6.0f files  %s\n",
		             json_string_value(json_object_get(l, "digest")),
		             json_is_true(json_object_get(l, "lazy")) ? "lazy    " : "unpacked",
		             json_number_value(json_object_get(l, "blob_bytes")) / 1e6,
		             json_number_value(json_object_get(l, "files")),
		             json_string_value(json_object_get(l, "ref")));
	}
}

static int ask(const struct stat_args *o, const char *path, struct base_buf *body, json_t **ret_doc, struct err *err)
{
	struct flip_settings s = { 0 };
	int r = flip_settings_load(&s, err);

	if (r == 0) {
		s.control = o->control ? o->control : s.control;
		r = flip_ask(&s, "GET", path, body, err);
	}
	flip_settings_done(&s);
	if (r == 0 && ret_doc)
		r = base_json_parse("the daemon's answer", body->data, body->len, ret_doc, err);
	return r;
}

int cmd_stat(int argc, char **argv)
{
	struct base_buf body = BASE_BUF_INIT(64 << 20);
	struct stat_args o = { 0 };
	struct err err = { 0 };
	json_t *doc = NULL;
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n) {
		(void)err_set(&err, -EINVAL, "%s: not an argument", argv[0]);
		return flip_usage("stat", &err);
	}
	r = ask(&o, o.metrics ? "/metrics" : "/v1/stat", &body, o.json || o.metrics ? NULL : &doc, &err);
	if (r == 0 && doc)
		print_stat(doc);
	else if (r == 0)
		(void)printf("%s%s", base_buf_text(&body), o.json ? "\n" : "");
	json_decref(doc);
	base_buf_done(&body);
	return r < 0 ? flip_fail(&err) : 0;
}

/* ---- Live -------------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t is_over;

static void on_signal(int sig)
{
	is_over = sig;
}

static double per_second(const json_t *now, const json_t *before, const char *group, const char *name, double seconds)
{
	return before ? (at(now, group, name) - at(before, group, name)) / seconds : 0.0;
}

static void print_live(const json_t *now, const json_t *before, double seconds, bool is_terminal)
{
	double reads = per_second(now, before, "fuse", "reads", seconds);
	double waited = per_second(now, before, "reads", "waited", seconds);

	if (is_terminal)
		(void)printf("\033[H\033[J");
	print_stat(now);
	(void)printf(
	        "\nper second  reads %.0f (%.0f %% without waiting), opens %.0f (passthrough %.0f), read %.1f MB\n",
	        reads, reads > 0 ? 100.0 * (1 - waited / reads) : 100.0,
	        per_second(now, before, "fuse", "opens", seconds),
	        per_second(now, before, "fuse", "opens_passthrough", seconds),
	        per_second(now, before, "fuse", "read_bytes", seconds) / 1e6);
	(void)printf(
	        "            fetched %.1f MB in %.0f requests; queued %.0f, %.0f, %.0f; under way %.0f; CPU %.0f %%\n",
	        per_second(now, before, "fetch", "wire_bytes", seconds) / 1e6,
	        per_second(now, before, "fetch", "requests", seconds), at(now, "fetch", "queued_foreground"),
	        at(now, "fetch", "queued_prefetch"), at(now, "fetch", "queued_background"), at(now, "fetch", "active"),
	        before ? 100.0 *
	                         (json_number_value(json_object_get(now, "cpu_s")) -
	                          json_number_value(json_object_get(before, "cpu_s"))) /
	                         seconds
	               : 0.0);
	(void)fflush(stdout);
}

int cmd_top(int argc, char **argv)
{
	struct stat_args o = { .interval = 1 };
	struct sigaction action = { .sa_handler = on_signal };
	struct timespec pause;
	struct err err = { 0 };
	json_t *before = NULL;
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n || o.interval < 0.05 || o.interval > 3600) {
		(void)err_set(&err, -EINVAL, n ? "%s: not an argument" : "--interval: from 0.05 to 3600 seconds",
		              n ? argv[0] : "");
		return flip_usage("top", &err);
	}
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	pause = (struct timespec){ (time_t)o.interval, (long)((o.interval - (double)(time_t)o.interval) * 1e9) };
	for (uint32_t i = 0; !is_over && (!o.count || i < o.count); i++) {
		struct base_buf body = BASE_BUF_INIT(64 << 20);
		json_t *now = NULL;

		if (i)
			(void)nanosleep(&pause, NULL);
		r = is_over ? 0 : ask(&o, "/v1/stat", &body, &now, &err);
		base_buf_done(&body);
		if (r < 0 || !now)
			break;
		print_live(now, before, o.interval, isatty(STDOUT_FILENO));
		json_decref(before);
		before = now;
	}
	json_decref(before);
	return r < 0 ? flip_fail(&err) : 0;
}
