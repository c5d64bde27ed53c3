/* Models: manifests in and out, what is refused and how it is told, artifacts of registries, folders, and the layer
 * that a model becomes. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

#include "base/sha256.h"
#include "model/flip_model.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define HEX_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define FILE_A "{\"path\":\"a\",\"size\":5,\"sha256\":\"" HEX_A "\"}"

static int parse(const char *text, const char *base, struct flip_model **m, struct err *err)
{
	return flip_model_parse(text, strlen(text), "m.json", base, m, err);
}

static int parse_files(const char *files, struct flip_model **m, struct err *err)
{
	char text[4096];

	(void)snprintf(text, sizeof(text), "{\"format\":\"flip-model/1\",\"chunk_size\":65536,\"files\":[%s]}", files);
	return parse(text, NULL, m, err);
}

static void a_manifest_is_read_and_written_the_same(void **state)
{
	static const char text[] = "{\"format\":\"flip-model/1\",\"chunk_size\":65536,\"files\":[\n"
	                           "{\"path\":\"config.json\",\"size\":5,\"sha256\":\"" HEX_A
	                           "\",\"urls\":[\"https://h/c?s=1\",\"http://i/c\"]},\n"
	                           "{\"path\":\"model.safetensors\",\"size\":65537,\"sha256\":\"" HEX_B
	                           "\",\"chunks\":\"" HEX_A HEX_C "\"}\n]}\n";
	struct base_buf out = BASE_BUF_INIT(1 << 16);
	struct flip_model *m;

	(void)state;
	assert_int_equal(parse(text, NULL, &m, NULL), 0);
	assert_int_equal(m->n_files, 2);
	assert_int_equal(m->files[1].n_chunks, 2);
	assert_int_equal(m->files[1].chunks[1][31], 0xcc);
	assert_string_equal(m->files[0].urls[1], "http://i/c");
	assert_int_equal(flip_model_size(m), 65542);
	assert_int_equal(flip_model_append(m, true, &out), 0);
	assert_string_equal(base_buf_text(&out), text);
	base_buf_done(&out);
	flip_model_free(m);
}

/* Where it can be had does not change what a model is, nor does the order of the document. */
static void the_digest_is_of_the_files_alone(void **state)
{
	static const char other[] =
	        "{\"path\":\"b.gguf\",\"size\":6,\"sha256\":\"" HEX_B "\",\"urls\":[\"https://x/\"]}";
	char one[IMG_DIGEST_SIZE], two[IMG_DIGEST_SIZE];
	struct flip_model *m;

	(void)state;
	assert_int_equal(parse_files("{\"path\":\"b.gguf\",\"size\":6,\"sha256\":\"" HEX_B "\"}," FILE_A, &m, NULL), 0);
	assert_string_equal(m->files[0].path, "a"); /* weights go last */
	assert_int_equal(flip_model_digest(m, one, NULL), 0);
	flip_model_free(m);
	char text[1024];
	(void)snprintf(text, sizeof(text), "%s,%s", FILE_A, other);
	assert_int_equal(parse_files(text, &m, NULL), 0);
	assert_int_equal(flip_model_digest(m, two, NULL), 0);
	flip_model_free(m);
	assert_string_equal(one, two);
}

static void places_are_made_of_the_folder_that_it_lies_in(void **state)
{
	struct flip_model *m;

	(void)state;
	assert_int_equal(parse("{\"format\":\"flip-model/1\",\"files\":[{\"path\":\"a "
	                       "b/\xc3\xa4\",\"size\":1,\"sha256\":\"" HEX_A "\"}]}",
	                       "https://h/x/model.json?sig=1/2", &m, NULL),
	                 0);
	assert_int_equal(m->files[0].n_urls, 1);
	assert_string_equal(m->files[0].urls[0], "https://h/x/a%20b/%C3%A4");
	flip_model_free(m);
	assert_int_equal(
	        parse("{\"format\":\"flip-model/1\",\"base_urls\":[\"http://one/\",\"http://two\"],\"files\":[" FILE_A
	              "]}",
	              "https://h/x/model.json", &m, NULL),
	        0);
	assert_int_equal(m->files[0].n_urls, 2);
	assert_string_equal(m->files[0].urls[1], "http://two/a");
	flip_model_free(m);
}

