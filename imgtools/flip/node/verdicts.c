/* Who may have what. A peer comes with a grant, and the registry says whether it is good for the blob it asks for:
 *
 *   public          anybody may: the registry gives it to whoever comes without a name
 *   bearer TOKEN    the registry gives it to whoever comes with this token, which it has made for this repository
 *   same HMAC       the asker has the very credentials that we pull with (passwords are never sent): the HMAC, by the
 *                   cluster's secret, of what either would come with; so what the registry gives us it gives the asker
 *
 * It is asked for the very blob, in the repository that the asker names: that blob lies there, and who comes so gets
 * it. What it said counts for grant_s; a yes for an hour longer while the registry is away. Then also counts what this
 * node has itself from that repository, for those with its own credentials, and for all when the repository was public
 * lately, which is noted in the store. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "node/node_internal.h"

enum { N_KEPT = 1024, N_DOORS = 16, AWAY_S = 3600, DEFAULT_S = 60 };

struct verdict {
	uint8_t key[BASE_SHA256_SIZE];
	int64_t at_ms;
	bool is_yes;
};

struct node_verdicts {
	pthread_mutex_t lock;
	pthread_mutex_t doors[N_DOORS]; /* by keys: one question of many askers goes to the registry once */
	struct verdict kept[N_KEPT];    /* by the first bytes of the key; a later one takes an older one's place */
};

struct node_verdicts *node_verdicts_new(void)
{
	struct node_verdicts *v = calloc(1, sizeof(*v));

	if (v)
		(void)pthread_mutex_init(&v->lock, NULL);
	for (size_t i = 0; v && i < N_DOORS; i++)
		(void)pthread_mutex_init(&v->doors[i], NULL);
	return v;
}

void node_verdicts_free(struct node_verdicts *v)
{
	if (!v)
		return;
	(void)pthread_mutex_destroy(&v->lock);
	for (size_t i = 0; i < N_DOORS; i++)
		(void)pthread_mutex_destroy(&v->doors[i]);
	free(v);
}

/* A layer belongs to many tags of a repository; the tag says nothing of who may have it. */
static void repository_of(const char *ref, char *ret, size_t size)
{
	const char *slash = strrchr(ref, '/'), *end = strchr(slash ? slash : ref, '@');
	const char *colon = strchr(slash ? slash : ref, ':');

	end = colon && (!end || colon < end) ? colon : end;
	(void)snprintf(ret, size, "%.*s", (int)(end ? end - ref : (ptrdiff_t)strlen(ref)), ref);
}

static int key_of(const char *repository, const char *digest, const char *grant, uint8_t key[BASE_SHA256_SIZE])
{
	struct base_buf b = BASE_BUF_INIT(64 << 10);
	int r = base_buf_printf(&b, "%s %s %s", repository, digest, grant);

	if (r == 0)
		r = base_sha256_bytes(b.data, b.len, key);
	base_buf_done(&b);
	return r;
}

/* 1 yes, 0 no, -ENOENT not known (any more). */
static int look_up(struct flip_node *node, const uint8_t key[BASE_SHA256_SIZE], int64_t max_age_ms)
{
	struct node_verdicts *v = node->verdicts;
	size_t at = ((size_t)key[0] << 8 | key[1]) % N_KEPT;
	int r = -ENOENT;

	pthread_mutex_lock(&v->lock);
	if (v->kept[at].at_ms && base_now_ms() - v->kept[at].at_ms <= max_age_ms &&
	    memcmp(v->kept[at].key, key, BASE_SHA256_SIZE) == 0)
		r = v->kept[at].is_yes;
	pthread_mutex_unlock(&v->lock);
	return r;
}

static void keep(struct flip_node *node, const uint8_t key[BASE_SHA256_SIZE], bool is_yes)
{
	struct node_verdicts *v = node->verdicts;
	size_t at = ((size_t)key[0] << 8 | key[1]) % N_KEPT;

	pthread_mutex_lock(&v->lock);
	memcpy(v->kept[at].key, key, BASE_SHA256_SIZE);
	v->kept[at].at_ms = base_now_ms();
	v->kept[at].is_yes = is_yes;
	pthread_mutex_unlock(&v->lock);
}

static bool was_public(struct flip_node *node, const char *repository)
{
	size_t size;
	void *data;

	bool is_yes;

	if (flip_store_note_get(node->store, "public", repository, &data, &size, NULL) < 0)
		return false;
	is_yes = size == 1 && *(const char *)data == '1';
	free(data);
	return is_yes;
}

/* Whose question it is: nobody's by name, a token's, our own. */
struct asker {
	const char *authorization; /* NULL: nobody's */
	bool is_us;
};

