#!/bin/bash
# What goes wrong in practice, for the daemon as a whole: a registry that is slow, corrupt, cut short, wants another token
# or is not there; a full disk; a session that cannot be gone on with; kill -9 at random points. Never a wrong byte; an
# error only for the reads of that time; the same mount reads everything right when the fault is over.
#
# FLIP_KILLS=200 for more kills than 25; FLIP_SEED for the same ones again; FLIP_ONLY="faults full session kills": by default the faults of
# the registry; flip_kills.sh does the rest.
set -u
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD_DIR:-build/release}")
flip=$build/bin/flip
here=tests/integration/flip
n_kills=${FLIP_KILLS:-25}
seed=${FLIP_SEED:-$$}
parts=${FLIP_ONLY:-faults}
skip() { echo "$*"; exit 77; }
fail() {
	echo "FAIL: $*"
	for log in "$work"/flip.log "$work"/out "$work"/proxy.log; do
		[[ -s $log ]] && echo "--- ${log##*/}" && tail -n 12 "$log"
	done
	[[ -n ${FLIP_KEEP:-} ]] && cp -a "$work/flip.log" "$FLIP_KEEP"
	exit 1
}
((EUID == 0)) || skip "not root: no mounts"
[[ -c /dev/fuse ]] || skip "no /dev/fuse"
for tool in docker-registry skopeo umoci python3 mkfs.ext4; do
	command -v $tool >/dev/null || skip "$tool is missing"
done

