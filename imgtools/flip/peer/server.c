/* Questions of others, by libmicrohttpd, a thread for each connection: what blocks (a registry that is asked whether
 * the asker may, a table of contents that is being made, the disk) blocks nobody else.
 *
 *   GET /flip/1/KIND/DIGEST                      Range: pieces            -> frames
 *   GET /flip/1/KIND/DIGEST/NAME                 a document               -> its bytes
 *   GET /flip/1/KIND/DIGEST/content/DIGEST       [Range] of a content     -> its bytes, by sendfile
 *
 * 400 not a question, 401 not of the cluster, 403 may not have it, 404 not here, 503 busy (Flip-Holders: who has it).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "peer_internal.h"

enum { COMPLAIN_US = 10000000, MORE_UPLOADS = 8 };

struct question {
	struct flip_peer_ask ask;
	const char *asker, *document, *content;
	bool takes_zstd;
	char kind[32], digest[72], name[128];
	struct flip_range ranges[FLIP_PEER_MAX_PIECES];
};

static const char *header(struct MHD_Connection *c, const char *name)
{
	const char *value = MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);

	return value ? value : "";
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

static enum MHD_Result answer_status(struct MHD_Connection *c, unsigned status, const char *words, const char *holders)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(strlen(words), (void *)words, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result result;

	if (!r)
		return MHD_NO;
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
	if (holders && *holders)
		(void)MHD_add_response_header(r, "Flip-Holders", holders);
	result = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result answer_error(struct flip_peers *p, struct MHD_Connection *c, int r, const struct err *err)
{
	if (r == -EACCES)
		atomic_fetch_add(&p->counts.forbidden, 1);
	return answer_status(c,
	                     r == -EACCES   ? 403
	                     : r == -ENOENT ? 404
	                     : r == -EINVAL ? 400
	                                    : 503,
	                     err_text(err), NULL);
}

/* ---- Questions -------------------------------------------------------------------------------------------------- */

/* "/flip/1/KIND/DIGEST[/NAME[/DIGEST]]". */
static int parse_path(const char *url, struct question *q)
{
	int at = 0;
	const char *rest;

	if (sscanf(url, "/flip/1/%31[a-z]/%71[a-z0-9:]%n", q->kind, q->digest, &at) != 2 || !at ||
	    !peer_digest_is_valid(q->digest))
		return -EBADMSG;
	rest = url + at;
	if (!*rest)
		return 0;
	if (*rest != '/' || strlen(rest + 1) >= sizeof(q->name) || !rest[1])
		return -EBADMSG;
	(void)snprintf(q->name, sizeof(q->name), "%s", rest + 1);
	if (strncmp(q->name, "content/", 8) == 0) {
		q->content = q->name + 8;
		return peer_digest_is_valid(q->content) ? 0 : -EBADMSG;
	}
	q->document = q->name;
	return strspn(q->name, "abcdefghijklmnopqrstuvwxyz0123456789:.-_") == strlen(q->name) ? 0 : -EBADMSG;
}

static int parse_question(struct MHD_Connection *c, const char *url, struct question *q)
{
	const char *role = header(c, "Flip-Role"), *priority = header(c, "Flip-Priority"), *range = header(c, "Range");
	uint64_t limit = (uint64_t)FLIP_PEER_MAX_PIECES * FLIP_PEER_MAX_PIECE;

	if (parse_path(url, q) < 0)
		return -EBADMSG;
	q->asker = header(c, "Flip-Peer");
	q->takes_zstd = strstr(header(c, "Flip-Accept"), "zstd") != NULL;
	q->ask = (struct flip_peer_ask){ .kind = q->kind,
		                         .digest = q->digest,
		                         .image = header(c, "Flip-Image"),
		                         .grant = header(c, "Flip-Grant"),
		                         .trace = header(c, "Flip-Trace"),
		                         .asker = q->asker,
		                         .document = q->document,
		                         .content = q->content,
		                         .ranges = q->ranges };
	q->ask.role = strcmp(role, "owner") == 0   ? FLIP_PEER_OWNER
	              : strcmp(role, "relay") == 0 ? FLIP_PEER_RELAY
	                                           : FLIP_PEER_HOLDER;
	q->ask.priority = priority[0] >= '0' && priority[0] < '0' + FLIP_N_PRIORITIES && !priority[1]
	                          ? (enum flip_priority)(priority[0] - '0')
	                          : FLIP_PREHEAT;
	if (strlen(q->ask.image) >= PEER_MAX_IMAGE || strlen(q->ask.grant) >= PEER_MAX_GRANT ||
	    strlen(q->ask.trace) >= FLIP_PEER_TRACE || (*q->asker && !peer_name_is_valid(q->asker)))
		return -EBADMSG;
	if (strspn(q->ask.trace, "0123456789abcdef") != strlen(q->ask.trace))
		return -EBADMSG;
	if (!*range)
		return q->document || q->content ? 0 : -EBADMSG;
	return peer_ranges_parse(range, q->ranges, FLIP_PEER_MAX_PIECES, limit, &q->ask.n_ranges);
}