/* The registry's word; when it is away what it said last. */
static int ask_alone(struct flip_node *node, const struct node_wanted *w, const char *repository,
                     const struct asker *asker, const uint8_t key[BASE_SHA256_SIZE], struct err *err)
{
	int64_t fresh_ms = (node->opts.peers.grant_s ? node->opts.peers.grant_s : DEFAULT_S) * INT64_C(1000);
	bool is_anybody = !asker->authorization;
	int r = look_up(node, key, fresh_ms);

	if (r >= 0)
		return r ? 0 : err_set(err, -EACCES, "%s: the registry does not give it to the asker", repository);
	r = flip_fetch_may_pull(node->fetch, w->ref, w->digest, w->is_manifest, asker->authorization, err);
	if (r == 0 || r == -EACCES || r == -ENOENT) {
		keep(node, key, r == 0);
		if (is_anybody && r != -ENOENT && was_public(node, repository) != (r == 0))
			(void)flip_store_note_set(node->store, "public", repository, r == 0 ? "1" : "0", 1, NULL);
		return r == -ENOENT ? -EACCES : r;
	}
	if (look_up(node, key, AWAY_S * INT64_C(1000)) == 1)
		return 0;
	if (w->had && (asker->is_us || (is_anybody && was_public(node, repository))))
		return 0;
	return err_set(err, -EACCES, "%s: the registry cannot be asked whether the asker may have it", repository);
}

static int ask(struct flip_node *node, const struct node_wanted *w, const char *repository, const struct asker *asker,
               const char *grant, struct err *err)
{
	uint8_t key[BASE_SHA256_SIZE];
	pthread_mutex_t *door;
	int r = key_of(repository, w->digest, grant, key);

	if (r < 0)
		return r;
	door = &node->verdicts->doors[key[2] % N_DOORS];
	pthread_mutex_lock(door);
	r = ask_alone(node, w, repository, asker, key, err);
	pthread_mutex_unlock(door);
	return r;
}

/* With the credentials of ours that the asker has, too. */
static int ask_as_us(struct flip_node *node, const struct node_wanted *w, const char *repository, const char *grant,
                     struct err *err)
{
	char *own = flip_fetch_authorization(node->fetch, w->ref), hex[BASE_SHA256_HEX_SIZE];
	struct asker us = { own, true };
	int r = own && flip_peers_proof(node->peers, own, hex) == 0 && flip_peers_proof_is(hex, grant + strlen("same "))
	                ? ask(node, w, repository, &us, grant, err)
	                : err_set(err, -EACCES, "%s: the asker has other credentials than we", repository);

	if (own)
		explicit_bzero(own, strlen(own));
	free(own);
	return r;
}

int node_may_have(struct flip_node *node, const struct node_wanted *w, const char *grant, struct err *err)
{
	static const struct asker anybody = { NULL, false };
	char repository[512], value[24 << 10];
	struct asker token = { value, false };
	int r;

	if (node->opts.trust_peers)
		return 0;
	repository_of(w->ref, repository, sizeof(repository));
	r = ask(node, w, repository, &anybody, "public", err);
	if (r != -EACCES)
		return r;
	if (strncmp(grant, "same ", 5) == 0)
		return ask_as_us(node, w, repository, grant, err);
	if (strncmp(grant, "bearer ", 7) != 0 || strlen(grant) > sizeof(value) - 16)
		return -EACCES;
	(void)snprintf(value, sizeof(value), "Bearer %s", grant + 7);
	return ask(node, w, repository, &token, grant, err);
}

void node_note_public(struct flip_node *node, const char *ref, const char *digest, bool is_manifest)
{
	struct node_wanted w = { .ref = ref, .digest = digest, .is_manifest = is_manifest };

	if (node->peers && !node->opts.trust_peers)
		(void)node_may_have(node, &w, "public", NULL);
}

struct later {
	struct flip_node *node;
	char *ref, digest[72];
	bool is_manifest;
};

static void note_later(void *arg)
{
	struct later *l = arg;

	node_note_public(l->node, l->ref, l->digest, l->is_manifest);
	free(l->ref);
	free(l);
}

void node_note_public_later(struct flip_node *node, const char *ref, const char *digest, bool is_manifest)
{
	struct later *l = node->peers ? malloc(sizeof(*l)) : NULL;

	if (!l)
		return;
	*l = (struct later){ .node = node, .ref = strdup(ref), .is_manifest = is_manifest };
	(void)snprintf(l->digest, sizeof(l->digest), "%s", digest);
	if (!l->ref || flip_work_add(node->pullers, note_later, l, false) < 0) {
		free(l->ref);
		free(l);
	}
}

char *node_grant_of(struct flip_node *node, const char *ref)
{
	char *own = flip_fetch_authorization(node->fetch, ref), hex[BASE_SHA256_HEX_SIZE], *grant = NULL;

	if (own && strncasecmp(own, "Bearer ", 7) == 0) {
		if (asprintf(&grant, "bearer %s", own + 7) < 0)
			grant = NULL;
	} else if (own && flip_peers_proof(node->peers, own, hex) == 0) {
		if (asprintf(&grant, "same %s", hex) < 0)
			grant = NULL;
	} else {
		grant = strdup("public");
	}
	if (own)
		explicit_bzero(own, strlen(own));
	free(own);
	return grant;
}
