/* The table of flip.conf, and the one request that the commands make to the daemon. */
#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/http_client.h"
#include "base/json.h"
#include "peer/limit.h"

#define KEY(section, key, env, type, field, help, choices)                                    \
	{                                                                                     \
		section, key, env, type, offsetof(struct flip_settings, field), help, choices \
	}

static const struct base_config_key keys[] = {
	KEY("node", "root", "FLIP_ROOT", OPT_STR, root, "folder of the store and of the mounts", NULL),
	KEY("node", "socket", "FLIP_SOCKET", OPT_STR, socket, "where containerd asks", NULL),
	KEY("node", "control", "FLIP_CONTROL", OPT_STR, control, "where flip's own commands ask", NULL),
	KEY("node", "threads", NULL, OPT_UINT, threads, "for decoding; 0: one per core", NULL),
	KEY("node", "pressure-dir", "FLIP_PRESSURE_DIR", OPT_STR, pressure_dir,
	    "where it is read how long other work waits: PSI of the machine, or of a control group", NULL),
	KEY("node", "log-level", "FLIP_LOG_LEVEL", OPT_CHOICE, log_level, "what is logged", "error,warn,info,debug"),
	KEY("store", "budget", NULL, OPT_SIZE, budget, "most that contents may take; 0: no limit", NULL),
	KEY("store", "min-free", "FLIP_MIN_FREE", OPT_SIZE, min_free, "room that stays free on the file system", NULL),
	KEY("registry", "mirrors", "FLIP_MIRRORS", OPT_LIST, mirrors, "HOST=URL, asked before HOST itself", NULL),
	KEY("registry", "connections", NULL, OPT_UINT, connections, "at once to one registry", NULL),
	KEY("registry", "retries", "FLIP_RETRIES", OPT_UINT, retries, "of one request", NULL),
	KEY("registry", "stall", "FLIP_STALL", OPT_UINT, stall_s, "seconds without a byte that end an attempt", NULL),
	KEY("registry", "max-rate", NULL, OPT_SIZE, max_rate, "bytes a second of what nobody waits for; 0: no limit",
	    NULL),
	KEY("registry", "auth-file", NULL, OPT_STR, auth_file, "docker's config.json; empty: the usual places", NULL),
	KEY("registry", "ca-file", NULL, OPT_STR, ca_file, "certificates to trust; empty: the system's", NULL),
	KEY("registry", "netrc-file", NULL, OPT_STR, netrc_file,
	    "passwords of addresses that are no registry's; empty: ~/.netrc", NULL),
	KEY("registry", "insecure", "FLIP_INSECURE", OPT_FLAG, insecure,
	    "plain HTTP beyond this host, TLS without verification", NULL),
	KEY("s3", "endpoint", NULL, OPT_STR, s3_endpoint,
	    "address of the object store; empty: AWS_ENDPOINT_URL_S3, else Amazon's", NULL),
	KEY("s3", "region", NULL, OPT_STR, s3_region, "its region; empty: AWS_REGION, else ~/.aws/config", NULL),
	KEY("s3", "credentials-file", NULL, OPT_STR, s3_credentials_file,
	    "keys; empty: the environment, else ~/.aws/credentials", NULL),
	KEY("models", "dir", "FLIP_MODELS", OPT_STR, models_dir, "where models are mounted by name", NULL),
	KEY("prefetch", "play", NULL, OPT_FLAG, prefetch, "fetch what a start is known to read", NULL),
	KEY("prefetch", "record", "FLIP_RECORD", OPT_FLAG, record, "write down what a first start reads", NULL),
	KEY("prefetch", "quiet", NULL, OPT_UINT, record_quiet_s, "seconds without a read that end a recording", NULL),
	KEY("prefetch", "window", NULL, OPT_SIZE, window, "asked for ahead of its arrival", NULL),
	KEY("prefetch", "background", NULL, OPT_FLAG, background, "fetch the rest when nobody reads", NULL),
	KEY("prefetch", "background-wait", "FLIP_BACKGROUND_WAIT", OPT_UINT, background_wait_s,
	    "seconds of quiet before that", NULL),
	KEY("prefetch", "preheat-pressure", "FLIP_PREHEAT_PRESSURE", OPT_UINT, preheat_pressure,
	    "per cent of PSI beyond which preheating slows down; 100: never", NULL),
	KEY("peers", "listen", "FLIP_PEERS_LISTEN", OPT_STR, peers_listen,
	    "where peers ask, HOST:PORT; empty: no peers", NULL),
	KEY("peers", "advertise", "FLIP_PEERS_ADVERTISE", OPT_STR, peers_advertise,
	    "our name among members, HOST:PORT; empty: an address of ours", NULL),
	KEY("peers", "zone", "FLIP_PEERS_ZONE", OPT_STR, peers_zone, "where we are; members of our zone come first",
	    NULL),
	KEY("peers", "members", "FLIP_PEERS_MEMBERS", OPT_STR, peers_members,
	    "static:LIST, dns:NAME:PORT, file:PATH or etcd:URL", NULL),
	KEY("peers", "transport", "FLIP_PEERS_TRANSPORT", OPT_CHOICE, peers_transport,
	    "how members are asked: by HTTP, or by libfabric where they have it too", "http,fabric"),
	KEY("peers", "fabric-provider", "FLIP_PEERS_FABRIC_PROVIDER", OPT_STR, peers_fabric_provider,
	    "libfabric's provider: tcp, verbs", NULL),
	KEY("peers", "fabric-listen", "FLIP_PEERS_FABRIC_LISTEN", OPT_STR, peers_fabric_listen,
	    "where peers ask by libfabric, HOST:PORT; empty: the port after that of listen", NULL),
	KEY("peers", "fabric-advertise", "FLIP_PEERS_FABRIC_ADVERTISE", OPT_STR, peers_fabric_advertise,
	    "that address, as members are told, [HOST:]PORT; empty: at the host of our name", NULL),
	KEY("peers", "token-file", "FLIP_PEERS_TOKEN_FILE", OPT_STR, peers_token_file,
	    "the secret that members share; a file of mode 0600", NULL),
	KEY("peers", "cert-file", "FLIP_PEERS_CERT_FILE", OPT_STR, peers_cert_file, "mutual TLS: our certificate",
	    NULL),
	KEY("peers", "key-file", "FLIP_PEERS_KEY_FILE", OPT_STR, peers_key_file, "its key, mode 0600", NULL),
	KEY("peers", "ca-file", "FLIP_PEERS_CA_FILE", OPT_STR, peers_ca_file, "who signs the certificates of members",
	    NULL),
	KEY("peers", "etcd-ca-file", NULL, OPT_STR, peers_etcd_ca_file,
	    "certificates to trust of etcd; empty: the system's", NULL),
	KEY("peers", "grants", NULL, OPT_CHOICE, peers_grants,
	    "who may have what: as the registry says, or every member all", "registry,cluster"),
	KEY("peers", "grant-time", NULL, OPT_UINT, peers_grant_s, "seconds for which its word counts", NULL),
	KEY("peers", "tags", NULL, OPT_FLAG, peers_tags, "believe peers what a tag means, while the registry is away",
	    NULL),
	KEY("peers", "max-up", "FLIP_PEERS_MAX_UP", OPT_SIZE, peers_max_up, "bytes a second for peers; 0: no limit",
	    NULL),
	KEY("peers", "max-down", NULL, OPT_SIZE, peers_max_down, "bytes a second of peers; 0: no limit", NULL),
	KEY("peers", "link", "FLIP_PEERS_LINK", OPT_SIZE, peers_link,
	    "bytes a second of the link (125M: 1 Gbit/s); 0: not known", NULL),
	KEY("peers", "link-share", NULL, OPT_UINT, peers_link_share, "per cent of it that peers may use, each way",
	    NULL),
	KEY("peers", "uploads", NULL, OPT_UINT, peers_uploads, "questions of peers answered at once", NULL),
	KEY("peers", "downloads", NULL, OPT_UINT, peers_downloads, "questions of ours asked at once", NULL),
	KEY("peers", "disk-queue", NULL, OPT_UINT, peers_disk_queue, "reads of the disk at once for peers", NULL),
	KEY("peers", "pressure", "FLIP_PEERS_PRESSURE", OPT_UINT, peers_pressure,
	    "per cent of PSI beyond which uploads slow down; 100: never", NULL),
	KEY("peers", "cache", NULL, OPT_SIZE, peers_cache, "pieces kept in memory for peers, as small as they came",
	    NULL),
	KEY("peers", "stall", NULL, OPT_UINT, peers_stall_ms, "milliseconds without a byte that end a question", NULL),
	KEY("files", "lower", NULL, OPT_CHOICE, lower, "how layers are shown", "auto,erofs,fuse"),
	KEY("files", "passthrough-min", NULL, OPT_SIZE, passthrough_min, "smallest content opened by passthrough",
	    NULL),
	KEY("files", "readahead", NULL, OPT_SIZE, readahead, "most that the kernel reads ahead", NULL),
	KEY("files", "io-uring", NULL, OPT_CHOICE, io_uring, "FUSE over io_uring", "auto,on,off"),
	KEY("files", "holder", NULL, OPT_FLAG, holder, "keep the FUSE session over the daemon's death", NULL),
	{ 0 },
};

