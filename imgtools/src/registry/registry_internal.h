/* What the files of this room share: one HTTP exchange, and who we are to the registry. */
#ifndef IMG_REGISTRY_INTERNAL_H
#define IMG_REGISTRY_INTERNAL_H

#include <pthread.h>

#include "base/buf.h"
#include "registry/registry.h"

enum { IMG_REG_MAX_DOCUMENT = 16 << 20, IMG_REG_MAX_URL = 8192 };

struct img_registry {
	struct img_registry_opts opts;
	struct img_reference ref;
	char *base;      /* "https://host"; NULL: not known yet */
	char *ca_file;   /* NULL: the system's */
	char *auth_path; /* the file that credentials are looked up in; NULL: none */
	pthread_mutex_t lock;
	char *authorization; /* "Bearer ...", "Basic ..."; NULL: not asked for yet; protected by lock */
	unsigned generation; /* of it; protected by lock */
};

/* One request. The answer's body goes to `sink` for 2xx answers when there is one, else into `body`. */
struct img_exchange {
	const char *method; /* "GET", "HEAD", "POST", "PUT" */
	const char *url;
	const char *headers[4]; /* more, "Name: value"; NULL ends */
	const char *authorization;
	const void *data; /* sent, data_size bytes, or from fd when fd_size is set */
	size_t data_size;
	int fd;
	bool sends_file;
	uint64_t fd_size;
	int (*sink)(const void *data, size_t size, void *arg); /* non-zero stops */
	void (*on_status)(long status, void *arg);             /* before the first byte of a 2xx body */
	void *sink_arg;
	img_registry_progress progress; /* of what is sent */
	void *progress_arg;
	int (*is_canceled)(void *arg);
	void *is_canceled_arg;
	bool verify_off, http_allowed;
	const char *ca_file; /* NULL: the system's */
	uint32_t stall_s;

	long status; /* the answer */
	struct base_buf body;
	char location[IMG_REG_MAX_URL];
	char challenge[4096]; /* WWW-Authenticate */
	uint32_t retry_after_s;
	bool is_stopped; /* by the sink or progress */
};

/* 0: an answer of any status; negative: none. Body of x is to be freed by img_exchange_done(). */
int img_exchange_run(struct img_exchange *x, struct err *err);
void img_exchange_done(struct img_exchange *x);

/* With authorization and retries; 2xx or an error in words. `what` is for those. x is reset between attempts by
 * `again`, when not NULL. A 404 is -ENOENT. */
int img_registry_request(struct img_registry *r, struct img_exchange *x, const char *what,
                         int (*again)(struct img_exchange *x, void *arg, struct err *err), void *arg, struct err *err);

char *img_registry_find_auth_file(const char *given);

#endif
