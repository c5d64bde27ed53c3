/* See fabric_wire.h. Numbers are little-endian; a message is
 *
 *   0  1  type    1  1  version, 1    2  2  size of the body    4  4  number, from 0 on in each direction
 *   8 16  MAC: the first 16 bytes of HMAC-SHA256 over bytes 0 to 8 and the body; zero before there is a key
 *  24     body, of which the table below says the least and the most, and parse_body() what is in it */
#include "peer/fabric_wire.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer/wire.h"

enum { VERSION = 1, MAC = 16, HEAD_TEXTS = sizeof(((struct peer_head *)0)->holders) };

static const struct {
	uint16_t least, most; /* bytes of the body */
} bodies[] = {
	[PEER_MSG_HELLO] = { PEER_NONCE, PEER_NONCE },
	[PEER_MSG_JOIN] = { 2 * PEER_NONCE + 24, 2 * PEER_NONCE + 24 },
	[PEER_MSG_WELCOME] = { PEER_NONCE, PEER_NONCE },
	[PEER_MSG_REFUSE] = { 0, 160 },
	[PEER_MSG_QUESTION] = { 13, PEER_MESSAGE_BODY },
	[PEER_MSG_HEAD] = { 8, PEER_MESSAGE_BODY },
	[PEER_MSG_DATA] = { 12, 12 },
	[PEER_MSG_INLINE] = { 5, PEER_MESSAGE_BODY },
	[PEER_MSG_TAKEN] = { 4, 4 },
	[PEER_MSG_END] = { 8, 8 },
};

/* ---- Secrets -------------------------------------------------------------------------------------------------- */

static void to_hex(const uint8_t *in, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", in[i]);
}

static int derive(const struct peer_token *t, const char *label, const char *asked, const char *asker,
                  const char *slots, uint8_t ret[32])
{
	const char *const parts[] = { "flip-fabric-1", label, asked, asker, slots };
	char hex[65];
	int r = peer_token_hmac(t, parts, sizeof(parts) / sizeof(*parts), hex);

	for (size_t i = 0; r == 0 && i < 32; i++) {
		unsigned v = 0;

		(void)sscanf(hex + 2 * i, "%2x", &v);
		ret[i] = (uint8_t)v;
	}
	OPENSSL_cleanse(hex, sizeof(hex));
	return r;
}

int peer_session_make(const struct peer_token *t, const uint8_t asked_nonce[PEER_NONCE],
                      const uint8_t asker_nonce[PEER_NONCE], const struct peer_message *join, struct peer_session *ret)
{
	char asked[2 * PEER_NONCE + 1], asker[2 * PEER_NONCE + 1], slots[96];
	int r;

	to_hex(asked_nonce, PEER_NONCE, asked);
	to_hex(asker_nonce, PEER_NONCE, asker);
	(void)snprintf(slots, sizeof(slots), "%llx %llx %x %x", (unsigned long long)join->key,
	               (unsigned long long)join->base, join->slot_size, join->n_slots);
	r = derive(t, "join", asked, asker, slots, ret->join_proof);
	if (r == 0)
		r = derive(t, "welcome", asked, asker, slots, ret->welcome_proof);
	if (r == 0)
		r = derive(t, "asker", asked, asker, slots, ret->of_asker);
	if (r == 0)
		r = derive(t, "asked", asked, asker, slots, ret->of_asked);
	return r;
}

bool peer_proof_is(const uint8_t a[PEER_NONCE], const uint8_t b[PEER_NONCE])
{
	return CRYPTO_memcmp(a, b, PEER_NONCE) == 0;
}

static int mac_of(const struct peer_seal *seal, const uint8_t *message, size_t size, uint8_t ret[MAC])
{
	uint8_t text[8 + PEER_MESSAGE_BODY], sum[32];
	unsigned n = sizeof(sum);

	memset(ret, 0, MAC);
	if (!seal->is_on)
		return 0;
	memcpy(text, message, 8);
	memcpy(text + 8, message + PEER_MESSAGE_HEAD, size - PEER_MESSAGE_HEAD);
	if (!HMAC(EVP_sha256(), seal->key, sizeof(seal->key), text, 8 + size - PEER_MESSAGE_HEAD, sum, &n))
		return -ENOMEM;
	memcpy(ret, sum, MAC);
	return 0;
}