static void what_is_wrong_is_named(void **state)
{
	static const struct {
		const char *files, *words;
	} bad[] = {
		{ "", "files: expected an array that is not empty" },
		{ "5", "expected objects, got an integer" },
		{ "{\"path\":\"../a\",\"size\":1,\"sha256\":\"" HEX_A "\"}", "\"../a\": not a path" },
		{ "{\"path\":\"a\\u0001\",\"size\":1,\"sha256\":\"" HEX_A "\"}", "control characters" },
		{ "{\"path\":\"a\\u0000b\",\"size\":1,\"sha256\":\"" HEX_A "\"}", "files: path: expected a string" },
		{ "{\"path\":\"/\",\"size\":1,\"sha256\":\"" HEX_A "\"}", "not a path" },
		{ "{\"path\":\"a\",\"size\":-1,\"sha256\":\"" HEX_A "\"}", "a: size: expected a number of bytes" },
		{ "{\"path\":\"a\",\"size\":1099511627777,\"sha256\":\"" HEX_A "\"}",
		  "a: size: expected a number of bytes" },
		{ "{\"path\":\"a\",\"size\":1,\"sha256\":\"AA\"}", "a: sha256: expected 64 lower-case" },
		{ "{\"path\":\"a\",\"size\":1}", "a: sha256: expected 64 lower-case" },
		{ "{\"path\":\"a\",\"size\":1,\"sha256\":\"" HEX_A "\",\"chunks\":\"" HEX_A "\"}",
		  "no larger than one" },
		{ "{\"path\":\"a\",\"size\":65537,\"sha256\":\"" HEX_A "\",\"chunks\":\"" HEX_A "\"}",
		  "expected 2 digests" },
		{ "{\"path\":\"a\",\"size\":1,\"sha256\":\"" HEX_A "\",\"urls\":[\"ftp://x/\"]}", "not an http" },
		{ "{\"path\":\"a\",\"size\":1,\"sha256\":\"" HEX_A "\",\"urls\":[\"https://u:p@x/\"]}",
		  "with a password" },
		{ "{\"path\":\"a\",\"size\":1,\"sha256\":\"" HEX_A "\",\"urls\":[\"https://x/ y\"]}", "not an http" },
		{ FILE_A "," FILE_A, "a: is there twice" },
		{ FILE_A ",{\"path\":\"a-b\",\"size\":5,\"sha256\":\"" HEX_A
		         "\"},{\"path\":\"a/b\",\"size\":5,\"sha256\":\"" HEX_A "\"}",
		  "a/b: lies below a file" },
		{ FILE_A ",{\"path\":\"b\",\"size\":6,\"sha256\":\"" HEX_A "\"}", "one digest, and other sizes" },
	};
	struct flip_model *m = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct err err = { 0 };

		assert_int_equal(parse_files(bad[i].files, &m, &err), -EBADMSG);
		assert_null(m);
		assert_non_null(strstr(err_text(&err), "m.json"));
		if (!strstr(err_text(&err), bad[i].words))
			fail_msg("\"%s\" is not in \"%s\"", bad[i].words, err_text(&err));
	}
	assert_int_equal(parse("{\"format\":\"flip-model/2\",\"files\":[" FILE_A "]}", NULL, &m, NULL), -EBADMSG);
	assert_int_equal(
	        parse("{\"format\":\"flip-model/1\",\"chunk_size\":100000,\"files\":[" FILE_A "]}", NULL, &m, NULL),
	        -EBADMSG);
}

static void names_are_plain(void **state)
{
	static const char *const good[] = { "a", "qwen3-0.6b", "A_b.C" }, *const bad[] = { "",    ".a",  "-a",
		                                                                           "a/b", "a b", "ä" };
	char longest[FLIP_MODEL_NAME_MAX + 2];

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_true(flip_model_name_is_valid(good[i]));
	for (size_t i = 0; i < 6; i++)
		assert_false(flip_model_name_is_valid(bad[i]));
	memset(longest, 'a', sizeof(longest));
	longest[FLIP_MODEL_NAME_MAX + 1] = '\0';
	assert_false(flip_model_name_is_valid(longest));
	longest[FLIP_MODEL_NAME_MAX] = '\0';
	assert_true(flip_model_name_is_valid(longest));
}

/* ---- Layers ---- */

