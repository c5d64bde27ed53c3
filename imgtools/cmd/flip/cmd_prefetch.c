/* flip prefetch: what a start of an image read, as the daemon recorded it; for `flip convert --prefetch`. */
#include "commands.h"

#include <errno.h>
#include <stdio.h>

#include "settings.h"

struct prefetch {
	const char *control;
};

const struct opt prefetch_opts[] = {
	{ "control", 0, OPT_STR, offsetof(struct prefetch, control), "PATH", "the daemon's control socket", NULL },
	{ 0 },
};

int cmd_prefetch(int argc, char **argv)
{
	struct base_buf query = BASE_BUF_INIT(32 << 10), body = BASE_BUF_INIT(64 << 20);
	struct flip_settings s = { 0 };
	struct prefetch o = { 0 };
	struct err err = { 0 };
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n != 1) {
		(void)err_set(&err, -EINVAL, "one image is needed");
		return flip_usage("prefetch", &err);
	}
	r = flip_settings_load(&s, &err);
	if (r == 0) {
		s.control = o.control ? o.control : s.control;
		(void)base_buf_puts(&query, "/v1/prefetch?ref=");
		flip_append_escaped(&query, argv[0]);
		r = base_buf_error(&query) < 0 ? err_set(&err, -E2BIG, "the name is too long")
		                               : flip_ask(&s, "GET", base_buf_text(&query), &body, &err);
	}
	if (r == 0)
		(void)fwrite(body.data, 1, body.len, stdout);
	base_buf_done(&query);
	base_buf_done(&body);
	flip_settings_done(&s);
	return r < 0 ? flip_fail(&err) : 0;
}
