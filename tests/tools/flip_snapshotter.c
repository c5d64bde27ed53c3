/* flip_snapshotter SOCKET DIR: serves containerd's snapshots API over a plain folder until it is told to end. */
#include <signal.h>

#include "imgtools/flip_overlay.h"

int main(int argc, char **argv)
{
	struct flip_grpc_server *server = NULL;
	static struct overlay o;
	struct err err = { 0 };
	sigset_t ends;
	int number;

	if (argc != 3) {
		(void)fprintf(stderr, "usage: %s SOCKET DIR\n", argv[0]);
		return 2;
	}
	(void)sigemptyset(&ends);
	(void)sigaddset(&ends, SIGTERM);
	(void)sigaddset(&ends, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &ends, NULL);
	overlay_init(&o, argv[2]);
	if (flip_snapshots_serve(argv[1], &overlay_ops, &o, &server, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		return 1;
	}
	(void)sigwait(&ends, &number);
	flip_grpc_stop(server);
	overlay_done(&o);
	return 0;
}