static void a_model_becomes_a_layer_of_its_distinct_contents(void **state)
{
	struct flip_model *m;
	struct flip_toc *toc;

	(void)state;
	assert_int_equal(parse_files(FILE_A ",{\"path\":\"same\",\"size\":5,\"sha256\":\"" HEX_A
	                                    "\"},{\"path\":\"w.bin\",\"size\":65537,\"sha256\":\"" HEX_B
	                                    "\",\"chunks\":\"" HEX_A HEX_C
	                                    "\"},{\"path\":\"x.bin\",\"size\":9000000,\"sha256\":\"" HEX_C
	                                    "\"},{\"path\":\"empty\",\"size\":0,\"sha256\":\"" HEX_B "\"}",
	                             &m, NULL),
	                 -EBADMSG); /* nothing and something of one digest */
	assert_int_equal(parse_files(FILE_A ",{\"path\":\"same\",\"size\":5,\"sha256\":\"" HEX_A
	                                    "\"},{\"path\":\"w.bin\",\"size\":65537,\"sha256\":\"" HEX_B
	                                    "\",\"chunks\":\"" HEX_A HEX_C
	                                    "\"},{\"path\":\"d/x.bin\",\"size\":9000000,\"sha256\":\"" HEX_C "\"}",
	                             &m, NULL),
	                 0);
	assert_int_equal(flip_model_blob_size(m), 5 + 9000000 + 65537);
	assert_int_equal(flip_model_to_toc(m, &toc, NULL), 0);
	assert_int_equal(toc->format, FLIP_RAW);
	assert_int_equal(toc->n_contents, 3);
	assert_int_equal(toc->n_chunks, 1 + 3 + 2);
	assert_true(toc->chunks[0].has_digest);  /* of one chunk: the file's own */
	assert_false(toc->chunks[1].has_digest); /* nobody knows them */
	assert_int_equal(toc->chunks[1].blob_offset, 5);
	assert_int_equal(toc->chunks[3].size, 9000000 - (8 << 20));
	assert_int_equal(toc->chunks[4].blob_offset, 9000005);
	assert_int_equal(toc->chunks[5].digest[0], 0xcc);
	assert_int_equal(toc->chunks[5].size, 1);
	assert_ptr_equal(img_tree_find(toc->tree, "/a")->user, img_tree_find(toc->tree, "/same")->user);
	assert_int_equal(img_tree_find(toc->tree, "/d/x.bin")->mode, 0444);
	flip_toc_free(toc);
	flip_model_free(m);
}

/* ---- Artifacts ---- */

static int read_artifact(const char *config, const char *layers, struct flip_artifact *a, struct err *err)
{
	struct img_manifest doc;
	char text[8192];
	int r;

	(void)snprintf(text, sizeof(text),
	               "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"%s\",\"digest\":\"sha256:" HEX_A
	               "\",\"size\":2},\"layers\":[%s]}",
	               config, layers);
	assert_int_equal(img_manifest_parse(text, strlen(text), "h/m:1", &doc, err), 0);
	r = flip_artifact_read(&doc, "h/m:1", a, err);
	img_manifest_done(&doc);
	return r;
}

#define LAYER(type, hex, annotations) \
	"{\"mediaType\":\"" type "\",\"digest\":\"sha256:" hex "\",\"size\":7,\"annotations\":{" annotations "}}"

static void layers_are_files_by_title_path_or_type(void **state)
{
	struct flip_artifact a;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(
	        read_artifact("application/vnd.cncf.model.config.v1+json",
	                      LAYER("application/vnd.cncf.model.weight.v1.raw", HEX_A,
	                            "\"org.cncf.model.filepath\":\"m.safetensors\"") "," LAYER("application/"
	                                                                                       "vnd.cncf.model.doc.v1."
	                                                                                       "tar",
	                                                                                       HEX_B,
	                                                                                       "\"org.cncf.model."
	                                                                                       "filepath\":\"README."
	                                                                                       "md\"") "," LAYER("text/"
	                                                                                                         "plai"
	                                                                                                         "n",
	                                                                                                         HEX_C,
	                                                                                                         "\"org"
	                                                                                                         ".open"
	                                                                                                         "conta"
	                                                                                                         "iners"
	                                                                                                         ".imag"
	                                                                                                         "e."
	                                                                                                         "title"
	                                                                                                         "\":"
	                                                                                                         "\"./"
	                                                                                                         "c."
	                                                                                                         "json"
	                                                                                                         "\""),
	                      &a, &err),
	        0);
	assert_int_equal(a.model->n_files, 2);
	assert_string_equal(a.model->files[0].path, "c.json");
	assert_int_equal(a.model->files[0].sha256[0], 0xcc);
	assert_int_equal(a.n_archives, 1);
	assert_int_equal(a.archives[0], 1);
	assert_false(a.is_ours);
	flip_artifact_done(&a);

	assert_int_equal(
	        read_artifact("application/vnd.docker.ai.model.config.v0.1+json",
	                      LAYER("application/vnd.docker.ai.gguf.v3", HEX_A, "") "," LAYER(
	                              "application/vnd.docker.ai.license", HEX_B, "") "," LAYER("application/vnd."
	                                                                                        "docker.ai.gguf.v3",
	                                                                                        HEX_C, ""),
	                      &a, &err),
	        0);
	assert_string_equal(a.model->files[0].path, "LICENSE");
	assert_string_equal(a.model->files[1].path, "model-00001-of-00002.gguf");
	assert_string_equal(a.model->files[2].path, "model-00002-of-00002.gguf");
	assert_int_equal(a.model->files[2].sha256[0], 0xcc);
	flip_artifact_done(&a);

	assert_int_equal(read_artifact("x", LAYER("application/vnd.oci.image.layer.v1", HEX_A, ""), &a, &err),
	                 -EBADMSG);
	assert_non_null(strstr(err_text(&err), "h/m:1: layer 1 (application/vnd.oci.image.layer.v1): nothing says"));
	assert_int_equal(
	        read_artifact("x", LAYER("a/b", HEX_A, "\"org.opencontainers.image.title\":\"../../etc/x\""), &a, &err),
	        -EBADMSG);
}

