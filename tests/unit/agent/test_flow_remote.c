/* A server on another host, played by this one at an address that is not loopback: it is asked only when the
 * configuration says so, it is named, and no secret reaches it, whichever way it came into the prompt. */
#include "fake_server.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/stat.h>

#include "flow/flow.h"
#include "own_home.h"
#include "kb/kb.h"

/* ---- The place --------------------------------------------------------------------------------------------------- */

static struct in_addr elsewhere;
static bool has_address;

static void find_address(void)
{
	struct ifaddrs *all = NULL;

	if (getifaddrs(&all) < 0)
		return;
	for (const struct ifaddrs *i = all; i && !has_address; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK))
			continue;
		elsewhere = ((const struct sockaddr_in *)i->ifa_addr)->sin_addr;
		has_address = true;
	}
	freeifaddrs(all);
}

static int make_dir(void **state)
{
	(void)state;
	find_address();
	(void)setenv("OCAI_KNOWLEDGE_DIR", "/nonexistent", 1);
	(void)unsetenv("http_proxy");
	return own_home_make("remote");
}

struct scene {
	struct fake_server server;
	struct ag_settings s;
	struct ag_io io;
	struct err error;
	char *out, *err;
	size_t out_len, err_len;
};

static struct scene *scene_new(const char *const *answers)
{
	struct scene *c;

	if (!has_address)
		skip(); /* this machine has nothing but loopback */
	c = calloc(1, sizeof(*c));
	assert_non_null(c);
	fake_start_at(&c->server, answers, elsewhere);
	c->s = (struct ag_settings){ .opt_url = c->server.url,
		                     .allow_remote = true,
		                     .timeout_s = 300,
		                     .max_tokens = 256,
		                     .context_tokens = 16384,
		                     .tools_enabled = true,
		                     .run_read = true,
		                     .max_steps = 8,
		                     .tool_time_s = 60,
		                     .max_result_bytes = 4096,
		                     .no_history = true };
	c->io = (struct ag_io){ .out = open_memstream(&c->out, &c->out_len),
		                .err = open_memstream(&c->err, &c->err_len) };
	return c;
}

static void scene_free(struct scene *c)
{
	fake_stop(&c->server);
	(void)fclose(c->io.out);
	(void)fclose(c->io.err);
	free(c->out);
	free(c->err);
	free(c);
}

/* ---- Secrets ---- */

#define AWS "AKIAIOSFODNN7EXAMPLE"
#define FORGE "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
#define WORD "correcthorse99"
#define BEARER "c2VjcmV0LXRva2VuLXZhbHVlLTEyMw"
#define KEY_LINE "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ"
#define PRIVATE "-----BEGIN OPENSSH PRIVATE KEY-----\n" KEY_LINE "\n-----END OPENSSH PRIVATE KEY-----\n"
#define MIXTURE                                                                                                    \
	"key " AWS "\ntoken=" FORGE "\npassword: " WORD "\nAuthorization: Bearer " BEARER "\npostgres://app:" WORD \
	"@db/x\n" PRIVATE

static void assert_no_secret(const struct scene *c)
{
	static const char *const secrets[] = { AWS, FORGE, WORD, BEARER, KEY_LINE };

	for (int i = 0; i < atomic_load(&c->server.n_requests); i++) {
		for (size_t k = 0; k < sizeof(secrets) / sizeof(*secrets); k++) {
			if (strstr(c->server.requests[i], secrets[k]))
				print_error("request %d holds %s:\n%s\n", i, secrets[k], c->server.requests[i]);
			assert_null(strstr(c->server.requests[i], secrets[k]));
		}
	}
}

#define SAY(text) FAKE_SSE(FAKE_DELTA(text) FAKE_DONE)
#define CALL(name, args)                                                                                             \
	FAKE_SSE("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":" \
	         "\"" name "\",\"arguments\":\"" args "\"}}]}}]}\n\n" FAKE_DONE)

static void another_host_is_not_asked_without_leave(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, SAY("leaked"), NULL };
	struct scene *c = scene_new(answers);
	struct ag_suggestion g;

	(void)state;
	c->s.allow_remote = false;
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("chat"), &c->io, "hello", NULL, &c->error), -EPERM);
	assert_non_null(strstr(err_text(&c->error), "is not this machine"));
	assert_non_null(strstr(err_text(&c->error), "'allow-remote = true' in [backend]"));
	ag_suggestion_init(&g);
	assert_int_equal(ag_suggest(&c->s, "list files", NULL, &g, c->io.err, &c->error), -EPERM);
	ag_suggestion_done(&g);
	assert_int_equal(atomic_load(&c->server.n_requests), 0);
	scene_free(c);
}

