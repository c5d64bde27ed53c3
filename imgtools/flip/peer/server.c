/* Questions of others by HTTP, by libmicrohttpd, a thread for each connection: what blocks (a registry that is asked
 * whether the asker may, a table of contents that is being made, the disk) blocks nobody else. What is asked and
 * answered is question.c's. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peer_internal.h"

enum { MAX_BLOCK = 256 << 10 };

/* ---- What is asked ---------------------------------------------------------------------------------------------- */

static const char *header(void *connection, const char *name)
{
	const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);

	return value ? value : "";
}

static bool is_certified(void *connection, char *ret_why, size_t why_size)
{
	return peer_certificate_is_good(connection, ret_why, why_size);
}

static void from(void *connection, char *ret, size_t size)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	if (info && info->client_addr)
		(void)getnameinfo(info->client_addr,
		                  info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
		                                                           : sizeof(struct sockaddr_in),
		                  ret, (socklen_t)size, NULL, 0, NI_NUMERICHOST);
}

/* ---- What is answered ------------------------------------------------------------------------------------------- */

static ssize_t read_answer(void *arg, uint64_t pos, char *buf, size_t max)
{
	ssize_t n = peer_answer_read(arg, buf, max);

	(void)pos;
	return n > 0 ? n : n == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void answer_gone(void *arg)
{
	peer_answer_gone(arg);
}

/* What the response takes over is no longer the reply's. */
static struct MHD_Response *response_of(struct peer_reply *r)
{
	struct MHD_Response *response;
	char text[80];

	if (r->answer) {
		response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, MAX_BLOCK, read_answer, r->answer,
		                                             answer_gone);
		if (response)
			(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
			                              "application/vnd.flip.pieces");
		r->answer = response ? NULL : r->answer;
	} else if (r->fd >= 0) { /* the kernel sends it */
		response = MHD_create_response_from_fd_at_offset64(r->size, r->fd, r->offset);
		r->fd = response ? -1 : r->fd;
		(void)snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)r->offset,
		               (unsigned long long)(r->offset + r->size - 1), (unsigned long long)r->whole);
		if (response && r->status == 206)
			(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, text);
	} else if (r->status == 200) {
		response = MHD_create_response_from_buffer(r->size, r->data ? r->data : "",
		                                           r->data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
		r->data = response ? NULL : r->data;
	} else {
		response = MHD_create_response_from_buffer(strlen(r->words), r->words, MHD_RESPMEM_MUST_COPY);
		if (response)
			(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
			                              "text/plain; charset=utf-8");
		if (response && r->holders[0])
			(void)MHD_add_response_header(response, "Flip-Holders", r->holders);
	}
	return response;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
	static int seen_headers;
	/* What is no GET is no question: it gets the answer of one. */
	struct peer_asked asked = { strcmp(method, "GET") == 0 ? url : "", header, is_certified, from, c };
	struct MHD_Response *response;
	struct peer_reply reply;
	enum MHD_Result result = MHD_NO;

	if (!*state) {
		*state = &seen_headers;
		return MHD_YES;
	}
	if (*size) { /* nobody sends a body here */
		*size = 0;
		return MHD_YES;
	}
	peer_reply_to(arg, &asked, &reply);
	response = response_of(&reply);
	if (response) {
		result = MHD_queue_response(c, reply.status, response);
		MHD_destroy_response(response);
	}
	peer_reply_done(&reply);
	return result;
}

/* ---- Start and end ---------------------------------------------------------------------------------------------- */

static int listen_at(const char *where, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *list;
	char host[FLIP_PEER_NAME], *colon, *h = host;
	int fd = -1, one = 1, r;

	(void)snprintf(host, sizeof(host), "%s", where);
	colon = strrchr(host, ':');
	if (!colon || !peer_name_is_valid(where))
		return err_set(err, -EINVAL, "peers.listen: \"%.100s\" is not HOST:PORT", where);
	*colon = '\0';
	if (*h == '[') {
		h++;
		h[strlen(h) - 1] = '\0';
	}
	r = getaddrinfo(h, colon + 1, &hints, &list);
	if (r)
		return err_set(err, -EINVAL, "peers.listen: %s: %s", where, gai_strerror(r));
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, 256) < 0) {
		r = -errno;
		if (fd >= 0)
			(void)close(fd);
		fd = err_set(err, r, "peers.listen: %s: %s", where, strerror(-r));
	}
	freeaddrinfo(list);
	return fd;
}

int peer_server_start(struct flip_peers *p, struct err *err)
{
	int fd = listen_at(p->o.listen, err);

	return fd < 0 ? fd : peer_server_open(p, fd, handle, &p->server, err);
}

void peer_server_stop(struct flip_peers *p)
{
	atomic_store(&p->server_stops, true);
	peer_fabric_server_stop(p->fabric_server);
	p->fabric_server = NULL;
	peer_server_close(p->server);
	p->server = NULL;
}
