/* Images written and read back: layouts, archives, layers, configurations, choices, broken content. */
#include <errno.h>
#include <sys/wait.h>

#include "oci_test.h"

static struct img_tree *sample(void)
{
	static char value[] = "a\0b";
	struct img_xattr x = { "user.note", value, 3 };
	struct img_tree *t = img_tree_new();
	struct img_node *n;
	char deep[300] = "/long";

	for (size_t i = 0; i < 20; i++)
		(void)snprintf(deep + 5 + 10 * i, 11, "/component");
	add_file(t, "/etc/os-release", "ID=test\n");
	add_file(t, "/usr/bin/tool", "#!/bin/sh\nexit 0\n")->mode = 04755;
	add_file(t, "/usr/lib/one", "same")->link_group = 3;
	add_file(t, "/usr/lib/two", "same")->link_group = 3;
	add_file(t, "/app/main", "print('hello')\n");
	add_file(t, deep, "deep");
	add_link(t, "/bin", "usr/bin");
	add_dir(t, "/tmp")->mode = 01777;
	n = add_node(t, (struct img_node){ .path = "/app/noted",
	                                   .mode = 0644,
	                                   .size = 1,
	                                   .data = "x",
	                                   .mtime_s = 2000000000,
	                                   .xattrs = &x,
	                                   .n_xattrs = 1 });
	n->uid = 1000;
	return t;
}

static int32_t app_on_top(const struct img_node *n, void *arg)
{
	(void)arg;
	return strncmp(n->path, "/app", 4) == 0 ? 1 : 0;
}

static struct img_write_plan plan_for(struct img_tree *t, enum img_compression c)
{
	static const struct img_layer_plan layers[] = { { "base", NULL }, { "app", "what changes" } };

	return (struct img_write_plan){ .tree = t,
		                        .layer_of = app_on_top,
		                        .layers = layers,
		                        .n_layers = 2,
		                        .compression = c,
		                        .epoch = 1700000000 };
}

static void assert_is_sample(const struct img_image *image)
{
	struct img_tree *t = image->tree;

	assert_text_is(t, "/etc/os-release", "ID=test\n");
	assert_text_is(t, "/usr/lib/two", "same");
	assert_int_equal(img_tree_find(t, "/usr/bin/tool")->mode, 04755);
	assert_int_equal(img_tree_find(t, "/tmp")->mode, 01777);
	assert_int_equal(img_tree_find(t, "/usr/lib/one")->link_group, img_tree_find(t, "/usr/lib/two")->link_group);
	assert_string_equal(img_tree_find(t, "/bin")->target, "usr/bin");
	assert_int_equal(img_tree_find(t, "/app/noted")->uid, 1000);
	assert_int_equal(img_tree_find(t, "/app/noted")->mtime_s, 1700000000);
	assert_int_equal(img_tree_find(t, "/app/noted")->n_xattrs, 1);
	assert_memory_equal(img_tree_find(t, "/app/noted")->xattrs[0].value, "a\0b", 3);
	assert_int_equal(img_tree_find(t, "/app/main")->layer, 1);
	assert_int_equal(img_tree_find(t, "/usr/bin/tool")->layer, 0);
	assert_int_equal(image->n_layers, 2);
	assert_string_equal(image->layers[1].created_by, "app");
}

static void an_image_reads_back_from_every_place(void **state)
{
	static const char *const places[][2] = { { "oci", "l:v1" },
		                                 { "oci-archive", "o.tar:v1" },
		                                 { "docker-archive", "d.tar:example.com/app:v1" } };
	static const enum img_compression how[] = { IMG_ZSTD, IMG_GZIP, IMG_PLAIN };
	char *dir = temp_dir();
	struct img_tree *t = sample();

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		for (size_t k = 0; k < 3; k++) {
			struct img_write_plan plan = plan_for(t, how[k]);
			struct img_image *image;

			write_image(image_at(places[i][0], dir, places[i][1]), &plan);
			image = open_image(image_at(places[i][0], dir, places[i][1]));
			assert_is_sample(image);
			assert_int_equal(img_tree_count(image->tree), img_tree_count(t));
			img_image_close(image);
		}
	}
	img_tree_free(t);
	drop_dir(dir);
}