work=$(mktemp -d /var/tmp/flip-faults.XXXXXX)
end_holders() {
	# Each daemon's holder runs in a session of its own: told by the socket it listens at.
	for sock in "$work"/*/holder.sock "$work"/small/*/holder.sock; do
		[[ -S $sock ]] && python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.send(b"E")
s.recv(1)' "$sock" 2>/dev/null
	done
}
finish() {
	kill ${registry:-} ${proxy:-} ${reader:-} ${doing:-} 2>/dev/null
	kill -9 ${daemon:-} 2>/dev/null
	wait 2>/dev/null
	end_holders
	awk -v d="$work/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n1 umount -l 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT

# ---- The image, a registry, a proxy in front of it -----------------------------------------------------------------

mkdir -p "$work/tree" "$work/mnt"
python3 - "$work/tree" <<'PY' || fail "no tree"
import os, random, sys
root = sys.argv[1]
random.seed(5)
for d in range(10):
    os.makedirs(f"{root}/d{d}")
    for i in range(20):
        with open(f"{root}/d{d}/f{i:02d}", "wb") as f:
            f.write(random.randbytes(random.choice((0, 100, 4096, 5000, 30000, 100000))))
with open(f"{root}/large", "wb") as f:
    for i in range(20):
        f.write(random.randbytes(1 << 19) + bytes(random.choices(b"abcd", k=1 << 19)))
os.link(f"{root}/large", f"{root}/d3/large-too")
os.link(f"{root}/d1/f03", f"{root}/d2/again")
os.symlink("large", f"{root}/link")
PY
python3 - "$work" <<'PY' || fail "no image"
import gzip, hashlib, json, os, subprocess, sys
work = sys.argv[1]
blobs = f"{work}/image/blobs/sha256"
os.makedirs(blobs)
def blob(data):
    h = hashlib.sha256(data).hexdigest()
    open(f"{blobs}/{h}", "wb").write(data)
    return {"digest": "sha256:" + h, "size": len(data)}
tar = subprocess.run(["tar", "-C", f"{work}/tree", "--numeric-owner", "--sort=name", "--format=pax", "-cf", "-", "."],
                     stdout=subprocess.PIPE, check=True).stdout
oci = "application/vnd.oci.image."
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/large"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]}}).encode()
manifest = json.dumps({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
    "config": {"mediaType": oci + "config.v1+json", **blob(config)},
    "layers": [{"mediaType": oci + "layer.v1.tar+gzip", **blob(gzip.compress(tar, 1, mtime=0))}]}).encode()
open(f"{work}/image/index.json", "w").write(json.dumps({"schemaVersion": 2, "manifests": [
    {"mediaType": oci + "manifest.v1+json", **blob(manifest), "platform": {"architecture": "amd64", "os": "linux"},
     "annotations": {"org.opencontainers.image.ref.name": "a"}}]}))
open(f"{work}/image/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
PY

port=$((20000 + RANDOM % 20000))
proxy_port=$((port + 1))
cat >"$work/registry.yml" <<Y
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: '127.0.0.1:$port'}
Y
answers() { # PORT
	for _ in {1..200}; do
		(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
		sleep 0.05
	done
	return 1
}
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry=$!
answers $port || skip "the registry does not start: $(<"$work/registry.log")"
start_proxy() {
	python3 $here/faulty_proxy.py $proxy_port $port "$work/mode" >>"$work/proxy.log" 2>&1 &
	proxy=$!
	answers $proxy_port || fail "the proxy does not start"
}
fault() { echo "$*" >"$work/mode.new" && mv "$work/mode.new" "$work/mode"; }
fault none
start_proxy
skopeo copy -q --dest-tls-verify=false "oci:$work/image:a" "docker://127.0.0.1:$port/img:plain" || fail "push"
"$flip" convert --no-prefetch -f zstd-chunked "oci:$work/image:a" "docker://127.0.0.1:$port/img:zstd" >/dev/null || fail "convert to zstd:chunked"
"$flip" convert --no-prefetch -f estargz "oci:$work/image:a" "docker://127.0.0.1:$port/img:gzip" >/dev/null || fail "convert to eStargz"
# One whose list names everything, so that its prefetch brings it all.
(cd "$work/tree" && echo "flip-prefetch 1" && find . -type f -printf '/%P 0 -\n') >"$work/list"
"$flip" convert -p "$work/list" -f zstd-chunked "oci:$work/image:a" "docker://127.0.0.1:$port/img:listed" >"$work/out" 2>&1 || fail "convert with a list"
at=127.0.0.1:$proxy_port/img

# ---- The daemon ------------------------------------------------------------------------------------------------------

export FLIP_RETRIES=1 FLIP_STALL=1 FLIP_MIN_FREE=1M FLIP_RECORD=false
node=$work/n0
spawn_flip() {
	"$flip" snapshotter --root "$node" --socket "$work/flip.sock" --control "$work/control.sock" >>"$work/flip.log" 2>&1 &
	daemon=$!
}
start_flip() {
	spawn_flip
	for _ in {1..400}; do
		kill -0 $daemon 2>/dev/null || fail "flip does not start"
		"$flip" stat --control "$work/control.sock" >/dev/null 2>&1 && return
		sleep 0.05
	done
	fail "flip does not answer"
}
# A command's diagnostics are its own business here; what it must have done is checked.
ask() { local verb=$1; shift; "$flip" "$verb" --control "$work/control.sock" "$@" >"$work/out" 2>&1; }
stat_of() { "$flip" stat --json --control "$work/control.sock" | python3 -c "import json,sys; d=json.load(sys.stdin); print(d['$1']['$2'])"; }
kill_flip() { # hard; the shell's own words about it are not wanted
	kill -9 $daemon
	wait $daemon 2>/dev/null
	daemon=
}
# The end of a node: its mounts and its holder, too.
end_node() {
	[[ -n ${daemon:-} ]] || return 0
	awk -v d="$work/mnt" '$2 == d' /proc/self/mounts | grep -q . && { ask unmount "$work/mnt" || umount -l "$work/mnt"; }
	kill $daemon
	wait $daemon || fail "flip ended with $?"
	daemon=
	awk -v d="$node/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n1 umount -l
}
n_nodes=0
fresh_node() { # nothing in its store, nothing in the page cache
	end_node
	[[ $n_nodes -gt 2 ]] && rm -rf "$node/objects" "$node/partial"
	node=$work/n$((++n_nodes))
	start_flip
}
read_all() { $here/read_all.py "$work/tree/${2:-}" "$work/mnt/${2:-}" "${1:-32}" $RANDOM; } # THREADS FOLDER
equal() { "$build/tests/tools/flip_tree" compare "$work/tree" "$work/mnt" >"$work/out" 2>&1 || fail "$1: the tree is not what it was made of"; }
clean() { ask fsck || fail "$1: fsck: $(<"$work/out")"; }

# ---- Faults of the registry --------------------------------------------------------------------------------------------

# try EXPECTED KIND FAULT...: EXPECTED is "right" (reads wait and succeed), "error" (some fail, with EIO) or "any" of both.
try() {
	local expected=$1 kind=$2 folder= pid code
	shift 2
	[[ $1 == stall || $* == "status 429" ]] && folder=d0 # each takes its seconds
	fault none
	fresh_node
	pid=$daemon
	ask mount "$at:$kind" "$work/mnt" || fail "$*: mount"
	fault "$@"
	[[ $1 == down ]] && { kill $proxy; wait $proxy 2>/dev/null; }
	read_all 32 $folder >"$work/reads"
	code=$?
	case $expected.$code in
	right.0 | error.3 | any.0 | any.3) ;;
	*) cat "$work/reads"; fail "$kind, $*: expected $expected, got $code" ;;
	esac
	[[ $code == 0 ]] || grep -q '(EIO)$' "$work/reads" || fail "$*: other errors than EIO: $(<"$work/reads")"
	kill -0 $pid 2>/dev/null || fail "$*: the daemon is gone"
	[[ $1 == down ]] && start_proxy
	[[ $1 == token ]] || fault none
	equal "$kind after $*"
	kill -0 $pid 2>/dev/null || fail "$*: the daemon is gone"
	clean "$*"
	printf '%-6s %-14s %s\n' "$kind" "$*" "$(<"$work/reads")"
}
if [[ $parts == *faults* ]]; then
	try right zstd slow 4000000
	try right zstd token first
	try error zstd flip 3000
	try error gzip flip 3000
	try error zstd cut 1000
	try error zstd short 1
	try error zstd stall 1000
	try error zstd shift
	try error zstd lie
	try error gzip page
	try any gzip every 500
	try error zstd status 500
	try error zstd status 429
	try error gzip status 401
	try error zstd status 404
	try error zstd refuse
	try error gzip down
	try right zstd whole

	# The token changes while the image is read: each time once more, without an error.
	fault token one
	fresh_node
	ask mount "$at:zstd" "$work/mnt" || fail "token: mount"
	read_all 4 >"$work/reads" &
	reader=$!
	for name in two three four five; do
		sleep 0.1
		fault token $name
	done
	wait $reader || fail "tokens: $(<"$work/reads")"
	equal "tokens"

	# What cannot be mounted says why, and can be a moment later.
	for how in "page" "status 500" "flip 100" "cut 10" "refuse"; do
		fault $how
		fresh_node
		for kind in zstd plain; do
			ask mount "$at:$kind" "$work/mnt" && fail "$how: $kind was mounted"
			[[ -s $work/out ]] || fail "$how: no word why"
		done
		fault none
		for kind in zstd plain; do
			ask mount "$at:$kind" "$work/mnt" || fail "after $how: $kind is not mounted"
			equal "$kind, mounted after $how"
			ask unmount "$work/mnt"
		done
		clean "after $how"
	done

	# A registry that is gone: a line now and then, not one for each chunk.
	fresh_node
	ask mount "$at:zstd" "$work/mnt" || fail "mount"
	fault status 500
	before=$(wc -l <"$work/flip.log")
	read_all >"$work/reads" && fail "reads without a registry"
	lines=$(($(wc -l <"$work/flip.log") - before))
	errors=$(stat_of reads errors)
	((errors > 50 && lines < 30)) || fail "$lines lines for $errors failed reads"
	fault none
	equal "after the log"
	echo "$errors failed reads made $lines lines"
