/* The small encodings of gRPC over HTTP/2: status codes, percent-encoded messages, timeouts, the prefix of a message.
 * (Protocol: "gRPC over HTTP2" in the gRPC project's documents.) */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/chars.h"
#include "grpc_internal.h"

/* The first row of a status is what it becomes on our side. */
static const struct {
	int error;
	enum flip_grpc_status status;
} statuses[] = {
	{ ECANCELED, FLIP_GRPC_CANCELLED },
	{ EINVAL, FLIP_GRPC_INVALID_ARGUMENT },
	{ EBADMSG, FLIP_GRPC_INVALID_ARGUMENT },
	{ ENAMETOOLONG, FLIP_GRPC_INVALID_ARGUMENT },
	{ ETIMEDOUT, FLIP_GRPC_DEADLINE_EXCEEDED },
	{ ENOENT, FLIP_GRPC_NOT_FOUND },
	{ EEXIST, FLIP_GRPC_ALREADY_EXISTS },
	{ EACCES, FLIP_GRPC_PERMISSION_DENIED },
	{ EPERM, FLIP_GRPC_PERMISSION_DENIED },
	{ ENOSPC, FLIP_GRPC_RESOURCE_EXHAUSTED },
	{ EDQUOT, FLIP_GRPC_RESOURCE_EXHAUSTED },
	{ ENOMEM, FLIP_GRPC_RESOURCE_EXHAUSTED },
	{ EFBIG, FLIP_GRPC_RESOURCE_EXHAUSTED },
	{ EMFILE, FLIP_GRPC_RESOURCE_EXHAUSTED },
	{ EBUSY, FLIP_GRPC_FAILED_PRECONDITION },
	{ ENOTEMPTY, FLIP_GRPC_FAILED_PRECONDITION },
	{ ENOTSUP, FLIP_GRPC_UNIMPLEMENTED },
	{ ENOSYS, FLIP_GRPC_UNIMPLEMENTED },
	{ EIO, FLIP_GRPC_INTERNAL },
	{ EAGAIN, FLIP_GRPC_UNAVAILABLE },
	{ ECONNREFUSED, FLIP_GRPC_UNAVAILABLE },
	{ ECONNRESET, FLIP_GRPC_UNAVAILABLE },
	{ EHOSTUNREACH, FLIP_GRPC_UNAVAILABLE },
	{ ENETUNREACH, FLIP_GRPC_UNAVAILABLE },
};

enum flip_grpc_status flip_grpc_status_of(int errno_negative)
{
	if (errno_negative >= 0)
		return FLIP_GRPC_OK;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
		if (statuses[i].error == -errno_negative)
			return statuses[i].status;
	}
	return FLIP_GRPC_UNKNOWN;
}

int flip_grpc_errno_of(unsigned status)
{
	if (status == FLIP_GRPC_OK)
		return 0;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
		if (statuses[i].status == status)
			return -statuses[i].error;
	}
	return -EIO;
}

void flip_grpc_percent_encode(const char *text, char *ret_text, size_t size)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t n = 0;

	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c >= ' ' && *c <= '~' && *c != '%') {
			if (n + 1 >= size)
				break;
			ret_text[n++] = (char)*c;
			continue;
		}
		if (n + 3 >= size)
			break;
		ret_text[n++] = '%';
		ret_text[n++] = digits[*c >> 4];
		ret_text[n++] = digits[*c & 15];
	}
	ret_text[n] = '\0';
}

void flip_grpc_percent_decode(const char *text, size_t len, char *ret_text, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 1 < size; i++) {
		if (text[i] == '%' && i + 2 < len && base_hex_value(text[i + 1]) >= 0 &&
		    base_hex_value(text[i + 2]) >= 0) {
			ret_text[n++] = (char)(base_hex_value(text[i + 1]) << 4 | base_hex_value(text[i + 2]));
			i += 2;
		} else {
			ret_text[n++] = text[i];
		}
	}
	ret_text[n] = '\0';
}

int flip_grpc_timeout_parse(const char *text, size_t len, uint64_t *ret_ns)
{
	static const struct {
		char unit;
		uint64_t ns;
	} units[] = {
		{ 'n', 1 },          { 'u', 1000 },           { 'm', 1000000 },
		{ 'S', 1000000000 }, { 'M', 60000000000ull }, { 'H', 3600000000000ull },
	};
	uint64_t n = 0;

	if (len < 2 || len > 9) /* at most eight digits */
		return -EBADMSG;
	for (size_t i = 0; i + 1 < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EBADMSG;
		n = n * 10 + (uint64_t)(text[i] - '0');
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (units[i].unit == text[len - 1]) {
			/* Thousands of years of hours are as good as centuries. */
			*ret_ns = n > UINT64_MAX / 4 / units[i].ns ? UINT64_MAX / 4 : n * units[i].ns;
			return 0;
		}
	}
	return -EBADMSG;
}

void flip_grpc_put_prefix(uint8_t prefix[FLIP_GRPC_PREFIX], size_t size)
{
	prefix[0] = 0; /* not compressed */
	for (unsigned i = 0; i < 4; i++)
		prefix[1 + i] = (uint8_t)(size >> (24 - 8 * i));
}

size_t flip_grpc_get_size(const uint8_t prefix[FLIP_GRPC_PREFIX])
{
	return (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];
}

int flip_grpc_address(const char *path, struct sockaddr_un *ret_address, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len == 0 || len >= sizeof(a.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: a socket's path has 1 to %zu bytes", path,
		               sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, len);
	*ret_address = a;
	return 0;
}
