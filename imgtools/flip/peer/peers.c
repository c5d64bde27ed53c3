/* Opening and closing, the list of members taken in, and what is known of it all. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/json.h"
#include "base/log.h"
#include "peer/fabric_line.h"
#include "peer_internal.h"

/* ---- Options ---------------------------------------------------------------------------------------------------- */

static int keep(struct flip_peers *p, const char **text)
{
	char *copy;

	if (!*text || !**text) {
		*text = NULL;
		return 0;
	}
	copy = strdup(*text);
	if (!copy)
		return -ENOMEM;
	p->strings[p->n_strings++] = copy;
	*text = copy;
	return 0;
}

static int copy_opts(struct flip_peers *p, const struct flip_peers_opts *o, struct err *err)
{
	struct flip_peers_opts *x = &p->o;

	*x = *o;
	if (keep(p, &x->listen) < 0 || keep(p, &x->advertise) < 0 || keep(p, &x->zone) < 0 ||
	    keep(p, &x->members) < 0 || keep(p, &x->token_file) < 0 || keep(p, &x->cert_file) < 0 ||
	    keep(p, &x->key_file) < 0 || keep(p, &x->ca_file) < 0 || keep(p, &x->etcd_ca_file) < 0 ||
	    keep(p, &x->transport) < 0 || keep(p, &x->fabric_provider) < 0 || keep(p, &x->fabric_listen) < 0 ||
	    keep(p, &x->fabric_advertise) < 0 || keep(p, &x->pressure_dir) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	x->link_share = x->link_share && x->link_share <= 100 ? x->link_share : 100;
	x->max_uploads = x->max_uploads ? x->max_uploads : 32;
	x->max_asked = x->max_asked ? x->max_asked : 32;
	x->disk_queue = x->disk_queue ? x->disk_queue : 4;
	x->psi_percent = x->psi_percent ? x->psi_percent : 20;
	x->pressure_dir = x->pressure_dir ? x->pressure_dir : PEER_PRESSURE_DIR;
	x->cache_bytes = x->cache_bytes ? x->cache_bytes : 64 << 20;
	x->stall_ms = x->stall_ms ? x->stall_ms : 2500;
	x->grant_s = x->grant_s ? x->grant_s : 60;
	if (!x->members)
		return err_set(err, -EINVAL, "peers.members: not said");
	if (!x->token_file && !x->ca_file)
		return err_set(err, -EACCES,
		               "peers: neither a token file nor certificates: anybody could ask for anything");
	if ((x->ca_file || x->cert_file || x->key_file) && !(x->ca_file && x->cert_file && x->key_file))
		return err_set(err, -EINVAL, "peers: ca-file, cert-file and key-file belong together");
	if (x->zone &&
	    strspn(x->zone, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(x->zone))
		return err_set(err, -EINVAL, "peers.zone: \"%.50s\": letters, digits, '.', '_' and '-' only", x->zone);
	return 0;
}

/* The address of an interface that is up, where nothing better is said. */
static int own_address(char *ret, size_t size)
{
	struct ifaddrs *list, *i;
	int r = -EADDRNOTAVAIL;

	if (getifaddrs(&list) < 0)
		return -errno;
	for (i = list; i && r < 0; i = i->ifa_next) {
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !(i->ifa_flags & IFF_LOOPBACK) &&
		    (i->ifa_flags & IFF_UP) &&
		    getnameinfo(i->ifa_addr, sizeof(struct sockaddr_in), ret, (socklen_t)size, NULL, 0,
		                NI_NUMERICHOST) == 0)
			r = 0;
	}
	freeifaddrs(list);
	return r;
}

static bool is_any(const char *address)
{
	return strncmp(address, "0.0.0.0:", 8) == 0 || strncmp(address, "[::]:", 5) == 0;
}

static int choose_name(struct flip_peers *p, struct err *err)
{
	const char *given = p->o.advertise ? p->o.advertise : p->o.listen, *port = strrchr(given, ':');
	char host[64];

	if (!port || !peer_name_is_valid(given))
		return err_set(err, -EINVAL, "peers: \"%.100s\" is not HOST:PORT", given);
	if (!p->o.advertise && is_any(given)) {
		if (own_address(host, sizeof(host)) < 0)
			return err_set(err, -EADDRNOTAVAIL, "peers.advertise: not said, and no address is found");
		(void)snprintf(p->name, sizeof(p->name), "%s%s", host, port);
	} else {
		(void)snprintf(p->name, sizeof(p->name), "%s", given);
	}
	return 0;
}

/* Where we listen for libfabric, and what members are told of it. */
static int choose_fabric(struct flip_peers *p, struct err *err)
{
	const char *listen = p->o.fabric_listen, *told = p->o.fabric_advertise, *port;
	char next[8];

	if (!p->o.transport || strcmp(p->o.transport, "http") == 0)
		return 0;
	if (strcmp(p->o.transport, "fabric") != 0)
		return err_set(err, -EINVAL, "peers.transport: \"%.30s\" is neither http nor fabric", p->o.transport);
	/* Nothing is encrypted there, and no certificate is shown: what says who asks is the secret. */
	if (!p->o.token_file)
		return err_set(
		        err, -EACCES,
		        "peers.transport: fabric has no certificates: it needs a token-file, beside them or instead");
	if (!p->o.fabric_provider)
		p->o.fabric_provider = "tcp";
	(void)snprintf(next, sizeof(next), "%u", (unsigned)strtoul(strrchr(p->o.listen, ':') + 1, NULL, 10) + 1);
	if (peer_fabric_parse(p->o.listen, listen ? listen : next, p->fabric_listen) < 0)
		return err_set(err, -EINVAL, "peers.fabric-listen: \"%.100s\" is not HOST:PORT",
		               listen ? listen : next);
	/* A card of its own has an address of its own. */
	port = strrchr(p->fabric_listen, ':') + 1;
	if (!told)
		told = is_any(p->fabric_listen) || !listen ? port : p->fabric_listen;
	if (peer_fabric_parse(p->name, told, p->fabric_name) < 0)
		return err_set(err, -EINVAL, "peers.fabric-advertise: \"%.100s\" is not HOST:PORT", told);
	return 0;
}

/* ---- Members ---------------------------------------------------------------------------------------------------- */

static int make_queues(struct flip_peers *p)
{
	if (p->members.n > p->n_queues) {
		struct queue **q = reallocarray(p->queues, p->members.n, sizeof(struct queue *));

		if (!q)
			return -ENOMEM;
		p->queues = q;
	}
	while (p->n_queues < p->members.n) {
		struct queue *q = calloc(1, sizeof(*q));

		if (!q)
			return -ENOMEM;
		for (int i = 0; i < FLIP_N_PRIORITIES; i++)
			TAILQ_INIT(&q->list[i]);
		p->queues[p->n_queues++] = q;
	}
	return 0;
}

static void members_changed(void *arg, const struct peer_named *named, size_t n)
{
	struct flip_peers *p = arg;
	size_t before, after;
	int r;

	pthread_mutex_lock(&p->lock);
	before = p->members.n_named;
	r = peer_members_set(&p->members, named, n);
	if (r == 0)
		r = make_queues(p);
	if (r < 0) { /* nobody is asked whom there is no queue for */
		for (size_t i = p->n_queues; i < p->members.n; i++)
			p->members.items[i]->is_named = false;
	}
	after = p->members.n_named;
	atomic_store(&p->n_live, (unsigned)(after - (p->members.self != PEER_NOBODY)));
	pthread_mutex_unlock(&p->lock);
	if (before != after)
		base_log(BASE_LOG_INFO, "peers: %zu members%s", after,
		         p->members.self == PEER_NOBODY ? ", we are not among them" : "");
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

int flip_peers_new(const struct flip_peers_opts *o, struct flip_peers **ret_peers, struct err *err)
{
	struct flip_peers *p;
	uint64_t of_link;
	int r;

	if (!o->listen || !*o->listen) {
		*ret_peers = NULL;
		return 0;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_cond_init(&p->changed, NULL);
	(void)pthread_mutex_init(&p->disk_lock, NULL);
	(void)pthread_cond_init(&p->disk_free, NULL);
	(void)pthread_mutex_init(&p->pressure_lock, NULL);
	TAILQ_INIT(&p->resting);
	LIST_INIT(&p->calls);
	p->last_told = &p->told;
	peer_pressure_init(&p->pressure);
	atomic_init(&p->pace_percent, 100);
	r = copy_opts(p, o, err);
	of_link = p->o.link / 100 * p->o.link_share;
	peer_bucket_init(&p->up, p->o.max_up && (!of_link || p->o.max_up < of_link) ? p->o.max_up : of_link);
	peer_bucket_init(&p->down, p->o.max_down && (!of_link || p->o.max_down < of_link) ? p->o.max_down : of_link);
	if (r == 0)
		r = choose_name(p, err);
	if (r == 0)
		r = choose_fabric(p, err);
	if (r == 0)
		r = peer_members_init(&p->members, p->name, p->o.zone);
	if (r == 0 && p->o.token_file)
		r = peer_token_load(p->o.token_file, &p->token, err);
	if (r == 0 && !(p->membership = peer_membership_choose(p->o.members, &p->where, err)))
		r = -EINVAL;
	if (r == 0 && !(p->kept = kept_new(p->o.cache_bytes)))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		flip_peers_free(p);
		return r;
	}
	p->transport = &peer_transport_http;
	*ret_peers = p;
	return 0;
}

int flip_peers_provide(struct flip_peers *p, const char *kind, const struct flip_peer_provider *provider, void *arg)
{
	if (p->n_providers == sizeof(p->providers) / sizeof(*p->providers))
		return -ENOSPC;
	p->providers[p->n_providers++] = (struct provider){ kind, *provider, arg };
	return 0;
}

const struct provider *peer_provider_of(const struct flip_peers *p, const char *kind)
{
	for (unsigned i = 0; i < p->n_providers; i++) {
		if (strcmp(p->providers[i].kind, kind) == 0)
			return &p->providers[i];
	}
	return NULL;
}

/* Without libfabric, or without what its provider needs, HTTP stays. */
static int start_ways(struct flip_peers *p, struct err *err)
{
	struct peer_transport_opts o = {
		.o = &p->o, .token = p->token, .counts = &p->counts.fabric, .tick = peer_tick, .arg = p
	};
	struct err why = { 0 };
	int r;

	if (p->fabric_name[0] && (r = peer_fabric_check(p->o.fabric_provider, &why)) < 0) {
		if (r != -ENOSYS)
			return err_set(err, r, "peers.transport: fabric: %s", err_text(&why));
		base_log(BASE_LOG_WARN, "peers.transport: fabric: %s; going on with HTTP", err_text(&why));
		p->fabric_name[0] = '\0';
	}
	if (p->fabric_name[0])
		p->transport = &peer_transport_fabric;
	r = p->transport->open(&o, &p->way, err);
	if (r == 0)
		r = peer_server_start(p, err);
	if (r == 0 && p->fabric_name[0]) {
		r = peer_fabric_server_start(p, p->fabric_listen, &p->fabric_server, &why);
		if (r < 0)
			(void)err_set(err, r, "peers.fabric-listen: %s", err_text(&why));
	}
	return r;
}

int flip_peers_start(struct flip_peers *p, struct err *err)
{
	struct peer_membership_opts m = { .where = p->where,
		                          .self = p->name,
		                          .zone = p->o.zone,
		                          .fabric = p->fabric_name,
		                          .ca_file = p->o.etcd_ca_file,
		                          .changed = members_changed,
		                          .arg = p };
	int r = start_ways(p, err);

	if (r == 0)
		r = p->membership->open(&m, &p->list, err);
	p->has_list = r == 0;
	if (r == 0)
		base_log(BASE_LOG_INFO, "peers: listening at %s as %s%s%s%s%s%s%s", p->o.listen, p->name,
		         p->o.zone ? ", zone " : "", p->o.zone ? p->o.zone : "",
		         p->fabric_name[0] ? ", for libfabric (" : "", p->fabric_name[0] ? p->o.fabric_provider : "",
		         p->fabric_name[0] ? ") at " : "", p->fabric_name);
	return r;
}

/* First nobody new is named, then no question of ours is under way, then none of others. */
void flip_peers_stop(struct flip_peers *p)
{
	if (!p)
		return;
	if (p->has_list)
		p->membership->close(p->list);
	p->has_list = false;
	pthread_mutex_lock(&p->lock);
	p->is_stopping = true;
	atomic_store(&p->n_live, 0);
	for (size_t m = 0; m < p->n_queues; m++) {
		for (int i = 0; i < FLIP_N_PRIORITIES; i++) {
			while (!TAILQ_EMPTY(&p->queues[m]->list[i])) {
				struct piece *x = TAILQ_FIRST(&p->queues[m]->list[i]);

				peer_piece_drop(p, x);
			}
		}
	}
	while (!TAILQ_EMPTY(&p->resting))
		peer_piece_drop(p, TAILQ_FIRST(&p->resting));
	peer_unlock_and_tell(p);
	if (p->way && !p->has_stopped)
		p->transport->stop(p->way);
	p->has_stopped = true;
	peer_server_stop(p);
}

void flip_peers_free(struct flip_peers *p)
{
	if (!p)
		return;
	flip_peers_stop(p);
	if (p->way)
		p->transport->close(p->way);
	while (p->blobs) {
		struct asked_blob *b = p->blobs;

		p->blobs = b->next;
		peer_blob_free(b);
	}
	for (size_t i = 0; i < p->n_queues; i++)
		free(p->queues[i]);
	free(p->queues);
	peer_members_done(&p->members);
	peer_token_free(p->token);
	kept_free(p->kept);
	peer_bucket_done(&p->up);
	peer_bucket_done(&p->down);
	for (unsigned i = 0; i < p->n_strings; i++)
		free(p->strings[i]);
	(void)pthread_mutex_destroy(&p->lock);
	(void)pthread_cond_destroy(&p->changed);
	(void)pthread_mutex_destroy(&p->disk_lock);
	(void)pthread_cond_destroy(&p->disk_free);
	(void)pthread_mutex_destroy(&p->pressure_lock);
	free(p);
}

void flip_peers_remember(struct flip_peers *p, const char *digest, uint64_t offset, const void *data, size_t size)
{
	if (p)
		kept_put(p->kept, digest, offset, data, size);
}

int flip_peers_proof(struct flip_peers *p, const char *text, char ret_hex[65])
{
	const char *const parts[] = { "flip-proof-1", text };

	return p && p->token ? peer_token_hmac(p->token, parts, 2, ret_hex) : -ENOENT;
}

bool flip_peers_proof_is(const char hex[65], const char *given)
{
	return strlen(given) == 64 && CRYPTO_memcmp(hex, given, 64) == 0;
}

/* ---- What goes on ----------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	size_t offset;
	const char *help;
} known[] = {
#define COUNT(field, help)                                   \
	{                                                    \
#field, offsetof(struct counts, field), help \
	}
	COUNT(pieces_asked, "pieces that peers were asked for"),
	COUNT(pieces_got, "of those, given by a peer"),
	COUNT(pieces_gone_to_origin, "of those, left to the registry"),
	COUNT(received, "bytes that peers sent"),
	COUNT(hedges, "pieces asked for a second time because the first answer took long"),
	COUNT(hedge_wins, "of those, given by the second"),
	COUNT(garbage, "answers that were not what they should be"),
	COUNT(served, "questions answered with pieces"),
	COUNT(served_bytes, "bytes sent to peers"),
	COUNT(served_packed, "pieces sent as they came"),
	COUNT(served_plain, "pieces sent from the store"),
	COUNT(served_zstd, "pieces sent from the store, compressed"),
	COUNT(missing, "pieces asked for that are not here"),
	COUNT(busy, "questions that found no place"),
	COUNT(refused, "questions that are none, or of another cluster"),
	COUNT(forbidden, "questions of peers that may not have what they asked for"),
	COUNT(documents_asked, "tables and manifests that peers were asked for"),
	COUNT(documents_got, "of those, given by a peer"),
	COUNT(documents_served, "tables and manifests sent"),
	COUNT(contents_served, "contents sent by sendfile"),
#undef COUNT
#define COUNT(field, help)                                                    \
	{                                                                     \
		"fabric_" #field, offsetof(struct counts, fabric.field), help \
	}
	COUNT(asked, "questions asked by libfabric"),
	COUNT(received, "bytes of answers that came by libfabric"),
	COUNT(fell_back, "questions asked by HTTP because libfabric had failed"),
	COUNT(served, "questions answered by libfabric"),
	COUNT(served_bytes, "bytes of answers sent by libfabric"),
#undef COUNT
};

static uint64_t count_of(const struct flip_peers *p, size_t i)
{
	return atomic_load((const _Atomic uint64_t *)((const char *)&p->counts + known[i].offset));
}

static json_t *member_json(const struct flip_peers *p, const struct peer_member *m, int64_t now)
{
	bool is_out = m->bad_until_us > now;
	json_t *o = json_pack("{s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I}", "name", m->name, "zone", m->zone, "self",
	                      strcmp(m->name, p->name) == 0, "named", m->is_named, "questions", (json_int_t)m->n_asked,
	                      "failures", (json_int_t)m->n_failed, "garbage", (json_int_t)m->n_garbage, "received",
	                      (json_int_t)m->received, "under_way", (json_int_t)m->n_active);

	if (o && m->fabric[0])
		(void)json_object_set_new(o, "fabric", json_string(m->fabric));
	if (o && is_out)
		(void)json_object_set_new(o, "left_out_ms", json_integer((m->bad_until_us - now) / 1000));
	if (o && m->why[0])
		(void)json_object_set_new(o, "why", json_string(m->why));
	return o;
}

static json_t *blob_json(const struct flip_peers *p, const struct asked_blob *b)
{
	json_t *holders = json_array();

	for (unsigned i = 0; i < b->n_holders; i++)
		(void)json_array_append_new(holders, json_string(p->members.items[b->holders[i]]->name));
	return json_pack("{s:s, s:s, s:s, s:o}", "kind", b->kind, "digest", b->digest, "image", b->image, "holders",
	                 holders);
}

int flip_peers_stat(struct flip_peers *p, struct base_buf *buf)
{
	json_t *top = json_object(), *members = json_array(), *blobs = json_array(), *counts = json_object();
	int64_t now = peer_now_us();
	int r;

	if (!p) {
		json_decref(members);
		json_decref(blobs);
		json_decref(counts);
		(void)json_object_set_new(top, "on", json_false());
		r = base_json_append(buf, top);
		json_decref(top);
		return r;
	}
	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->members.n; i++)
		(void)json_array_append_new(members, member_json(p, p->members.items[i], now));
	for (const struct asked_blob *b = p->blobs; b; b = b->next) {
		if (b->n_holders)
			(void)json_array_append_new(blobs, blob_json(p, b));
	}
	pthread_mutex_unlock(&p->lock);
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		(void)json_object_set_new(counts, known[i].name, json_integer((json_int_t)count_of(p, i)));
	(void)json_object_set_new(top, "on", json_true());
	(void)json_object_set_new(top, "name", json_string(p->name));
	(void)json_object_set_new(top, "zone", json_string(p->o.zone ? p->o.zone : ""));
	(void)json_object_set_new(top, "transport", json_string(p->transport->name));
	(void)json_object_set_new(top, "fabric", json_string(p->fabric_name));
	(void)json_object_set_new(top, "membership", json_string(p->membership->scheme));
	(void)json_object_set_new(top, "serving", json_integer(atomic_load(&p->n_serving)));
	(void)json_object_set_new(top, "pace_percent", json_integer(atomic_load(&p->pace_percent)));
	(void)json_object_set_new(top, "kept_bytes", json_integer((json_int_t)kept_bytes(p->kept)));
	(void)json_object_set_new(top, "counts", counts);
	(void)json_object_set_new(top, "members", members);
	(void)json_object_set_new(top, "blobs", blobs);
	r = base_json_append(buf, top);
	json_decref(top);
	return r;
}

int flip_peers_metrics(struct flip_peers *p, struct base_buf *buf)
{
	size_t n_out = 0, n_named;
	int64_t now = peer_now_us();

	if (!p)
		return 0;
	pthread_mutex_lock(&p->lock);
	n_named = p->members.n_named;
	for (size_t i = 0; i < p->members.n; i++)
		n_out += p->members.items[i]->is_named && p->members.items[i]->bad_until_us > now;
	pthread_mutex_unlock(&p->lock);
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		(void)base_buf_printf(
		        buf,
		        "# HELP flip_peer_%s_total %s\n# TYPE flip_peer_%s_total counter\nflip_peer_%s_total %llu\n",
		        known[i].name, known[i].help, known[i].name, known[i].name, (unsigned long long)count_of(p, i));
	(void)base_buf_printf(buf,
	                      "# HELP flip_peer_members members that are named, ourselves included\n"
	                      "# TYPE flip_peer_members gauge\nflip_peer_members %zu\n"
	                      "# HELP flip_peer_members_left_out of those, left out just now\n"
	                      "# TYPE flip_peer_members_left_out gauge\nflip_peer_members_left_out %zu\n"
	                      "# HELP flip_peer_serving questions being answered\n"
	                      "# TYPE flip_peer_serving gauge\nflip_peer_serving %u\n"
	                      "# HELP flip_peer_pace_percent what the machine's pressure leaves of the upload rate\n"
	                      "# TYPE flip_peer_pace_percent gauge\nflip_peer_pace_percent %u\n"
	                      "# HELP flip_peer_kept_bytes pieces in memory as they came\n"
	                      "# TYPE flip_peer_kept_bytes gauge\nflip_peer_kept_bytes %llu\n",
	                      n_named, n_out, atomic_load(&p->n_serving), atomic_load(&p->pace_percent),
	                      (unsigned long long)kept_bytes(p->kept));
	return base_buf_error(buf);
}
