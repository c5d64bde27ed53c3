#!/bin/bash
# Members that know each other by certificates, found by a name of the DNS; certificates of another authority, expired ones and none
# at all, refused and named; certificates replaced while everything runs; and two zones, between which each piece travels once; a
# member that is slow to answer what somebody reads, and another one that is asked instead.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
. "$(dirname "$0")/flip/herd.sh"
begin flip-peers-secure docker-registry skopeo openssl
net_up 6 200mbit

herd_ready 16
"$flip" convert -f zstd-chunked --no-prefetch "oci:$work/plain:t" "oci:$work/unlisted:n" >/dev/null || fail "convert"
push_to_cluster "$work/unlisted" n

why_of() { # I NAME: why node I has left NAME out
	node_ctl "$1" peers --json | python3 -c "import json,sys; print(next((m.get('why') or '' for m in json.load(sys.stdin)['members'] if m['name'] == '$2'), ''))"
}

# ---- Certificates --------------------------------------------------------------------------------------------------------

authority() { # NAME
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/$1.key" -out "$work/$1.pem" -days 2 \
		-subj "/CN=$1" 2>/dev/null || fail "openssl"
}
certify() { # AUTHORITY FILE I [DAYS]; by day -1 and before: expired
	local dates=(-days "${4:-2}")
	[[ ${4:-2} == -* ]] && dates=(-not_before 20200101000000Z -not_after 20200201000000Z)
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/$2.key.new" -out "$work/$2.csr" -subj "/CN=node $3" 2>/dev/null &&
		printf 'subjectAltName=IP:%s\n' "$(address "$3")" >"$work/$2.ext" || fail "openssl"
	if [[ ${4:-2} == -* ]]; then # `openssl ca` alone can set the dates
		mkdir -p "$work/ca" && : >"$work/ca/index.txt" && echo 1000 >"$work/ca/serial"
		openssl ca -batch -notext -md sha256 -config <(printf '[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=%s\ndatabase=%s\nserial=%s\npolicy=p\n[p]\ncommonName=supplied\n' \
			"$work/ca" "$work/ca/index.txt" "$work/ca/serial") -cert "$work/$1.pem" -keyfile "$work/$1.key" -startdate 20200101000000Z \
			-enddate 20200201000000Z -extfile "$work/$2.ext" -in "$work/$2.csr" -out "$work/$2.pem.new" 2>"$work/out" || fail "openssl ca: $(<"$work/out")"
	else
		openssl x509 -req -in "$work/$2.csr" -CA "$work/$1.pem" -CAkey "$work/$1.key" -CAcreateserial -out "$work/$2.pem.new" -days "${4:-2}" \
			-extfile "$work/$2.ext" 2>/dev/null || fail "openssl x509"
	fi
	chmod 600 "$work/$2.key.new"
	mv "$work/$2.key.new" "$work/$2.key"
	mv "$work/$2.pem.new" "$work/$2.pem"
}
authority ours
authority theirs
for i in 1 2 3 4; do
	certify ours node$i $i
done
tls() { # FILE [CA]
	echo "FLIP_PEERS_TOKEN_FILE= FLIP_PEERS_CERT_FILE=$work/$1.pem FLIP_PEERS_KEY_FILE=$work/$1.key FLIP_PEERS_CA_FILE=$work/${2:-ours}.pem"
}

# ---- A name of the DNS ----------------------------------------------------------------------------------------------------

if command -v dnsmasq >/dev/null; then
	resolv=$work/resolv.conf
	echo "nameserver $(address r)" >"$resolv"
	for i in 1 2 3; do echo "$(address $i) peers.flip.test"; done >"$work/hosts"
	spawn_in r dnsmasq --keep-in-foreground --no-resolv --no-hosts --no-daemon --user=root --addn-hosts="$work/hosts" --pid-file="$work/dnsmasq.pid" \
		--listen-address="$(address r)" --bind-interfaces --log-facility="$work/dnsmasq.log" >/dev/null 2>&1
	dns=$spawned
	members=dns:peers.flip.test:8422
	for i in 1 2 3; do
		NODE_RESOLV=$resolv start_node $i $quiet $(tls node$i)
	done
	all_come 3 1 2 3
	before=$(out_of_registry)
	herd 1 2 3
	came_once $(($(out_of_registry) - before)) $packed 112 "3 nodes at once" 1 2 3
	# One more address; a server that is away; one less.
	echo "$(address 4) peers.flip.test" >>"$work/hosts"
	kill -HUP $dns
	all_come 4 1 2 3
	end_child $dns
	sleep 6 # asked every 5 s
	all_come 4 1 2 3
	NODE_RESOLV=$resolv start_node 4 $quiet $(tls node4)
	herd 4
	echo "members by certificates and a name of the DNS; the name server was away"
	end_nodes
else
	echo "no dnsmasq here: no name server"
fi

# ---- Who is refused, and why ------------------------------------------------------------------------------------------------

