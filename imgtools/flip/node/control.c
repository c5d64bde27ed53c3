/* The control socket: HTTP/1.1 on a unix socket of mode 0600, by libmicrohttpd. Who may open the socket may do all of
 * it.
 *
 *   GET  /v1/stat                      one JSON object
 *   GET  /metrics                      the same for Prometheus
 *   GET  /v1/prefetch ref              the list that was recorded for an image (docs/formats/prefetch.md)
 *   GET  /v1/peers                     who has what, one JSON object
 *   GET  /v1/image   ref               manifest and configuration, also while the registry is away
 *   POST /v1/mount   ref, dir          an image mounted read-only
 *   POST /v1/unmount dir
 *   POST /v1/gc      [all=1] [dry_run=1]  what was removed
 *   POST /v1/fsck    [dry_run=1]       findings, one line each, then the counts
 *   GET  /v1/models  [name]            models, how much of each is here
 *   POST /v1/preheat ref               an image that is known: all of it, below all else
 *   POST /v1/model/pull    name, source [shown] [keep=1] [preheat=1]
 *   POST /v1/model/mount   name [dir]  answers where
 *   POST /v1/model/remove  name
 *
 * Arguments are of the query; failures are a JSON object with "error". */
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/json.h"
#include "node/node_internal.h"

enum { MAX_ANSWER = 64 << 20, N_THREADS = 4 /* some requests are long */ };

struct flip_control {
	struct flip_node *node;
	struct MHD_Daemon *daemon;
	char path[108];
};

struct answer {
	unsigned status;
	const char *type;
	struct base_buf body;
};

static void answer_json(struct answer *a, json_t *o)
{
	if (!o || base_json_append(&a->body, o) < 0)
		a->status = MHD_HTTP_INTERNAL_SERVER_ERROR;
	json_decref(o);
}

static void answer_error(struct answer *a, int r, const struct err *err)
{
	a->status = r == -ENOENT   ? MHD_HTTP_NOT_FOUND
	            : r == -EINVAL ? MHD_HTTP_BAD_REQUEST
	                           : MHD_HTTP_INTERNAL_SERVER_ERROR;
	answer_json(a, json_pack("{s:s, s:i}", "error", err_text(err), "errno", -r));
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

static const char *argument(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, name);
}

static void do_stat(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	(void)flip_node_stat(node, &a->body);
}

static void do_metrics(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	a->type = "text/plain; version=0.0.4";
	(void)flip_node_metrics(node, &a->body);
}

static void do_peers(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	(void)flip_node_peers(node, &a->body);
}

static void do_image(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const char *ref = argument(c, "ref");
	struct err err = { 0 };
	int r = ref ? flip_node_image(node, ref, &a->body, &err) : err_set(&err, -EINVAL, "ref is needed");

	if (r < 0)
		answer_error(a, r, &err);
}

static void do_mount(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const char *ref = argument(c, "ref"), *dir = argument(c, "dir");
	struct err err = { 0 };
	int r = ref && dir ? flip_node_mount(node, ref, dir, &err) : err_set(&err, -EINVAL, "ref and dir are needed");

	if (r < 0)
		answer_error(a, r, &err);
	else
		answer_json(a, json_object());
}

static void do_unmount(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const char *dir = argument(c, "dir");
	struct err err = { 0 };
	int r = dir ? flip_node_unmount(node, dir, &err) : err_set(&err, -EINVAL, "dir is needed");

	if (r < 0)
		answer_error(a, r, &err);
	else
		answer_json(a, json_object());
}

/* A recording that is still going on ends here: whoever asks wants it now. */
static void do_prefetch(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const char *ref = argument(c, "ref");
	struct err err = { 0 };
	void *data;
	size_t size;
	int r;

	node_record_finish(node, INT64_MAX);
	r = ref ? flip_store_note_get(node->store, "prefetch", ref, &data, &size, &err)
	        : err_set(&err, -EINVAL, "ref is needed");
	if (r == -ENOENT)
		(void)err_set(&err, r, "%s: no start was recorded here", ref);
	if (r < 0) {
		answer_error(a, r, &err);
		return;
	}
	a->type = "text/plain; charset=utf-8";
	(void)base_buf_append(&a->body, data, size);
	free(data);
}

static void do_gc(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	struct flip_gc_result g = { 0 };
	struct err err = { 0 };
	int r = node_gc(node, argument(c, "all") != NULL, argument(c, "dry_run") != NULL, &g, &err);

	if (r < 0)
		answer_error(a, r, &err);
	else
		answer_json(a, json_pack("{s:I, s:I, s:I, s:I}", "layers", (json_int_t)g.n_layers, "objects",
		                         (json_int_t)g.n_objects, "partials", (json_int_t)g.n_partials, "bytes",
		                         (json_int_t)g.n_bytes));
}

static void add_finding(void *arg, const char *line)
{
	(void)json_array_append_new(arg, json_string(line));
}

static void do_fsck(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	struct flip_fsck_result f = { 0 };
	json_t *findings = json_array();
	struct err err = { 0 };
	int r = flip_store_fsck(node->store, argument(c, "dry_run") != NULL, add_finding, findings, &f, &err);

	if (r < 0) {
		json_decref(findings);
		answer_error(a, r, &err);
	} else {
		answer_json(a,
		            json_pack("{s:I, s:I, s:I, s:o}", "checked", (json_int_t)f.n_checked, "bad",
		                      (json_int_t)f.n_bad, "leftover", (json_int_t)f.n_leftover, "findings", findings));
	}
}

/* ---- Models ------------------------------------------------------------------------------------------------------ */

static void answer_result(struct answer *a, int r, const struct err *err)
{
	if (r < 0)
		answer_error(a, r, err);
	else
		answer_json(a, json_object());
}

