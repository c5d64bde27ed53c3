/* Questions of others, whichever way they came: what is asked, by whom, whether there is a place for it, and what is
 * answered. Transports bring the question and carry the reply (server.c: HTTP; server_fabric.c).
 *
 *   /flip/1/KIND/DIGEST                      Range: pieces            -> frames
 *   /flip/1/KIND/DIGEST/NAME                 a document               -> its bytes
 *   /flip/1/KIND/DIGEST/content/DIGEST       [Range] of a content     -> its bytes
 *
 * 400 not a question, 401 not of the cluster, 403 may not have it, 404 not here, 503 busy (Flip-Holders: who has it).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "peer_internal.h"

enum { COMPLAIN_US = 10000000, MORE_UPLOADS = 8 };

struct question {
	const struct peer_asked *asked;
	struct flip_peer_ask ask;
	const char *asker, *document, *content;
	bool takes_zstd;
	char kind[32], digest[72], name[128];
	struct flip_range ranges[FLIP_PEER_MAX_PIECES];
};

static const char *header(const struct question *q, const char *name)
{
	return q->asked->header(q->asked->arg, name);
}

/* ---- Replies ---------------------------------------------------------------------------------------------------- */

static void reply(struct peer_reply *r, unsigned status, const char *words)
{
	r->status = status;
	(void)snprintf(r->words, sizeof(r->words), "%s", words);
}

static void reply_error(struct flip_peers *p, struct peer_reply *reply_to, int r, const struct err *err)
{
	if (r == -EACCES)
		atomic_fetch_add(&p->counts.forbidden, 1);
	reply(reply_to, r == -EACCES ? 403 : r == -ENOENT ? 404 : r == -EINVAL ? 400 : 503, err_text(err));
}

