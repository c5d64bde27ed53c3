#!/bin/bash
# The services for real: a machine that systemd started, our packages installed in it, and what systemd then does.
set -u
. "$(dirname "$0")/lib.sh"
base_root
# WORK/srv holds the repositories of run.sh.
WORK=$1
machine=$WORK/booted
trap machine_halt EXIT

said=$(unshare -m bash -c 'mount -t cgroup2 none /mnt && mkdir /mnt/ocai-probe && rmdir /mnt/ocai-probe' 2>&1) ||
	skip "control groups of version 2 cannot be had: $said"
# An image for flip, with everything that a layer can hold, in a registry that will run in the machine; and what it holds.
listing() { # of the folder where it runs
	find . -mindepth 1 \( -type d -printf '%P %y %m %U %G\n' \) -o \( -printf '%P %y %m %U %G %s %l\n' \) | LC_ALL=C sort
	find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
}
flip_image=
if [[ -e /dev/fuse ]] && command -v docker-registry skopeo umoci >/dev/null; then
	flip_image=1
	srv=$WORK/srv/flip
	rm -rf "$srv"
	mkdir -p "$srv"
	python3 "$packages_top/tests/integration/flip/make-image.py" "$srv/layout" /bin/true || fail "make-image.py"
	umoci unpack --image "$srv/layout:v1" "$srv/bundle" >"$srv/log" 2>&1 || fail "umoci: $(tail -n 1 "$srv/log")"
	(cd "$srv/bundle/rootfs" && listing) >"$srv/expected"
	rm -rf "$srv/bundle"
	cp "$(command -v docker-registry)" "$srv/registry"
	printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: /srv/flip/images}}\nhttp: {addr: "127.0.0.1:5000"}\n' \
		>"$srv/registry.yml"
	declare -f listing >"$srv/listing.sh"
	unshare -n bash -c 'ip link set lo up
		sed "s,/srv/flip,$0,; s/5000/5001/" "$0/registry.yml" >"$0/own.yml"
		"$0/registry" serve "$0/own.yml" >"$0/log" 2>&1 &
		for ((n = 0; n < 100; n++)); do skopeo copy -q --dest-tls-verify=false "oci:$0/layout:v1" docker://127.0.0.1:5001/img:plain 2>/dev/null && break; sleep 0.1; done
		kill $!
		((n < 100))' "$srv" || fail "the image is not pushed: $(tail -n 2 "$srv/log")"
fi

machine_boot "$machine" || fail "systemd does not start there"
m() { $MACHINE "$@"; }
state() { m systemctl is-active "$1" 2>/dev/null; }
wait_for() { # WORD UNIT
	for ((n = 0; n < 150; n++)); do
		[[ $(state "$2") == "$1" ]] && return
		sleep 0.1
	done
	m journalctl --no-pager -n 40 -u "$2"
	fail "$2 is $(state "$2"), expected $1"
}
m cp /srv/release1/ocai.repo /etc/yum.repos.d/ocai.repo
m sed -i 's,file://.*/release1,file:///srv/release1,' /etc/yum.repos.d/ocai.repo
m yum -y install ocai-agent oc-flip >"$machine/yum" 2>&1 || { tail -n 20 "$machine/yum"; fail "yum install"; }