/* ---- Writing -------------------------------------------------------------------------------------------------- */

static size_t write_head(const struct peer_head *h, uint8_t *b)
{
	size_t n_holders = strnlen(h->holders, sizeof(h->holders)), n_words = strnlen(h->words, sizeof(h->words));

	peer_put_le(b + 4, (uint64_t)h->status, 2);
	peer_put_le(b + 6, n_holders, 2);
	memcpy(b + 8, h->holders, n_holders);
	memcpy(b + 8 + n_holders, h->words, n_words);
	return 8 + n_holders + n_words;
}

/* The body's size. */
static size_t write_body(const struct peer_message *m, uint8_t *b)
{
	peer_put_le(b, m->question, 4);
	switch (m->type) {
	case PEER_MSG_HELLO:
		memcpy(b, m->nonce, PEER_NONCE);
		return PEER_NONCE;
	case PEER_MSG_JOIN:
		memcpy(b, m->nonce, PEER_NONCE);
		memcpy(b + PEER_NONCE, m->proof, PEER_NONCE);
		peer_put_le(b + 2 * PEER_NONCE, m->key, 8);
		peer_put_le(b + 2 * PEER_NONCE + 8, m->base, 8);
		peer_put_le(b + 2 * PEER_NONCE + 16, m->slot_size, 4);
		peer_put_le(b + 2 * PEER_NONCE + 20, m->n_slots, 4);
		return 2 * PEER_NONCE + 24;
	case PEER_MSG_WELCOME:
		memcpy(b, m->proof, PEER_NONCE);
		return PEER_NONCE;
	case PEER_MSG_REFUSE:
		memcpy(b, m->data, m->size);
		return m->size;
	case PEER_MSG_QUESTION:
		peer_put_le(b + 4, m->total, 4);
		peer_put_le(b + 8, m->at, 4);
		memcpy(b + 12, m->data, m->size);
		return 12 + m->size;
	case PEER_MSG_HEAD:
		return write_head(m->head, b);
	case PEER_MSG_DATA:
		peer_put_le(b + 4, m->slot, 4);
		peer_put_le(b + 8, m->size, 4);
		return 12;
	case PEER_MSG_INLINE:
		memcpy(b + 4, m->data, m->size);
		return 4 + m->size;
	case PEER_MSG_TAKEN:
		return 4;
	case PEER_MSG_END:
		peer_put_le(b + 4, m->was_cut, 4);
		return 8;
	}
	return 0;
}