/* Said now and then, not for each question. */
static void complain(struct flip_peers *p, struct MHD_Connection *c, const char *why)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	int64_t now = peer_now_us(), last = atomic_load(&p->complained_us);
	char host[64] = "?";

	if ((last && now - last < COMPLAIN_US) || !atomic_compare_exchange_strong(&p->complained_us, &last, now))
		return;
	if (info && info->client_addr)
		(void)getnameinfo(info->client_addr,
		                  info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
		                                                           : sizeof(struct sockaddr_in),
		                  host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	base_log(BASE_LOG_WARN, "peers: a question from %s is refused: %s", host, why);
}

static bool is_of_the_cluster(struct flip_peers *p, struct MHD_Connection *c, const char *url, const struct question *q,
                              char *ret_why, size_t why_size)
{
	const char *parts[] = { url, header(c, "Range"), q->ask.image, q->ask.grant, header(c, "Flip-Role"), q->asker };

	if (p->o.ca_file && !peer_certificate_is_good(c, ret_why, why_size))
		return false;
	(void)snprintf(ret_why, why_size, "not signed with our secret, or more than a minute ago");
	if (!p->token)
		return p->o.ca_file != NULL;
	return peer_auth_check(p->token, header(c, "Flip-Auth"), parts, sizeof(parts) / sizeof(*parts),
	                       (int64_t)time(NULL)) == 0;
}

/* A place among those that are served; the urgent have some to themselves, what nobody waits for leaves some. Each
 * member has one question answered in any case, so that in a herd nobody is sent away again and again. */
static bool enter(struct flip_peers *p, const struct question *q, uint32_t *ret_member)
{
	unsigned max = p->o.max_uploads, n, of_asker = 1;

	max -= q->ask.priority == FLIP_FOREGROUND   ? 0
	       : q->ask.priority == FLIP_PREFETCH   ? max / 5
	       : q->ask.priority == FLIP_BACKGROUND ? max / 3
	                                            : max / 2;
	pthread_mutex_lock(&p->lock);
	*ret_member = peer_members_find(&p->members, q->asker);
	if (*ret_member != PEER_NOBODY)
		of_asker = p->members.items[*ret_member]->n_serving++;
	pthread_mutex_unlock(&p->lock);
	n = atomic_fetch_add(&p->n_serving, 1);
	if (n < max || (of_asker == 0 && n < MORE_UPLOADS * p->o.max_uploads))
		return true;
	peer_answer_left(p, *ret_member);
	return false;
}

void peer_answer_left(struct flip_peers *p, uint32_t member)
{
	atomic_fetch_sub(&p->n_serving, 1);
	if (member == PEER_NOBODY)
		return;
	pthread_mutex_lock(&p->lock);
	p->members.items[member]->n_serving--;
	pthread_mutex_unlock(&p->lock);
}

static enum MHD_Result answer_busy(struct flip_peers *p, struct MHD_Connection *c, const struct question *q)
{
	struct base_buf holders = BASE_BUF_INIT(2000);
	enum MHD_Result result;

	atomic_fetch_add(&p->counts.busy, 1);
	if (q->ask.n_ranges)
		kept_holders(p->kept, peer_group_hash(q->digest, q->ranges[0].offset), q->asker, &holders);
	result = answer_status(c, 503, "busy", base_buf_text(&holders));
	base_buf_done(&holders);
	return result;
}

