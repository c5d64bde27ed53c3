/* See wire.h. Numbers are little-endian; a frame's head is
 *
 *   0  1  form    1  3  zero    4  4  size    8  8  offset    16  8  inner */
#include "peer/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Frames --------------------------------------------------------------------------------------------------- */

void peer_frame_write(const struct peer_frame *f, uint8_t out[PEER_FRAME_SIZE])
{
	memset(out, 0, PEER_FRAME_SIZE);
	out[0] = (uint8_t)f->form;
	peer_put_le(out + 4, f->size, 4);
	peer_put_le(out + 8, f->offset, 8);
	peer_put_le(out + 16, f->inner, 8);
}

int peer_frame_parse(const uint8_t in[PEER_FRAME_SIZE], struct peer_frame *ret_frame)
{
	struct peer_frame f = { (enum peer_frame_form)in[0], (uint32_t)peer_get_le(in + 4, 4), peer_get_le(in + 8, 8),
		                peer_get_le(in + 16, 8) };
	bool has_data = in[0] >= PEER_FRAME_PACKED && in[0] <= PEER_FRAME_ZSTD;

	if (in[0] < PEER_FRAME_PACKED || in[0] > PEER_FRAME_END || in[1] || in[2] || in[3])
		return -EBADMSG;
	if (has_data ? f.size == 0 || f.size > FLIP_PEER_MAX_PIECE : f.size != 0)
		return -EBADMSG;
	if (f.offset > INT64_MAX || f.inner > INT64_MAX)
		return -EBADMSG;
	*ret_frame = f;
	return 0;
}

void peer_stream_init(struct peer_stream *s, uint64_t max)
{
	*s = (struct peer_stream){ .max = max };
}

void peer_stream_done(struct peer_stream *s)
{
	free(s->data);
	*s = (struct peer_stream){ 0 };
}

/* The head is whole: room for what follows. */
static int begin_frame(struct peer_stream *s)
{
	int r = peer_frame_parse(s->head, &s->frame);

	if (r < 0 || s->frame.size > s->max)
		return -EBADMSG;
	s->max -= s->frame.size;
	s->n_data = 0;
	if (s->frame.size > s->cap) {
		uint8_t *p = realloc(s->data, s->frame.size);

		if (!p)
			return -ENOMEM;
		s->data = p;
		s->cap = s->frame.size;
	}
	return 0;
}

int peer_stream_take(struct peer_stream *s, const void *data, size_t size, peer_frame_fn each, void *arg)
{
	const uint8_t *p = data;
	int r = 0;

	while (size && r == 0) {
		bool in_head = s->n_head < PEER_FRAME_SIZE;
		size_t want = in_head ? PEER_FRAME_SIZE - s->n_head : s->frame.size - s->n_data;
		size_t n = size < want ? size : want;

		if (s->has_ended)
			return -EBADMSG; /* nothing follows the end */
		if (in_head) {
			memcpy(s->head + s->n_head, p, n);
			s->n_head += n;
			if (s->n_head == PEER_FRAME_SIZE)
				r = begin_frame(s);
		} else {
			memcpy(s->data + s->n_data, p, n);
			s->n_data += n;
		}
		p += n;
		size -= n;
		if (r == 0 && s->n_head == PEER_FRAME_SIZE && s->n_data == s->frame.size) {
			s->has_ended = s->frame.form == PEER_FRAME_END;
			s->n_head = 0;
			r = each(arg, &s->frame, s->data);
		}
	}
	return r;
}

/* ---- Ranges --------------------------------------------------------------------------------------------------- */

static int number(const char **p, uint64_t *ret)
{
	uint64_t v = 0;
	unsigned n = 0;

	for (; **p >= '0' && **p <= '9'; (*p)++) {
		if (++n > 18)
			return -EBADMSG;
		v = v * 10 + (uint64_t)(**p - '0');
	}
	*ret = v;
	return n ? 0 : -EBADMSG;
}

int peer_ranges_parse(const char *text, struct flip_range *ranges, size_t max, uint64_t limit, size_t *ret_n)
{
	uint64_t before = 0, total = 0;
	size_t n = 0;

	if (strncmp(text, "bytes=", 6) != 0)
		return -EBADMSG;
	text += 6;
	for (;;) {
		uint64_t first, last;

		if (n == max || number(&text, &first) < 0 || *text++ != '-' || number(&text, &last) < 0)
			return -EBADMSG;
		if (last < first || (n && first < before))
			return -EBADMSG;
		total += last - first + 1;
		if (total > limit)
			return -EBADMSG;
		ranges[n++] = (struct flip_range){ first, last - first + 1 };
		before = last + 1;
		if (*text == '\0')
			break;
		if (*text++ != ',')
			return -EBADMSG;
	}
	*ret_n = n;
	return 0;
}

int peer_ranges_write(const struct flip_range *ranges, size_t n, struct base_buf *buf)
{
	(void)base_buf_puts(buf, "bytes=");
	for (size_t i = 0; i < n; i++)
		(void)base_buf_printf(buf, "%s%llu-%llu", i ? "," : "", (unsigned long long)ranges[i].offset,
		                      (unsigned long long)(ranges[i].offset + ranges[i].size - 1));
	return base_buf_error(buf);
}

/* ---- Names ---------------------------------------------------------------------------------------------------- */

bool peer_name_is_valid(const char *name)
{
	static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
	const char *p = name;
	size_t n;
	unsigned port = 0;

	if (strlen(name) >= FLIP_PEER_NAME)
		return false;
	if (*p == '[') {
		n = strspn(p + 1, "0123456789abcdefABCDEF:.%");
		p += n + 1;
		if (!n || *p++ != ']')
			return false;
	} else {
		n = strspn(p, set);
		p += n;
		if (!n)
			return false;
	}
	if (*p++ != ':' || !*p || strspn(p, "0123456789") != strlen(p) || strlen(p) > 5)
		return false;
	for (; *p; p++)
		port = port * 10 + (unsigned)(*p - '0');
	return port > 0 && port < 65536;
}

int peer_name_next(const char **p, char ret[FLIP_PEER_NAME])
{
	char name[FLIP_PEER_NAME];
	size_t n;

	*p += strspn(*p, ", ");
	if (!**p)
		return 0;
	n = strcspn(*p, ", ");
	if (n >= sizeof(name))
		return -EBADMSG;
	memcpy(name, *p, n);
	name[n] = '\0';
	if (!peer_name_is_valid(name))
		return -EBADMSG;
	*p += n;
	memcpy(ret, name, n + 1);
	return 1;
}

bool peer_digest_is_valid(const char *digest)
{
	return strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 71 &&
	       strspn(digest + 7, "0123456789abcdef") == 64;
}