int peer_message_write(const struct peer_message *m, struct peer_seal *seal, uint8_t out[PEER_MESSAGE_MAX])
{
	size_t n, most = m->type == PEER_MSG_REFUSE     ? bodies[PEER_MSG_REFUSE].most
	                 : m->type == PEER_MSG_QUESTION ? PEER_MESSAGE_PART
	                                                : PEER_MESSAGE_INLINE;

	if (m->data && m->size > most)
		return -EINVAL;
	n = write_body(m, out + PEER_MESSAGE_HEAD);
	out[0] = (uint8_t)m->type;
	out[1] = VERSION;
	peer_put_le(out + 2, n, 2);
	peer_put_le(out + 4, seal->number++, 4);
	if (mac_of(seal, out, PEER_MESSAGE_HEAD + n, out + 8) < 0)
		return -ENOMEM;
	return (int)(PEER_MESSAGE_HEAD + n);
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

static void take_text(char *to, size_t room, const uint8_t *from, size_t n)
{
	n = n < room ? n : room - 1;
	for (size_t i = 0; i < n; i++)
		to[i] = from[i] >= ' ' && from[i] < 127 ? (char)from[i] : ' ';
	to[n] = '\0';
}

static int parse_head(const uint8_t *b, size_t n, struct peer_head *ret)
{
	unsigned status = (unsigned)peer_get_le(b + 4, 2);
	size_t n_holders = (size_t)peer_get_le(b + 6, 2);

	if (status < 100 || status > 599 || n_holders >= HEAD_TEXTS || n_holders > n - 8)
		return -EBADMSG;
	if (!ret)
		return 0;
	ret->status = (int)status;
	take_text(ret->holders, sizeof(ret->holders), b + 8, n_holders);
	take_text(ret->words, sizeof(ret->words), b + 8 + n_holders, n - 8 - n_holders);
	return 0;
}

static int parse_join(const uint8_t *b, struct peer_message *m)
{
	m->nonce = b;
	m->proof = b + PEER_NONCE;
	m->key = peer_get_le(b + 2 * PEER_NONCE, 8);
	m->base = peer_get_le(b + 2 * PEER_NONCE + 8, 8);
	m->slot_size = (uint32_t)peer_get_le(b + 2 * PEER_NONCE + 16, 4);
	m->n_slots = (uint32_t)peer_get_le(b + 2 * PEER_NONCE + 20, 4);
	return m->slot_size < PEER_SLOT_MIN || m->slot_size > PEER_SLOT_MAX || !m->n_slots ||
	                       m->n_slots > PEER_SLOTS_MAX || m->base > UINT64_MAX - (uint64_t)m->slot_size * m->n_slots
	               ? -EBADMSG
	               : 0;
}

static int parse_body(const uint8_t *b, size_t n, struct peer_message *m, struct peer_head *ret_head)
{
	if (m->type >= PEER_MSG_QUESTION)
		m->question = (uint32_t)peer_get_le(b, 4);
	switch (m->type) {
	case PEER_MSG_HELLO:
		m->nonce = b;
		return 0;
	case PEER_MSG_JOIN:
		return parse_join(b, m);
	case PEER_MSG_WELCOME:
		m->proof = b;
		return 0;
	case PEER_MSG_REFUSE:
		m->data = b;
		m->size = (uint32_t)n;
		return 0;
	case PEER_MSG_QUESTION:
		m->total = (uint32_t)peer_get_le(b + 4, 4);
		m->at = (uint32_t)peer_get_le(b + 8, 4);
		m->data = b + 12;
		m->size = (uint32_t)(n - 12);
		return m->total > PEER_MAX_QUESTION || m->at > m->total || m->size > m->total - m->at ? -EBADMSG : 0;
	case PEER_MSG_HEAD:
		return parse_head(b, n, ret_head);
	case PEER_MSG_DATA:
		m->slot = (uint32_t)peer_get_le(b + 4, 4);
		m->size = (uint32_t)peer_get_le(b + 8, 4);
		return m->slot >= PEER_SLOTS_MAX || !m->size || m->size > PEER_SLOT_MAX ? -EBADMSG : 0;
	case PEER_MSG_INLINE:
		m->data = b + 4;
		m->size = (uint32_t)(n - 4);
		return 0;
	case PEER_MSG_TAKEN:
		return 0;
	case PEER_MSG_END:
		m->was_cut = peer_get_le(b + 4, 4) != 0;
		return 0;
	}
	return -EBADMSG;
}

int peer_message_parse(const uint8_t *in, size_t size, struct peer_seal *seal, struct peer_message *ret,
                       struct peer_head *ret_head)
{
	struct peer_message m = { 0 };
	uint8_t mac[MAC];
	size_t n;

	if (size < PEER_MESSAGE_HEAD || size > PEER_MESSAGE_MAX || in[0] < PEER_MSG_HELLO || in[0] > PEER_MSG_END ||
	    in[1] != VERSION)
		return -EBADMSG;
	n = (size_t)peer_get_le(in + 2, 2);
	if (n != size - PEER_MESSAGE_HEAD || n < bodies[in[0]].least || n > bodies[in[0]].most ||
	    peer_get_le(in + 4, 4) != seal->number || seal->number == UINT32_MAX)
		return -EBADMSG;
	if (mac_of(seal, in, size, mac) < 0)
		return -ENOMEM;
	if (CRYPTO_memcmp(mac, in + 8, MAC) != 0)
		return -EACCES;
	m.type = (enum peer_message_type)in[0];
	if (parse_body(in + PEER_MESSAGE_HEAD, n, &m, ret_head) < 0)
		return -EBADMSG;
	seal->number++;
	*ret = m;
	return 0;
}

/* ---- Questions -------------------------------------------------------------------------------------------------- */

/* By their numbers on the wire: ascending, each at most once, the path always. 1 byte number, 3 bytes size, the text.
 */
static const char *const field_names[PEER_N_FIELDS] = {
	NULL,         "",          "Range",         "Flip-Peer",  "Flip-Image",
	"Flip-Grant", "Flip-Role", "Flip-Priority", "Flip-Trace", "Flip-Accept",
	"Flip-Auth"
};
enum { PATH = 1 };

static int add_field(struct base_buf *buf, unsigned i, const char *text)
{
	uint8_t head[4] = { (uint8_t)i };
	size_t n = strlen(text);

	if (n > PEER_MAX_QUESTION)
		return -E2BIG;
	peer_put_le(head + 1, n, 3);
	(void)base_buf_append(buf, head, sizeof(head));
	return base_buf_append(buf, text, n);
}

/* The value of a header "Name: value" when it is of this name. */
static const char *value_of(const char *header, const char *name)
{
	size_t n = strlen(name);

	return strncmp(header, name, n) == 0 && strncmp(header + n, ": ", 2) == 0 ? header + n + 2 : NULL;
}

int peer_fields_write(const char *path, const char *const *headers, struct base_buf *buf)
{
	size_t n = 0, n_found = 0, before = buf->len;
	int r = add_field(buf, PATH, path);

	while (headers[n])
		n++;
	for (unsigned i = PATH + 1; r == 0 && i < PEER_N_FIELDS; i++) {
		for (size_t k = 0; k < n; k++) {
			const char *value = value_of(headers[k], field_names[i]);

			if (!value)
				continue;
			n_found++;
			r = add_field(buf, i, value);
			break;
		}
	}
	if (r == 0 && n_found != n)
		return -EINVAL;
	return r < 0 ? r : buf->len - before > PEER_MAX_QUESTION ? -E2BIG : 0;
}

int peer_fields_parse(const void *data, size_t size, struct peer_fields *ret)
{
	struct peer_fields f = { .text = malloc(size + PEER_N_FIELDS) };
	const uint8_t *p = data;
	size_t at = 0, used = 0;
	unsigned last = 0;

	if (!f.text)
		return -ENOMEM;
	for (unsigned i = 0; i < PEER_N_FIELDS; i++)
		f.value[i] = "";
	while (at < size) {
		unsigned i = p[at];
		size_t n;

		if (size - at < 4)
			break;
		n = (size_t)peer_get_le(p + at + 1, 3);
		if (i <= last || i >= PEER_N_FIELDS || n > size - at - 4 || memchr(p + at + 4, '\0', n) ||
		    memchr(p + at + 4, '\n', n))
			break;
		memcpy(f.text + used, p + at + 4, n);
		f.text[used + n] = '\0';
		f.value[i] = f.text + used;
		used += n + 1;
		at += 4 + n;
		last = i;
	}
	if (at != size || !*f.value[PATH]) {
		free(f.text);
		return -EBADMSG;
	}
	*ret = f;
	return 0;
}

void peer_fields_done(struct peer_fields *f)
{
	free(f->text);
	*f = (struct peer_fields){ 0 };
}

const char *peer_fields_path(const struct peer_fields *f)
{
	return f->value[PATH];
}

const char *peer_fields_header(const struct peer_fields *f, const char *name)
{
	for (unsigned i = PATH + 1; i < PEER_N_FIELDS; i++) {
		if (strcmp(field_names[i], name) == 0)
			return f->value[i];
	}
	return "";
}
