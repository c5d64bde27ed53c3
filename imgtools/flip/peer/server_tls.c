/* The server and its certificates. They are read when it starts, and again when one of the files was replaced: then
 * another server takes over the listening socket, with the new ones, and the old one answers what it has begun. */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "peer_internal.h"

enum {
	N_CONNECTIONS = 512,
	IDLE_S = 75,
	STACK = 512 << 10,
	CONNECTION_MEMORY = 320 << 10,
	MAX_PEM = 1 << 20,
	LOOK_S = 2,
	N_OLD = 8 /* servers that still answer */
};

struct peer_server {
	struct flip_peers *p;
	MHD_AccessHandlerCallback handle;
	int fd; /* listens; each server has a copy of its own */
	struct MHD_Daemon *now, *old[N_OLD];
	int old_fds[N_OLD]; /* each's copy: its threads may look at it until it has ended */
	/* With certificates: */
	bool has_thread, stops; /* stops: protected by lock */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct timespec changed[3]; /* when the files were */
};

/* ---- Whose certificate is good ---- */

/* libmicrohttpd has asked for one; whether it is good must be asked here, with each question: it may end meanwhile. */
bool peer_certificate_is_good(struct MHD_Connection *c, char *ret_why, size_t why_size)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	gnutls_session_t session = info ? (gnutls_session_t)info->tls_session : NULL;
	gnutls_datum_t words = { 0 };
	unsigned status = 0, n = 0;
	int r;

	if (!session || !gnutls_certificate_get_peers(session, &n) || !n) {
		(void)snprintf(ret_why, why_size, "no certificate");
		return false;
	}
	r = gnutls_certificate_verify_peers2(session, &status);
	if (r == 0 && status == 0)
		return true;
	if (r == 0 && gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0) == 0)
		(void)snprintf(ret_why, why_size, "%.*s", (int)words.size, (const char *)words.data);
	else
		(void)snprintf(ret_why, why_size, "%s", gnutls_strerror(r));
	gnutls_free(words.data);
	return false;
}

/* ---- Files ---- */

static int read_pem(const char *path, bool is_secret, char **ret, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (is_secret && (st.st_mode & 077))
		return err_set(err, -EACCES, "%s: others than its owner may read it", path);
	text = st.st_size <= MAX_PEM ? calloc(1, (size_t)st.st_size + 1) : NULL;
	n = text ? read(fd, text, (size_t)st.st_size) : -1;
	if (n != st.st_size) {
		free(text);
		return err_set(err, -EIO, "%s: cannot be read", path);
	}
	*ret = text;
	return 0;
}

/* When the files were changed; what is missing just now counts as not changed. */
static void look_at_files(const struct flip_peers *p, struct timespec changed[3])
{
	const char *const paths[] = { p->o.cert_file, p->o.key_file, p->o.ca_file };
	struct stat st;

	for (size_t i = 0; i < 3; i++) {
		if (stat(paths[i], &st) == 0)
			changed[i] = st.st_ctim;
	}
}

/* ---- Servers ---- */

static int start_one(struct peer_server *s, struct MHD_Daemon **ret, struct err *err)
{
	struct flip_peers *p = s->p;
	CLEANUP(freep) char *cert = NULL;
	CLEANUP(freep) char *key = NULL;
	CLEANUP(freep) char *ca = NULL;
	struct MHD_OptionItem tls[] = { { MHD_OPTION_END, 0, NULL },
		                        { MHD_OPTION_END, 0, NULL },
		                        { MHD_OPTION_END, 0, NULL },
		                        { MHD_OPTION_END, 0, NULL } };
	unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC;
	struct MHD_Daemon *d;
	int fd, r = 0;

	if (p->o.ca_file) {
		r = read_pem(p->o.ca_file, false, &ca, err);
		if (r == 0)
			r = read_pem(p->o.cert_file, false, &cert, err);
		if (r == 0)
			r = read_pem(p->o.key_file, true, &key, err);
		if (r < 0)
			return r;
		flags |= MHD_USE_TLS;
		tls[0] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_CERT, 0, cert };
		tls[1] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_KEY, 0, key };
		tls[2] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_TRUST, 0, ca };
	}
	fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return err_set(err, -errno, "a descriptor: %s", strerror(errno));
	d = MHD_start_daemon(flags, 0, NULL, NULL, s->handle, p, MHD_OPTION_LISTEN_SOCKET, fd,
	                     MHD_OPTION_CONNECTION_LIMIT, (unsigned)N_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
	                     (unsigned)IDLE_S, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK,
	                     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_ARRAY, tls,
	                     MHD_OPTION_END);
	if (!d) {
		(void)close(fd);
		return err_set(err, -EIO, "peers.listen: %s: the HTTP server does not start%s", p->o.listen,
		               p->o.ca_file ? " with these certificates" : "");
	}
	*ret = d;
	return 0;
}

