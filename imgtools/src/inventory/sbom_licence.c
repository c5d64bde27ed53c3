/* Licence tags. RPM packages of today carry SPDX expressions, older ones "GPLv2+ and MIT" or anything; only what is
 * certainly an expression is called one, the rest is quoted as the package says it. The list holds the identifiers
 * that distributions use most (SPDX licence list 3.23); one that is missing costs a quotation, nothing else. */
#include <ctype.h>
#include <string.h>

#include "sbom_internal.h"

static const char *const known[] = {
	"0BSD",
	"AFL-2.1",
	"AFL-3.0",
	"AGPL-3.0-only",
	"AGPL-3.0-or-later",
	"Apache-1.1",
	"Apache-2.0",
	"Artistic-1.0",
	"Artistic-1.0-Perl",
	"Artistic-2.0",
	"BSD-1-Clause",
	"BSD-2-Clause",
	"BSD-2-Clause-Patent",
	"BSD-3-Clause",
	"BSD-3-Clause-LBNL",
	"BSD-4-Clause",
	"BSD-4-Clause-UC",
	"BSD-Source-Code",
	"BSL-1.0",
	"CC-BY-3.0",
	"CC-BY-4.0",
	"CC-BY-SA-3.0",
	"CC-BY-SA-4.0",
	"CC0-1.0",
	"CDDL-1.0",
	"CECILL-2.1",
	"CPL-1.0",
	"EPL-1.0",
	"EPL-2.0",
	"EUPL-1.2",
	"FSFAP",
	"FSFUL",
	"FSFULLR",
	"FTL",
	"GFDL-1.1-or-later",
	"GFDL-1.2-or-later",
	"GFDL-1.3-only",
	"GFDL-1.3-or-later",
	"GPL-1.0-only",
	"GPL-1.0-or-later",
	"GPL-2.0-only",
	"GPL-2.0-or-later",
	"GPL-3.0-only",
	"GPL-3.0-or-later",
	"HPND",
	"ICU",
	"IJG",
	"ISC",
	"Intel-ACPI",
	"LGPL-2.0-only",
	"LGPL-2.0-or-later",
	"LGPL-2.1-only",
	"LGPL-2.1-or-later",
	"LGPL-3.0-only",
	"LGPL-3.0-or-later",
	"Libpng",
	"libpng-2.0",
	"LPPL-1.3c",
	"MIT",
	"MIT-0",
	"MIT-CMU",
	"MIT-open-group",
	"MPL-1.1",
	"MPL-2.0",
	"MS-PL",
	"NCSA",
	"NTP",
	"OFL-1.1",
	"OLDAP-2.8",
	"OpenSSL",
	"PHP-3.01",
	"PSF-2.0",
	"PostgreSQL",
	"Python-2.0",
	"Python-2.0.1",
	"Ruby",
	"SISSL",
	"SMLNJ",
	"SSPL-1.0",
	"TCL",
	"UPL-1.0",
	"Unicode-3.0",
	"Unicode-DFS-2016",
	"Unlicense",
	"Vim",
	"W3C",
	"WTFPL",
	"X11",
	"Zlib",
	"ZPL-2.1",
	"blessing",
	"bzip2-1.0.6",
	"curl",
	"mpich2",
	"zlib-acknowledgement",
};
static const char *const exceptions[] = {
	"Autoconf-exception-2.0", "Autoconf-exception-3.0", "Bison-exception-2.2",      "Classpath-exception-2.0",
	"Font-exception-2.0",     "GCC-exception-2.0",      "GCC-exception-3.1",        "GNU-compiler-exception",
	"LLVM-exception",         "Libtool-exception",      "Linux-syscall-note",       "OpenSSL-exception",
	"SWI-exception",          "u-boot-exception-2.0",   "x11vnc-openssl-exception",
};

static bool is_in(const char *const *list, size_t n, const char *word, size_t len)
{
	for (size_t i = 0; i < n; i++) {
		if (strlen(list[i]) == len && memcmp(list[i], word, len) == 0)
			return true;
	}
	return false;
}

static bool is_word(const char *word, size_t len, const char *text)
{
	return strlen(text) == len && memcmp(word, text, len) == 0;
}

/* "(" and ")" around, AND, OR, WITH between identifiers (SPDX specification 2.3, annex D). */
bool img_sbom_is_expression(const char *text)
{
	enum { WANT_LICENCE, WANT_OPERATOR, WANT_EXCEPTION } state = WANT_LICENCE;
	bool may_with = false;
	int depth = 0;

	while (*text) {
		size_t len;

		if (*text == ' ') {
			text++;
			continue;
		}
		if (*text == '(' || *text == ')') {
			if (state != (*text == '(' ? WANT_LICENCE : WANT_OPERATOR))
				return false;
			depth += *text == '(' ? 1 : -1;
			if (depth < 0)
				return false;
			may_with = false;
			text++;
			continue;
		}
		len = strcspn(text, " ()");
		if (state == WANT_LICENCE) {
			if (!is_in(known, sizeof(known) / sizeof(*known), text, len))
				return false;
			state = WANT_OPERATOR;
			may_with = true;
		} else if (state == WANT_EXCEPTION) {
			if (!is_in(exceptions, sizeof(exceptions) / sizeof(*exceptions), text, len))
				return false;
			state = WANT_OPERATOR;
			may_with = false;
		} else if (is_word(text, len, "WITH") && may_with) {
			state = WANT_EXCEPTION;
		} else if (is_word(text, len, "AND") || is_word(text, len, "OR")) {
			state = WANT_LICENCE;
		} else {
			return false;
		}
		text += len;
	}
	return state == WANT_OPERATOR && depth == 0;
}