members=$(members_list 4)
certify theirs other 3
certify ours old 4 -1
start_node 1 $quiet $(tls node1)
start_node 2 $quiet $(tls node2)
start_node 3 $quiet $(tls other)
start_node 4 $quiet $(tls old)
herd 1
herd 2
(($(node_peers 2 pieces_got) > 0)) || fail "node 2 had nothing of node 1: $(node_ctl 2 peers)"
why=$(why_of 1 "$(member 3)")
[[ $why == *"unable to get local issuer certificate"* || $why == *"self-signed"* ]] || fail "node 1 says of another authority's certificate: $why"
why=$(why_of 1 "$(member 4)")
[[ $why == *"expired"* ]] || fail "node 1 says of an expired certificate: $why"
herd 3 4 # alone
(($(node_peers 3 pieces_got) == 0 && $(node_peers 4 pieces_got) == 0)) || fail "who has no good certificate was given something"
# Theirs is refused by whoever is asked: by us as their asker, and as whom they ask.
ask_with() { # FILE: the words of node 1's answer
	in_ns 4 curl -s --cacert "$work/ours.pem" ${1:+--cert "$work/$1.pem" --key "$work/$1.key"} -H 'Range: bytes=0-99' \
		"https://$(member 1)/flip/1/layer/sha256:$(printf %064d 0)" 2>&1
}
[[ $(ask_with old) == *"expired"* ]] || fail "node 1 says to an expired certificate: $(ask_with old)"
[[ $(ask_with other) == *"not of this cluster"* ]] || fail "node 1 says to another authority's certificate: $(ask_with other)"
[[ $(ask_with "") == *"no certificate"* ]] || fail "node 1 says to none: $(ask_with "")"
[[ $(ask_with node2) != *"not of this cluster"* ]] || fail "node 1 says to a good certificate: $(ask_with node2)"
grep -q "is refused: The certificate is NOT trusted" "$work/n1.log" || fail "node 1 does not log whom it refuses: $(tail -n 5 "$work/n1.log")"
echo "certificates: of another authority, expired, none: refused and named"
end_nodes

# Certificates change while nodes run, and then who signs them.
members=$(members_list 2)
serial_of() { in_ns 2 openssl s_client -connect "$(member "$1")" -CAfile "$work/all.pem" </dev/null 2>/dev/null | openssl x509 -noout -serial 2>/dev/null; }
cat "$work/ours.pem" "$work/theirs.pem" >"$work/all.pem"
cp "$work/ours.pem" "$work/trusted.pem"
start_node 1 $quiet $(tls node1 trusted)
start_node 2 $quiet $(tls node2 trusted)
was=$(serial_of 1)
certify ours node1 1
is_new() { now=$(serial_of 1) && [[ -n $now && $now != "$was" ]]; }
until_true is_new || fail "node 1 still shows the old certificate: $now; $(tail -n 3 "$work/n1.log")"
herd 1
cp "$work/all.pem" "$work/trusted.new" && mv "$work/trusted.new" "$work/trusted.pem"
certify theirs node1 1
certify theirs node2 2
for i in 1 2; do
	until_true eval "in_ns 2 openssl s_client -connect $(member $i) -CAfile $work/theirs.pem -verify_return_error </dev/null >/dev/null" ||
		fail "node $i still shows the old certificate"
done
before=$(node_peers 2 pieces_got)
herd 2
(($(node_peers 2 pieces_got) > before)) || fail "node 2 had nothing of node 1 after their certificates changed: $(why_of 2 "$(member 1)")"
echo "certificates and who signs them changed while nodes ran"
end_nodes

# ---- Zones --------------------------------------------------------------------------------------------------------------------

# Two zones of three nodes. What crosses between them is counted by the router.
zone_of() { (($1 <= 3)) && echo west || echo east; }
list=
for i in {1..6}; do
	list+=${list:+,}$(member $i "$(zone_of $i)")
done
members=static:$list
for i in {1..6}; do
	start_node $i $quiet FLIP_PEERS_ZONE="$(zone_of $i)"
done
herd {1..6}
crossed=$(for i in {1..6}; do node_ctl $i peers --json; done | python3 -c '
import json, sys
d, s, n = json.JSONDecoder(), sys.stdin.read().strip(), 0
while s:
    o, at = d.raw_decode(s)
    n += sum(m["received"] for m in o["members"] if m["zone"] != o["zone"])
    s = s[at:].lstrip()
print(n)')
# Each piece crosses once: half of them belong to each zone. Without zones 3/6 of 6 images would.
# On a machine that stands still members are taken for gone, or others are asked too, wherever they are.
hedges=$(for i in {1..6}; do node_peers $i hedges; done | awk "{ s += \$1 } END { print s }") failures=$(failures_of {1..6})
((crossed < packed * 13 / 10 || (hedges + failures > 0 && crossed < packed * 5 / 2))) ||
	fail "$crossed bytes crossed between zones, of an image of $packed; $hedges hedges, $failures failures"
((crossed > packed / 2)) || fail "only $crossed bytes crossed between zones"
echo "zones: $hedges hedges, $failures failures"
echo "two zones of three nodes: $((crossed * 100 / packed)) % of the image has crossed between them"
end_nodes

# ---- A slow one, and a hedge ------------------------------------------------------------------------------------------------------

# Nodes 2 and 3 have everything; node 3's link becomes a hundred times narrower once it is known how quick answers are.
members=$(members_list 3)
for i in 1 2 3; do
	start_node $i $quiet
done
tag=n herd 2 3
for f in d0 d1 d2; do # node 1 learns how long answers take
	node_ctl 1 mount "$at_registry/img:n" "$work/mnt1" 2>/dev/null
	cat "$work/mnt1/$f"/* >/dev/null || fail "read"
done
in_ns 3 tc qdisc change dev eth0 root tbf rate 400kbit burst 4kb latency 3000ms || fail "the link cannot be made narrow"
cat "$work/mnt1"/d[3-6]/* >/dev/null || fail "read past a slow member"
diff -r "$work/tree" "$work/mnt1" >"$work/out" || fail "node 1 shows other bytes: $(head -n 3 "$work/out")"
(($(node_peers 1 hedges) > 0 && $(node_peers 1 hedge_wins) > 0)) || fail "nobody else was asked: $(node_ctl 1 peers --json)"
echo "a slow member: $(node_peers 1 hedges) pieces were asked of another one too, who gave $(node_peers 1 hedge_wins) of them"
end_nodes