void peer_reply_done(struct peer_reply *r)
{
	if (r->answer)
		peer_answer_gone(r->answer);
	if (r->fd >= 0)
		(void)close(r->fd);
	free(r->data);
	r->answer = NULL;
	r->data = NULL;
	r->fd = -1;
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

static int parse_question(struct question *q)
{
	const char *role = header(q, "Flip-Role"), *priority = header(q, "Flip-Priority"), *range = header(q, "Range");
	uint64_t limit = (uint64_t)FLIP_PEER_MAX_PIECES * FLIP_PEER_MAX_PIECE;

	if (parse_path(q->asked->path, q) < 0)
		return -EBADMSG;
	q->asker = header(q, "Flip-Peer");
	q->takes_zstd = strstr(header(q, "Flip-Accept"), "zstd") != NULL;
	q->ask = (struct flip_peer_ask){ .kind = q->kind,
		                         .digest = q->digest,
		                         .image = header(q, "Flip-Image"),
		                         .grant = header(q, "Flip-Grant"),
		                         .trace = header(q, "Flip-Trace"),
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
static void complain(struct flip_peers *p, const struct peer_asked *asked, const char *why)
{
	int64_t now = peer_now_us(), last = atomic_load(&p->complained_us);
	char from[64] = "?";

	if ((last && now - last < COMPLAIN_US) || !atomic_compare_exchange_strong(&p->complained_us, &last, now))
		return;
	asked->from(asked->arg, from, sizeof(from));
	base_log(BASE_LOG_WARN, "peers: a question from %s is refused: %s", from, why);
}

/* A way without certificates is open to those alone who know the secret. */
static bool is_of_the_cluster(struct flip_peers *p, const struct question *q, char *ret_why, size_t why_size)
{
	const struct peer_asked *asked = q->asked;
	const char *parts[] = { asked->path,  header(q, "Range"),     q->ask.image,
		                q->ask.grant, header(q, "Flip-Role"), q->asker };

	if (asked->is_certified && p->o.ca_file && !asked->is_certified(asked->arg, ret_why, why_size))
		return false;
	(void)snprintf(ret_why, why_size, "not signed with our secret, or more than a minute ago");
	if (!p->token)
		return asked->is_certified && p->o.ca_file;
	return peer_auth_check(p->token, header(q, "Flip-Auth"), parts, sizeof(parts) / sizeof(*parts),
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

static void reply_busy(struct flip_peers *p, const struct question *q, struct peer_reply *ret)
{
	struct base_buf holders = BASE_BUF_INIT(sizeof(ret->holders) - 1);

	atomic_fetch_add(&p->counts.busy, 1);
	reply(ret, 503, "busy");
	if (q->ask.n_ranges)
		kept_holders(p->kept, peer_group_hash(q->digest, q->ranges[0].offset), q->asker, &holders);
	(void)snprintf(ret->holders, sizeof(ret->holders), "%s", base_buf_text(&holders));
	base_buf_done(&holders);
}

static void reply_pieces(struct flip_peers *p, const struct provider *provider, const struct question *q,
                         struct peer_reply *ret)
{
	struct flip_peer_answer *a;
	struct err err = { 0 };
	uint32_t member;
	int r;

	if (!provider->ops.serve || !q->ask.n_ranges) {
		reply(ret, 404, "no pieces of this kind");
		return;
	}
	if (!enter(p, q, &member)) {
		reply_busy(p, q, ret);
		return;
	}
	a = peer_answer_new(p, &q->ask, q->asker, member, q->takes_zstd && !provider->ops.is_dense);
	if (!a) {
		peer_answer_left(p, member);
		reply(ret, 503, "out of memory");
		return;
	}
	r = provider->ops.serve(provider->arg, &q->ask, a, &err);
	peer_answer_served(a);
	if (r < 0) {
		peer_answer_gone(a);
		reply_error(p, ret, r, &err);
		return;
	}
	atomic_fetch_add(&p->counts.served, 1);
	ret->status = 200;
	ret->answer = a;
}

static void reply_document(struct flip_peers *p, const struct provider *provider, const struct question *q,
                           struct peer_reply *ret)
{
	struct base_buf body = BASE_BUF_INIT(PEER_MAX_DOCUMENT);
	struct err err = { 0 };
	int r = provider->ops.document ? provider->ops.document(provider->arg, &q->ask, q->document, &body, &err)
	                               : err_set(&err, -ENOENT, "no documents of this kind");

	if (r == 0)
		r = base_buf_error(&body);
	if (r < 0) {
		reply_error(p, ret, r, &err);
	} else {
		ret->status = 200;
		ret->size = body.len;
		ret->data = base_buf_take(&body);
		peer_pace(p, ret->size < 1 << 20 ? ret->size : 1 << 20, FLIP_FOREGROUND);
		atomic_fetch_add(&p->counts.documents_served, 1);
		atomic_fetch_add(&p->counts.served_bytes, ret->size);
	}
	base_buf_done(&body);
}

/* A range of a file, as it is. */
static void reply_content(struct flip_peers *p, const struct provider *provider, const struct question *q,
                          struct peer_reply *ret)
{
	uint64_t offset = q->ask.n_ranges ? q->ranges[0].offset : 0, size = q->ask.n_ranges ? q->ranges[0].size : 0;
	struct err err = { 0 };
	uint64_t whole = 0;
	int r;

	if (q->ask.n_ranges > 1) {
		reply(ret, 400, "one range of a content at a time");
		return;
	}
	r = provider->ops.content
	            ? provider->ops.content(provider->arg, &q->ask, q->content, offset, size, &ret->fd, &whole, &err)
	            : err_set(&err, -ENOENT, "no contents of this kind");
	if (r < 0) {
		ret->fd = -1;
		reply_error(p, ret, r, &err);
		return;
	}
	if (offset >= whole || size > whole - offset) {
		peer_reply_done(ret);
		reply(ret, 416, "not in the content");
		return;
	}
	size = size ? size : whole - offset;
	peer_pace(p, size < 16 << 20 ? (size_t)size : 16 << 20, q->ask.priority);
	ret->status = q->ask.n_ranges ? 206 : 200;
	ret->offset = offset;
	ret->size = size;
	ret->whole = whole;
	atomic_fetch_add(&p->counts.contents_served, 1);
	atomic_fetch_add(&p->counts.served_bytes, size);
}

static void reply_to(struct flip_peers *p, struct question *q, struct peer_reply *ret)
{
	const struct provider *provider;
	char why[160], words[200];
	struct err err = { 0 };
	int r;

	if (parse_question(q) < 0) {
		atomic_fetch_add(&p->counts.refused, 1);
		reply(ret, 400, "not a question of a peer");
		return;
	}
	if (!is_of_the_cluster(p, q, why, sizeof(why))) {
		atomic_fetch_add(&p->counts.refused, 1);
		complain(p, q->asked, why);
		(void)snprintf(words, sizeof(words), "not of this cluster: %s", why);
		reply(ret, 401, words);
		return;
	}
	provider = peer_provider_of(p, q->kind);
	if (!provider) {
		reply(ret, 404, "nothing of this kind");
		return;
	}
	r = provider->ops.allow(provider->arg, &q->ask, &err);
	base_log(BASE_LOG_DEBUG, "trace %s: asked by %s as %s for %.19s: %s", q->ask.trace, q->asker,
	         header(q, "Flip-Role"), q->digest, r < 0 ? err_text(&err) : "may have it");
	if (r < 0)
		reply_error(p, ret, r, &err);
	else if (q->document)
		reply_document(p, provider, q, ret);
	else if (q->content)
		reply_content(p, provider, q, ret);
	else
		reply_pieces(p, provider, q, ret);
}

void peer_reply_to(struct flip_peers *p, const struct peer_asked *asked, struct peer_reply *ret)
{
	struct question *q = calloc(1, sizeof(*q));

	*ret = (struct peer_reply){ .fd = -1 };
	if (!q) {
		reply(ret, 503, "out of memory");
		return;
	}
	q->asked = asked;
	reply_to(p, q, ret);
	free(q);
}
