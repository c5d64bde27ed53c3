/* The snapshots API over a unix socket, server and client in one process: Stat by one and by several clients at a time,
 * each call waiting for its answer, and List. JSON lines: calls (or snapshots) per second and the time of one call.
 * The limit is a message of the same size and back over a bare unix socket between two threads. BENCH_CALLS: calls a
 * case. */
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>

#include <pb/snapshots.pb-c.h>

#include "grpc/grpc_internal.h"
#include "imgtools/flip_overlay.h"

enum { MAX_CLIENTS = 16, N_SNAPSHOTS = 200, ECHO_SIZE = 128 };

static char work[64] = "/tmp/bench-flip-grpc-XXXXXX", socket_path[80];
static size_t n_calls;

struct client {
	pthread_t thread;
	size_t n_calls;
	uint64_t *ns; /* of each call */
	int result;
};

static void die(const char *what, const struct err *err)
{
	(void)fprintf(stderr, "bench flip_grpc: %s: %s\n", what, err ? err_text(err) : strerror(errno));
	exit(1);
}

static void report(const char *what, double value, const char *unit, double limit)
{
	(void)printf("{\"bench\":\"flip_grpc\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"%s\",", what, value, unit);
	if (limit > 0)
		(void)printf("\"limit\":%.1f,\"share\":%.3f,", limit, value / limit);
	else
		(void)printf("\"limit\":null,\"share\":null,");
	(void)printf("\"peer\":null,\"ratio\":null}\n");
	(void)fflush(stdout);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* ---- Calls ---- */

static size_t key_message(uint8_t *buf)
{
	Flip__Pb__KeyRequest q = FLIP__PB__KEY_REQUEST__INIT;
	char key[] = "default/100/key-100";

	q.snapshotter = "flip";
	q.key = key;
	return flip__pb__key_request__pack(&q, buf);
}

static void *stat_many(void *arg)
{
	struct client *c = arg;
	struct flip_grpc_header ns = { "containerd-namespace", "default" };
	struct flip_grpc_client *g = NULL;
	uint8_t message[256];
	size_t size = key_message(message);

	c->result = flip_grpc_connect(socket_path, &g, NULL);
	for (size_t i = 0; i < c->n_calls && c->result == 0; i++) {
		uint64_t begin = flip_grpc_now_ns();

		c->result = flip_grpc_call(g, "/containerd.services.snapshots.v1.Snapshots/Stat", &ns, 1, message, size,
		                           10000, NULL, NULL, NULL);
		c->ns[i] = flip_grpc_now_ns() - begin;
	}
	flip_grpc_close(g);
	return NULL;
}

static void bench_stat(unsigned n_clients, double limit)
{
	struct client clients[MAX_CLIENTS] = { 0 };
	size_t each = n_calls / n_clients;
	uint64_t *ns = calloc(each * n_clients, sizeof(*ns)), begin;
	char name[64];

	if (!ns)
		die("memory", NULL);
	begin = flip_grpc_now_ns();
	for (unsigned i = 0; i < n_clients; i++) {
		clients[i].n_calls = each;
		clients[i].ns = ns + i * each;
		if (pthread_create(&clients[i].thread, NULL, stat_many, &clients[i]) != 0)
			die("thread", NULL);
	}
	for (unsigned i = 0; i < n_clients; i++) {
		(void)pthread_join(clients[i].thread, NULL);
		if (clients[i].result < 0) {
			errno = -clients[i].result;
			die("Stat", NULL);
		}
	}
	(void)snprintf(name, sizeof(name), "stat, %u clients", n_clients);
	report(name, (double)(each * n_clients) / ((double)(flip_grpc_now_ns() - begin) / 1e9), "calls/s",
	       n_clients == 1 ? limit : 0);
	qsort(ns, each * n_clients, sizeof(*ns), by_size);
	(void)snprintf(name, sizeof(name), "stat, %u clients, median", n_clients);
	report(name, (double)ns[each * n_clients / 2] / 1e3, "us", 0);
	(void)snprintf(name, sizeof(name), "stat, %u clients, 99 %%", n_clients);
	report(name, (double)ns[each * n_clients * 99 / 100] / 1e3, "us", 0);
	free(ns);
}

static int count_reply(void *arg, const void *data, size_t size)
{
	(void)data;
	*(size_t *)arg += size;
	return 0;
}

static void bench_list(void)
{
	struct flip_grpc_client *g = NULL;
	struct err err = { 0 };
	size_t n = n_calls / 100 + 1, bytes = 0;
	uint64_t begin = flip_grpc_now_ns();

	if (flip_grpc_connect(socket_path, &g, &err) < 0)
		die("connect", &err);
	for (size_t i = 0; i < n; i++) {
		if (flip_grpc_call(g, "/containerd.services.snapshots.v1.Snapshots/List", NULL, 0, "", 0, 0,
		                   count_reply, &bytes, &err) < 0)
			die("List", &err);
	}
	report("list", (double)(n * N_SNAPSHOTS) / ((double)(flip_grpc_now_ns() - begin) / 1e9), "snapshots/s", 0);
	flip_grpc_close(g);
}

/* ---- The limit ---- */

static void *echo(void *arg)
{
	char buf[ECHO_SIZE];
	int fd = *(int *)arg;

	while (recv(fd, buf, sizeof(buf), MSG_WAITALL) == (ssize_t)sizeof(buf) &&
	       send(fd, buf, sizeof(buf), MSG_NOSIGNAL) > 0) {
	}
	return NULL;
}

static double bench_socket(void)
{
	char buf[ECHO_SIZE] = "";
	pthread_t thread;
	int fds[2];
	uint64_t begin;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 ||
	    pthread_create(&thread, NULL, echo, &fds[1]) != 0)
		die("socketpair", NULL);
	begin = flip_grpc_now_ns();
	for (size_t i = 0; i < n_calls; i++) {
		if (send(fds[0], buf, sizeof(buf), MSG_NOSIGNAL) < 0 || recv(fds[0], buf, sizeof(buf), MSG_WAITALL) < 0)
			die("socket", NULL);
	}
	begin = flip_grpc_now_ns() - begin;
	(void)shutdown(fds[0], SHUT_RDWR);
	(void)pthread_join(thread, NULL);
	(void)close(fds[0]);
	(void)close(fds[1]);
	return (double)n_calls / ((double)begin / 1e9);
}

