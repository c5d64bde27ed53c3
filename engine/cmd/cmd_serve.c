/* ocai-engine serve: the HTTP server, until a signal or until nobody has asked for long enough. */
#include "common.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/config.h"
#include "base/log.h"
#include "base/mapfile.h"
#include "base/service.h"
#include "engine_http.h"

struct serve {
	struct model_options m;
	const char *tool_format, *reasoning_format, *api_key_file;
	struct opt_list loras;
	const char *host, *socket, *served_name, *port_file, *idle_exit, *cache_dir;
	const char *host_cache_policy;
	uint32_t port, max_running, max_queued, max_connections, drain_s, step_ms;
	uint64_t kv_bytes, state_bytes, max_body, cache_bytes, host_cache_bytes;
	bool show_config, prefix_cache, speculation;
	uint64_t idle_ms; /* what idle_exit means */
};

const struct opt cmd_serve_opts[] = {
	MODEL_OPTS(struct serve, m),
	{ "host", 'H', OPT_STR, offsetof(struct serve, host), "ADDRESS",
	  "address to listen on; \"\" for none [127.0.0.1]", NULL },
	{ "port", 'p', OPT_UINT, offsetof(struct serve, port), "PORT", "TCP port; 0 picks a free one [8080]", NULL },
	{ "socket", 0, OPT_STR, offsetof(struct serve, socket), "PATH", "also listen on a unix socket, mode 0600",
	  NULL },
	{ "port-file", 0, OPT_STR, offsetof(struct serve, port_file), "FILE", "write the TCP port there once ready",
	  NULL },
	{ "served-name", 0, OPT_STR, offsetof(struct serve, served_name), "NAME",
	  "the model's name in the API [the last part of its path]", NULL },
	{ "lora", 0, OPT_LIST, offsetof(struct serve, loras), "NAME=FOLDER",
	  "serve the model with this LoRA adapter too, under that name; repeatable", NULL },
	{ "max-running", 0, OPT_UINT, offsetof(struct serve, max_running), "N", "requests computed together [32]",
	  NULL },
	{ "max-queued", 0, OPT_UINT, offsetof(struct serve, max_queued), "N", "requests that may wait [256]", NULL },
	{ "max-connections", 0, OPT_UINT, offsetof(struct serve, max_connections), "N", "open connections [512]",
	  NULL },
	{ "max-body", 0, OPT_SIZE, offsetof(struct serve, max_body), "BYTES", "largest request body [16M]", NULL },
	{ "kv-bytes", 0, OPT_SIZE, offsetof(struct serve, kv_bytes), "BYTES",
	  "memory for the K/V cache [what is needed, at most 1G]", NULL },
	{ "state-bytes", 0, OPT_SIZE, offsetof(struct serve, state_bytes), "BYTES",
	  "memory for the states of recurrent layers [1G, or what is needed]", NULL },
	{ "cache-dir", 0, OPT_STR, offsetof(struct serve, cache_dir), "FOLDER",
	  "keep computed prompts there, for the next start", NULL },
	{ "cache-bytes", 0, OPT_SIZE, offsetof(struct serve, cache_bytes), "BYTES", "most bytes in that folder [4G]",
	  NULL },
	{ "host-cache-bytes", 0, OPT_SIZE, offsetof(struct serve, host_cache_bytes), "BYTES",
	  "GPU: host memory for computed prompts that give way to others; 0: none [0]", NULL },
	{ "host-cache-policy", 0, OPT_CHOICE, offsetof(struct serve, host_cache_policy), "KIND",
	  "copy them when they give way, or as soon as they are complete [write-back]", "write-back,write-through" },
	{ "prefix-cache", 0, OPT_FLAG, offsetof(struct serve, prefix_cache), NULL,
	  "do not compute again what a prompt has in common with one before [yes]", NULL },
	{ "speculation", 0, OPT_FLAG, offsetof(struct serve, speculation), NULL,
	  "guess tokens from what was said before, and check them [yes]", NULL },
	{ "step-ms", 0, OPT_UINT, offsetof(struct serve, step_ms), "MS",
	  "how long prompts may keep answers waiting, per step [100]", NULL },
	{ "api-key-file", 0, OPT_STR, offsetof(struct serve, api_key_file), "FILE",
	  "serve only those who give one of its keys; mode 0600", NULL },
	{ "tool-format", 0, OPT_STR, offsetof(struct serve, tool_format), "NAME",
	  "how the model writes tool calls [auto: its chat template tells]", NULL },
	{ "reasoning-format", 0, OPT_STR, offsetof(struct serve, reasoning_format), "NAME",
	  "how the model writes reasoning [auto: its chat template tells]", NULL },
	{ "idle-exit", 0, OPT_STR, offsetof(struct serve, idle_exit), "SECONDS",
	  "exit after so long without a request; 0: never [auto: 900 when systemd listens meanwhile, else 0]", NULL },
	{ "drain", 0, OPT_UINT, offsetof(struct serve, drain_s), "SECONDS",
	  "how long running requests may finish after SIGTERM [30]", NULL },
	{ "show-config", 0, OPT_FLAG, offsetof(struct serve, show_config), NULL,
	  "print the merged configuration and where each value came from", NULL },
	{ 0 }
};