int flip_settings_load(struct flip_settings *s, struct err *err)
{
	static const struct base_config_paths paths = { .product = "flip", .program = "flip" };

	*s = (struct flip_settings){
		.root = "/var/lib/flip",
		.socket = "/run/flip/flip.sock",
		.control = "/run/flip/control.sock",
		.models_dir = "/run/flip/models",
		.pressure_dir = PEER_PRESSURE_DIR,
		.log_level = "info",
		.lower = "auto",
		.io_uring = "auto",
		.min_free = UINT64_C(1) << 30,
		.passthrough_min = 64 << 10,
		.window = 32 << 20,
		.readahead = 128 << 10,
		.connections = 16,
		.retries = 5,
		.stall_s = 20,
		.record_quiet_s = 10,
		.background_wait_s = 5,
		.preheat_pressure = 20,
		.prefetch = true,
		.record = true,
		.background = true,
		.holder = true,
		.peers_transport = "http",
		.peers_fabric_provider = "tcp",
		.peers_grants = "registry",
		.peers_grant_s = 60,
		.peers_tags = true,
		.peers_link_share = 100,
		.peers_uploads = 32,
		.peers_downloads = 32,
		.peers_disk_queue = 4,
		.peers_pressure = 20,
		.peers_cache = 64 << 20,
		.peers_stall_ms = 2500,
	};
	return base_config_load(&paths, keys, s, &s->config, err);
}

