/* The formats of JSON Schema (draft 2020-12, 7.3) as regular expressions, each a part of what its RFC allows that every
 * validator takes. Dates know the lengths of months and leap years. */
#include <string.h>

#include "grammar/schema_internal.h"

#define YEAR "(\\d\\d\\d[1-9]|\\d\\d[1-9]\\d|\\d[1-9]\\d\\d|[1-9]\\d\\d\\d)"
#define LEAP_YEAR "(\\d\\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                                          \
	"(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))" \
	"|" LEAP_YEAR "-02-29)"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define LABEL "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
#define HOSTNAME LABEL "(\\." LABEL "){0,3}"
/* Without the limit of 63: it would make a state of every character, and no mail address ends there. */
#define DOMAIN "[a-zA-Z0-9]+(-+[a-zA-Z0-9]+)*(\\.[a-zA-Z0-9]+(-+[a-zA-Z0-9]+)*)*"
#define OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4 OCTET "(\\." OCTET "){3}"
#define H16 "[0-9a-fA-F]{1,4}"
#define LS32 "(" H16 ":" H16 "|" IPV4 ")"
#define IPV6                                                                                                         \
	"((" H16 ":){6}" LS32 "|::(" H16 ":){5}" LS32 "|(" H16 ")?::(" H16 ":){4}" LS32 "|((" H16 ":){0,1}" H16      \
	")?::(" H16 ":){3}" LS32 "|((" H16 ":){0,2}" H16 ")?::(" H16 ":){2}" LS32 "|((" H16 ":){0,3}" H16 ")?::" H16 \
	":" LS32 "|((" H16 ":){0,4}" H16 ")?::" LS32 "|((" H16 ":){0,5}" H16 ")?::" H16 "|((" H16 ":){0,6}" H16      \
	")?::)"
#define ATEXT "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]"
#define PCHAR "([a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"
#define AUTHORITY "([a-zA-Z0-9._~-]+(:[a-zA-Z0-9._~-]*)?@)?([a-zA-Z0-9.-]+|\\[" IPV6 "\\])(:\\d{1,5})?"
#define TAIL "(\\?(" PCHAR "|[/?])*)?(#(" PCHAR "|[/?])*)?"
#define URI "[a-zA-Z][a-zA-Z0-9+.-]*:(//" AUTHORITY "(/" PCHAR "*)*|/?" PCHAR "+(/" PCHAR "*)*)" TAIL
#define DURATION                                                                                              \
	"P(\\d+W|(\\d+Y(\\d+M(\\d+D)?)?|\\d+M(\\d+D)?|\\d+D)(T(\\d+H(\\d+M(\\d+S)?)?|\\d+M(\\d+S)?|\\d+S))?|" \
	"T(\\d+H(\\d+M(\\d+S)?)?|\\d+M(\\d+S)?|\\d+S))"

static const struct {
	const char *name, *regex; /* "" : not supported */
} formats[] = {
	{ "date", DATE },
	{ "time", TIME },
	{ "date-time", DATE "T" TIME },
	{ "duration", DURATION },
	{ "email", ATEXT "+(\\." ATEXT "+)*@" DOMAIN },
	{ "hostname", HOSTNAME },
	{ "ipv4", IPV4 },
	{ "ipv6", IPV6 },
	{ "uuid", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}" },
	{ "uri", URI },
	{ "uri-reference", "(" URI "|(/?" PCHAR "+)?(/" PCHAR "*)*" TAIL ")" },
	{ "json-pointer", "(/([^~/]|~[01])*)*" },
	{ "relative-json-pointer", "(0|[1-9]\\d*)(#|(/([^~/]|~[01])*)*)" },
	{ "idn-email", "" },
	{ "idn-hostname", "" },
	{ "iri", "" },
	{ "iri-reference", "" },
	{ "uri-template", "" },
	{ "regex", "" },
};

const char *gr_schema_format(const char *name)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (strcmp(formats[i].name, name) == 0)
			return formats[i].regex;
	}
	return NULL;
}