static void our_manifest_must_fit_the_layers(void **state)
{
	struct flip_artifact a;
	struct flip_model *m;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(read_artifact(FLIP_MODEL_TYPE,
	                               "{\"mediaType\":\"x/y\",\"digest\":\"sha256:" HEX_A
	                               "\",\"size\":5,\"annotations\":{\"org.opencontainers.image.title\":\"q\"}}",
	                               &a, &err),
	                 0);
	assert_true(a.is_ours);
	assert_int_equal(parse_files("{\"path\":\"b\",\"size\":5,\"sha256\":\"" HEX_B "\"}", &m, NULL), 0);
	assert_int_equal(flip_artifact_set_manifest(&a, m, "h/m:1", &err), -EBADMSG);
	assert_non_null(strstr(err_text(&err), "b: the artifact has no layer of it"));
	assert_int_equal(parse_files(FILE_A, &m, NULL), 0);
	assert_int_equal(flip_artifact_set_manifest(&a, m, "h/m:1", &err), 0);
	assert_string_equal(a.model->files[0].path, "a");
	flip_artifact_done(&a);
}

/* ---- Folders ---- */

static void put(const char *dir, const char *name, const void *data, size_t size)
{
	char path[512];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), (ssize_t)size);
	assert_int_equal(close(fd), 0);
}

static int stop(void *arg, uint64_t n, uint64_t total)
{
	(void)n;
	(void)total;
	*(int *)arg += 1;
	return 1;
}

static void a_folder_is_its_files_with_their_digests(void **state)
{
	char dir[] = "/tmp/flip-model-XXXXXX", path[64];
	static uint8_t data[70000];
	struct flip_model *m;
	struct err err = { 0 };
	uint8_t digest[32];
	int asked = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/sub", dir);
	assert_int_equal(flip_model_of_folder(dir, 65536, 2, NULL, NULL, &m, &err), -ENOENT);
	assert_int_equal(mkdir(path, 0755), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * i >> 3);
	put(dir, "z.gguf", data, sizeof(data));
	put(dir, "sub/a", "hello", 5);
	put(dir, ".hidden", "x", 1);
	(void)snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink("z.gguf", path), 0);
	assert_int_equal(flip_model_of_folder(dir, 65536, 2, NULL, NULL, &m, &err), 0);
	assert_int_equal(m->n_files, 3);
	assert_string_equal(m->files[0].path, "link");
	assert_string_equal(m->files[1].path, "sub/a");
	assert_int_equal(m->files[1].n_chunks, 0);
	assert_int_equal(m->files[2].n_chunks, 2);
	assert_int_equal(base_sha256_bytes(data, sizeof(data), digest), 0);
	assert_memory_equal(m->files[2].sha256, digest, 32);
	assert_int_equal(base_sha256_bytes(data + 65536, sizeof(data) - 65536, digest), 0);
	assert_memory_equal(m->files[2].chunks[1], digest, 32);
	flip_model_free(m);
	assert_int_equal(flip_model_of_folder(dir, 65536, 1, stop, &asked, &m, &err), -ECANCELED);
	assert_true(asked > 0);

	(void)snprintf(path, sizeof(path), "%s/out", dir);
	assert_int_equal(symlink("/tmp", path), 0);
	assert_int_equal(flip_model_of_folder(dir, 65536, 1, NULL, NULL, &m, &err), -EINVAL);
	assert_non_null(strstr(err_text(&err), "out: a link to what is no file"));
	static const char *const names[] = { "out", "link", ".hidden", "sub/a", "z.gguf" };
	for (size_t i = 0; i < 5; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		assert_int_equal(unlink(path), 0);
	}
	(void)snprintf(path, sizeof(path), "%s/sub", dir);
	assert_int_equal(rmdir(path) | rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_manifest_is_read_and_written_the_same),
		cmocka_unit_test(the_digest_is_of_the_files_alone),
		cmocka_unit_test(places_are_made_of_the_folder_that_it_lies_in),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(names_are_plain),
		cmocka_unit_test(a_model_becomes_a_layer_of_its_distinct_contents),
		cmocka_unit_test(layers_are_files_by_title_path_or_type),
		cmocka_unit_test(our_manifest_must_fit_the_layers),
		cmocka_unit_test(a_folder_is_its_files_with_their_digests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
