/* Where the list of members comes from: a fixed list, a name of the DNS with many addresses (a headless service), a
 * file that somebody else writes, or etcd. Each tells the whole list whenever it changes; one that cannot be asked
 * tells nothing, so that what was known stays. */
#ifndef FLIP_PEER_MEMBERSHIP_H
#define FLIP_PEER_MEMBERSHIP_H

#include "base/buf.h"
#include "base/err.h"
#include "peer/member.h"

/* On a thread of the membership. */
typedef void (*peer_members_changed)(void *arg, const struct peer_named *named, size_t n);

struct peer_membership_opts {
	const char *where; /* what follows "static:", "dns:", "etcd:" */
	const char *self;  /* our name and zone, for those that must be told */
	const char *zone;
	const char *fabric;  /* where we listen for libfabric; "": nowhere */
	const char *ca_file; /* NULL: the system's */
	peer_members_changed changed;
	void *arg;
};

struct peer_membership_ops {
	const char *scheme;
	int (*open)(const struct peer_membership_opts *o, void **ret_membership, struct err *err);
	void (*close)(void *membership); /* leaves, when that can be said */
};

extern const struct peer_membership_ops peer_membership_static, peer_membership_dns, peer_membership_etcd,
        peer_membership_file;
/* By the scheme of "static:...": NULL and -EINVAL in words. */
const struct peer_membership_ops *peer_membership_choose(const char *members, const char **ret_where, struct err *err);

/* "HOST:PORT+FABRIC@ZONE,..." */
int peer_list_parse(const char *text, struct peer_named **ret_named, size_t *ret_n, struct err *err);
/* One "HOST:PORT[+FABRIC][@ZONE]", FABRIC: where it listens for libfabric, as below. -EBADMSG. */
int peer_named_parse(const char *text, size_t size, struct peer_named *ret);
/* "HOST:PORT", or "PORT" at the host of this name. -EBADMSG. */
int peer_fabric_parse(const char *name, const char *text, char ret[FLIP_PEER_NAME]);

/* ---- etcd's JSON (etcd_json.c), for its membership and its fuzzer ---- */

struct etcd_kv {
	struct peer_named named;
	char *key; /* decoded */
	bool is_deleted;
};
struct etcd_answer {
	struct etcd_kv *items;
	size_t n;
	int64_t revision; /* of the header; 0: not said */
	int64_t lease;    /* lease.grant: ID; 0: not said */
	int64_t ttl;
	bool is_canceled; /* a watch that has ended, or is of a revision that is gone */
};
/* An answer of kv/range, lease/grant, lease/keepalive or one line of watch. Values are JSON objects {"zone": ...,
 * "fabric":
 * ...}; a key whose last part is no member's name is passed over. -EBADMSG. */
int etcd_answer_parse(const void *data, size_t size, struct etcd_answer *ret, struct err *err);
void etcd_answer_done(struct etcd_answer *a);
int etcd_base64(const void *data, size_t size, struct base_buf *buf);

#endif
