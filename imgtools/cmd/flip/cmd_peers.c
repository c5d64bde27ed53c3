/* flip peers: who else is there, and who has what. */
#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "settings.h"

struct peers_args {
	const char *control;
	bool json;
	double interval;
};

const struct opt peers_opts[] = {
	{ "json", 0, OPT_FLAG, offsetof(struct peers_args, json), NULL, "machine-readable output", NULL },
	{ "interval", 'd', OPT_DOUBLE, offsetof(struct peers_args, interval), "SECONDS",
	  "look twice, so far apart, and print rates too", NULL },
	{ "control", 0, OPT_STR, offsetof(struct peers_args, control), "PATH", "the daemon's control socket", NULL },
	{ 0 },
};

static double number(const json_t *o, const char *name)
{
	return json_number_value(json_object_get(o, name));
}

static double count(const json_t *doc, const char *name)
{
	return number(json_object_get(doc, "counts"), name);
}

/* What a member gave until then; 0 when it was not there. */
static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static double received_of(const json_t *doc, const char *name)
{
	const json_t *members = json_object_get(doc, "members");
	const json_t *m;
	size_t i;

	json_array_foreach(members, i, m)
	{
		const char *other = json_string_value(json_object_get(m, "name"));

		if (other && strcmp(other, name) == 0)
			return number(m, "received");
	}
	return 0;
}

static void print_member(const json_t *m, const json_t *before, double seconds)
{
	const char *name = json_string_value(json_object_get(m, "name"));
	const char *zone = json_string_value(json_object_get(m, "zone"));
	const char *why = json_string_value(json_object_get(m, "why"));
	double out_ms = number(m, "left_out_ms");

	if (!name)
		return;
	(void)printf("%-24s %-10s %9.1f MB", name, zone && *zone ? zone : "-", number(m, "received") / 1e6);
	if (before)
		(void)printf(" %8.2f MB/s", (number(m, "received") - received_of(before, name)) / 1e6 / seconds);
	(void)printf(" %7.0f questions %5.0f failed ", number(m, "questions"), number(m, "failures"));
	if (json_is_true(json_object_get(m, "self")))
		(void)printf(" this node");
	else if (!json_is_true(json_object_get(m, "named")))
		(void)printf(" gone");
	else if (out_ms > 0)
		(void)printf(" left out for %.1f s: %s", out_ms / 1e3, why ? why : "");
	(void)printf("\n");
}

static void print_peers(const json_t *doc, const json_t *before, double seconds)
{
	const json_t *members = json_object_get(doc, "members"), *blobs = json_object_get(doc, "blobs"), *x, *holder;
	size_t i, k;

	if (!json_is_true(json_object_get(doc, "on"))) {
		(void)printf("no peers: [peers] listen is empty\n");
		return;
	}
	(void)printf("asked     %.0f pieces: %.0f came from peers (%.1f MB), %.0f were left to the registry\n",
	             count(doc, "pieces_asked"), count(doc, "pieces_got"), count(doc, "received") / 1e6,
	             count(doc, "pieces_gone_to_origin"));
	(void)printf("given     %.1f MB: %.0f pieces as they came, %.0f compressed, %.0f plain; %.0f under way, pace "
	             "%.0f %%\n",
	             count(doc, "served_bytes") / 1e6, count(doc, "served_packed"), count(doc, "served_zstd"),
	             count(doc, "served_plain"), number(doc, "serving"), number(doc, "pace_percent"));
	if (before)
		(void)printf("rates     %.2f MB/s from peers, %.2f MB/s to peers\n",
		             (count(doc, "received") - count(before, "received")) / 1e6 / seconds,
		             (count(doc, "served_bytes") - count(before, "served_bytes")) / 1e6 / seconds);
	if (*text_of(doc, "fabric"))
		(void)printf("libfabric at %s: %.1f MB in %.0f questions, %.0f fell back to HTTP; given %.1f MB\n",
		             text_of(doc, "fabric"), count(doc, "fabric_received") / 1e6, count(doc, "fabric_asked"),
		             count(doc, "fabric_fell_back"), count(doc, "fabric_served_bytes") / 1e6);
	(void)printf("refused   %.0f busy, %.0f not of this cluster, %.0f may not have it; garbage of others: %.0f\n\n",
	             count(doc, "busy"), count(doc, "refused"), count(doc, "forbidden"), count(doc, "garbage"));
	json_array_foreach(members, i, x)
	{
		print_member(x, before, seconds);
	}
	json_array_foreach(blobs, i, x)
	{
		const json_t *holders = json_object_get(x, "holders");

		(void)printf("%s%.19s %s:", i == 0 ? "\n" : "", json_string_value(json_object_get(x, "digest")),
		             json_string_value(json_object_get(x, "image")));
		json_array_foreach(holders, k, holder)
		{
			(void)printf(" %s", json_string_value(holder));
		}
		(void)printf("\n");
	}
}

static int ask(const struct flip_settings *s, struct base_buf *body, json_t **ret_doc, struct err *err)
{
	int r = flip_ask(s, "GET", "/v1/peers", body, err);

	return r < 0 ? r : base_json_parse("the daemon's answer", body->data, body->len, ret_doc, err);
}

int cmd_peers(int argc, char **argv)
{
	struct base_buf body = BASE_BUF_INIT(64 << 20);
	json_t *doc = NULL, *before = NULL;
	struct peers_args o = { 0 };
	struct flip_settings s = { 0 };
	struct err err = { 0 };
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n || o.interval < 0 || o.interval > 3600) {
		(void)err_set(&err, -EINVAL, n ? "%s: not an argument" : "--interval: not 0 to 3600", argv[0]);
		return flip_usage("peers", &err);
	}
	r = flip_settings_load(&s, &err);
	s.control = o.control ? o.control : s.control;
	if (r == 0 && o.interval > 0) {
		struct timespec pause = { (time_t)o.interval, (long)((o.interval - (double)(time_t)o.interval) * 1e9) };

		r = ask(&s, &body, &before, &err);
		base_buf_done(&body);
		base_buf_init(&body, 64 << 20);
		(void)nanosleep(&pause, NULL);
	}
	if (r == 0)
		r = ask(&s, &body, &doc, &err);
	if (r == 0 && o.json)
		(void)printf("%s\n", base_buf_text(&body));
	else if (r == 0)
		print_peers(doc, before, o.interval);
	json_decref(doc);
	json_decref(before);
	base_buf_done(&body);
	flip_settings_done(&s);
	return r < 0 ? flip_fail(&err) : 0;
}