fi

# ---- A full disk -----------------------------------------------------------------------------------------------------------

if [[ $parts == *full* ]]; then
	fault none
	truncate -s 64M "$work/disk"
	mkfs.ext4 -q -O ^has_journal -m 0 "$work/disk" || fail "mkfs"
	mkdir "$work/small"
	mount -o loop "$work/disk" "$work/small" || skip "no loop device"
	for kind in zstd plain; do
		end_node
		node=$work/small/$kind
		start_flip
		pid=$daemon
		if [[ $kind == zstd ]]; then
			ask mount "$at:zstd" "$work/mnt" || fail "full: mount"
			fallocate -l $(($(stat -f -c "%a*%S" "$work/small") - 6000000)) "$work/small/fill" || fail "fallocate"
			read_all >"$work/reads"
			code=$?
			((code == 3)) || fail "full: expected errors, got $code: $(<"$work/reads")"
			grep -qE '\((EIO|ENOSPC|EIO ENOSPC)\)$' "$work/reads" || fail "full: $(<"$work/reads")"
			kill -0 $pid || fail "full: the daemon is gone"
			clean "full"
			rm "$work/small/fill"
		else
			end_holders
			rm -rf "$work/small/zstd"
			fallocate -l $(($(stat -f -c "%a*%S" "$work/small") - 6000000)) "$work/small/fill" || fail "fallocate"
			ask mount "$at:plain" "$work/mnt" && fail "full: unpacked"
			grep -q "space" "$work/out" || fail "full: no word of space: $(<"$work/out")"
			kill -0 $pid || fail "full: the daemon is gone"
			clean "full"
			rm "$work/small/fill"
			ask mount "$at:plain" "$work/mnt" || fail "mount after there was room: $(<"$work/out")"
		fi
		equal "$kind after there was room"
		clean "$kind after there was room"
		printf '%-6s %-14s %s\n' $kind "disk full" "$([[ $kind == zstd ]] && cat "$work/reads")"
	done
	end_node
	end_holders
	umount -l "$work/small"
