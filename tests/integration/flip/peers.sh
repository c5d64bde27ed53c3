# Sourced after lib.sh by what needs several nodes: each in a network namespace of its own, one link each to one router, a
# registry behind a link of the same rate. Nodes share this machine's mounts, so that what they show can be compared here.
#
#   net_up N [RATE]         namespaces 1..N, the registry's and a router's; RATE as tc has it ("200mbit"), "" for none
#   in_ns NAME COMMAND...   there;   spawn_in NAME COMMAND... there, in the background: $spawned
#   start_cluster_registry  docker-registry at $at_registry; out_of_registry prints the bytes that its link has carried
#   member I                the name of node I among members; members_list N all of them
#   start_etcd              etcd beside the registry, at $etcd_at; its process is $etcd, its data stay when it is started again
#   start_node I [VAR=VALUE...]  its daemon, with the environment's configuration; waits for its answer; node_pid[I]; with
#                           NODE_RESOLV=FILE, a resolv.conf of its own, it has mounts of its own, too
#   shown_by I              where to read here what is mounted at $work/mntI by node I
#   all_come N I...         until each node knows N members; named_by I prints how many it knows
#   start_node_containerd I, node_ctr I ARGUMENT...   a containerd of its own in its namespace, with its daemon as snapshotter
#   run_on I NAME IMAGE COMMAND...   the image made known by flip pull and run once; what it printed is in $work/said.NAME
#   node_ctl I VERB ARGUMENT...   asks its daemon;   node_stat I GROUP NAME; node_peers I NAME: a count of `flip peers`
#   has_noted I KIND [DATA]  whether node I keeps such a note (its store's) for members that come later
#   start_bad I HOW         a member that is none (bad-peer.py): $spawned
#   came_once BYTES OF PER_CENT WHAT I...   whether so many bytes left their origin for what weighs OF, which nodes I have
net=f$$
node_pid=()
at_registry=10.86.0.250:5000
token=

net_up() {
	local i n=$1 rate=${2:-}
	for tool in ip tc nsenter; do
		command -v $tool >/dev/null || skip "$tool is missing"
	done
	ip netns add "$net-hub" 2>/dev/null || skip "no network namespaces here"
	trap 'net_down; finish' EXIT
	in_ns hub sysctl -qw net.ipv4.ip_forward=1 2>/dev/null || in_ns hub bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
	for i in $(seq 1 "$n") r; do
		ip netns add "$net-$i" || fail "no namespace"
		# Routed, not bridged: not every kernel has bridges.
		ip link add name "p$i" netns "$net-hub" type veth peer name eth0 netns "$net-$i" 2>/dev/null || skip "no veth here"
		ip -n "$net-hub" addr add 10.86.255.254/32 dev "p$i"
		ip -n "$net-hub" link set "p$i" up
		ip -n "$net-hub" route add "$(address "$i")/32" dev "p$i"
		ip -n "$net-$i" link set lo up
		ip -n "$net-$i" addr add "$(address "$i")/32" dev eth0
		ip -n "$net-$i" link set eth0 up
		ip -n "$net-$i" route add 10.86.255.254 dev eth0
		ip -n "$net-$i" route add default via 10.86.255.254
		[[ -z $rate ]] && continue
		# Both ways: what it sends, and what is sent to it.
		ip netns exec "$net-$i" tc qdisc add dev eth0 root tbf rate "$rate" burst 128kb latency 100ms &&
			ip netns exec "$net-hub" tc qdisc add dev "p$i" root tbf rate "$rate" burst 128kb latency 100ms ||
			skip "links cannot be shaped here"
	done
	token=$work/token
	(umask 077; head -c 32 /dev/urandom | base64 >"$token")
}
net_down() {
	local ns
	for ns in $(ip netns list 2>/dev/null | awk -v p="$net-" 'index($1, p) == 1 { print $1 }'); do
		ip netns del "$ns"
	done
}
in_ns() { # the network's alone: mounts stay this machine's
	local ns=$1
	shift
	nsenter --net="/run/netns/$net-$ns" "$@"
}
spawn_in() { # NAME COMMAND...: in the background; its process, not a shell around it, in $spawned, to end with the test
	local ns=$1
	shift
	nsenter --net="/run/netns/$net-$ns" "$@" &
	spawned=$!
	keep $spawned
}
address() { [[ $1 == r ]] && echo 10.86.0.250 || echo "10.86.$(($1 / 200)).$(($1 % 200 + 1))"; }
member() { echo "$(address "$1"):8422${2:+@$2}"; }
members_list() { # N
	local i list=
	for i in $(seq 1 "$1"); do
		list+=${list:+,}$(member "$i")
	done
	echo "static:$list"
}