static const struct base_config_key keys[] = {
	{ "serve", "model", "OCAI_ENGINE_MODEL", OPT_STR, offsetof(struct serve, m.model), "model to serve", NULL },
	{ "serve", "ctx", "OCAI_ENGINE_CTX", OPT_UINT, offsetof(struct serve, m.n_ctx), "context length", NULL },
	{ "serve", "threads", "OCAI_ENGINE_THREADS", OPT_UINT, offsetof(struct serve, m.n_threads), "threads", NULL },
	{ "serve", "backend", "OCAI_ENGINE_BACKEND", OPT_CHOICE, offsetof(struct serve, m.backend), "what computes",
	  "auto,cpu,ref,cuda,hip" },
	{ "serve", "devices", "OCAI_ENGINE_DEVICES", OPT_STR, offsetof(struct serve, m.devices), "GPUs to compute on",
	  NULL },
	{ "serve", "tensor-parallel", "OCAI_ENGINE_TENSOR_PARALLEL", OPT_UINT,
	  offsetof(struct serve, m.tensor_parallel), "GPUs that share each layer", NULL },
	{ "serve", "expert-parallel", NULL, OPT_FLAG, offsetof(struct serve, m.expert_parallel),
	  "each expert on one GPU", NULL },
	{ "serve", "prefill-devices", "OCAI_ENGINE_PREFILL_DEVICES", OPT_STR, offsetof(struct serve, m.prefill_devices),
	  "GPUs for prompts", NULL },
	{ "serve", "decode-devices", "OCAI_ENGINE_DECODE_DEVICES", OPT_STR, offsetof(struct serve, m.decode_devices),
	  "GPUs for answers", NULL },
	{ "serve", "kv-dtype", "OCAI_ENGINE_KV_DTYPE", OPT_CHOICE, offsetof(struct serve, m.kv_dtype),
	  "what K and V are kept in", "auto,f32,f16,bf16,f8" },
	{ "serve", "log-level", "OCAI_ENGINE_LOG_LEVEL", OPT_CHOICE, offsetof(struct serve, m.log_level),
	  "what is logged", "error,warn,info,debug" },
	{ "serve", "host", "OCAI_ENGINE_HOST", OPT_STR, offsetof(struct serve, host), "address to listen on", NULL },
	{ "serve", "port", "OCAI_ENGINE_PORT", OPT_UINT, offsetof(struct serve, port), "TCP port", NULL },
	{ "serve", "socket", "OCAI_ENGINE_SOCKET", OPT_STR, offsetof(struct serve, socket), "unix socket", NULL },
	{ "serve", "served-name", NULL, OPT_STR, offsetof(struct serve, served_name), "the model's name", NULL },
	{ "serve", "lora", NULL, OPT_LIST, offsetof(struct serve, loras), "NAME=FOLDER of adapters", NULL },
	{ "serve", "max-running", NULL, OPT_UINT, offsetof(struct serve, max_running), "requests computed together",
	  NULL },
	{ "serve", "max-queued", NULL, OPT_UINT, offsetof(struct serve, max_queued), "requests that may wait", NULL },
	{ "serve", "max-connections", NULL, OPT_UINT, offsetof(struct serve, max_connections), "open connections",
	  NULL },
	{ "serve", "max-body", NULL, OPT_SIZE, offsetof(struct serve, max_body), "largest request body", NULL },
	{ "serve", "kv-bytes", NULL, OPT_SIZE, offsetof(struct serve, kv_bytes), "memory for the K/V cache", NULL },
	{ "serve", "state-bytes", NULL, OPT_SIZE, offsetof(struct serve, state_bytes),
	  "memory for the states of recurrent layers", NULL },
	{ "serve", "deterministic", "OCAI_ENGINE_DETERMINISTIC", OPT_FLAG, offsetof(struct serve, m.deterministic),
	  "results do not depend on load", NULL },
	{ "serve", "cache-dir", "OCAI_ENGINE_CACHE_DIR", OPT_STR, offsetof(struct serve, cache_dir),
	  "folder for computed prompts", NULL },
	{ "serve", "cache-bytes", NULL, OPT_SIZE, offsetof(struct serve, cache_bytes), "most bytes in that folder",
	  NULL },
	{ "serve", "host-cache-bytes", "OCAI_ENGINE_HOST_CACHE_BYTES", OPT_SIZE,
	  offsetof(struct serve, host_cache_bytes), "GPU: host memory for computed prompts", NULL },
	{ "serve", "host-cache-policy", NULL, OPT_CHOICE, offsetof(struct serve, host_cache_policy),
	  "when they are copied there", "write-back,write-through" },
	{ "serve", "prefix-cache", NULL, OPT_FLAG, offsetof(struct serve, prefix_cache), "use prefixes again", NULL },
	{ "serve", "speculation", NULL, OPT_FLAG, offsetof(struct serve, speculation), "guess tokens", NULL },
	{ "serve", "step-ms", NULL, OPT_UINT, offsetof(struct serve, step_ms), "share of prompts in a step", NULL },
	{ "serve", "api-key-file", "OCAI_ENGINE_API_KEY_FILE", OPT_STR, offsetof(struct serve, api_key_file),
	  "file with API keys", NULL },
	{ "serve", "tool-format", NULL, OPT_STR, offsetof(struct serve, tool_format), "how tool calls are written",
	  NULL },
	{ "serve", "reasoning-format", NULL, OPT_STR, offsetof(struct serve, reasoning_format),
	  "how reasoning is written", NULL },
	{ "serve", "idle-exit", NULL, OPT_STR, offsetof(struct serve, idle_exit), "seconds until an idle exit", NULL },
	{ "serve", "drain", NULL, OPT_UINT, offsetof(struct serve, drain_s), "seconds to finish in", NULL },
	{ 0 }
};