static void nothing_that_a_prompt_is_made_of_carries_a_secret(void **state)
{
	/* The tool's result holds secrets; the model says one itself as an argument, and it comes back in the history
	 * of the conversation. */
	static const char *const answers[] = {
		FAKE_MODELS, CALL("run_command", "{\\\"command\\\":\\\"cat mixture.txt; echo " FORGE "\\\"}"),
		CALL("read_file", "{\\\"path\\\":\\\"/nonexistent/" AWS "\\\"}"), SAY("done"), NULL
	};
	const char *path = write_here("mixture.txt", MIXTURE);
	const char *items[] = { path };
	struct scene *c = scene_new(answers);

	(void)state;
	c->s.files = (struct opt_list){ .items = items, .n = 1 };
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("chat"), &c->io,
	                           "why does password=" WORD " not work with " AWS, MIXTURE, &c->error),
	                 0);
	assert_int_equal(atomic_load(&c->server.n_requests), 4);
	assert_no_secret(c);
	assert_non_null(strstr(c->server.requests[2], "[secret:"));
	assert_non_null(strstr(c->server.requests[2], "exit code 0")); /* the result did go */
	(void)fflush(c->io.err);
	assert_non_null(strstr(c->err, "remote: "));
	scene_free(c);
}

static void the_errors_of_a_command_carry_none(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, SAY("mysql -p"), NULL };
	struct scene *c = scene_new(answers);
	struct ag_suggestion g;

	(void)state;
	ag_suggestion_init(&g);
	assert_int_equal(ag_suggest_fix(&c->s, "connect", "mysql --password=" WORD " -h db", 1,
	                                "cannot connect with token=" FORGE "\n" PRIVATE, &g, c->io.err, &c->error),
	                 0);
	assert_string_equal(base_buf_text(&g.command), "mysql -p");
	assert_no_secret(c);
	assert_non_null(strstr(c->server.requests[1], "cannot connect with"));
	(void)fflush(c->io.err);
	assert_non_null(strstr(c->err, "remote: "));
	ag_suggestion_done(&g);
	scene_free(c);
}

static void passages_carry_none(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, SAY("As [1] says."), NULL };
	struct ag_kb_counts counts;
	struct ag_kb *kb = NULL;
	struct scene *c = scene_new(answers);

	(void)state;
	assert_int_equal(ag_kb_open(&(struct ag_kb_options){ 0 }, &kb, &c->error), 0);
	assert_int_equal(ag_kb_add(kb,
	                           write_here("backup.md", "# Backup\n\nThe backup runs at night with password: " WORD
	                                                   " and key " AWS ".\n"),
	                           &counts, &c->error),
	                 0);
	ag_kb_close(kb);
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("kb"), &c->io, "when does the backup run", NULL, &c->error),
	                 0);
	assert_no_secret(c);
	assert_non_null(strstr(c->server.requests[1], "The backup runs at night"));
	(void)fflush(c->io.out);
	assert_non_null(strstr(c->out, "As [1] says.\n\nSources:\n[1] "));
	assert_non_null(strstr(c->out, "backup.md:"));
	scene_free(c);
}

/* ---- Tools of another host ---- */

#define RESULT(id, text) FAKE_JSON("200 OK", "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"result\":" text "}")

