#!/bin/bash
# The trace of `import numpy` in a root of real packages is complete: what Python and the loader themselves say they have
# opened is in it, and a root made of nothing but what it names runs the same command.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/root.sh"
slim_need_root
slim_repo
slim_full_root
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
numpy=(/usr/bin/python3 -B -c 'import numpy; print(numpy.linalg.inv([[2.0]]))')

# list TRACE ACCESS...: the paths, sorted.
list() {
	local file=$1
	shift
	awk -F'\t' -v want=" $* " 'index(want, " " $1 " ") { print $8 }' "$file" | sort -u
}

before=$(cd "$FULL" && find . -printf '%p %s %T@ %m\n' | sort | sha256sum)
out=$("$SLIMTRACE" trace --root "$FULL" -o "$work/t" -- "${numpy[@]}" 2>"$work/err") || fail "trace: $? $(<"$work/err")"
[[ $out == "[[0.5]]" ]] || fail "it printed $out"
[[ $(cd "$FULL" && find . -printf '%p %s %T@ %m\n' | sort | sha256sum) == "$before" ]] || fail "the root was changed"

# The counts found by other means: 166 to 168 files opened or executed, the loader among them.
n=$(list "$work/t" open exec kernel | grep -vc '^/dev/')
echo "opened, executed, by the kernel: $n files"
((n >= 166 && n <= 172)) || fail "$n files"
list "$work/t" kernel | grep -q '/ld-linux' || fail "the loader is missing"
list "$work/t" stat | grep -qx /usr/lib/python3.11/os.py || fail "the landmark os.py was not looked at"
list "$work/t" open | grep -qx /usr/lib/python3.11/os.py && fail "os.py is frozen and is not opened"

# Whichever way calls are told of: the same records in the same order, times apart.
"$SLIMTRACE" trace -q -m stops --root "$FULL" -o "$work/t5" -- "${numpy[@]}" >"$work/out" || fail "by stops: $?"
records() { cut -f 1-3,6- "$1"; }
(($(records "$work/t" | wc -l) > 400)) || fail "$(records "$work/t" | wc -l) records"
diff <(records "$work/t") <(records "$work/t5") >"$work/diff" || fail "notifications and stops differ: $(head -n 20 "$work/diff")"

# What the process says of itself.
"$SLIMTRACE" trace -q --root "$FULL" -o "$work/t2" -- /usr/bin/python3 -B -c 'import numpy, sys
for m in list(sys.modules.values()):
    f = getattr(m, "__file__", None)
    if f and not getattr(getattr(m, "__spec__", None), "origin", f) == "frozen":
        print(f)
for line in open("/proc/self/maps"):
    f = line.split(None, 5)[5:]
    if f and f[0].startswith("/"):
        print(f[0].strip())' >"$work/files" || fail "python"
sort -u "$work/files" >"$work/told"
list "$work/t2" open exec kernel >"$work/traced"
# Modules are named as they are imported, without the links on the way.
missing=$(comm -23 "$work/told" "$work/traced" | grep -vE '^/dev/' | while read -r f; do
	real=$(chroot "$FULL" /usr/bin/readlink -f "$f")
	grep -qxF -- "$real" "$work/traced" || grep -qxF -- "${f%.py}.py" <(list "$work/t2" stat) || echo "$f"
done)
[[ -z $missing ]] || fail "not in the trace: $missing"
(($(wc -l <"$work/told") > 100)) || fail "python told of too few files"

# A root of what the trace names.
mkdir "$work/root"
list "$work/t" open exec kernel stat readlink readdir | grep -v '^/dev/' | sed 's,^/,,; s,^$,.,' |
	(cd "$FULL" && while read -r f; do [[ -e $f || -L $f ]] && echo "$f"; done) >"$work/keep"
tar -C "$FULL" --no-recursion -cf - -T "$work/keep" | tar -C "$work/root" -xf - || fail "tar"
out=$("$SLIMTRACE" trace -q --root "$work/root" -o "$work/t3" -- "${numpy[@]}" 2>"$work/err") || fail "slim: $? $(<"$work/err")"
[[ $out == "[[0.5]]" && ! -s $work/err ]] || fail "in the slim root: $out $(<"$work/err")"
cmp -s <(list "$work/t" open exec kernel) <(list "$work/t3" open exec kernel) || fail "the slim root's trace opens other files"
echo "a root of $(wc -l <"$work/keep") paths, $(slim_size "$work/root") bytes, runs the same"
cp "$work/t" "${TRACE_KEEP:-/dev/null}" 2>/dev/null

# The second source sees the same files opened.
if "$SLIMTRACE" trace -q -m fanotify --root "$FULL" -o "$work/t4" -- "${numpy[@]}" >"$work/out" 2>"$work/err"; then
	diff <(list "$work/t" open exec kernel | grep -v ^/dev/) <(list "$work/t4" open exec kernel | grep -v ^/dev/) >"$work/diff" ||
		fail "fanotify and ptrace differ: $(<"$work/diff")"
	echo "fanotify: the same $(list "$work/t4" open exec kernel | wc -l) files"
else
	grep -qE 'fanotify' "$work/err" || fail "fanotify: $(<"$work/err")"
	echo "no fanotify here: $(<"$work/err")"
fi
echo "the trace of import numpy: all as expected"
