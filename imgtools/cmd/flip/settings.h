/* flip.conf: where things are and how much of them, for the daemon and for the commands that talk to it. */
#ifndef FLIP_SETTINGS_H
#define FLIP_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "node/node.h"

struct flip_settings {
	const char *root, *socket, *control, *pressure_dir, *log_level, *lower, *io_uring;
	uint64_t budget, min_free, passthrough_min, window, readahead, max_rate;
	uint32_t threads, connections, retries, stall_s, record_quiet_s, background_wait_s, preheat_pressure;
	bool prefetch, record, background, insecure, holder;
	const char *auth_file, *ca_file, *netrc_file, *models_dir, *s3_endpoint, *s3_region, *s3_credentials_file;
	const char *peers_listen, *peers_advertise, *peers_zone, *peers_members, *peers_token_file, *peers_cert_file,
	        *peers_key_file, *peers_ca_file, *peers_etcd_ca_file, *peers_grants, *peers_transport,
	        *peers_fabric_provider, *peers_fabric_listen, *peers_fabric_advertise;
	uint64_t peers_max_up, peers_max_down, peers_link, peers_cache;
	uint32_t peers_grant_s, peers_link_share, peers_uploads, peers_downloads, peers_disk_queue, peers_pressure,
	        peers_stall_ms;
	bool peers_tags;
	struct opt_list mirrors; /* "HOST=ENDPOINT" */
	struct base_config *config;
	struct flip_mirror *mirror_list; /* out of `mirrors`, by flip_settings_node() */
};

/* Built-in values, then the files and the environment. */
int flip_settings_load(struct flip_settings *s, struct err *err);
void flip_settings_done(struct flip_settings *s);
int flip_settings_node(struct flip_settings *s, struct flip_node_opts *ret_opts, struct err *err);

/* A value of a query: everything that is not unreserved as %XX. */
void flip_append_escaped(struct base_buf *b, const char *text);

/* One request to the daemon at s->control. A status other than 2xx is an error with the daemon's words. */
int flip_ask(const struct flip_settings *s, const char *method, const char *path_and_query, struct base_buf *ret_body,
             struct err *err);

#endif