start_cluster_registry() {
	cat >"$work/registry.yml" <<Y
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: '0.0.0.0:5000'}
${1:-}
Y
	spawn_in r docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1
	registry=$spawned
	listens_in r 5000 $registry || fail "the registry does not start: $(<"$work/registry.log")"
}
# listens_in NAME PORT PID: waits until that process does, there.
listens_in() {
	until_true eval "! kill -0 $3 || in_ns $1 bash -c 'exec 3<>/dev/tcp/127.0.0.1/$2'" && kill -0 "$3" 2>/dev/null
}
out_of_registry() { in_ns r cat /proc/net/dev | awk '$1 == "eth0:" { print $10 }'; }
push_to_cluster() { # LAYOUT TAG: past the shaped link
	in_ns r skopeo copy -q --dest-tls-verify=false "oci:$1:$2" "docker://127.0.0.1:5000/img:$2" || fail "push $2"
}

etcd_at=http://10.86.0.250:2379 etcd=
start_etcd() {
	spawn_in r etcd --data-dir "$work/etcd" --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls $etcd_at \
		--listen-peer-urls http://127.0.0.1:2380 --log-level error >>"$work/etcd.log" 2>&1
	etcd=$spawned
}

node_root=() # where the mounts of those are that have their own
start_node() { # I VAR=VALUE...
	local i=$1
	shift
	nodes+=("$work/n$i")
	env FLIP_PEERS_PRESSURE=100 FLIP_INSECURE=true FLIP_RETRIES=1 FLIP_STALL=10 FLIP_PEERS_LISTEN=0.0.0.0:8422 FLIP_PEERS_ADVERTISE="$(member "$i")" \
		FLIP_PEERS_TOKEN_FILE="$token" FLIP_PEERS_MEMBERS="${members:-}" "$@" \
		nsenter --net="/run/netns/$net-$i" ${NODE_RESOLV:+unshare -m --propagation slave bash -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$NODE_RESOLV"} "$flip" snapshotter --root "$work/n$i" --socket "$work/n$i.sock" \
		--control "$work/n$i.control" --log-level "${log_level:-info}" >>"$work/n$i.log" 2>&1 &
	node_pid[i]=$!
	node_root[i]=${NODE_RESOLV:+/proc/$!/root}
	keep $!
	mkdir -p "$work/mnt$i"
	until_true eval "! kill -0 ${node_pid[i]} || node_ctl $i stat >/dev/null" || fail "node $i does not answer"
	kill -0 "${node_pid[i]}" 2>/dev/null || fail "node $i does not start: $(tail -n 3 "$work/n$i.log")"
}
shown_by() { echo "${node_root[$1]:-}$work/mnt$1"; }

# ---- containerd on a node ----------------------------------------------------------------------------------------------

node_containerd=()
start_node_containerd() { # I
	local i=$1
	cat >"$work/c$i.toml" <<T
version = 2
root = "$work/c$i/root"
state = "$work/c$i/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$work/c$i.sock"
[ttrpc]
  address = "$work/c$i.ttrpc"
T
	"$flip" setup containerd --config "$work/c$i.toml" --socket "$work/n$i.sock" >/dev/null || fail "setup of node $i"
	spawn_in "$i" containerd --config "$work/c$i.toml" --log-level warn >>"$work/c$i.log" 2>&1
	node_containerd[i]=$spawned
	until_true eval "! kill -0 ${node_containerd[i]} || node_ctr $i version >/dev/null" ||
		fail "containerd of node $i does not answer: $(tail -n 1 "$work/c$i.log")"
	kill -0 "${node_containerd[i]}" 2>/dev/null || skip "containerd does not run here: $(tail -n 1 "$work/c$i.log")"
}
node_ctr() { # I ARGUMENT...
	local i=$1
	shift
	command ctr --address "$work/c$i.sock" -n $namespace "$@"
}
pull_on() { # I IMAGE
	FLIP_CONTROL=$work/n$1.control FLIP_INSECURE=true FLIP_RETRIES=1 FLIP_STALL=10 \
		in_ns "$1" "$flip" pull -q --address "$work/c$1.sock" --namespace $namespace "$2"
}
run_on() { # I NAME IMAGE COMMAND...
	local i=$1 name=$2 image=$3
	shift 3
	rm -f "$work/said.$name"
	pull_on "$i" "$image" && node_ctr "$i" run --rm --log-uri "file://$work/said.$name" --snapshotter flip "$image" "$name" "$@"
}
end_node_containerds() { # and what they have; before end_nodes
	local i
	for i in "${!node_containerd[@]}"; do
		kill $(children "${node_containerd[i]}") 2>/dev/null
		wait "${node_containerd[i]}" 2>/dev/null
		pkill_named "$work/c$i.sock"
		unmount_below "$work/c$i"
		throw_away "$work/c$i" "$work/c$i.log"
	done
	node_containerd=()
}
# Shims that a containerd left behind: of ours by the socket on their command lines.
pkill_named() { kill -9 $(grep -lsaF "$1" /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -vx $$) 2>/dev/null; }

# ---- Partitions --------------------------------------------------------------------------------------------------------

# part A B: what one of them sends to the other is lost, without a word, both ways. A and B are nodes, or r.
part() { in_ns hub ip rule add iif "p$1" to "$(address "$2")" blackhole && in_ns hub ip rule add iif "p$2" to "$(address "$1")" blackhole; }
heal() { in_ns hub ip rule del iif "p$1" to "$(address "$2")" blackhole; in_ns hub ip rule del iif "p$2" to "$(address "$1")" blackhole; }

kill_node() { # I: as a crash does
	end_child "${node_pid[$1]}" -9
}
node_ctl() {
	local i=$1 verb=$2
	shift 2
	"$flip" "$verb" --control "$work/n$i.control" "$@"
}
node_stat() { node_ctl "$1" stat --json | python3 -c "import json,sys; print(json.load(sys.stdin)['$2']['$3'])"; }
node_peers() { node_ctl "$1" peers --json | python3 -c "import json,sys; print(json.load(sys.stdin)['counts']['$2'])"; }
named_by() { node_ctl "$1" peers --json | python3 -c 'import json,sys; print(sum(m["named"] for m in json.load(sys.stdin)["members"]))'; }
all_come() { # N I...
	local n=$1 i
	shift
	for i in "$@"; do
		until_true eval "[[ \$(named_by $i) == $n ]]" || fail "node $i knows $(named_by "$i") members, not $n: $(tail -n 3 "$work/n$i.log")"
	done
}
start_bad() { # I HOW
	spawn_in "$1" python3 $here/bad-peer.py 8422 "$2"
	listens_in "$1" 8422 $spawned || fail "the bad peer has ended by itself"
}
# What node I has noted for those who come when the registry is away: what images and references were, and whether anybody
# may have them, which it asks by itself when something was had.
has_noted() { # I KIND [DATA]; of a copy: the daemon has its database for itself
	rm -f "$work"/notes.db*
	cp "$work/n$1/store.db" "$work/notes.db" && cp "$work/n$1/store.db-wal" "$work/notes.db-wal" && python3 -c '
import sqlite3, sys
notes = sqlite3.connect(sys.argv[1]).execute("SELECT data FROM note WHERE kind = ?", sys.argv[2:3]).fetchall()
sys.exit(not any(not sys.argv[3] or n[0] == sys.argv[3].encode() for n in notes))' "$work/notes.db" "$2" "${3:-}"
}
failures_of() { # I...: how often these have found a member failing
	local i
	for i in "$@"; do
		node_ctl "$i" peers --json
		echo
	done | python3 -c '
import json, sys
d, s, n = json.JSONDecoder(), sys.stdin.read().strip(), 0
while s:
    o, at = d.raw_decode(s)
    n += sum(m["failures"] for m in o["members"])
    s = s[at:].lstrip()
print(n)'
}
# Each piece has one owner, who alone asks the origin: so it leaves that once. On a machine that stands still for seconds
# members take each other for gone, and the next in rank asks too: then, and only then, it may be more, but no more than
# they say they have asked for, and well below what it were without members.
came_once() { # BYTES OF PER_CENT WHAT I...
	local bytes=$1 of=$2 most=$(($2 * $3 / 100 + 300000)) what=$4 i asked=0 failures
	shift 4
	echo "$what: $((bytes * 100 / of)) % left its origin"
	((bytes < most)) && return
	failures=$(failures_of "$@")
	for i in "$@"; do
		asked=$((asked + $(node_stat "$i" reads origin_own_bytes) + $(node_stat "$i" reads origin_relayed_bytes) + $(node_stat "$i" reads origin_instead_bytes)))
	done
	((failures > 0 && bytes < asked * 11 / 10 + 300000 && bytes < of * ($# + 1) / 2)) ||
		fail "$what: $bytes bytes left the origin of $of, $asked were asked for, $failures members failed"
	echo "$what: $failures times a member was taken for gone"
}
# Whether node I has left out the member of this name, and why; it may be tried again by now.
was_left_out() { # I NAME
	node_ctl "$1" peers --json | python3 -c "import json,sys; sys.exit(not any(m['name'] == '$2' and m['failures'] and m.get('why') for m in json.load(sys.stdin)['members']))"
}
# Removing a store takes the disk longer than the next round should wait.
n_thrown=0
throw_away() {
	local to=$work/thrown.$((n_thrown += 1))
	mkdir "$to" && mv "$@" "$to/"
	rm -rf --one-file-system "$to" &
}
end_nodes() { # their mounts and stores too, for the next round
	local i
	grep -h -E "ERROR: |runtime error:|WARNING: ThreadSanitizer" "$work"/n*.log && fail "a sanitizer has spoken"
	for i in "${!node_pid[@]}"; do
		umount -l "$work/mnt$i" 2>/dev/null
		kill $(children "${node_pid[i]}") 2>/dev/null
		wait "${node_pid[i]}" 2>/dev/null
		end_holder "$work/n$i"
		unmount_below "$work/n$i"
		rm -f "$(session_of "$work/n$i")"
		throw_away "$work/n$i" "$work/n$i.log"
	done
	node_pid=()
}