static void end_old(struct peer_server *s, bool all)
{
	for (size_t i = 0; i < N_OLD; i++) {
		const union MHD_DaemonInfo *info =
		        s->old[i] ? MHD_get_daemon_info(s->old[i], MHD_DAEMON_INFO_CURRENT_CONNECTIONS) : NULL;

		if (!s->old[i] || (!all && info && info->num_connections > 0))
			continue;
		MHD_stop_daemon(s->old[i]);
		s->old[i] = NULL;
		if (s->old_fds[i] >= 0)
			(void)close(s->old_fds[i]);
	}
}

static void replace(struct peer_server *s)
{
	struct timespec changed[3];
	struct MHD_Daemon *next;
	struct err err = { 0 };
	size_t i = 0;

	memcpy(changed, s->changed, sizeof(changed));
	look_at_files(s->p, changed);
	if (memcmp(changed, s->changed, sizeof(changed)) == 0)
		return;
	while (i < N_OLD && s->old[i])
		i++;
	if (i == N_OLD) /* later */
		return;
	memcpy(s->changed, changed, sizeof(changed));
	if (start_one(s, &next, &err) < 0) { /* half of them may be new: the rest will change too */
		base_log(BASE_LOG_WARN, "peers: the certificates have changed and are not taken: %s", err_text(&err));
		return;
	}
	s->old_fds[i] = MHD_quiesce_daemon(s->now);
	s->old[i] = s->now;
	s->now = next;
	base_log(BASE_LOG_INFO, "peers: %s: has changed and was taken", s->p->o.cert_file);
}

static void *watch_files(void *arg)
{
	struct peer_server *s = arg;
	struct timespec until;

	pthread_mutex_lock(&s->lock);
	while (!s->stops) {
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += LOOK_S;
		(void)pthread_cond_timedwait(&s->wake, &s->lock, &until);
		if (s->stops)
			break;
		pthread_mutex_unlock(&s->lock);
		replace(s);
		end_old(s, false);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int peer_server_open(struct flip_peers *p, int fd_take, MHD_AccessHandlerCallback handle,
                     struct peer_server **ret_server, struct err *err)
{
	struct peer_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		(void)close(fd_take);
		return err_set(err, -ENOMEM, "out of memory");
	}
	s->p = p;
	s->handle = handle;
	s->fd = fd_take;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->wake, NULL);
	if (p->o.ca_file)
		look_at_files(p, s->changed);
	r = start_one(s, &s->now, err);
	if (r == 0 && p->o.ca_file) {
		r = -pthread_create(&s->thread, NULL, watch_files, s);
		s->has_thread = r == 0;
		if (r < 0)
			(void)err_set(err, r, "a thread: %s", strerror(-r));
	}
	if (r < 0) {
		peer_server_close(s);
		return r;
	}
	*ret_server = s;
	return 0;
}

void peer_server_close(struct peer_server *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stops = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	if (s->has_thread)
		(void)pthread_join(s->thread, NULL);
	if (s->now)
		MHD_stop_daemon(s->now);
	end_old(s, true);
	(void)close(s->fd);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->wake);
	free(s);
}