void flip_settings_done(struct flip_settings *s)
{
	for (size_t i = 0; s->mirror_list && i < s->mirrors.n; i++)
		free((char *)s->mirror_list[i].host);
	free(s->mirror_list);
	opt_list_done(&s->mirrors);
	base_config_free(s->config);
}

static int make_mirrors(struct flip_settings *s, struct err *err)
{
	s->mirror_list = calloc(s->mirrors.n + 1, sizeof(*s->mirror_list));
	if (!s->mirror_list)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < s->mirrors.n; i++) {
		const char *text = s->mirrors.items[i], *eq = strchr(text, '=');

		if (!eq || strncmp(eq + 1, "http", 4) != 0)
			return err_set(err, -EINVAL, "registry.mirrors: \"%s\" is not HOST=URL", text);
		s->mirror_list[i].host = eq == text ? NULL : strndup(text, (size_t)(eq - text));
		s->mirror_list[i].endpoint = eq + 1;
		if (eq != text && !s->mirror_list[i].host)
			return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static const char *or_null(const char *text)
{
	return text && *text ? text : NULL;
}

static struct flip_peers_opts peers_of(const struct flip_settings *s)
{
	return (struct flip_peers_opts){
		.listen = or_null(s->peers_listen),
		.advertise = or_null(s->peers_advertise),
		.zone = or_null(s->peers_zone),
		.members = or_null(s->peers_members),
		.transport = or_null(s->peers_transport),
		.fabric_provider = or_null(s->peers_fabric_provider),
		.fabric_listen = or_null(s->peers_fabric_listen),
		.fabric_advertise = or_null(s->peers_fabric_advertise),
		.token_file = or_null(s->peers_token_file),
		.cert_file = or_null(s->peers_cert_file),
		.key_file = or_null(s->peers_key_file),
		.ca_file = or_null(s->peers_ca_file),
		.etcd_ca_file = or_null(s->peers_etcd_ca_file),
		.max_up = s->peers_max_up,
		.max_down = s->peers_max_down,
		.link = s->peers_link,
		.link_share = s->peers_link_share,
		.max_uploads = s->peers_uploads,
		.max_asked = s->peers_downloads,
		.disk_queue = s->peers_disk_queue,
		.psi_percent = s->peers_pressure,
		.pressure_dir = or_null(s->pressure_dir),
		.cache_bytes = s->peers_cache,
		.stall_ms = s->peers_stall_ms,
		.grant_s = s->peers_grant_s,
	};
}

int flip_settings_node(struct flip_settings *s, struct flip_node_opts *ret_opts, struct err *err)
{
	int r = make_mirrors(s, err);

	if (r < 0)
		return r;
	if (s->readahead > 16 << 20)
		return err_set(err, -EINVAL, "files.readahead: more than 16M");
	*ret_opts = (struct flip_node_opts){
		.root = s->root,
		.store = { .budget_bytes = s->budget, .min_free_bytes = s->min_free },
		.fetch = { .n_connections = s->connections,
		           .max_rate = s->max_rate,
		           .n_retries = s->retries,
		           .stall_s = s->stall_s,
		           .auth_file = or_null(s->auth_file),
		           .ca_file = or_null(s->ca_file),
		           .netrc_file = or_null(s->netrc_file),
		           .s3_endpoint = or_null(s->s3_endpoint),
		           .s3_region = or_null(s->s3_region),
		           .s3_credentials_file = or_null(s->s3_credentials_file),
		           .insecure = s->insecure,
		           .mirrors = s->mirror_list,
		           .n_mirrors = s->mirrors.n },
		.models_dir = s->models_dir,
		.lower = strcmp(s->lower, "erofs") == 0  ? FLIP_LOWER_EROFS
		         : strcmp(s->lower, "fuse") == 0 ? FLIP_LOWER_FUSE
		                                         : FLIP_LOWER_AUTO,
		.io_uring = strcmp(s->io_uring, "on") == 0    ? FLIP_URING_ON
		            : strcmp(s->io_uring, "off") == 0 ? FLIP_URING_OFF
		                                              : FLIP_URING_AUTO,
		.n_threads = s->threads,
		.max_readahead = (uint32_t)s->readahead,
		.passthrough_min = s->passthrough_min,
		.prefetch_window = s->window,
		.no_prefetch = !s->prefetch,
		.no_record = !s->record,
		.no_background = !s->background,
		.record_quiet_s = s->record_quiet_s,
		.background_wait_s = s->background_wait_s,
		.preheat_pressure = s->preheat_pressure,
		.pressure_dir = or_null(s->pressure_dir),
		.holder_socket = s->holder ? NULL : "",
		.peers = peers_of(s),
		.trust_peers = strcmp(s->peers_grants, "cluster") == 0,
		.peers_tags = s->peers_tags,
	};
	return 0;
}

void flip_append_escaped(struct base_buf *b, const char *text)
{
	for (; *text; text++) {
		if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/", *text))
			(void)base_buf_putc(b, *text);
		else
			(void)base_buf_printf(b, "%%%02X", (unsigned char)*text);
	}
}

int flip_ask(const struct flip_settings *s, const char *method, const char *path_and_query, struct base_buf *ret_body,
             struct err *err)
{
	struct base_http_request req = { .method = method, .unix_socket = s->control };
	struct base_http_response resp = { 0 };
	struct base_buf url = BASE_BUF_INIT(64 << 10);
	struct base_http *http = NULL;
	int r = base_http_new(&http, err);

	if (r == 0)
		r = base_buf_printf(&url, "http://flip%s", path_and_query);
	req.url = base_buf_text(&url);
	if (r == 0)
		r = base_http_request(http, &req, &resp, err);
	if (r == -ECONNREFUSED)
		(void)err_set(err, r, "%s: no daemon answers there (flip snapshotter)", s->control);
	base_http_free(http);
	base_buf_done(&url);
	if (r < 0)
		return r;
	if (resp.status / 100 != 2) {
		json_t *doc = NULL;
		const char *text = NULL;

		if (base_json_parse("answer", resp.body.data, resp.body.len, &doc, NULL) == 0)
			text = json_string_value(json_object_get(doc, "error"));
		r = err_set(err, -EIO, "%s", text ? text : "the daemon refused");
		json_decref(doc);
		base_buf_done(&resp.body);
		return r;
	}
	*ret_body = resp.body;
	return 0;
}