/* What a service of systemd's gets: its listening sockets. */
struct inherited {
	int fds[ENG_HTTP_MAX_SOCKETS];
	size_t n;
};

static int write_port(const struct serve *o, uint16_t port, struct err *err)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%u\n", port);

	if (!o->port_file)
		return 0;
	return base_write_file_atomic(o->port_file, text, (size_t)n, 0644, err);
}

/* Digits, or "auto": who starts an engine by hand wants it to stay; one whose socket systemd keeps comes back. */
static int read_idle_exit(struct serve *o, const struct inherited *sockets, struct err *err)
{
	const char *text = o->idle_exit;
	char *end;
	unsigned long s;

	if (strcmp(text, "auto") == 0) {
		o->idle_ms = sockets->n ? 900 * 1000 : 0;
		return 0;
	}
	s = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || s > UINT32_MAX)
		return err_set(err, -EINVAL, "idle-exit: '%s' is neither auto nor a number of seconds", text);
	o->idle_ms = (uint64_t)s * 1000;
	return 0;
}

/* Returns the signal, or 0 when the server was idle for long enough. */
static int wait_for_end(uint64_t limit_ms, struct eng_http *http, const sigset_t *signals)
{
	if (limit_ms == 0)
		return sigwaitinfo(signals, NULL);
	for (;;) {
		uint64_t idle_ms = eng_http_idle_ms(http), left_ms = idle_ms < limit_ms ? limit_ms - idle_ms : 0;
		struct timespec ts = { .tv_sec = (time_t)(left_ms / 1000),
			               .tv_nsec = (long)(left_ms % 1000) * 1000000L };
		int sig;

		if (left_ms == 0)
			return 0;
		sig = sigtimedwait(signals, NULL, &ts);
		if (sig > 0)
			return sig;
	}
}

static void log_listening(const struct eng_http_config *c, const struct eng_http *http)
{
	if (c->n_listen_fds)
		base_log(BASE_LOG_INFO, "listening on the %zu socket%s handed over", c->n_listen_fds,
		         c->n_listen_fds == 1 ? "" : "s");
	else if (c->host)
		base_log(BASE_LOG_INFO, "listening on http://%s:%u", c->host, eng_http_port(http));
	if (!c->n_listen_fds && c->socket_path)
		base_log(BASE_LOG_INFO, "listening on %s", c->socket_path);
}

