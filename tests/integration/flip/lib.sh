# Sourced by flip's integration tests: a folder, a registry, a containerd and daemons of the test's own, and an end that
# leaves nothing behind, no process, mount, file or session, whether the test passed, failed or was stopped. It runs in a
# network of its own, so that no port that it chooses is anybody else's.
#
#   begin NAME [TOOL...]        root, /dev/fuse and the tools, or the test is skipped; makes $work, and $TMPDIR in it
#   next_port VARIABLE          a port of 127.0.0.1 to listen at;   answers PORT [PID]   waits until somebody does
#   until_true COMMAND...       waits until the command succeeds, for two minutes at most
#   start_registry              docker-registry at 127.0.0.1:$port with its data below $work; $registry is its process
#   start_proxy                 a proxy in front of it at $proxy_port; `fault HOW` tells it what to do; $proxy is its process
#   start_flip [ARGUMENT...]    a daemon with its store at $node, at $work/flip.sock and $work/control.sock; waits for
#                               its answer; $daemon is its process
#   kill_flip                   hard, as a crash does
#   containerd_config           writes $work/config.toml, for others to add to
#   start_containerd            with that configuration; `ctr` asks it, in $namespace; $containerd is its process
#   ctl VERB ARGUMENT...        asks the daemon by flip's own command; stat_of SECTION KEY prints one of its numbers
#   keep PID                    ends with the test;   end_child PID [SIGNAL]   ends now, and is waited for
#   redialled, collect_garbage  containerd after the daemon was away; idle: nothing is being fetched
#   layout_of DIR TAG FOLDER... an OCI layout of ordinary layers
set -u
if [[ -z ${FLIP_TEST_NETWORK:-} ]] && unshare --net ip link set lo up 2>/dev/null; then
	FLIP_TEST_NETWORK=own exec unshare --net bash -c 'ip link set lo up && exec bash "$@"' bash "$(realpath "$0")" "$@"
fi
network=${FLIP_TEST_NETWORK:-}
unset FLIP_TEST_NETWORK
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
build=$(realpath "${BUILD_DIR:-build/release}")
flip=$build/bin/flip
here=tests/integration/flip
work=
registry= containerd= daemon=
namespace=t$$ # containerd's: runc's state and control groups are the machine's, by namespace and name
kept=()       # processes
nodes=()      # stores, each with a session and a holder of its own

