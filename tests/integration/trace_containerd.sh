#!/bin/bash
# A container that containerd starts is watched from its first file on, by name, and its trace has the container's paths.
set -u
. "$(dirname "$0")/slim/repo.sh"
slim_need_root
for tool in containerd ctr runc; do
	command -v $tool >/dev/null || skip "$tool is missing"
done
slim_repo
work=$(mktemp -d)
finish() {
	kill $(jobs -pr) 2>/dev/null
	wait
	umount -l "$work"/state/io.containerd.runtime.v2.task/*/*/rootfs 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT

"$SLIMTRACE" cut --repo "$REPO" --out "oci:$work/image:latest" /bin/busybox >"$work/log" 2>&1 || fail "cut: $(tail -n 1 "$work/log")"
tar -C "$work/image" -cf "$work/image.tar" .
cat >"$work/config.toml" <<CONF
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/sock"
CONF
containerd -c "$work/config.toml" >"$work/daemon" 2>&1 &
daemon=$!
ctr=(ctr -a "$work/sock")
for _ in {1..1200}; do
	"${ctr[@]}" version >/dev/null 2>&1 && break
	kill -0 $daemon 2>/dev/null || skip "containerd does not run here: $(tail -n 1 "$work/daemon")"
	sleep 0.1
done
"${ctr[@]}" image import --base-name test/busybox "$work/image.tar" >"$work/log" 2>&1 || fail "import: $(tail -n 2 "$work/log")"
image=$("${ctr[@]}" image ls -q | head -n 1)
id=trace-$$
"${ctr[@]}" run --rm "$image" "$id-try" /bin/busybox true >"$work/log" 2>&1 || skip "no containers here: $(tail -n 1 "$work/log")"

out=$(timeout 300 "$SLIMTRACE" trace --container "$id" -o "$work/t" -- \
	"${ctr[@]}" run --rm "$image" "$id" /bin/busybox sh -c '/bin/busybox cat /etc/passwd /proc/version >/dev/null; echo ran') ||
	fail "trace: $? $out"
[[ $out == *ran* ]] || fail "the container printed $out"
for want in "exec /usr/bin/busybox" "kernel .*/ld-linux" "open .*/libc.so.6"; do
	awk -F'\t' '{ print $1 " " $8 }' "$work/t" | grep -qE "^$want" || fail "no $want in: $(<"$work/t")"
done
grep -q "$work" "$work/t" && fail "a path of the host in the trace"
for _ in {1..600}; do
	[[ -z $(find "$work/state" -name rootfs -path "*/$id/*" 2>/dev/null) ]] && break
	sleep 0.1
done
[[ -z $(find "$work/state" -name rootfs -path "*/$id/*") ]] || fail "the container's folder is still there"
echo "a container, watched: $(grep -c '^open' "$work/t") opened"