static void fill(struct overlay *o)
{
	struct flip_label labels[] = { { "containerd.io/snapshot/cri.image-ref", "example.org/library/debian:12" },
		                       { "containerd.io/gc.root", "2024-01-01T00:00:00Z" } };
	char key[64];

	for (int i = 0; i < N_SNAPSHOTS; i++) {
		struct flip_mounts mounts = { 0 };
		struct err err = { 0 };

		(void)snprintf(key, sizeof(key), "default/%d/key-%d", i, i);
		if (overlay_ops.prepare(o, key, NULL, labels, 2, &mounts, &err) < 0)
			die("prepare", &err);
		flip_mounts_done(&mounts);
	}
}

int main(void)
{
	const char *text = getenv("BENCH_CALLS");
	struct flip_grpc_server *server = NULL;
	static struct overlay o;
	struct err err = { 0 };
	double limit;

	n_calls = text ? strtoull(text, NULL, 10) : 20000;
	if (n_calls < MAX_CLIENTS || n_calls > 10000000)
		n_calls = 20000;
	if (!mkdtemp(work))
		die(work, NULL);
	(void)snprintf(socket_path, sizeof(socket_path), "%s.sock", work);
	overlay_init(&o, work);
	fill(&o);
	if (flip_snapshots_serve(socket_path, &overlay_ops, &o, &server, &err) < 0)
		die("serve", &err);
	limit = bench_socket();
	bench_stat(1, limit);
	bench_stat(4, 0);
	bench_stat(16, 0);
	bench_list();
	flip_grpc_stop(server);
	overlay_done(&o);
	(void)nftw(work, overlay_unlink, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