skip() {
	echo "$*"
	exit 77
}
fail() {
	local log
	echo "FAIL: $*"
	for log in "$work"/flip.log "$work"/containerd.log "$work"/proxy.log "$work"/out; do
		[[ -s $log ]] && echo "--- ${log##*/}" && tail -n 12 "$log"
	done
	[[ -n ${FLIP_KEEP:-} && -d $work ]] && cp -a "$work"/*.log "$FLIP_KEEP/"
	exit 1
}
keep() { kept+=("$@"); }
# Of what must come by itself the test says no time: this one is for what never comes, on any machine.
until_true() { # COMMAND...
	local end=$((SECONDS + 120))
	until "$@" 2>/dev/null; do
		((SECONDS < end)) || return 1
		sleep 0.05
	done
}

# ---- The end ---------------------------------------------------------------------------------------------------------

# Each daemon's holder runs in a session of its own: told by the socket it listens at.
end_holder() { # NODE
	[[ -S $1/holder.sock ]] && python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.send(b"E")
s.recv(1)' "$1/holder.sock" 2>/dev/null
}
session_of() { echo "/run/flip/session-$(printf %s "$1" | sha256sum | cut -c1-16)"; } # NODE
unmount_below() { awk -v d="$1/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -d '\n' -n1 umount -l 2>/dev/null; }
# What names a file of ours on its command line: shims of containerd, helpers of helpers.
ours() { grep -lsaF "$work/" /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -vx $$; }
# Those of the processes that are still children of ours: the number of one that ended may be somebody else's by now.
children() {
	local pid
	for pid in "$@"; do
		[[ $(cat "/proc/$pid/stat" 2>/dev/null) =~ \)\ [A-Z]\ ([0-9]+) ]] && ((BASH_REMATCH[1] == $$)) && echo "$pid"
	done
}
end_child() { # PID [SIGNAL]; returns how it ended
	local pid
	pid=$(children "$1")
	{ [[ -n $pid ]] && kill "${2:--TERM}" "$pid"; wait "$1"; } 2>/dev/null
}
finish() {
	local node task
	trap - EXIT
	[[ -d $work ]] || return
	if [[ -n $containerd ]]; then
		# Whoever stops a test stops containerd with it, and gives us ten seconds: `ctr` would wait as long.
		for task in $(timeout 2 ctr --address "$work/containerd.sock" -n $namespace tasks ls -q 2>/dev/null); do
			timeout 2 ctr --address "$work/containerd.sock" -n $namespace tasks kill -s KILL "$task"
		done >/dev/null 2>&1
	fi
	end_child "$daemon" -9
	kill $(children $containerd $registry ${kept[@]+"${kept[@]}"}) 2>/dev/null
	for _ in {1..40}; do
		[[ -z $(jobs -pr) ]] && break
		sleep 0.05
	done
	kill -9 $(jobs -pr) 2>/dev/null
	wait 2>/dev/null
	for node in ${nodes[@]+"${nodes[@]}"}; do
		end_holder "$node"
	done
	kill -9 $(ours) 2>/dev/null
	unmount_below "$work"
	for node in ${nodes[@]+"${nodes[@]}"}; do
		rm -f "$(session_of "$node")"
	done
	rm -rf --one-file-system "$work" "/run/containerd/runc/$namespace"
	rmdir /sys/fs/cgroup{,/*}/$namespace{/*,} 2>/dev/null
}

begin() { # NAME TOOL...
	local name=$1 tool
	shift
	[[ -x $flip ]] || skip "no $flip"
	((EUID == 0)) || skip "not root: no mounts, no containers"
	[[ -c /dev/fuse ]] || skip "no /dev/fuse"
	for tool in python3 "$@"; do
		command -v "$tool" >/dev/null || skip "$tool is missing"
	done
	# Not where TMPDIR is, which may be in memory: a store wants a file system of the host.
	work=$(mktemp -d "/var/tmp/$name.XXXXXX") || skip "no folder in /var/tmp"
	node=$work/flip
	mkdir "$work/tmp" "$work/mnt"
	export TMPDIR=$work/tmp
	trap finish EXIT
	trap 'exit 143' INT TERM
}

# ---- Registry, daemon, containerd ------------------------------------------------------------------------------------

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT
answers() { # PORT [PID, which ends the wait when it ends]
	until_true eval "listens $1 ${2:+|| ! kill -0 $2}" && listens "$1"
}
# Below those that the kernel gives to whoever connects.
ports=20000
next_port() { # VARIABLE
	if [[ $network == own ]]; then
		printf -v "$1" %d $((ports++))
	else
		printf -v "$1" %s "$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
	fi
}
port=
start_registry() {
	[[ -n $port ]] || next_port port
	cat >"$work/registry.yml" <<Y
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: '127.0.0.1:$port'}
Y
	docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
	registry=$!
	answers "$port" $registry || fail "the registry does not start: $(<"$work/registry.log")"
	at=127.0.0.1:$port/img
}
stop_registry() {
	end_child "$registry"
	registry=
}

# A way to it that can be slow, lie or be gone; `fault` says what it does from now on, faulty_proxy.py what there is.
proxy= proxy_port=
fault() { echo "$*" >"$work/mode.new" && mv "$work/mode.new" "$work/mode"; }
start_proxy() {
	[[ -n $proxy_port ]] || next_port proxy_port
	[[ -e $work/mode ]] || fault none
	python3 $here/faulty_proxy.py "$proxy_port" "$port" "$work/mode" >>"$work/proxy.log" 2>&1 &
	proxy=$!
	keep $proxy
	answers "$proxy_port" $proxy || fail "the proxy does not start"
}

start_flip() {
	[[ " ${nodes[*]-} " == *" $node "* ]] || nodes+=("$node")
	"$flip" snapshotter --root "$node" --socket "$work/flip.sock" --control "$work/control.sock" "$@" >>"$work/flip.log" 2>&1 &
	daemon=$!
	until_true eval "! kill -0 $daemon || ctl stat >/dev/null" || fail "flip does not answer"
	kill -0 $daemon 2>/dev/null || fail "flip does not start"
}
kill_flip() {
	end_child "$daemon" -9
	daemon=
}
stop_flip() { # its mounts stay
	end_child "$daemon" || fail "flip ended with $?"
	daemon=
}
ctl() {
	local verb=$1
	shift
	"$flip" "$verb" --control "$work/control.sock" "$@"
}
# stat_is SECTION KEY == 0: whether it is so. Of a daemon that is too busy to answer nothing is known.
stat_is() {
	local value
	value=$(stat_of "$1" "$2") && [[ -n $value ]] && ((value $3 $4))
}
stat_of() { ctl stat --json | python3 -c "import json,sys; d=json.load(sys.stdin); print(d['$1']['$2'])"; }

ctr() { command ctr --address "$work/containerd.sock" -n $namespace "$@"; }
containerd_config() {
	cat >"$work/config.toml" <<T
version = 2
root = "$work/ctrd/root"
state = "$work/ctrd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$work/containerd.sock"
T
}
start_containerd() { # with $work/config.toml when it is there
	[[ -e $work/config.toml ]] || containerd_config
	containerd --config "$work/config.toml" --log-level warn >>"$work/containerd.log" 2>&1 &
	containerd=$!
	until_true eval "! kill -0 $containerd || ctr version >/dev/null" || fail "containerd does not answer: $(tail -n 1 "$work/containerd.log")"
	kill -0 $containerd 2>/dev/null || skip "containerd does not run here: $(tail -n 1 "$work/containerd.log")"
}

# After the daemon was away. containerd dials again after a pause of its own, up to 3 s, and what it asks meanwhile fails at
# once; also its collection of garbage, which then takes our snapshots for done: it looks at them again when one of them
# was removed since. This waits until it has dialled, by something made and removed.
redialled() {
	until_true made_and_removed || fail "containerd does not find the daemon: $(ctr snapshots --snapshotter flip prepare redialled 2>&1)"
}
made_and_removed() {
	ctr snapshots --snapshotter flip prepare redialled >/dev/null
	ctr snapshots --snapshotter flip rm redialled >/dev/null
}
# containerd's collection of garbage, to its end.
collect_garbage() {
	redialled
	ctr leases create --id collect >/dev/null && ctr leases delete --sync collect >/dev/null || fail "no lease"
}
# Until nothing is under way any more: what comes after a collection would be found left.
idle() {
	until_true stat_is reads loads == 0 || fail "$(stat_of reads loads) chunks are under way all the time"
}

layout_of() { # DIR TAG FOLDER...
	python3 tests/bench/make_oci.py "$@" || fail "no image $2"
}