static void the_same_plan_gives_the_same_bytes_with_any_number_of_threads(void **state)
{
	char *dir = temp_dir(), *noise = malloc(9 << 20);
	struct img_tree *t = sample();
	struct img_write_result res[3] = { 0 };
	uint32_t x = 1;

	(void)state;
	for (size_t i = 0; i < 9u << 20; i++) { /* compressible, but not by much, and more than one job of zstd */
		x = x * 1664525 + 1013904223;
		noise[i] = (char)("0123456789abcdef"[x >> 28]);
	}
	add_node(t, (struct img_node){ .path = "/app/noise", .mode = 0644, .size = 9 << 20, .data = noise });
	for (unsigned i = 0; i < 3; i++) {
		struct img_write_plan plan = plan_for(t, IMG_ZSTD);
		char name[16];

		plan.n_threads = (unsigned[]){ 1, 3, 8 }[i];
		plan.level = 3;
		(void)snprintf(name, sizeof(name), "l%u:x", i);
		assert_int_equal(img_image_write(image_at("oci", dir, name), &plan, &res[i], NULL), 0);
		assert_string_equal(res[i].manifest_digest, res[0].manifest_digest);
	}
	for (unsigned i = 0; i < 3; i++)
		img_write_result_done(&res[i]);
	free(noise);
	img_tree_free(t);
	drop_dir(dir);
}

static void an_index_keeps_its_other_images(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = sample(), *other = img_tree_new();
	struct img_write_plan a = plan_for(t, IMG_GZIP), b = { .tree = other, .epoch = 0 };
	struct img_image *image = NULL;
	struct err err = { 0 };

	(void)state;
	add_file(other, "/only", "x");
	write_image(image_at("oci", dir, "l:a"), &a);
	write_image(image_at("oci", dir, "l:b"), &b);
	write_image(image_at("oci", dir, "l:c"), &b);
	write_image(image_at("oci", dir, "l:b"), &a);
	image = open_image(image_at("oci", dir, "l:a"));
	assert_is_sample(image);
	img_image_close(image);
	image = open_image(image_at("oci", dir, "l:b"));
	assert_is_sample(image);
	img_image_close(image);
	image = open_image(image_at("oci", dir, "l:c"));
	assert_text_is(image->tree, "/only", "x");
	img_image_close(image);
	assert_int_equal(img_image_open(image_at("oci", dir, "l:d"), NULL, &image, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "there are: b, c, a"));
	assert_int_equal(img_image_open(image_at("oci", dir, "l"), NULL, &image, &err), -ENOENT);
	img_tree_free(t);
	img_tree_free(other);
	drop_dir(dir);
}

static void a_failed_write_leaves_nothing_behind(void **state)
{
	static const char *const names[][2] = { { "oci", "new:x" },
		                                { "oci-archive", "f.tar" },
		                                { "docker-archive", "d.tar" } };
	char *dir = temp_dir(), *gone = strdup(in_dir(dir, "gone"));
	struct img_tree *t = sample();
	struct img_write_plan plan = plan_for(t, IMG_ZSTD);
	struct err err = { 0 };

	(void)state;
	add_node(t, (struct img_node){ .path = "/usr/gone", .mode = 0644, .size = 5, .source = gone });
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(img_image_write(image_at(names[i][0], dir, names[i][1]), &plan, NULL, &err), -ENOENT);
		assert_non_null(strstr(err_text(&err), gone));
	}
	assert_int_equal(rmdir(dir), 0); /* empty */
	img_tree_free(t);
	free(gone);
	free(dir);
}

static int stop_at_once(const struct img_progress *p, void *arg)
{
	(void)p;
	(*(int *)arg)++;
	return 1;
}