# ---- The engine ------------------------------------------------------------------------------------------------------------
m systemctl enable --now ocai-engine.socket 2>/dev/null || fail "the socket does not start"
[[ $(state ocai-engine.service) == inactive ]] || fail "the engine runs before anybody asked"
[[ $(m curl -sS http://127.0.0.1:8080/health) == '{"status":"ok"}' ]] || { m journalctl --no-pager -u ocai-engine; fail "the first request"; }
[[ $(state ocai-engine.service) == active ]] || fail "the engine is $(state ocai-engine.service) after a request"
m curl -sS --unix-socket /run/ocai/engine.sock http://x/v1/chat/completions \
	-d '{"messages":[{"role":"user","content":"show disk usage"}],"max_tokens":32,"temperature":0}' >"$machine/answer"
grep -q 'df -h' "$machine/answer" || fail "the hardened engine says $(cat "$machine/answer")"
pid=$(m systemctl show -P MainPID ocai-engine.service)
[[ $(m ps -o user= -p "$pid") == ocai ]] || fail "the engine runs as $(m ps -o user= -p "$pid")"
ok "the first request starts the engine, both sockets answer"

entry=$(m journalctl --no-pager -o json -u ocai-engine.service OCAI_MODEL=ocai-mini)
[[ $entry == *'"OCAI_BACKEND":"cpu"'* && $entry == *'"_TRANSPORT":"journal"'* && $entry == *'"PRIORITY":"6"'* ]] ||
	fail "the journal has: $entry"
ok "the log is in the journal, with fields"

printf '[serve]\nidle-exit = 1\ncache-dir = /var/cache/ocai\n' >"$machine/idle.conf"
m tee /etc/ocai/engine.conf.d/50-idle.conf <"$machine/idle.conf" >/dev/null
m systemctl stop ocai-engine.service 2>/dev/null
m curl -sS http://127.0.0.1:8080/health >/dev/null
wait_for inactive ocai-engine.service
[[ $(state ocai-engine.socket) == active ]] || fail "the socket ends with the service"
[[ $(m systemctl show -P Result ocai-engine.service) == success ]] || fail "an idle engine ends with $(m systemctl show -P Result ocai-engine.service)"
[[ $(m curl -sS http://127.0.0.1:8080/health) == '{"status":"ok"}' ]] || fail "it does not come back"
[[ -n $(m find /var/cache/ocai -user ocai -type f) ]] || { m journalctl --no-pager -u ocai-engine -n 20; fail "it cannot keep computed prompts in its cache"; }
ok "it ends when idle and comes back with the next request"

# ---- A user's engine, by a manager of that user ----------------------------------------------------------------------------
m useradd -m -u 1234 somebody
m mkdir -p -m 700 /run/user/1234 && m chown somebody /run/user/1234
m systemd-run --quiet --unit=manager --uid=somebody -p Delegate=yes -E XDG_RUNTIME_DIR=/run/user/1234 -E HOME=/home/somebody \
	/lib/systemd/systemd --user 2>/dev/null
as_user() { m setpriv --reuid 1234 --regid 1234 --clear-groups env HOME=/home/somebody XDG_RUNTIME_DIR=/run/user/1234 "$@"; }
for ((n = 0; n < 100; n++)); do
	as_user systemctl --user is-system-running 2>/dev/null | grep -qE 'running|degraded' && break
	sleep 0.1
done
as_user systemctl --user start ocai-engine.socket || { m journalctl --no-pager -u manager; fail "the user's socket does not start"; }
# What is in the task catalogue needs no engine; this is not.
said=$(as_user ocai cmd "what is the meaning of tasty soup" --print) || fail "ocai cmd with the user's socket"
[[ -n $said ]] || fail "ocai cmd says nothing"
[[ $(as_user systemctl --user is-active ocai-engine.service) == active ]] || fail "ocai started an engine of its own beside the user's unit"
# What /etc/ocai says holds for it too, but for a folder that is the other's.
m journalctl --no-pager _UID=1234 | grep -q 'no prompt cache: /var/cache/ocai' || fail "nothing is said of the cache that it may not use"
ok "ocai asks the user's engine, which its socket starts"

# ---- flip ------------------------------------------------------------------------------------------------------------------
if [[ -e /dev/fuse ]]; then
	m systemctl enable --now flip-snapshotter.service 2>/dev/null || { m journalctl --no-pager -u flip-snapshotter; fail "flip does not start"; }
	m flip stat >"$machine/stat" 2>&1 || { cat "$machine/stat"; fail "flip stat"; }
	m grep -q '/var/lib/flip/fuse' /proc/1/mounts || fail "its mount is not seen by others: $(m grep flip /proc/1/mounts)"
	if [[ -n $flip_image ]]; then
		m systemd-run --quiet --unit=registry /srv/flip/registry serve /srv/flip/registry.yml
		for ((n = 0; n < 100; n++)); do
			m curl -sSf http://127.0.0.1:5000/v2/ >/dev/null 2>&1 && break
			sleep 0.1
		done
		m flip convert -f zstd-chunked oci:/srv/flip/layout:v1 docker://127.0.0.1:5000/img:lazy >"$machine/out" 2>&1 ||
			fail "flip convert: $(tail -n 2 "$machine/out")"
		for kind in plain lazy; do
			m mkdir -p /tmp/$kind
			m flip mount 127.0.0.1:5000/img:$kind /tmp/$kind >"$machine/out" 2>&1 || {
				m journalctl --no-pager -u flip-snapshotter -n 20
				fail "flip mount $kind: $(cat "$machine/out")"
			}
			m bash -c ". /srv/flip/listing.sh; cd /tmp/$kind && listing" >"$machine/files" 2>&1
			diff "$WORK/srv/flip/expected" "$machine/files" >"$machine/out" || { head -n 20 "$machine/out"; fail "$kind: other files than the image's"; }
		done
	fi
	before=$(m systemctl show -P MainPID flip-snapshotter.service)
	ok "flip works within its restrictions, its mounts are the host's${flip_image:+, images are what they were made of}"
fi

# ---- An upgrade while they run ---------------------------------------------------------------------------------------------
m sed -i 's,release1,release2,' /etc/yum.repos.d/ocai.repo
m yum -y --refresh upgrade >"$machine/yum" 2>&1 || { tail -n 20 "$machine/yum"; fail "yum upgrade"; }
[[ $(m rpm -q --qf '%{RELEASE}' ocai-engine) == 2 ]] || fail "not upgraded"
[[ $(m curl -sS http://127.0.0.1:8080/health) == '{"status":"ok"}' ]] || fail "the engine does not answer after the upgrade"
if [[ -n ${before:-} ]]; then
	wait_for active flip-snapshotter.service
	[[ $(m systemctl show -P MainPID flip-snapshotter.service) != "$before" ]] || fail "flip was not restarted"
	m flip stat >/dev/null || fail "flip stat after the upgrade"
	if [[ -n $flip_image ]]; then
		m bash -c ". /srv/flip/listing.sh; cd /tmp/lazy && listing" | diff -q "$WORK/srv/flip/expected" - >/dev/null || fail "the mounted image is another after the upgrade"
		m flip unmount /tmp/lazy && m flip unmount /tmp/plain || fail "flip unmount"
	fi
	m journalctl --no-pager -u flip-snapshotter | grep -q 'going on with the mount that is there' || fail "flip mounts anew after an upgrade"
fi
ok "an upgrade restarts what runs; flip goes on with its mounts"

m yum -y remove ocai-agent ocai-engine ocai-model-mini oc-flip >"$machine/yum" 2>&1 || { tail -n 20 "$machine/yum"; fail "yum remove"; }
[[ $(state ocai-engine.socket)$(state ocai-engine.service)$(state flip-snapshotter.service) =~ ^(inactive|unknown){3}$ ]] ||
	fail "still running after the removal: $(m systemctl --no-pager list-units 'ocai*' 'flip*')"
ok "a removal stops them"
