/* What comes in over libfabric: the fields of a question when the first byte is 0, else a row of messages, each behind
 * its size (2 bytes, little-endian). Messages are numbered by the fuzzer's own seal and, from 128 on, given the right
 * MAC, so that what is behind both is reached too. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "peer/fabric_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_fields(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "Range",     "Flip-Peer",     "Flip-Image", "Flip-Grant", "Flip-Role",
		                             "Flip-Auth", "Flip-Priority", "Flip-Trace", "Flip-Accept" };
	enum { N = sizeof(names) / sizeof(*names) };
	struct base_buf b = BASE_BUF_INIT(1 << 20), texts[N];
	const char *headers[N + 1] = { NULL };
	struct peer_fields f, g;
	size_t n = 0;

	if (peer_fields_parse(data, size, &f) < 0)
		return;
	for (size_t i = 0; i < N; i++) {
		base_buf_init(&texts[i], 1 << 20);
		(void)base_buf_printf(&texts[i], "%s: %s", names[i], peer_fields_header(&f, names[i]));
		if (*peer_fields_header(&f, names[i]))
			headers[n++] = base_buf_text(&texts[i]);
	}
	/* What was read says the same when it is written and read again. */
	if (peer_fields_write(peer_fields_path(&f), headers, &b) == 0) {
		if (peer_fields_parse(b.data, b.len, &g) < 0 || strcmp(peer_fields_path(&f), peer_fields_path(&g)) != 0)
			abort();
		for (size_t i = 0; i < N; i++) {
			if (strcmp(peer_fields_header(&f, names[i]), peer_fields_header(&g, names[i])) != 0)
				abort();
		}
		peer_fields_done(&g);
	}
	for (size_t i = 0; i < N; i++)
		base_buf_done(&texts[i]);
	base_buf_done(&b);
	peer_fields_done(&f);
}

static void make_right(uint8_t *message, size_t n, const struct peer_seal *seal)
{
	uint8_t text[PEER_MESSAGE_MAX], sum[32];
	unsigned k = sizeof(sum);

	for (unsigned i = 0; i < 4; i++)
		message[4 + i] = (uint8_t)(seal->number >> 8 * i);
	memcpy(text, message, 8);
	memcpy(text + 8, message + PEER_MESSAGE_HEAD, n - PEER_MESSAGE_HEAD);
	if (!HMAC(EVP_sha256(), seal->key, sizeof(seal->key), text, n - PEER_MESSAGE_HEAD + 8, sum, &k))
		abort();
	memcpy(message + 8, sum, 16);
}

static void try_messages(const uint8_t *data, size_t size, bool sealed)
{
	struct peer_seal seal = { .is_on = sealed, .key = { 1 } };

	while (size >= 2) {
		size_t n = data[0] | (size_t)data[1] << 8;
		uint8_t copy[PEER_MESSAGE_MAX];
		struct peer_message m;
		struct peer_head head = { .status = 0 };
		uint32_t before = seal.number;

		data += 2;
		size -= 2;
		n = n < size ? n : size;
		n = n < sizeof(copy) ? n : sizeof(copy);
		memcpy(copy, data, n);
		if (sealed && n >= PEER_MESSAGE_HEAD)
			make_right(copy, n, &seal);
		if (peer_message_parse(copy, n, &seal, &m, &head) == 0) {
			if (seal.number != before + 1 || m.size > PEER_SLOT_MAX ||
			    (m.data && (m.data < copy || m.data + m.size > copy + n)) ||
			    (m.type == PEER_MSG_QUESTION && (uint64_t)m.at + m.size > m.total) ||
			    (m.type == PEER_MSG_HEAD &&
			     (head.status < 100 || strlen(head.holders) >= sizeof(head.holders))))
				abort();
		} else if (seal.number != before) {
			abort();
		}
		data += n;
		size -= n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] == 0)
		try_fields(data + 1, size - 1);
	else
		try_messages(data + 1, size - 1, data[0] >= 128);
	return 0;
}
