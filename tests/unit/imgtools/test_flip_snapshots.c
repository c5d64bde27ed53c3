/* containerd's snapshots API over the wire, in front of a snapshotter over a folder; filters and field masks. */
#include <pb/snapshots.pb-c.h>

#include "test.h"
#include "grpc/filter.h"
#include "grpc/snapshots_internal.h"
#include "imgtools/flip_overlay.h"

#define METHOD(name) "/containerd.services.snapshots.v1.Snapshots/" name

struct fixture {
	char dir[64], socket[96];
	struct overlay overlay;
	struct flip_grpc_server *server;
	struct flip_grpc_client *client;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/test_flip_snapshots.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(f->socket, sizeof(f->socket), "%s.sock", f->dir);
	overlay_init(&f->overlay, f->dir);
	assert_int_equal(flip_snapshots_serve(f->socket, &overlay_ops, &f->overlay, &f->server, NULL), 0);
	assert_int_equal(flip_grpc_connect(f->socket, &f->client, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	flip_grpc_close(f->client);
	flip_grpc_stop(f->server);
	overlay_done(&f->overlay);
	(void)nftw(f->dir, overlay_unlink, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* ---- Calls ---- */

struct replies {
	const ProtobufCMessageDescriptor *type;
	ProtobufCMessage *messages[32];
	size_t n;
};

static int on_reply(void *arg, const void *data, size_t size)
{
	struct replies *r = arg;

	assert_true(r->n < 32);
	r->messages[r->n] = protobuf_c_message_unpack(r->type, NULL, size, data);
	assert_non_null(r->messages[r->n++]);
	return 0;
}

static void replies_done(struct replies *r)
{
	for (size_t i = 0; i < r->n; i++)
		protobuf_c_message_free_unpacked(r->messages[i], NULL);
	r->n = 0;
}

/* replies NULL: none is looked at. */
static int ask(struct fixture *f, const char *path, const ProtobufCMessage *request, struct replies *replies,
               struct err *err)
{
	size_t size = protobuf_c_message_get_packed_size(request);
	uint8_t *data = malloc(size + 1);
	int r;

	assert_non_null(data);
	(void)protobuf_c_message_pack(request, data);
	r = flip_grpc_call(f->client, path, NULL, 0, data, size, 0, replies ? on_reply : NULL, replies, err);
	free(data);
	return r;
}

static int key_call(struct fixture *f, const char *path, const char *key, struct replies *replies)
{
	Flip__Pb__KeyRequest q = FLIP__PB__KEY_REQUEST__INIT;

	q.key = (char *)key;
	return ask(f, path, &q.base, replies, NULL);
}

/* label: "name=value" or NULL */
static int prepare(struct fixture *f, const char *path, const char *key, const char *parent, const char *label,
                   struct replies *replies)
{
	Flip__Pb__PrepareRequest q = FLIP__PB__PREPARE_REQUEST__INIT;
	Flip__Pb__Label l = FLIP__PB__LABEL__INIT, *labels[] = { &l };
	char *text = strdup(label ? label : "=");
	int r;

	q.key = (char *)key;
	q.parent = (char *)parent;
	l.name = text;
	l.value = strchr(text, '=') + 1;
	l.value[-1] = '\0';
	q.labels = labels;
	q.n_labels = label ? 1 : 0;
	r = ask(f, path, &q.base, replies, NULL);
	free(text);
	return r;
}

static int commit(struct fixture *f, const char *name, const char *key)
{
	Flip__Pb__CommitRequest q = FLIP__PB__COMMIT_REQUEST__INIT;
	Flip__Pb__Label l = FLIP__PB__LABEL__INIT, *labels[] = { &l };

	q.name = (char *)name;
	q.key = (char *)key;
	l.name = "of";
	l.value = (char *)name;
	q.labels = labels;
	q.n_labels = 1;
	return ask(f, METHOD("Commit"), &q.base, NULL, NULL);
}

static const char *label_of(const Flip__Pb__SnapshotInfo *i, const char *name)
{
	for (size_t k = 0; k < i->n_labels; k++) {
		if (strcmp(i->labels[k]->name, name) == 0)
			return i->labels[k]->value;
	}
	return NULL;
}

/* ---- The methods ---- */

static void mounts_come_with_their_options(void **state)
{
	struct fixture *f = *state;
	struct replies r = { .type = &flip__pb__mounts_response__descriptor };
	Flip__Pb__MountsResponse *m;

	assert_int_equal(prepare(f, METHOD("Prepare"), "a", "", NULL, &r), 0);
	m = (Flip__Pb__MountsResponse *)r.messages[0];
	assert_int_equal(m->n_mounts, 1);
	assert_string_equal(m->mounts[0]->type, "bind");
	assert_string_equal(m->mounts[0]->target, "");
	assert_int_equal(m->mounts[0]->n_options, 2);
	assert_string_equal(m->mounts[0]->options[0], "rw");
	replies_done(&r);

	assert_int_equal(commit(f, "base", "a"), 0);
	assert_int_equal(prepare(f, METHOD("Prepare"), "b", "base", NULL, NULL), 0);
	assert_int_equal(key_call(f, METHOD("Mounts"), "b", &r), 0);
	m = (Flip__Pb__MountsResponse *)r.messages[0];
	assert_string_equal(m->mounts[0]->type, "overlay");
	assert_int_equal(m->mounts[0]->n_options, 3);
	assert_true(strncmp(m->mounts[0]->options[2], "lowerdir=", 9) == 0);
	replies_done(&r);
	assert_int_equal(prepare(f, METHOD("View"), "v", "base", NULL, &r), 0);
	m = (Flip__Pb__MountsResponse *)r.messages[0];
	assert_string_equal(m->mounts[0]->options[0], "ro");
	replies_done(&r);
}

static void a_snapshot_tells_all_it_is(void **state)
{
	struct fixture *f = *state;
	struct replies r = { .type = &flip__pb__snapshot_response__descriptor };
	Flip__Pb__SnapshotInfo *i;
	int64_t before = time(NULL) - 1;

	assert_int_equal(prepare(f, METHOD("Prepare"), "a/\xc3\xa4 1", "", "with.dots=\xe5\x90\x8d", NULL), 0);
	assert_int_equal(key_call(f, METHOD("Stat"), "a/\xc3\xa4 1", &r), 0);
	i = ((Flip__Pb__SnapshotResponse *)r.messages[0])->info;
	assert_string_equal(i->name, "a/\xc3\xa4 1");
	assert_string_equal(i->parent, "");
	assert_int_equal(i->kind, FLIP__PB__KIND__ACTIVE);
	assert_string_equal(label_of(i, "with.dots"), "\xe5\x90\x8d");
	assert_in_range(i->created_at->seconds, before, before + 100000);
	assert_in_range(i->created_at->nanos, 0, 999999999);
	replies_done(&r);
	assert_int_equal(commit(f, "c", "a/\xc3\xa4 1"), 0);
	assert_int_equal(key_call(f, METHOD("Stat"), "c", &r), 0);
	i = ((Flip__Pb__SnapshotResponse *)r.messages[0])->info;
	assert_int_equal(i->kind, FLIP__PB__KIND__COMMITTED);
	assert_string_equal(label_of(i, "of"), "c");
	replies_done(&r);
}

static void errors_say_what_containerd_understands(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(key_call(f, METHOD("Stat"), "none", NULL), -ENOENT);
	assert_int_equal(key_call(f, METHOD("Stat"), "", NULL), -EINVAL);
	assert_int_equal(prepare(f, METHOD("Prepare"), "a", "none", NULL, NULL), -ENOENT);
	assert_int_equal(prepare(f, METHOD("Prepare"), "a", "", NULL, NULL), 0);
	assert_int_equal(prepare(f, METHOD("Prepare"), "a", "", NULL, NULL), -EEXIST);
	assert_int_equal(prepare(f, METHOD("Prepare"), "b", "", "=nameless", NULL), -EINVAL);
	assert_int_equal(commit(f, "", "a"), -EINVAL);
	assert_int_equal(commit(f, "base", "a"), 0);
	assert_int_equal(prepare(f, METHOD("Prepare"), "b", "base", NULL, NULL), 0);
	assert_int_equal(key_call(f, METHOD("Remove"), "base", NULL), -EBUSY);
	assert_int_equal(key_call(f, METHOD("Remove"), "b", NULL), 0);
	assert_int_equal(key_call(f, METHOD("Remove"), "base", NULL), 0);
	assert_int_equal(key_call(f, METHOD("Remove"), "base", NULL), -ENOENT);
}

static void a_layer_that_is_here_already_exists(void **state)
{
	struct fixture *f = *state;
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/ready", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/ready/sha256-1", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(prepare(f, METHOD("Prepare"), "extract-1", "", "containerd.io/snapshot.ref=sha256:1", NULL),
	                 -EEXIST);
	assert_int_equal(key_call(f, METHOD("Stat"), "sha256:1", NULL), 0);
	assert_int_equal(key_call(f, METHOD("Stat"), "extract-1", NULL), -ENOENT);
	assert_int_equal(prepare(f, METHOD("Prepare"), "extract-2", "", "containerd.io/snapshot.ref=sha256:2", NULL),
	                 0);
}

static void usage_and_cleanup_are_asked_for(void **state)
{
	struct fixture *f = *state;
	struct replies r = { .type = &flip__pb__usage_response__descriptor };

	assert_int_equal(prepare(f, METHOD("Prepare"), "a", "", NULL, NULL), 0);
	assert_int_equal(key_call(f, METHOD("Usage"), "a", &r), 0);
	assert_int_equal(((Flip__Pb__UsageResponse *)r.messages[0])->size, 4096);
	assert_int_equal(((Flip__Pb__UsageResponse *)r.messages[0])->inodes, 1);
	replies_done(&r);
	assert_int_equal(key_call(f, METHOD("Cleanup"), "", NULL), 0);
	assert_int_equal(f->overlay.n_cleanups, 1);
}

/* Labels "name=value" wanted for a snapshot, under paths; both end with NULL. */
static int update(struct fixture *f, const char *name, char *const *wanted, char *const *paths, struct replies *r)
{
	Flip__Pb__UpdateSnapshotRequest q = FLIP__PB__UPDATE_SNAPSHOT_REQUEST__INIT;
	Flip__Pb__SnapshotInfo info = FLIP__PB__SNAPSHOT_INFO__INIT;
	Flip__Pb__FieldMask mask = FLIP__PB__FIELD_MASK__INIT;
	Flip__Pb__Label items[8], *labels[8];
	char texts[8][64];
	size_t n = 0;

	for (; wanted[n]; n++) {
		(void)snprintf(texts[n], sizeof(texts[n]), "%s", wanted[n]);
		flip__pb__label__init(&items[n]);
		items[n].name = texts[n];
		items[n].value = strchr(texts[n], '=') + 1;
		items[n].value[-1] = '\0';
		labels[n] = &items[n];
	}
	info.name = (char *)name;
	info.labels = labels;
	info.n_labels = n;
	mask.paths = (char **)paths;
	while (mask.paths[mask.n_paths])
		mask.n_paths++;
	q.info = &info;
	q.update_mask = &mask;
	return ask(f, METHOD("Update"), &q.base, r, NULL);
}

static void labels_change_as_the_paths_say(void **state)
{
	static const struct {
		char *wanted[4], *paths[4];
		int result;
		size_t n;          /* labels afterwards, of a=1 and b.c=2 before */
		const char *a, *b; /* a and b.c afterwards */
	} cases[] = {
		{ { "a=3", NULL }, { NULL }, 0, 1, "3", NULL },
		{ { "a=3", NULL }, { "labels", NULL }, 0, 1, "3", NULL },
		{ { "a=3", NULL }, { "labels.a", NULL }, 0, 2, "3", "2" },
		{ { "a=3", "b.c=4", NULL }, { "labels.b.c", NULL }, 0, 2, "1", "4" },
		{ { "b.c=", NULL }, { "labels.b.c", NULL }, 0, 1, "1", NULL },
		{ { NULL }, { "labels.b.c", NULL }, 0, 1, "1", NULL },
		{ { "d=5", NULL }, { "labels.d", "labels.a", NULL }, 0, 2, NULL, "2" },
		{ { "a=3", NULL }, { "parent", NULL }, -EINVAL, 2, "1", "2" },
		{ { "a=3", NULL }, { "labels.", NULL }, -EINVAL, 2, "1", "2" },
		{ { "a=3", NULL }, { "labelsx", NULL }, -EINVAL, 2, "1", "2" },
	};
	static char *const before[] = { "a=1", "b.c=2", NULL }, *const all[] = { NULL };
	struct fixture *f = *state;
	struct replies r = { .type = &flip__pb__snapshot_response__descriptor };

	assert_int_equal(prepare(f, METHOD("Prepare"), "s", "", NULL, NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		Flip__Pb__SnapshotInfo *now;
		const char *a, *b;

		assert_int_equal(update(f, "s", before, all, NULL), 0);
		assert_int_equal(update(f, "s", cases[i].wanted, cases[i].paths, NULL), cases[i].result);
		assert_int_equal(key_call(f, METHOD("Stat"), "s", &r), 0);
		now = ((Flip__Pb__SnapshotResponse *)r.messages[0])->info;
		a = label_of(now, "a");
		b = label_of(now, "b.c");
		assert_int_equal(now->n_labels, cases[i].n);
		assert_string_equal(a ? a : "-", cases[i].a ? cases[i].a : "-");
		assert_string_equal(b ? b : "-", cases[i].b ? cases[i].b : "-");
		replies_done(&r);
	}
	assert_int_equal(update(f, "none", before, all, NULL), -ENOENT);
}

static size_t list(struct fixture *f, char *filter, int want)
{
	Flip__Pb__ListSnapshotsRequest q = FLIP__PB__LIST_SNAPSHOTS_REQUEST__INIT;
	struct replies r = { .type = &flip__pb__list_snapshots_response__descriptor };
	size_t n = 0;

	q.filters = &filter;
	q.n_filters = filter ? 1 : 0;
	assert_int_equal(ask(f, METHOD("List"), &q.base, &r, NULL), want);
	for (size_t i = 0; i < r.n; i++)
		n += ((Flip__Pb__ListSnapshotsResponse *)r.messages[i])->n_info;
	replies_done(&r);
	return n;
}

static void lists_are_whole_and_filtered(void **state)
{
	struct fixture *f = *state;
	char key[32];

	assert_int_equal(list(f, NULL, 0), 0);
	assert_int_equal(prepare(f, METHOD("Prepare"), "x", "", NULL, NULL), 0);
	assert_int_equal(commit(f, "base", "x"), 0);
	for (int i = 0; i < 199; i++) { /* more than a message holds */
		(void)snprintf(key, sizeof(key), "key-%d", i);
		assert_int_equal(prepare(f, METHOD("View"), key, "base", i % 2 ? "odd.one=yes" : NULL, NULL), 0);
	}
	assert_int_equal(list(f, NULL, 0), 200);
	assert_int_equal(list(f, "", 0), 200);
	assert_int_equal(list(f, "kind==view", 0), 199);
	assert_int_equal(list(f, "labels.\"odd.one\"==yes,parent==\"base\"", 0), 99);
	assert_int_equal(list(f, "parent==\"\"", 0), 1);
	assert_int_equal(list(f, "name~=/^key-1[0-9]$/", 0), 10);
	assert_int_equal(list(f, "name=base", -EINVAL), 0);
}

static void what_is_no_message_is_refused(void **state)
{
	static const char *const methods[] = { "Prepare", "View",   "Mounts", "Commit", "Remove",
		                               "Stat",    "Update", "List",   "Usage",  "Cleanup" };
	struct fixture *f = *state;
	char path[128];
	uint8_t *empties;
	size_t n = 3u << 20;

	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
		(void)snprintf(path, sizeof(path), METHOD("%s"), methods[i]);
		assert_int_equal(flip_grpc_call(f->client, path, NULL, 0, "\x0a\xff\x01x", 4, 0, NULL, NULL, NULL),
		                 -EINVAL);
	}
	/* A million and a half empty labels: within the size of a request, not of what it may become. */
	empties = malloc(n);
	assert_non_null(empties);
	for (size_t i = 0; i < n; i += 2) {
		empties[i] = 4 << 3 | 2;
		empties[i + 1] = 0;
	}
	assert_int_equal(flip_grpc_call(f->client, METHOD("Prepare"), NULL, 0, empties, n, 0, NULL, NULL, NULL),
	                 -EINVAL);
	free(empties);
}

/* ---- Filters ---- */

static void filters_match_as_containerds_do(void **state)
{
	static const struct {
		const char *filter;
		bool is;
	} cases[] = {
		{ "", true },
		{ "name", true },
		{ "name==default/7/sha256:ab", true },
		{ "name == default/7/sha256:ab", true },
		{ " name==\"default/7/sha256:ab\" , kind==committed ", true },
		{ "name!=default/7/sha256:ab", false },
		{ "kind==active", false },
		{ "kind!=active", true },
		{ "kind~=\"comm.*\"", true },
		{ "parent", true },
		{ "parent==\"\"", true },
		{ "parent!=\"\"", false },
		{ "labels.plain", true },
		{ "labels.plain==1", true },
		{ "labels.\"plain\"==1", true },
		{ "labels.none", false },
		{ "labels.none!=1", true },
		{ "labels.none==\"\"", false },
		{ "labels.empty==\"\"", true },
		{ "labels.\"containerd.io/snapshot.ref\"==sha256:cd", true },
		{ "\"labels\".\"containerd.io/snapshot.ref\"==sha256:cd", true },
		{ "labels.a.b.c==dots", true },
		{ "labels.a.\"b.c\"==dots", true },
		{ "labels.\"quo\\\"te\"==\"\\u00e4\\xff\\101\"", true },
		{ "labels.plain~=/^[0-9]$/", true },
		{ "labels.plain~=|^[a-z]$|", false },
		{ "labels.slash~=/a\\/b/", true },
		{ "labels", false },
		{ "other", false },
		{ "other!=x", true },
		{ "name.x", true },
		{ "kind==committed,labels.plain==2", false },
	};
	struct flip_label labels[] = { { "plain", "1" },
		                       { "empty", "" },
		                       { "containerd.io/snapshot.ref", "sha256:cd" },
		                       { "a.b.c", "dots" },
		                       { "quo\"te", "\xc3\xa4\xff"
		                                    "A" },
		                       { "slash", "xa/bx" } };
	struct flip_snapshot s = {
		.name = "default/7/sha256:ab", .kind = FLIP_SNAPSHOT_COMMITTED, .labels = labels, .n_labels = 6
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct flip_filter *f = NULL;
		struct err err = { 0 };

		if (flip_filter_parse(&cases[i].filter, 1, &f, &err) < 0)
			fail_msg("%s: %s", cases[i].filter, err.msg);
		if (flip_filter_matches(f, &s) != cases[i].is)
			fail_msg("%s: %s", cases[i].filter, cases[i].is ? "does not match" : "matches");
		flip_filter_free(f);
	}
}

static void any_of_several_filters_is_enough(void **state)
{
	static const char *const some[] = { "name==other", "kind==view" }, *const none[] = { "name==x", "name==y" };
	struct flip_snapshot s = { .name = "n", .kind = FLIP_SNAPSHOT_VIEW };
	struct flip_filter *f;

	(void)state;
	assert_int_equal(flip_filter_parse(some, 2, &f, NULL), 0);
	assert_true(flip_filter_matches(f, &s));
	flip_filter_free(f);
	assert_int_equal(flip_filter_parse(none, 2, &f, NULL), 0);
	assert_false(flip_filter_matches(f, &s));
	flip_filter_free(f);
	assert_int_equal(flip_filter_parse(NULL, 0, &f, NULL), 0);
	assert_true(flip_filter_matches(f, &s));
	flip_filter_free(f);
}

static void wrong_filters_are_refused_with_the_place(void **state)
{
	static const char *const filters[] = { "==x",           ",",           "name,",        "name=x",
		                               "name===x",      "name==",      "name==,",      "name==\"x",
		                               "name==/x/",     "name~=/(/",   "name x",       "labels.",
		                               "labels.\"a",    "name==\"\\q", "name==\"\\x1", "name==\"\\ud800\"",
		                               "name==\"\\0\"", "name==a b",   "na-me",        "name==\"a\nb\"" };
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(filters) / sizeof(*filters); i++) {
		struct flip_filter *f = NULL;

		err = (struct err){ 0 };
		if (flip_filter_parse(&filters[i], 1, &f, &err) != -EINVAL)
			fail_msg("%s is taken", filters[i]);
		assert_null(f);
		assert_non_null(strstr(err.msg, "byte"));
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(mounts_come_with_their_options),
		T(a_snapshot_tells_all_it_is),
		T(errors_say_what_containerd_understands),
		T(a_layer_that_is_here_already_exists),
		T(usage_and_cleanup_are_asked_for),
		T(labels_change_as_the_paths_say),
		T(lists_are_whole_and_filtered),
		T(what_is_no_message_is_refused),
		cmocka_unit_test(filters_match_as_containerds_do),
		cmocka_unit_test(any_of_several_filters_is_enough),
		cmocka_unit_test(wrong_filters_are_refused_with_the_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