static void do_preheat(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const char *ref = argument(c, "ref");
	struct err err = { 0 };

	answer_result(a, ref ? flip_node_preheat(node, ref, &err) : err_set(&err, -EINVAL, "ref is needed"), &err);
}

static void do_models(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	struct err err = { 0 };
	int r = flip_node_models(node, argument(c, "name"), &a->body, &err);

	if (r < 0)
		answer_error(a, r, &err);
}

static void do_model_pull(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const struct flip_model_pull p = { .name = argument(c, "name"),
		                           .source = argument(c, "source"),
		                           .shown = argument(c, "shown"),
		                           .keep = argument(c, "keep") != NULL,
		                           .preheat = argument(c, "preheat") != NULL };
	struct err err = { 0 };
	int r = p.name && p.source ? flip_node_model_pull(node, &p, &err)
	                           : err_set(&err, -EINVAL, "name and source are needed");

	answer_result(a, r, &err);
}

static void do_model_remove(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const char *name = argument(c, "name");
	struct err err = { 0 };

	answer_result(a, name ? flip_node_model_remove(node, name, &err) : err_set(&err, -EINVAL, "name is needed"),
	              &err);
}

static void do_model_mount(struct flip_node *node, struct MHD_Connection *c, struct answer *a)
{
	const char *name = argument(c, "name");
	char dir[NODE_PATH];
	struct err err = { 0 };
	int r = name ? flip_node_model_mount(node, name, argument(c, "dir"), dir, sizeof(dir), &err)
	             : err_set(&err, -EINVAL, "name is needed");

	if (r < 0)
		answer_error(a, r, &err);
	else
		answer_json(a, json_pack("{s:s}", "dir", dir));
}

static const struct route {
	const char *method, *path;
	void (*run)(struct flip_node *node, struct MHD_Connection *c, struct answer *a);
} routes[] = {
	{ "GET", "/v1/stat", do_stat },
	{ "GET", "/v1/prefetch", do_prefetch },
	{ "GET", "/metrics", do_metrics },
	{ "POST", "/v1/mount", do_mount },
	{ "POST", "/v1/unmount", do_unmount },
	{ "POST", "/v1/gc", do_gc },
	{ "POST", "/v1/fsck", do_fsck },
	{ "POST", "/v1/preheat", do_preheat },
	{ "GET", "/v1/models", do_models },
	{ "POST", "/v1/model/pull", do_model_pull },
	{ "POST", "/v1/model/remove", do_model_remove },
	{ "POST", "/v1/model/mount", do_model_mount },
	{ "GET", "/v1/peers", do_peers },
	{ "GET", "/v1/image", do_image },
};

static enum MHD_Result handle(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
	struct flip_control *control = arg;
	struct answer a = { MHD_HTTP_OK, "application/json", BASE_BUF_INIT(MAX_ANSWER) };
	static int seen_headers;
	struct MHD_Response *response;
	const struct route *found = NULL;
	enum MHD_Result result;
	size_t n;
	char *body;

	if (!*state) { /* the headers; a body, if any, is passed over */
		*state = &seen_headers;
		return MHD_YES;
	}
	if (*size) {
		*size = 0;
		return MHD_YES;
	}
	for (size_t i = 0; i < sizeof(routes) / sizeof(*routes); i++) {
		if (strcmp(routes[i].path, url) == 0 && strcmp(routes[i].method, method) == 0)
			found = &routes[i];
	}
	if (found) {
		found->run(control->node, c, &a);
	} else {
		struct err err = { 0 };

		answer_error(&a, err_set(&err, -ENOENT, "no %s %.200s here", method, url), &err);
	}
	if (base_buf_error(&a.body))
		a.status = MHD_HTTP_INTERNAL_SERVER_ERROR;
	n = a.body.len;
	body = base_buf_take(&a.body);
	response = MHD_create_response_from_buffer(body ? n : 0, body ? body : "",
	                                           body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	base_buf_done(&a.body);
	if (!response)
		return MHD_NO;
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a.type);
	result = MHD_queue_response(c, a.status, response);
	MHD_destroy_response(response);
	return result;
}

/* ---- The socket -------------------------------------------------------------------------------------------------- */

/* A socket that nobody answers at is replaced. */
static int listen_at(const char *path, struct err *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	mode_t mask;
	int fd, r = 0;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: longer than %zu bytes", path, sizeof(sa.sun_path) - 1);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
		(void)close(fd);
		return err_set(err, -EADDRINUSE, "%s: another daemon answers there", path);
	}
	(void)close(fd);
	(void)unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 64) < 0)
		r = -errno;
	(void)umask(mask);
	if (r < 0) {
		if (fd >= 0)
			(void)close(fd);
		return err_set(err, r, "%s: %s", path, strerror(-r));
	}
	return fd;
}

int flip_control_start(struct flip_node *node, const char *socket_path, struct flip_control **ret_control,
                       struct err *err)
{
	struct flip_control *c = calloc(1, sizeof(*c));
	int fd;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->node = node;
	fd = listen_at(socket_path, err);
	if (fd < 0) {
		free(c);
		return fd;
	}
	(void)snprintf(c->path, sizeof(c->path), "%s", socket_path);
	c->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, handle, c, MHD_OPTION_LISTEN_SOCKET,
	                             fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)N_THREADS, MHD_OPTION_CONNECTION_LIMIT,
	                             64u, MHD_OPTION_END);
	if (!c->daemon) {
		(void)close(fd);
		free(c);
		return err_set(err, -EIO, "%s: the HTTP server did not start", socket_path);
	}
	*ret_control = c;
	return 0;
}

void flip_control_stop(struct flip_control *c)
{
	if (!c)
		return;
	MHD_stop_daemon(c->daemon);
	(void)unlink(c->path);
	free(c);
}