static void an_interrupted_image_leaves_nothing_behind(void **state)
{
	static const char *const names[][2] = { { "oci", "new:x" },
		                                { "oci-archive", "f.tar" },
		                                { "docker-archive", "d.tar" } };
	char *dir = temp_dir(), *work = temp_dir();
	struct img_tree *t = sample();
	struct img_write_plan plan = plan_for(t, IMG_ZSTD);
	struct img_open_opts opts = { .work_dir = work };
	struct img_image *image = NULL;
	int n_calls = 0;

	(void)state;
	write_image(image_at("oci-archive", dir, "whole.tar:x"), &plan);
	plan.progress = stop_at_once;
	plan.progress_arg = &n_calls;
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(img_image_write(image_at(names[i][0], dir, names[i][1]), &plan, NULL, NULL),
		                 -ECANCELED);
	opts.progress = stop_at_once;
	opts.progress_arg = &n_calls;
	assert_int_equal(img_image_open(image_at("oci-archive", dir, "whole.tar:x"), &opts, &image, NULL), -ECANCELED);
	assert_int_equal(n_calls, 4); /* asked no more once it said so */
	assert_int_equal(rmdir(work), 0);
	assert_int_equal(unlink(in_dir(dir, "whole.tar")), 0);
	assert_int_equal(rmdir(dir), 0);
	img_tree_free(t);
	free(work);
	free(dir);
}

static void an_existing_archive_survives_a_failure(void **state)
{
	char *dir = temp_dir(), *gone = strdup(in_dir(dir, "gone"));
	struct img_tree *t = sample();
	struct img_write_plan plan = plan_for(t, IMG_ZSTD);
	struct img_image *image;

	(void)state;
	write_image(image_at("oci-archive", dir, "f.tar:x"), &plan);
	add_node(t, (struct img_node){ .path = "/usr/gone", .mode = 0644, .size = 5, .source = gone });
	assert_int_equal(img_image_write(image_at("oci-archive", dir, "f.tar:x"), &plan, NULL, NULL), -ENOENT);
	image = open_image(image_at("oci-archive", dir, "f.tar:x"));
	assert_is_sample(image);
	img_image_close(image);
	img_tree_free(t);
	free(gone);
	drop_dir(dir);
}

static void link_groups_stay_in_one_layer_and_directories_are_in_all_that_need_them(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = img_tree_new();
	struct img_write_plan plan = { .tree = t, .layer_of = app_on_top, .n_layers = 2, .epoch = 0 };
	struct img_image *image;

	(void)state;
	add_file(t, "/app/second", "same")->link_group = 1;
	add_file(t, "/base/first", "same")->link_group = 1;
	add_file(t, "/app/own", "own");
	add_dir(t, "/app")->mode = 0750;
	write_image(image_at("oci", dir, "l:x"), &plan);
	image = open_image(image_at("oci", dir, "l:x"));
	assert_int_equal(img_tree_find(image->tree, "/app/second")->layer, 0);
	assert_int_equal(img_tree_find(image->tree, "/base/first")->layer, 0);
	assert_int_equal(img_tree_find(image->tree, "/app/own")->layer, 1);
	assert_int_equal(img_tree_find(image->tree, "/app")->mode, 0750);
	img_image_close(image);
	img_tree_free(t);
	drop_dir(dir);
}

static const char full_config[] =
        "{\"architecture\":\"arm64\",\"variant\":\"v8\",\"os\":\"linux\",\"created\":\"2024-05-06T07:08:09Z\",\"x-"
        "ours\":[1,{\"k\":null}],"
        "\"config\":{\"User\":\"web:www\",\"Env\":[\"PATH=/bin\",\"A=b=c\",\"PATH=/usr/bin\"],\"Entrypoint\":[\"/bin/"
        "tool\"],\"Cmd\":[\"-x\",\"\"],"
        "\"WorkingDir\":\"/"
        "srv\",\"Labels\":{\"z\":\"1\",\"a\":\"2\"},\"StopSignal\":\"SIGQUIT\",\"ExposedPorts\":{\"80/tcp\":{}},"
        "\"Volumes\":{\"/data\":{}},\"Healthcheck\":{\"Test\":[\"CMD\",\"true\"]},\"OnBuild\":null},"
        "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:"
        "0000000000000000000000000000000000000000000000000000000000000000\"]},"
        "\"history\":[{\"created_by\":\"ADD x\",\"extra\":7},{\"created_by\":\"CMD\",\"empty_layer\":true}]}";