static int serve(const struct serve *o, const struct inherited *sockets, struct eng_engine *engine,
                 const sigset_t *signals, struct err *err)
{
	struct eng_http_config config = { .host = o->host && *o->host ? o->host : NULL,
		                          .port = (uint16_t)o->port,
		                          .socket_path = o->socket && *o->socket ? o->socket : NULL,
		                          .listen_fds = sockets->fds,
		                          .n_listen_fds = sockets->n,
		                          .max_connections = o->max_connections,
		                          .max_body_bytes = o->max_body,
		                          .tool_format = o->tool_format,
		                          .reasoning_format = o->reasoning_format,
		                          .api_key_file =
		                                  o->api_key_file && *o->api_key_file ? o->api_key_file : NULL };
	struct eng_http *http = NULL;
	int r, sig;

	r = eng_http_open(engine, &config, &http, err);
	if (r < 0)
		return r;
	log_listening(&config, http);
	r = write_port(o, eng_http_port(http), err);
	if (r == 0) {
		base_service_notify("READY=1");
		sig = wait_for_end(o->idle_ms, http, signals);
		base_service_notify("STOPPING=1");
		base_log(BASE_LOG_INFO, "%s, finishing the requests that run",
		         sig > 0 ? strsignal(sig) : "idle for long enough");
		/* A second signal ends at once. */
		(void)pthread_sigmask(SIG_UNBLOCK, signals, NULL);
		eng_http_quiesce(http);
		eng_engine_drain(engine, o->drain_s * 1000);
	}
	eng_http_close(http, r == 0 ? 2000 : 0);
	if (o->port_file)
		(void)unlink(o->port_file);
	return r;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / 0x1p20;
}

static void log_plan(void *arg, const struct eng_memory_plan *p)
{
	(void)arg;
	if (p->n_states)
		base_log(BASE_LOG_INFO, "memory: recurrent states %.1f MiB (%u slots, %u of them for copies)",
		         mib(p->state_bytes), p->n_states, p->n_states - p->max_running);
	if (p->host_cache_bytes)
		base_log(BASE_LOG_INFO, "memory: pinned on the host for prompts that give way, up to %.1f MiB",
		         mib(p->host_cache_bytes));
	if (p->decode_kv_pages)
		base_log(BASE_LOG_INFO, "memory: K/V %.1f MiB (%u pages) on the devices of answers",
		         mib(p->decode_kv_bytes), p->decode_kv_pages);
	base_log(BASE_LOG_INFO,
	         "memory: weights %.1f MiB mapped and %.1f MiB beside them, K/V %.1f MiB (%u pages of %u tokens), "
	         "activations %.1f MiB; context %u, %u requests together",
	         mib(p->mapped_bytes), mib(p->own_bytes), mib(p->kv_bytes), p->kv_pages, p->page_tokens,
	         mib(p->activation_bytes), p->n_ctx, p->max_running);
}

static void log_note(void *arg, const char *text)
{
	(void)arg;
	base_log(BASE_LOG_WARN, "%s", text);
}

/* "NAME=FOLDER" each; *ret_loras and the names in it are the caller's, the folders borrowed. */
static int read_loras(const struct opt_list *list, struct eng_lora **ret_loras, struct err *err)
{
	struct eng_lora *loras = calloc(list->n + 1, sizeof(*loras));

	if (!loras)
		return err_set(err, -ENOMEM, "no memory");
	*ret_loras = loras;
	for (size_t i = 0; i < list->n; i++) {
		const char *equals = strchr(list->items[i], '=');

		if (!equals || equals == list->items[i] || !equals[1])
			return err_set(err, -EINVAL, "lora: \"%s\" is not NAME=FOLDER", list->items[i]);
		loras[i].folder = equals + 1;
		loras[i].name = strndup(list->items[i], (size_t)(equals - list->items[i]));
		if (!loras[i].name)
			return err_set(err, -ENOMEM, "no memory");
	}
	return 0;
}

static void free_loras(struct eng_lora *loras)
{
	for (size_t i = 0; loras && loras[i].name; i++)
		free((char *)loras[i].name);
	free(loras);
}

static int open_and_serve(const struct serve *o, const struct inherited *sockets, const sigset_t *signals,
                          struct err *err)
{
	const struct eng_info *info;
	struct eng_engine *engine = NULL;
	struct eng_options options;
	struct eng_lora *loras = NULL;
	int r;