static void arguments_of_a_tool_elsewhere_carry_none_and_its_key_is_private(void **state)
{
	static const char *const tool_answers[] = {
		RESULT("1", "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{"
		            "\"name\":\"t\","
		            "\"version\":\"1\"}}"),
		"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		RESULT("2", "{\"tools\":[{\"name\":\"look\",\"inputSchema\":{\"type\":\"object\"}}]}"),
		RESULT("3", "{\"content\":[{\"type\":\"text\",\"text\":\"found\"}]}"), NULL
	};
	static const char *const answers[] = {
		FAKE_MODELS, SAY("no tools"),
		FAKE_MODELS, CALL("mcp_far_look", "{\\\"q\\\":\\\"password=" WORD " and " FORGE "\\\"}"),
		SAY("ok"),   NULL
	};
	struct scene *c = scene_new(answers);
	struct scene *far = scene_new(tool_answers);
	char conf[512], path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/token", dir);
	(void)write_here("token", "value\n");
	assert_int_equal(chmod(path, 0644), 0);
	(void)mkdir("ocai", 0700);
	(void)snprintf(conf, sizeof(conf), "[far]\nurl = %s/mcp\ntoken-file = %s\nallow = *\n", far->server.url, path);
	(void)write_here("ocai/mcp.conf", conf);
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("chat"), &c->io, "?", NULL, &c->error), 0);
	(void)fflush(c->io.err);
	assert_non_null(strstr(c->err, "others can read the key (mode 644)"));
	assert_int_equal(atomic_load(&far->server.n_requests), 0);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("chat"), &c->io, "?", NULL, &c->error), 0);
	(void)fflush(c->io.err);
	assert_non_null(strstr(c->err, "(MCP: far)\n"));
	assert_no_secret(far);
	assert_non_null(strstr(far->server.requests[3], "[secret:"));
	assert_non_null(strstr(c->server.requests[4], "found"));
	assert_int_equal(unlink("ocai/mcp.conf"), 0);
	scene_free(c);
	scene_free(far);
}

/* ---- Embeddings ---- */

static void embeddings_of_another_host_are_by_leave_and_masked(void **state)
{
	static const char *const answers[] = { FAKE_JSON("200 OK", "{\"data\":[{\"index\":0,\"embedding\":[1,0]}]}"),
		                               NULL };
	struct scene *c = scene_new(answers);
	struct ag_kb_embedder embedder = { .url = c->server.url, .model = "m" };
	char path[128];
	const struct ag_kb_options options = { .path = path, .embedder = &embedder };
	struct ag_kb_counts counts;
	struct ag_kb *kb = NULL;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/vectors.sqlite", dir);
	assert_int_equal(ag_kb_open(&options, &kb, &c->error), -EPERM);
	assert_non_null(strstr(err_text(&c->error), "kb.conf says 'allow-remote = true'"));
	assert_int_equal(atomic_load(&c->server.n_requests), 0);
	embedder.allow_remote = true;
	assert_int_equal(ag_kb_open(&options, &kb, &c->error), 0);
	assert_int_equal(ag_kb_add(kb, write_here("mixture.md", "notes of the team: password: " WORD ", key " AWS "\n"),
	                           &counts, &c->error),
	                 0);
	assert_int_equal(counts.n_vectors, 1);
	ag_kb_close(kb);
	assert_no_secret(c);
	assert_non_null(strstr(c->server.requests[0], "notes of the team"));
	scene_free(c);
}

/* ---- Keys ---- */

static void a_key_goes_to_its_own_server_only(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, SAY("hi"), NULL };
	struct scene *c = scene_new(answers);
	const char *path = write_here("key", BEARER "\n");

	(void)state;
	c->s.opt_url = NULL;
	c->s.url = c->server.url;
	c->s.api_key_file = path;
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("chat"), &c->io, "hello", NULL, &c->error), -EPERM);
	assert_non_null(strstr(err_text(&c->error), "others can read the key (mode 640); chmod 600 it"));
	assert_int_equal(atomic_load(&c->server.n_requests), 0);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("chat"), &c->io, "hello", NULL, &c->error), 0);
	assert_non_null(strstr(c->server.requests[1], "Authorization: Bearer " BEARER));
	scene_free(c);

	c = scene_new(answers); /* another address: the key stays here */
	c->s.url = "http://127.0.0.1:1";
	c->s.api_key_file = path;
	assert_int_equal(ag_answer(&c->s, ag_assistant_find("chat"), &c->io, "hello", NULL, &c->error), 0);
	assert_no_secret(c);
	scene_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_host_is_not_asked_without_leave),
		cmocka_unit_test(nothing_that_a_prompt_is_made_of_carries_a_secret),
		cmocka_unit_test(the_errors_of_a_command_carry_none),
		cmocka_unit_test(passages_carry_none),
		cmocka_unit_test(arguments_of_a_tool_elsewhere_carry_none_and_its_key_is_private),
		cmocka_unit_test(embeddings_of_another_host_are_by_leave_and_masked),
		cmocka_unit_test(a_key_goes_to_its_own_server_only),
	};

	return cmocka_run_group_tests(tests, make_dir, own_home_remove);
}
