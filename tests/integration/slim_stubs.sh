#!/bin/bash
# Libraries that are loaded and used by nobody become stubs; the program runs; a call into a stub says what to keep, and
# --repair keeps it.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work

slim_install "$work/full" curl ca-certificates
run='curl --version'
"$SLIMTRACE" slim -q --root "$work/full" --run "$run" --out "$work/plain" >/dev/null || fail "plain"
"$SLIMTRACE" slim -q --root "$work/full" --run "$run" --stub-unbound --out "$work/stubs" >"$work/out" 2>&1 || fail "stubs: $(cat "$work/out")"
plain=$(slim_size "$work/plain") stubs=$(slim_size "$work/stubs")
echo "curl --version: $plain bytes, with stubs $stubs; $(grep '^stubs' "$work/out")"
((stubs + 1000000 < plain)) || fail "stubs bring less than 1 MB: $plain -> $stubs"
slim_root "$work/stubs" /usr/bin/curl --version 2>&1 | grep -q '^curl 7' || fail "curl does not run with stubs"

# a run that needs one of them: told, then repaired
check='curl -sS -u user:word --negotiate http://127.0.0.1:1/'
"$SLIMTRACE" slim -q --root "$work/full" --run "$run" --check 'curl -sS https://127.0.0.1:1/' --check "$check" --stub-unbound --repair \
	--out "$work/repaired" >"$work/out" 2>&1 || fail "not repaired: $(cat "$work/out")"

# Without a run: by who refers to whom. What Debian links is linked because it is referred to.
"$SLIMTRACE" slim -q --root "$work/full" --entry curl --stub-unbound --out "$work/static" >"$work/out" 2>&1 || fail "static: $(cat "$work/out")"
slim_root "$work/static" /usr/bin/curl --version 2>&1 | grep -q '^curl 7' || fail "curl does not run with stubs by references"
command -v gcc >/dev/null || { echo "gcc is missing: no libraries that are linked for nothing"; exit 0; }

# A program with libraries that are used in every way there is, and one that it is linked with for nothing.
SLIMTRACE=$(realpath "$SLIMTRACE")
cd "$work" && mkdir src && cd src || exit
lib() { # NAME SOURCE OPTION...
	echo "$2" >"$1.c"
	gcc -O1 -shared -fPIC -Wl,-soname,"lib$1.so.1" -o "lib$1.so.1" "$1.c" "${@:3}" 2>"$work/log" || fail "gcc: $(cat "$work/log")"
}
pad='static const char pad[50000] = { 1 }; const void *PAD(void) { return pad; }'
lib deep "${pad/PAD/pad_deep} int deep(void) { return 1; }"
lib used "int deep(void); ${pad/PAD/pad_used} int used(void) { return deep(); }" -L. -l:libdeep.so.1
lib indirect "${pad/PAD/pad_indirect} int of_nobody(void) { return 2; }"
lib idle "int of_nobody(void); ${pad/PAD/pad_idle} int idle(void) { return of_nobody(); }" -L. -l:libindirect.so.1
lib byname "${pad/PAD/pad_byname} int asked_for_by_name(void) { return 3; }"
lib opened "${pad/PAD/pad_opened} int inside(void) { return 4; }"
lib data "${pad/PAD/pad_data} int shared_number = 5;"
cat >prog.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
extern int shared_number;
int used(void);
int main(void)
{
	int (*by_name)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "asked_for_by_name");
	void *opened = dlopen("libopened.so.1", RTLD_NOW);
	int (*inside)(void) = opened ? (int (*)(void))dlsym(opened, "inside") : 0;

	printf("%d %d %d %d\n", used(), by_name ? by_name() : -1, inside ? inside() : -1, shared_number);
	return 0;
}
C
libs="-Wl,--no-as-needed -L. -l:libused.so.1 -l:libidle.so.1 -l:libbyname.so.1 -l:libopened.so.1 -l:libdata.so.1 -Wl,-rpath-link,."
for how in "-no-pie -fno-pic" "-pie -fPIE"; do
	gcc -O1 $how -o prog prog.c $libs 2>"$work/log" || fail "gcc: $(cat "$work/log")"
	cp prog "$work/full/usr/bin/prog"
	cp lib*.so.1 "$work/full/usr/lib/x86_64-linux-gnu/"
	rm -rf "$work/linked"
	"$SLIMTRACE" slim -q --root "$work/full" --entry prog --stub-unbound --check prog --out "$work/linked" --json >"$work/out" 2>"$work/err" ||
		fail "static ($how): $(tail -n 3 "$work/err")"
	have=$(slim_root "$work/linked" /usr/bin/prog)
	[[ $have == '1 3 4 5' ]] || fail "a program with stubs by references ($how) prints $have"
	for name in used deep byname opened data; do
		(($(stat -c %s "$work/linked/usr/lib/x86_64-linux-gnu/lib$name.so.1") > 50000)) || fail "lib$name became a stub ($how)"
	done
	for name in idle indirect; do
		(($(stat -c %s "$work/linked/usr/lib/x86_64-linux-gnu/lib$name.so.1") < 5000)) || fail "lib$name is used by nobody, and is no stub ($how)"
	done
done
exit 0
