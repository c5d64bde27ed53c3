/* Manifests and indexes as the node reads them. */
#include "test.h"

#include <errno.h>

#include "node/image.h"

#define D1 "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define D2 "sha256:2222222222222222222222222222222222222222222222222222222222222222"

static int parse(const char *json, struct node_image **ret_image, struct err *err)
{
	struct node_image *image = calloc(1, sizeof(*image));
	int r = img_manifest_parse(json, strlen(json), "m", &image->doc, err);

	if (r < 0) {
		node_image_free(image);
		return r;
	}
	*ret_image = image;
	return 0;
}

static void layers_come_with_their_annotations(void **state)
{
	struct node_image *image = NULL;

	(void)state;
	assert_int_equal(parse("{\"schemaVersion\":2,\"config\":{\"digest\":\"" D1 "\",\"size\":7},\"layers\":["
	                       "{\"mediaType\":\"t\",\"digest\":\"" D2 "\",\"size\":123456789012,"
	                       "\"annotations\":{\"a\":\"b\"}}]}",
	                       &image, NULL),
	                 0);
	assert_string_equal(image->doc.config.digest, D1);
	assert_int_equal(image->doc.config.size, 7);
	assert_int_equal(image->doc.n_layers, 1);
	assert_true(image->doc.layers[0].size == 123456789012u);
	assert_string_equal(image->doc.layers[0].media_type, "t");
	assert_string_equal(image->doc.layers[0].names[0], "a");
	assert_string_equal(image->doc.layers[0].values[0], "b");
	assert_ptr_equal(node_image_layer(image, D2), &image->doc.layers[0]);
	assert_null(node_image_layer(image, D1));
	node_image_free(image);
}

static void what_is_wrong_is_named(void **state)
{
	static const struct {
		const char *json, *words;
	} cases[] = {
		{ "[]", "m: expected an object" },
		{ "{}", "m: config" },
		{ "{\"config\":{\"digest\":\"md5:1\",\"size\":1},\"layers\":[]}", "config: m: digest" },
		{ "{\"config\":{\"digest\":\"" D1 "\",\"size\":-1},\"layers\":[]}", "config: m: size" },
		{ "{\"config\":{\"digest\":\"" D1 "\",\"size\":1},\"layers\":[1]}", "layers 0: m" },
		{ "{\"config\":{\"digest\":\"" D1 "\",\"size\":1},\"layers\":[{\"digest\":\"" D2
		  "\",\"size\":1,\"annotations\":{\"x\":1}}]}",
		  "layers 0: m: annotation x" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct node_image *image = NULL;
		struct err err = { 0 };

		assert_true(parse(cases[i].json, &image, &err) < 0);
		assert_null(image);
		if (!strstr(err_text(&err), cases[i].words))
			fail_msg("case %zu: %s", i, err_text(&err));
	}
}

static void an_index_gives_this_machines_image(void **state)
{
	/* All that this may be built for, so that one of them matches. */
	static const char json[] =
	        "{\"manifests\":[{\"size\":1,\"digest\":\"" D1
	        "\",\"platform\":{\"os\":\"windows\",\"architecture\":\"amd64\"}},"
	        "{\"size\":1,\"digest\":\"" D2 "\",\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}},"
	        "{\"size\":1,\"digest\":\"" D2
	        "\",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\",\"variant\":\"v8\"}}]}";
	static const char none[] = "{\"manifests\":[{\"size\":1,\"digest\":\"" D1
	                           "\",\"platform\":{\"os\":\"plan9\",\"architecture\":\"vax\"}}]}";
	static const char unnamed[] = "{\"manifests\":[{\"size\":1,\"digest\":\"" D1 "\"}]}";
	char digest[72] = "";
	struct err err = { 0 };

	(void)state;
	assert_int_equal(node_index_choose("i", json, sizeof(json) - 1, digest, NULL), 0);
	assert_string_equal(digest, D2);
	assert_int_equal(node_index_choose("i", none, sizeof(none) - 1, digest, &err), -ENOENT);
	assert_int_equal(node_index_choose("i", unnamed, sizeof(unnamed) - 1, digest, &err), 0);
	assert_string_equal(digest, D1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layers_come_with_their_annotations),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(an_index_gives_this_machines_image),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
