#!/bin/bash
# How much of a link the fetcher fills: a registry in a network namespace of its own behind a veth pair shaped to
# FETCH_RATE (1gbit), directly and with FETCH_RTT_MS (20) of round trip added by delay_proxy.py; over plain HTTP and over
# TLS with HTTP/2. JSON lines on standard output. Needs root, ip, tc, docker-registry.
set -u
cd "$(dirname "$0")/../.." || exit 1
fetch=${BUILD_DIR:-build/release}/tests/bench/fetch
rate=${FETCH_RATE:-1gbit} rtt=${FETCH_RTT_MS:-20} runs=${FETCH_RUNS:-3} mib=${FETCH_MIB:-256}
leave() {
	echo "bench_fetch.sh: $*" >&2
	exit 0
}
((EUID == 0)) || leave "not root"
for tool in ip tc docker-registry openssl python3 curl; do
	command -v $tool >/dev/null || leave "$tool is missing"
done
[[ -x $fetch ]] || leave "$fetch is not built"

work=$(mktemp -d "${TMPDIR:-/var/tmp}/bench-fetch-XXXXXX")
ns=bench-fetch-$$ veth=bf$$ net=10.$((100 + $$ % 100)).$(($$ / 100 % 250))
finish() {
	kill $(jobs -pr) 2>/dev/null
	wait
	ip link del "${veth}a" 2>/dev/null
	ip netns del "$ns" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT

ip netns add "$ns" && ip link add "${veth}a" type veth peer name "${veth}b" netns "$ns" || leave "no network namespaces here"
ip addr add "$net.1/24" dev "${veth}a" && ip link set "${veth}a" up
ip -n "$ns" addr add "$net.2/24" dev "${veth}b" && ip -n "$ns" link set "${veth}b" up && ip -n "$ns" link set lo up
tc -n "$ns" qdisc add dev "${veth}b" root tbf rate "$rate" burst 512kb latency 20ms || leave "no tbf here"

# registry NAME PORT TLS: one configuration, one store
registry() {
	cat >"$work/$1.yml" <<CONF
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/data}}
http: {addr: "0.0.0.0:$2"$3}
CONF
	ip netns exec "$ns" docker-registry serve "$work/$1.yml" >"$work/$1.log" 2>&1 &
}
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=bench -addext "subjectAltName=IP:$net.2,IP:$net.1,IP:127.0.0.1" \
	-keyout "$work/key" -out "$work/cert" >/dev/null 2>&1
registry plain 5000 ""
registry tls 5001 ", tls: {certificate: $work/cert, key: $work/key}"
# wait_for ADDRESS PORT
wait_for() {
	for _ in {1..100}; do
		(exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && return
		sleep 0.1
	done
	leave "nobody listens at $1:$2: $(tail -n 1 "$work"/*.log)"
}
wait_for "$net.2" 5000
wait_for "$net.2" 5001
python3 tests/bench/delay_proxy.py "$net.1:5000" "$net.2:5000" "$rtt" &
python3 tests/bench/delay_proxy.py "$net.1:5001" "$net.2:5001" "$rtt" &
wait_for "$net.1" 5000
wait_for "$net.1" 5001

# A blob of bytes that nothing makes smaller.
size=$((mib << 20))
head -c "$size" /dev/urandom >"$work/blob"
digest=sha256:$(sha256sum <"$work/blob" | cut -d' ' -f1)
place=$(curl -s -D - -o /dev/null -X POST "http://$net.2:5000/v2/bench/blobs/uploads/" | tr -d '\r' | awk 'tolower($1) == "location:" { print $2 }')
curl -sf -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$work/blob" "$place&digest=$digest" || leave "the blob cannot be sent"
rm "$work/blob"
limit=$(python3 -c 'import sys
t = sys.argv[1]
print(int(float(t.rstrip("gmkbit")) * {"g": 1e9, "m": 1e6, "k": 1e3}[t.lstrip("0123456789.")[0]] / 8 * 1448 / 1514))' "$rate")

# measure CASE ADDRESS MODE ARG...: the median of the runs
measure() {
	local name=$1 address=$2 mode=$3
	shift 3
	for ((i = 0; i < runs; i++)); do
		FETCH_CASE="$name" FETCH_LIMIT=$limit "$fetch" "$mode" "$address/bench" "$digest" "$size" "$@" || exit 1
	done | python3 -c 'import json, sys
lines = sorted((json.loads(l) for l in sys.stdin), key=lambda d: d["value"])
if lines: print(json.dumps(lines[len(lines) // 2]))'
}
for kind in ${FETCH_KINDS:-plain tls}; do
	port=5000
	unset FETCH_CA
	[[ $kind == tls ]] && port=5001 && export FETCH_CA=$work/cert
	for way in "near $net.2" "far $net.1"; do
		read -r how address <<<"$way"
		measure "$kind, $how: blob" "$address:$port" blob
		measure "$kind, $how: 2000 ranges of 64 KiB" "$address:$port" ranges 2000 65536
		measure "$kind, $how: 300 ranges of 64 KiB" "$address:$port" ranges 300 65536
		measure "$kind, $how: 100 ranges of 64 KiB, one by one" "$address:$port" touch 100 65536
		measure "$kind, $how: the same beside prefetch" "$address:$port" mix 100 65536
	done
done
