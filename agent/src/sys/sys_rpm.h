/* librpm, opened at run time: the functions that the readers of packages use. */
#ifndef AG_SYS_RPM_H
#define AG_SYS_RPM_H

#include <rpm/rpmdb.h>
#include <rpm/rpmfi.h>
#include <rpm/rpmio.h>
#include <rpm/rpmlib.h>
#include <rpm/rpmlog.h>
#include <rpm/rpmmacro.h>
#include <rpm/rpmts.h>
#include <rpm/rpmver.h>

#include "sys/sys_internal.h"

#define RPM_FUNCTIONS(X)      \
	X(rpmReadConfigFiles) \
	X(rpmExpand)          \
	X(rpmDefineMacro)     \
	X(rpmlogSetMask)      \
	X(rpmtsCreate)        \
	X(rpmtsFree)          \
	X(rpmtsSetRootDir)    \
	X(rpmtsSetVSFlags)    \
	X(rpmtsInitIterator)  \
	X(rpmtsCloseDB)       \
	X(rpmdbNextIterator)  \
	X(rpmdbFreeIterator)  \
	X(headerGetString)    \
	X(headerGetNumber)    \
	X(rpmvercmp)          \
	X(Fopen)              \
	X(Fread)              \
	X(Ferror)             \
	X(Fclose)             \
	X(rpmfiNew)           \
	X(rpmfiFree)          \
	X(rpmfiNext)          \
	X(rpmfiFN)            \
	X(rpmfiFFlags)        \
	X(rpmfiVerify)

struct rpm {
#define X(f) __typeof__(&f) f;
	RPM_FUNCTIONS(X)
#undef X
};

/* What an update would bring, by the package manager's cached metadata (sys_updates.c): fills out["updates"]. */
void ag_sys_updates(const struct rpm *rpm, const struct sys_ctx *ctx, rpmts ts, json_t *out);

#endif