static enum MHD_Result answer_pieces(struct flip_peers *p, struct MHD_Connection *c, const struct provider *provider,
                                     const struct question *q)
{
	struct flip_peer_answer *a;
	struct MHD_Response *response;
	struct err err = { 0 };
	enum MHD_Result result;
	uint32_t member;
	int r;

	if (!provider->ops.serve || !q->ask.n_ranges)
		return answer_status(c, 404, "no pieces of this kind", NULL);
	if (!enter(p, q, &member))
		return answer_busy(p, c, q);
	a = peer_answer_new(p, &q->ask, q->asker, member, q->takes_zstd && !provider->ops.is_dense);
	if (!a) {
		peer_answer_left(p, member);
		return MHD_NO;
	}
	response = peer_answer_response(a); /* from here on it takes the answer with it */
	if (!response) {
		peer_answer_left(p, member);
		peer_answer_unref(a);
		peer_answer_unref(a);
		return MHD_NO;
	}
	r = provider->ops.serve(provider->arg, &q->ask, a, &err);
	peer_answer_served(a);
	if (r < 0) {
		MHD_destroy_response(response);
		return answer_error(p, c, r, &err);
	}
	atomic_fetch_add(&p->counts.served, 1);
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/vnd.flip.pieces");
	result = MHD_queue_response(c, 200, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer_document(struct flip_peers *p, struct MHD_Connection *c, const struct provider *provider,
                                       const struct question *q)
{
	struct base_buf body = BASE_BUF_INIT(PEER_MAX_DOCUMENT);
	struct MHD_Response *response;
	struct err err = { 0 };
	enum MHD_Result result;
	size_t n;
	char *data;
	int r = provider->ops.document ? provider->ops.document(provider->arg, &q->ask, q->document, &body, &err)
	                               : err_set(&err, -ENOENT, "no documents of this kind");

	if (r == 0)
		r = base_buf_error(&body);
	n = body.len;
	data = r == 0 ? base_buf_take(&body) : NULL;
	base_buf_done(&body);
	if (r < 0)
		return answer_error(p, c, r, &err);
	peer_pace(p, n < 1 << 20 ? n : 1 << 20, FLIP_FOREGROUND);
	response = MHD_create_response_from_buffer(n, data ? data : "",
	                                           data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	if (!response) {
		free(data);
		return MHD_NO;
	}
	atomic_fetch_add(&p->counts.documents_served, 1);
	atomic_fetch_add(&p->counts.served_bytes, n);
	result = MHD_queue_response(c, 200, response);
	MHD_destroy_response(response);
	return result;
}

/* A range of a file, as it is: the kernel sends it. */
static enum MHD_Result answer_content(struct flip_peers *p, struct MHD_Connection *c, const struct provider *provider,
                                      const struct question *q)
{
	uint64_t offset = q->ask.n_ranges ? q->ranges[0].offset : 0, size = q->ask.n_ranges ? q->ranges[0].size : 0;
	struct MHD_Response *response;
	struct err err = { 0 };
	enum MHD_Result result;
	uint64_t whole = 0;
	char text[80];
	int fd = -1, r;

	if (q->ask.n_ranges > 1)
		return answer_status(c, 400, "one range of a content at a time", NULL);
	r = provider->ops.content
	            ? provider->ops.content(provider->arg, &q->ask, q->content, offset, size, &fd, &whole, &err)
	            : err_set(&err, -ENOENT, "no contents of this kind");
	if (r < 0)
		return answer_error(p, c, r, &err);
	if (offset >= whole || size > whole - offset) {
		(void)close(fd);
		return answer_status(c, 416, "not in the content", NULL);
	}
	size = size ? size : whole - offset;
	peer_pace(p, size < 16 << 20 ? (size_t)size : 16 << 20, q->ask.priority);
	response = MHD_create_response_from_fd_at_offset64(size, fd, offset);
	if (!response) {
		(void)close(fd);
		return MHD_NO;
	}
	(void)snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)offset,
	               (unsigned long long)(offset + size - 1), (unsigned long long)whole);
	if (q->ask.n_ranges)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, text);
	atomic_fetch_add(&p->counts.contents_served, 1);
	atomic_fetch_add(&p->counts.served_bytes, size);
	result = MHD_queue_response(c, q->ask.n_ranges ? 206 : 200, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer(struct flip_peers *p, struct MHD_Connection *c, const char *url, const char *method,
                              struct question *q)
{
	const struct provider *provider;
	char why[160], words[200];
	struct err err = { 0 };
	int r;

	if (strcmp(method, "GET") != 0 || parse_question(c, url, q) < 0) {
		atomic_fetch_add(&p->counts.refused, 1);
		return answer_status(c, 400, "not a question of a peer", NULL);
	}
	if (!is_of_the_cluster(p, c, url, q, why, sizeof(why))) {
		atomic_fetch_add(&p->counts.refused, 1);
		complain(p, c, why);
		(void)snprintf(words, sizeof(words), "not of this cluster: %s", why);
		return answer_status(c, 401, words, NULL);
	}
	provider = peer_provider_of(p, q->kind);
	if (!provider)
		return answer_status(c, 404, "nothing of this kind", NULL);
	r = provider->ops.allow(provider->arg, &q->ask, &err);
	base_log(BASE_LOG_DEBUG, "trace %s: asked by %s as %s for %.19s: %s", q->ask.trace, q->asker,
	         header(c, "Flip-Role"), q->digest, r < 0 ? err_text(&err) : "may have it");
	if (r < 0)
		return answer_error(p, c, r, &err);
	return q->document  ? answer_document(p, c, provider, q)
	       : q->content ? answer_content(p, c, provider, q)
	                    : answer_pieces(p, c, provider, q);
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
	static int seen_headers;
	struct question *q;
	enum MHD_Result result;

	if (!*state) {
		*state = &seen_headers;
		return MHD_YES;
	}
	if (*size) { /* nobody sends a body here */
		*size = 0;
		return MHD_YES;
	}
	q = calloc(1, sizeof(*q));
	if (!q)
		return MHD_NO;
	result = answer(arg, c, url, method, q);
	free(q);
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
	peer_server_close(p->server);
	p->server = NULL;
}
