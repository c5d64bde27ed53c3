/* A folder of a model over HTTP/1.1: only the files of its list, as the list says they are, by ranges (RFC 9110,
 * section 14: one range; several are answered with the whole, as a server may). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "model/flip_model.h"

enum { N_THREADS = 4, MAX_CONNECTIONS = 512, IDLE_S = 60 };

struct flip_model_server {
	struct MHD_Daemon *daemon;
	int dir_fd;
	const struct flip_model *model; /* borrowed */
	struct base_buf document;
	char *secret; /* "" or "/SECRET" */
	unsigned port;
};

static const struct flip_model_file *find(const struct flip_model_server *s, const char *path)
{
	for (size_t i = 0; i < s->model->n_files; i++) {
		if (strcmp(s->model->files[i].path, path) == 0)
			return &s->model->files[i];
	}
	return NULL;
}

/* "bytes=A-B", "bytes=A-", "bytes=-N" of `size` bytes: 1 and the range; 0: none that we take, all is sent; -1: beyond
 * the end. */
static int parse_range(const char *text, uint64_t size, uint64_t *ret_first, uint64_t *ret_n)
{
	unsigned long long first = 0, last = size ? size - 1 : 0;
	char *end;

	if (!text || strncmp(text, "bytes=", 6) != 0 || strchr(text, ',') || !size)
		return 0;
	text += 6;
	if (*text == '-') {
		unsigned long long n = strtoull(text + 1, &end, 10);

		if (end == text + 1 || *end)
			return 0;
		if (n == 0)
			return -1;
		first = n < size ? size - n : 0;
	} else {
		first = strtoull(text, &end, 10);
		if (end == text || *end != '-')
			return 0;
		text = end + 1;
		if (*text) {
			last = strtoull(text, &end, 10);
			if (end == text || *end || last < first)
				return 0;
		}
		if (first >= size)
			return -1;
		last = last < size ? last : size - 1;
	}
	*ret_first = first;
	*ret_n = last - first + 1;
	return 1;
}

static enum MHD_Result answer_words(struct MHD_Connection *c, unsigned status, const char *words)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(strlen(words), (void *)words, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result = r ? MHD_queue_response(c, status, r) : MHD_NO;

	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result answer_file(struct flip_model_server *s, struct MHD_Connection *c,
                                   const struct flip_model_file *f)
{
	uint64_t first = 0, n = f->size;
	int kind = parse_range(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Range"), f->size, &first, &n);
	struct MHD_Response *response;
	enum MHD_Result result;
	struct stat st;
	char text[96];
	int fd;

	if (kind < 0)
		return answer_words(c, MHD_HTTP_RANGE_NOT_SATISFIABLE, "beyond the end\n");
	fd = openat(s->dir_fd, f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->size) {
		close_fdp(&fd);
		return answer_words(c, MHD_HTTP_NOT_FOUND, "changed since it was listed\n");
	}
	response = MHD_create_response_from_fd_at_offset64(n, fd, first); /* closes it */
	if (!response) {
		(void)close(fd);
		return MHD_NO;
	}
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ACCEPT_RANGES, "bytes");
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/octet-stream");
	(void)snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, first, first + n - 1, f->size);
	if (kind > 0)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, text);
	result = MHD_queue_response(c, kind > 0 ? MHD_HTTP_PARTIAL_CONTENT : MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer_document(struct flip_model_server *s, struct MHD_Connection *c)
{
	struct MHD_Response *r =
	        MHD_create_response_from_buffer(s->document.len, s->document.data, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result;

	if (!r)
		return MHD_NO;
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, FLIP_MODEL_TYPE);
	result = MHD_queue_response(c, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return result;
}

/* Where the address is decoded by the library: a %00 would end the text early, so it names nothing then. */
static enum MHD_Result handle(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
	struct flip_model_server *s = arg;
	const struct flip_model_file *f;
	static int seen_headers;
	size_t n = strlen(s->secret);

	if (!*state) {
		*state = &seen_headers;
		return MHD_YES;
	}
	if (*size) {
		*size = 0;
		return MHD_YES;
	}
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return answer_words(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD only\n");
	if (strncmp(url, s->secret, n) != 0 || url[n] != '/')
		return answer_words(c, MHD_HTTP_NOT_FOUND, "not here\n");
	f = find(s, url + n + 1);
	if (!f && strcmp(url + n + 1, "model.json") == 0) /* unless the model has a file of this name */
		return answer_document(s, c);
	return f ? answer_file(s, c, f) : answer_words(c, MHD_HTTP_NOT_FOUND, "not here\n");
}

/* "HOST:PORT", "[::]:PORT", ":PORT". */
static int listen_at(const char *text, unsigned *ret_port, struct err *err)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	CLEANUP(freep) char *host = strdup(text);
	struct sockaddr_storage ss;
	struct addrinfo *list = NULL;
	socklen_t len = sizeof(ss);
	char *colon = host ? strrchr(host, ':') : NULL, *name = host;
	int fd, r, one = 1;

	if (!colon)
		return err_set(err, -EINVAL, "%s: not HOST:PORT", text);
	*colon = '\0';
	if (*name == '[' && colon > name && colon[-1] == ']') {
		colon[-1] = '\0';
		name++;
	}
	r = getaddrinfo(*name ? name : NULL, colon + 1, &hints, &list);
	if (r)
		return err_set(err, -EINVAL, "%s: %s", text, gai_strerror(r));
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	r = 0;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, 128) < 0 ||
	    getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		r = -errno;
	freeaddrinfo(list);
	if (r < 0) {
		close_fdp(&fd);
		return err_set(err, r, "%s: %s", text, strerror(-r));
	}
	*ret_port = ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port
	                                           : ((struct sockaddr_in *)&ss)->sin_port);
	return fd;
}

int flip_model_serve_start(const char *dir, const struct flip_model *m, const char *listen, const char *secret,
                           struct flip_model_server **ret_server, struct err *err)
{
	struct flip_model_server *s = calloc(1, sizeof(*s));
	int fd = -1, r = s ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r < 0)
		return r;
	s->model = m;
	base_buf_init(&s->document, FLIP_MODEL_MAX_DOCUMENT);
	s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		r = err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (r == 0 && asprintf(&s->secret, "%s%s", secret ? "/" : "", secret ? secret : "") < 0) {
		s->secret = NULL;
		r = err_set(err, -ENOMEM, "out of memory");
	}
	if (r == 0 && (r = flip_model_append(m, false, &s->document)) < 0)
		(void)err_set(err, r, "%s: the list of files is too long", dir);
	if (r == 0) {
		fd = listen_at(listen, &s->port, err);
		r = fd < 0 ? fd : 0;
	}
	if (r == 0) {
		s->daemon = MHD_start_daemon(
		        MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, handle, s, MHD_OPTION_LISTEN_SOCKET, fd,
		        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)N_THREADS, MHD_OPTION_CONNECTION_LIMIT,
		        (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_END);
		if (!s->daemon) {
			(void)close(fd);
			r = err_set(err, -EIO, "%s: the HTTP server did not start", listen);
		}
	}
	if (r < 0) {
		flip_model_serve_stop(s);
		return r;
	}
	*ret_server = s;
	return 0;
}

unsigned flip_model_serve_port(const struct flip_model_server *s)
{
	return s->port;
}

void flip_model_serve_stop(struct flip_model_server *s)
{
	if (!s)
		return;
	if (s->daemon)
		MHD_stop_daemon(s->daemon);
	close_fdp(&s->dir_fd);
	base_buf_done(&s->document);
	free(s->secret);
	free(s);
}
