/* The HTTP front of an engine: OpenAI's routes, Anthropic's messages, SGLang's and llama-server's native requests, and
 * what operators need (/health, /metrics). Uses engine.h only. See engine/README.md for the routes. */
#ifndef ENGINE_HTTP_H
#define ENGINE_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct eng_engine;
struct eng_http;

enum { ENG_HTTP_MAX_SOCKETS = 8 };

struct eng_http_config {
	const char *host;           /* NULL: no TCP */
	uint16_t port;              /* 0: any free one, see eng_http_port() */
	const char *socket_path;    /* unix socket, created 0600; NULL: none */
	const int *listen_fds;      /* already listening sockets instead of host, port and socket_path; taken over */
	size_t n_listen_fds;        /* at most ENG_HTTP_MAX_SOCKETS; 0: none */
	uint32_t n_threads;         /* 0: 2 */
	uint32_t max_connections;   /* 0: 512 */
	size_t max_body_bytes;      /* 0: 16 MiB */
	size_t stream_buffer_bytes; /* of one stream that its reader does not empty; 0: 1 MiB */
	uint32_t keepalive_ms;      /* comment on silent streams; 0: 5000 */
	uint32_t timeout_s;         /* silent connections are closed; 0: 60 */
	/* How answers are parsed (engine_chat.h): a name, or "none"; NULL or "auto": as the model's template tells. */
	const char *tool_format, *reasoning_format;
	/* One key per line, mode 0600 or less; all routes but /health and the page at / ask for one. NULL: no keys. */
	const char *api_key_file;
};

/* The engine is borrowed until eng_http_close(). Serves when this returns. On failure listen_fds are closed too. */
int eng_http_open(struct eng_engine *engine, const struct eng_http_config *config, struct eng_http **ret_http,
                  struct err *err);
/* The TCP port, 0 when there is none. */
uint16_t eng_http_port(const struct eng_http *http);
/* Milliseconds without a request in progress. */
uint64_t eng_http_idle_ms(struct eng_http *http);
/* Accepts no more connections; those open go on and are told to close. */
void eng_http_quiesce(struct eng_http *http);
/* Cancels what still runs and ends all connections, giving answers that are ready up to timeout_ms to be
 * sent. Drain the engine before. */
void eng_http_close(struct eng_http *http, uint32_t timeout_ms);

#endif