	model_options_apply(&o->m, &options);
	options.served_name = o->served_name;
	options.max_running = o->max_running;
	options.max_queued = o->max_queued;
	options.kv_bytes = o->kv_bytes;
	options.state_bytes = o->state_bytes;
	options.cache_dir = o->cache_dir && *o->cache_dir ? o->cache_dir : NULL;
	options.cache_bytes = o->cache_bytes;
	options.host_cache_bytes = o->host_cache_bytes;
	options.host_write_through = strcmp(o->host_cache_policy, "write-through") == 0;
	options.no_prefix_cache = !o->prefix_cache;
	options.no_speculation = !o->speculation;
	options.step_ms = o->step_ms;
	options.on_plan = log_plan;
	options.on_note = log_note;
	r = read_loras(&o->loras, &loras, err);
	options.loras = loras;
	options.n_loras = o->loras.n;
	r = r < 0 ? r : eng_engine_open(&options, &engine, err);
	free_loras(loras);
	if (r < 0)
		return r;
	info = eng_engine_info(engine);
	base_log_with(BASE_LOG_INFO,
	              (const struct base_log_field[]){ { "OCAI_MODEL", info->served_name },
	                                               { "OCAI_ARCH", info->arch },
	                                               { "OCAI_BACKEND", info->backend },
	                                               { 0 } },
	              "serving %s (%s, %.1f M parameters, %.1f MiB of weights) on %s, context %u", info->served_name,
	              info->arch, (double)info->n_params / 1e6, (double)info->weight_bytes / 0x1p20, info->backend,
	              info->n_ctx);
	r = serve(o, sockets, engine, signals, err);
	eng_engine_close(engine);
	return r;
}

static const struct base_config_paths paths = { .product = "ocai", .program = "engine" };
/* Where 0 means "what the engine thinks best" the default is that. */
static const struct serve defaults = { .m = { .backend = "auto", .kv_dtype = "auto", .log_level = "info" },
	                               .host = "127.0.0.1",
	                               .port = 8080,
	                               .max_running = 32,
	                               .max_queued = 256,
	                               .max_connections = 512,
	                               .max_body = 16 << 20,
	                               .tool_format = "auto",
	                               .reasoning_format = "auto",
	                               .idle_exit = "auto",
	                               .drain_s = 30,
	                               .step_ms = 100,
	                               .cache_bytes = UINT64_C(4) << 30,
	                               .host_cache_policy = "write-back",
	                               .prefix_cache = true,
	                               .speculation = true };

int serve_address(const char **ret_host, uint32_t *ret_port, const char **ret_socket, struct base_config **ret_config,
                  struct err *err)
{
	struct serve o = defaults;
	int r = base_config_load(&paths, keys, &o, ret_config, err);

	if (r < 0)
		return r;
	*ret_host = o.host;
	*ret_port = o.port;
	*ret_socket = o.socket;
	return 0;
}

int cmd_serve(int argc, char **argv)
{
	struct serve o = defaults;
	struct inherited sockets = { .n = 0 };
	struct base_config *config = NULL;
	struct err err = { 0 };
	sigset_t signals;
	int r, n_args = 0, exit_code = 0;

	r = base_config_load(&paths, keys, &o, &config, &err);
	if (r < 0)
		return command_failed(&err);
	if (command_parse(argc, argv, &o, &n_args, &exit_code) != OPT_RUN)
		goto out;
	if (n_args > 0 || o.port > UINT16_MAX) {
		if (n_args > 0)
			(void)err_set(&err, -EINVAL, "unexpected argument '%s'", argv[0]);
		else
			(void)err_set(&err, -EINVAL, "port %u is larger than 65535", o.port);
		exit_code = command_usage("serve", &err);
		goto out;
	}
	if (o.show_config) {
		base_config_show(config, &o, stdout);
		goto out;
	}
	r = base_service_sockets(sockets.fds, ENG_HTTP_MAX_SOCKETS, &err);
	if (r < 0) {
		exit_code = command_failed(&err);
		goto out;
	}
	sockets.n = (size_t)r;
	r = read_idle_exit(&o, &sockets, &err);
	if (r < 0) {
		exit_code = command_usage("serve", &err);
		goto out;
	}
	/* Blocked before any thread starts, so that only the wait below gets them. */
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	r = open_and_serve(&o, &sockets, &signals, &err);
	if (r < 0)
		exit_code = command_failed(&err);
out:
	opt_list_done(&o.loras);
	base_config_free(config);
	return exit_code;
}