fi

# ---- A session that cannot be gone on with -----------------------------------------------------------------------------------

if [[ $parts == *session* ]]; then
	fault none
	for how in state descriptor silent; do
		fresh_node
		ask mount "$at:zstd" "$work/mnt" || fail "$how: mount"
		read_all >"$work/reads" || fail "$how: $(<"$work/reads")"
		kill_flip
		case $how in
		state) # what was noted in /run is lost
			sum=$(printf %s "$(realpath "$node")" | sha256sum | cut -c1-16)
			[[ -f /run/flip/session-$sum ]] || fail "no state"
			rm "/run/flip/session-$sum"
			;;
		descriptor | silent) # the holder has something else, or says nothing that can be understood
			python3 - "$node/holder.sock" $how <<'PY' || fail "no other holder"
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
fd = os.open("/dev/null" if sys.argv[2] == "descriptor" else "/dev/fuse", os.O_RDWR)
s.sendmsg([b"P"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
assert s.recv(1) == b"K"
PY
			;;
		esac
		start_flip
		# What was mounted over the lost session is lost; a new mount works.
		umount -l "$work/mnt" 2>/dev/null
		ask mount "$at:zstd" "$work/mnt" || fail "$how: mount anew: $(<"$work/out")"
		equal "$how lost"
		# And the new session is one that can be gone on with.
		kill_flip
		start_flip
		read_all >"$work/reads" || fail "$how, next start: $(<"$work/reads")"
		clean "$how"
		echo "session: $how lost, mounted anew"
	done
fi

# ---- kill -9 ---------------------------------------------------------------------------------------------------------------

wait_ms() { sleep "$(printf '0.%03d' "$1")"; }
is_mounted() { awk -v d="$1" '$2 == d' /proc/self/mounts | grep -q .; }
mounted() { is_mounted "$work/mnt" || ask mount "$at:$1" "$work/mnt" || fail "round $round: $1 is not mounted: $(<"$work/out")"; }
empty() { # nothing mounted, nothing stored
	! is_mounted "$work/mnt" || ask unmount "$work/mnt" || fail "round $round: unmount: $(<"$work/out")"
	ask gc --all || fail "round $round: gc: $(<"$work/out")"
}
if [[ $parts == *kills* ]]; then
	fault none
	RANDOM=$seed
	echo "kills: seed $seed"
	fresh_node
	declare -A rounds=()
	for ((round = 1; round <= n_kills; round++)); do
		ms=$((5 + RANDOM % 396))
		kinds=(zstd gzip listed plain)
		kind=${kinds[RANDOM % 3]}
		whats=(read read unpack gc convert prefetch mount)
		what=${whats[RANDOM % 7]}
		((round == 1 || RANDOM % 4)) && empty
		rounds[$what]=$((${rounds[$what]:-0} + 1))
		reader= doing=
		case $what in
		read)
			mounted $kind
			read_all 8 >"$work/reads" 2>&1 &
			reader=$!
			;;
		unpack | prefetch | mount)
			[[ $what == unpack ]] && kind=plain
			[[ $what == prefetch ]] && kind=listed
			empty
			"$flip" mount --control "$work/control.sock" "$at:$kind" "$work/mnt" >/dev/null 2>&1 &
			doing=$!
			;;
		gc)
			mounted $kind
			read_all 8 >"$work/reads" || fail "round $round: $(<"$work/reads")"
			ask unmount "$work/mnt" || fail "round $round: unmount"
			"$flip" gc --all --control "$work/control.sock" >/dev/null 2>&1 &
			doing=$!
			ms=$((ms / 8))
			;;
		convert)
			mounted $kind
			rm -rf "$work/converted"
			# umoci, which judges the result, reads no zstd.
			"$flip" convert -f estargz "oci:$work/image:a" "oci:$work/converted:new" >/dev/null 2>&1 &
			doing=$!
			;;
		esac
		wait_ms $ms
		if [[ $what == convert ]]; then
			kill -9 $doing 2>/dev/null
			wait $doing 2>/dev/null
			if skopeo inspect --raw "oci:$work/converted:new" >/dev/null 2>&1; then
				rm -rf "$work/unpacked"
				umoci unpack --rootless --image "$work/converted:new" "$work/unpacked" >"$work/out" 2>&1 || fail "round $round: half an image"
				diff -r "$work/tree" "$work/unpacked/rootfs" >"$work/out" || fail "round $round: another image"
			fi
			"$flip" convert "oci:$work/image:a" "oci:$work/converted:new" >"$work/out" 2>&1 || fail "round $round: no conversion after a kill: $(<"$work/out")"
			ms=$((ms / 2))
			wait_ms $ms
		fi
		kill_flip
		[[ -n $doing ]] && wait $doing 2>/dev/null
		start_flip
		if [[ -n $reader ]]; then
			wait $reader || fail "round $round ($what $kind, $ms ms): a reader over the kill: $(<"$work/reads")"
		fi
		mounted $kind
		read_all 16 >"$work/reads" || fail "round $round ($what $kind, $ms ms): $(<"$work/reads")"
		clean "round $round ($what $kind, $ms ms)"
		((round % 5)) || equal "round $round ($what $kind, $ms ms)"
	done
	for what in "${!rounds[@]}"; do
		echo "kill -9: $what ${rounds[$what]}"
	done
fi
end_node
grep -E "Sanitizer|runtime error" "$work/flip.log" >"$work/out" && fail "$(<"$work/out")"
echo "done: $parts"
