/* Who may pull what, as the registry itself says: for peers, who give only what the asker could have from there.
 * Mirrors are not asked: they may serve with credentials of their own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fetch_internal.h"

/* Where nobody finds a password. */
#define NO_AUTH_FILE "/dev/null/none"

static int is_canceled(void *arg)
{
	return atomic_load(&((struct flip_fetch *)arg)->is_stopping);
}

int flip_fetch_may_pull(struct flip_fetch *f, const char *ref, const char *digest, bool is_manifest,
                        const char *authorization, struct err *err)
{
	struct img_registry_opts opts = { .auth_file = NO_AUTH_FILE,
		                          .insecure = f->o.insecure,
		                          .n_retries = 1,
		                          .retry_ms = f->o.retry_ms,
		                          .stall_s = 5,
		                          .is_canceled = is_canceled,
		                          .is_canceled_arg = f,
		                          .ca_file = f->ca_file };
	struct img_registry *registry;
	int r = img_registry_open(ref, &opts, &registry, err);

	if (r < 0)
		return r;
	if (authorization)
		r = img_registry_present(registry, authorization, err);
	if (r == 0)
		r = img_registry_may_pull(registry, digest, is_manifest, err);
	img_registry_close(registry);
	return r;
}

char *flip_fetch_authorization(struct flip_fetch *f, const char *ref)
{
	struct fetch_repo *repo;
	unsigned generation;
	char *value;

	if (flip_repo_get(f, ref, &repo, NULL) < 0)
		return NULL;
	value = img_registry_authorization(repo->doors[repo->n_doors - 1].registry, &generation);
	flip_repo_put(f, repo);
	return value;
}