static void a_configuration_keeps_what_it_does_not_know(void **state)
{
	struct img_config *c = NULL, *again = NULL;
	struct base_buf b = BASE_BUF_INIT(1 << 20), b2 = BASE_BUF_INIT(1 << 20);

	(void)state;
	assert_int_equal(img_config_parse(full_config, strlen(full_config), "c", &c, NULL), 0);
	assert_string_equal(c->user, "web:www");
	assert_string_equal(c->workdir, "/srv");
	assert_string_equal(c->entrypoint.items[0], "/bin/tool");
	assert_int_equal(c->cmd.n, 2);
	assert_string_equal(c->labels[0].name, "a");
	assert_string_equal(img_config_env(c, "A"), "b=c");
	assert_string_equal(img_config_env(c, "PATH"), "/usr/bin");
	assert_null(img_config_env(c, "NONE"));
	assert_true(c->history[1].empty_layer);
	assert_int_equal(img_config_set_label(c, "m", "new"), 0);
	assert_int_equal(img_config_set_label(c, "z", NULL), 0);
	assert_int_equal(img_config_append(c, &b), 0);
	assert_non_null(strstr(b.data, "\"x-ours\":[1,{\"k\":null}]"));
	assert_non_null(strstr(b.data, "\"Healthcheck\":{\"Test\":[\"CMD\",\"true\"]}"));
	assert_non_null(strstr(b.data, "\"Labels\":{\"a\":\"2\",\"m\":\"new\"}"));
	assert_non_null(strstr(b.data, "\"extra\":7"));
	assert_int_equal(img_config_parse(b.data, b.len, "c", &again, NULL), 0);
	assert_int_equal(img_config_append(again, &b2), 0);
	assert_string_equal(b.data, b2.data);
	base_buf_done(&b);
	base_buf_done(&b2);
	img_config_free(c);
	img_config_free(again);
}

static void history_and_settings_survive_a_new_set_of_layers(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = sample();
	struct img_write_plan plan = plan_for(t, IMG_GZIP);
	struct img_open_opts opts = { .arch = "arm64" };
	struct img_config *c = NULL;
	struct img_image *image = NULL;

	(void)state;
	assert_int_equal(img_config_parse(full_config, strlen(full_config), "c", &c, NULL), 0);
	plan.config = c;
	write_image(image_at("oci", dir, "l:x"), &plan);
	assert_int_equal(img_image_open(image_at("oci", dir, "l:x"), &opts, &image, NULL), 0);
	assert_string_equal(image->config->user, "web:www");
	assert_string_equal(image->config->arch, "arm64");
	assert_string_equal(image->config->created, "2023-11-14T22:13:20Z");
	assert_int_equal(image->config->n_history, 4);
	assert_true(image->config->history[0].empty_layer);
	assert_string_equal(image->config->history[0].created_by, "ADD x");
	assert_string_equal(image->config->history[3].created_by, "app");
	assert_string_equal(image->config->history[3].comment, "what changes");
	assert_int_equal(image->config->diff_ids.n, 2);
	img_image_close(image);
	img_config_free(c);
	img_tree_free(t);
	drop_dir(dir);
}

static void configurations_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = {
		"[]",
		"{",
		"{\"config\":[]}",
		"{\"config\":{\"Env\":{}}}",
		"{\"config\":{\"Env\":[1]}}",
		"{\"config\":{\"Labels\":{\"a\":1}}}",
		"{\"config\":{\"User\":7}}",
		"{\"history\":[1]}",
		"{\"history\":{}}",
		"{\"rootfs\":{\"diff_ids\":[\"sha256:00\"]}}",
		"{\"rootfs\":{\"diff_ids\":[\"../../etc/passwd\"]}}",
		"{\"config\":{\"ExposedPorts\":[]}}",
	};
	struct img_config *c = NULL;
	struct err err = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(img_config_parse(bad[i], strlen(bad[i]), "the config", &c, &err), -EBADMSG);
		assert_non_null(strstr(err_text(&err), "the config"));
		assert_null(c);
	}
}

/* Changes one byte of the largest blob (a layer), or of the smallest (the configuration or manifest). */
static void damage(const char *dir, bool largest)
{
	char command[4300];

	(void)snprintf(command, sizeof(command),
	               "f=$(ls -%s %s/l/blobs/sha256/* | head -1); size=$(stat -c %%s $f); "
	               "printf X | dd of=$f bs=1 seek=$((size/2)) conv=notrunc 2>/dev/null",
	               largest ? "S" : "Sr", dir);
	assert_int_equal(system(command), 0);
}

static void damaged_blobs_are_found(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = sample();
	struct img_write_plan plan = plan_for(t, IMG_PLAIN);
	struct img_image *image = NULL;
	struct err err = { 0 };

	(void)state;
	for (int largest = 0; largest < 2; largest++) {
		write_image(image_at("oci", dir, "l:x"), &plan);
		damage(dir, largest);
		assert_int_equal(img_image_open(image_at("oci", dir, "l:x"), NULL, &image, &err), -EBADMSG);
		assert_non_null(strstr(err_text(&err), "sha256:"));
		assert_null(image);
		remove_all(in_dir(dir, "l"));
	}
	img_tree_free(t);
	drop_dir(dir);
}

static void a_platform_is_chosen_from_an_index(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = sample(), *other = img_tree_new();
	struct img_write_plan a = plan_for(t, IMG_GZIP), b = { .tree = other, .epoch = 0 };
	struct base_buf list = BASE_BUF_INIT(1 << 16), index = BASE_BUF_INIT(1 << 16);
	struct img_write_result ra = { 0 }, rb = { 0 };
	struct img_open_opts opts = { .arch = "s390x" };
	struct img_image *image = NULL;
	struct err err = { 0 };
	struct stat st;
	char name[256];

	(void)state;
	add_file(other, "/only", "x");
	assert_int_equal(img_image_write(image_at("oci", dir, "l:a"), &a, &ra, NULL), 0);
	assert_int_equal(img_image_write(image_at("oci", dir, "l:b"), &b, &rb, NULL), 0);
	(void)base_buf_puts(&list, "{\"schemaVersion\":2,\"manifests\":[");
	for (int i = 0; i < 2; i++) {
		const char *digest = i ? rb.manifest_digest : ra.manifest_digest;

		(void)snprintf(name, sizeof(name), "l/blobs/sha256/%s", digest + 7);
		assert_int_equal(stat(in_dir(dir, name), &st), 0);
		(void)base_buf_printf(
		        &list,
		        "%s{\"digest\":\"%s\",\"size\":%lld,\"platform\":{\"os\":\"linux\",\"architecture\":\"%s\"}}",
		        i ? "," : "", digest, (long long)st.st_size, i ? "s390x" : "riscv64");
	}
	(void)base_buf_puts(&list, "]}");
	(void)snprintf(name, sizeof(name), "l/blobs/sha256/%s", digest_of(list.data, list.len) + 7);
	write_text(in_dir(dir, name), list.data);
	(void)base_buf_printf(&index, "{\"manifests\":[{\"digest\":\"%s\",\"size\":%zu}]}",
	                      digest_of(list.data, list.len), list.len);
	write_text(in_dir(dir, "l/index.json"), index.data);
	assert_int_equal(img_image_open(image_at("oci", dir, "l"), &opts, &image, &err), 0);
	assert_text_is(image->tree, "/only", "x");
	assert_string_equal(image->manifest_digest, rb.manifest_digest);
	img_image_close(image);
	opts.arch = "riscv64";
	assert_int_equal(img_image_open(image_at("oci", dir, "l"), &opts, &image, &err), 0);
	assert_is_sample(image);
	img_image_close(image);
	opts.arch = "mips";
	assert_int_equal(img_image_open(image_at("oci", dir, "l"), &opts, &image, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "linux/riscv64, linux/s390x"));
	img_write_result_done(&ra);
	img_write_result_done(&rb);
	base_buf_done(&list);
	base_buf_done(&index);
	img_tree_free(t);
	img_tree_free(other);
	drop_dir(dir);
}

static void names_say_what_is_wrong_with_them(void **state)
{
	static const char *const bad[] = { "image", "oci:", "/some/dir", "docker://", "http://x/y" };
	struct img_image *image = NULL;
	struct err err = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(img_image_open(bad[i], NULL, &image, &err), -EINVAL);
	assert_int_equal(img_image_open("oci:/no/such/dir:x", NULL, &image, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "/no/such/dir"));
	assert_int_equal(img_image_open("oci-archive:/dev/null", NULL, &image, &err), -EINVAL);
	assert_true(img_name_is_image("docker://a/b"));
	assert_false(img_name_is_image("./oci"));
}

/* Runs a shell command with DIR set; its exit status. */
static int shell(const char *dir, const char *command)
{
	int status;

	assert_int_equal(setenv("DIR", dir, 1), 0);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void skopeo_takes_what_is_written_and_we_what_it_writes(void **state)
{
	static const enum img_compression how[] = { IMG_ZSTD, IMG_GZIP };
	char *dir = temp_dir();
	struct img_tree *t = sample();
	struct img_image *image;

	(void)state;
	if (shell(dir, "command -v skopeo >/dev/null") != 0) {
		img_tree_free(t);
		drop_dir(dir);
		skip();
	}
	for (size_t i = 0; i < 2; i++) {
		struct img_write_plan plan = plan_for(t, how[i]);

		write_image(image_at("oci", dir, "l:x"), &plan);
		write_image(image_at("oci-archive", dir, "o.tar:x"), &plan);
		write_image(image_at("docker-archive", dir, "d.tar:localhost/app:x"), &plan);
		assert_int_equal(shell(dir, "skopeo inspect oci:$DIR/l:x >/dev/null"), 0);
		assert_int_equal(shell(dir, "cd $DIR && rm -rf s.tar s2 s3 && "
		                            "skopeo copy -q --insecure-policy docker-archive:d.tar oci:s2:x &&"
		                            "skopeo copy -q --insecure-policy oci-archive:o.tar:x oci:s3:x"),
		                 0);
		if (how[i] == IMG_GZIP) { /* docker's format has no zstd */
			assert_int_equal(shell(dir, "cd $DIR && skopeo copy -q --insecure-policy oci:l:x "
			                            "docker-archive:s.tar:localhost/app:y"),
			                 0);
			image = open_image(image_at("docker-archive", dir, "s.tar:localhost/app:y"));
			assert_is_sample(image);
			img_image_close(image);
		}
		image = open_image(image_at("oci", dir, "s2:x"));
		assert_is_sample(image);
		img_image_close(image);
		image = open_image(image_at("oci", dir, "s3:x"));
		assert_is_sample(image);
		img_image_close(image);
	}
	img_tree_free(t);
	drop_dir(dir);
}

static void umoci_unpacks_what_is_written(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = sample(), *back = NULL;
	struct img_write_plan plan = plan_for(t, IMG_GZIP); /* it knows no zstd */

	(void)state;
	if (geteuid() != 0 || shell(dir, "command -v umoci >/dev/null") != 0) {
		img_tree_free(t);
		drop_dir(dir);
		skip();
	}
	write_image(image_at("oci", dir, "l:x"), &plan);
	assert_int_equal(shell(dir, "umoci unpack --image $DIR/l:x $DIR/b >/dev/null 2>&1"), 0);
	assert_int_equal(img_tree_scan(in_dir(dir, "b/rootfs"), &back, NULL), 0);
	assert_int_equal(img_tree_count(back), img_tree_count(t));
	assert_text_is(back, "/app/main", "print('hello')\n");
	assert_int_equal(img_tree_find(back, "/usr/lib/one")->link_group, 1);
	img_tree_free(back);
	img_tree_free(t);
	drop_dir(dir);
}

/* A containerd of its own, below DIR; ends with its folder. */
static const char start_containerd[] =
        "cd $DIR && mkdir c && cat >c.toml <<END\n"
        "version = 2\nroot = '$DIR/c/root'\nstate = '$DIR/c/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n"
        "[grpc]\naddress = '$DIR/c/sock'\n[ttrpc]\naddress = '$DIR/c/ttrpc'\nEND\n"
        "containerd -c c.toml >c.log 2>&1 & echo $! >$DIR/pid; "
        "for i in $(seq 200); do ctr -a $DIR/c/sock version >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1";

static void containerd_imports_and_unpacks_what_is_written(void **state)
{
	static const enum img_compression how[] = { IMG_ZSTD, IMG_GZIP };
	char *dir = temp_dir();
	struct img_tree *t = sample();

	(void)state;
	if (geteuid() != 0 || shell(dir, "command -v containerd >/dev/null && command -v ctr >/dev/null") != 0 ||
	    shell(dir, start_containerd) != 0) {
		print_message("needs root and a containerd that starts\n");
		img_tree_free(t);
		drop_dir(dir);
		skip();
	}
	for (size_t i = 0; i < 2; i++) {
		struct img_write_plan plan = plan_for(t, how[i]);

		write_image(image_at("oci-archive", dir, "o.tar:v1"), &plan);
		write_image(image_at("docker-archive", dir, "d.tar:example.com/docker:v1"), &plan);
		assert_int_equal(
		        shell(dir, "ctr -a $DIR/c/sock image import --base-name example.com/oci --snapshotter native "
		                   "$DIR/o.tar >/dev/null && "
		                   "ctr -a $DIR/c/sock image import --snapshotter native $DIR/d.tar >/dev/null"),
		        0);
		assert_int_equal(shell(dir,
		                       "for i in oci docker; do mkdir -p $DIR/m && "
		                       "ctr -a $DIR/c/sock image mount --snapshotter native example.com/$i:v1 $DIR/m "
		                       ">/dev/null && "
		                       "cmp $DIR/m/usr/lib/one $DIR/m/usr/lib/two && test -u $DIR/m/usr/bin/tool && "
		                       "test $(stat -c %u $DIR/m/app/noted) = 1000 || exit 1; umount $DIR/m; done"),
		                 0);
	}
	assert_int_equal(
	        shell(dir, "kill $(cat $DIR/pid); while kill -0 $(cat $DIR/pid) 2>/dev/null; do sleep 0.05; done"), 0);
	img_tree_free(t);
	drop_dir(dir);
}

static void compressed_archives_and_repeated_frames_are_read(void **state)
{
	char *dir = temp_dir();
	struct img_tree *t = sample();
	struct img_write_plan plan = plan_for(t, IMG_PLAIN);
	struct img_image *image;

	(void)state;
	write_image(image_at("docker-archive", dir, "d.tar:x"), &plan);
	/* Two members of gzip, split where nothing ends. */
	assert_int_equal(
	        shell(dir, "cd $DIR && head -c 3001 d.tar | gzip -n >d.tgz && tail -c +3002 d.tar | gzip -n >>d.tgz"),
	        0);
	image = open_image(image_at("docker-archive", dir, "d.tgz"));
	assert_is_sample(image);
	img_image_close(image);
	img_tree_free(t);
	drop_dir(dir);
}

static void source_date_epoch_is_a_number_or_an_error(void **state)
{
	int64_t epoch = 7;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(unsetenv("SOURCE_DATE_EPOCH"), 0);
	assert_int_equal(img_source_date_epoch(&epoch, NULL), 0);
	assert_int_equal(epoch, -1);
	assert_int_equal(setenv("SOURCE_DATE_EPOCH", "1700000000", 1), 0);
	assert_int_equal(img_source_date_epoch(&epoch, NULL), 0);
	assert_int_equal(epoch, 1700000000);
	assert_int_equal(setenv("SOURCE_DATE_EPOCH", "yesterday", 1), 0);
	assert_int_equal(img_source_date_epoch(&epoch, &err), -EINVAL);
	assert_non_null(strstr(err_text(&err), "yesterday"));
	assert_int_equal(unsetenv("SOURCE_DATE_EPOCH"), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_image_reads_back_from_every_place),
		cmocka_unit_test(the_same_plan_gives_the_same_bytes_with_any_number_of_threads),
		cmocka_unit_test(an_index_keeps_its_other_images),
		cmocka_unit_test(a_failed_write_leaves_nothing_behind),
		cmocka_unit_test(an_interrupted_image_leaves_nothing_behind),
		cmocka_unit_test(an_existing_archive_survives_a_failure),
		cmocka_unit_test(link_groups_stay_in_one_layer_and_directories_are_in_all_that_need_them),
		cmocka_unit_test(a_configuration_keeps_what_it_does_not_know),
		cmocka_unit_test(history_and_settings_survive_a_new_set_of_layers),
		cmocka_unit_test(configurations_that_are_none_are_refused),
		cmocka_unit_test(damaged_blobs_are_found),
		cmocka_unit_test(a_platform_is_chosen_from_an_index),
		cmocka_unit_test(names_say_what_is_wrong_with_them),
		cmocka_unit_test(skopeo_takes_what_is_written_and_we_what_it_writes),
		cmocka_unit_test(umoci_unpacks_what_is_written),
		cmocka_unit_test(containerd_imports_and_unpacks_what_is_written),
		cmocka_unit_test(compressed_archives_and_repeated_frames_are_read),
		cmocka_unit_test(source_date_epoch_is_a_number_or_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
