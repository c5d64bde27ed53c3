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

printf '[serve]\nidle-exit = 1\n' >"$machine/idle.conf"
m tee /etc/ocai/engine.conf.d/50-idle.conf <"$machine/idle.conf" >/dev/null
m systemctl stop ocai-engine.service 2>/dev/null
m curl -sS http://127.0.0.1:8080/health >/dev/null
wait_for inactive ocai-engine.service
[[ $(state ocai-engine.socket) == active ]] || fail "the socket ends with the service"
[[ $(m systemctl show -P Result ocai-engine.service) == success ]] || fail "an idle engine ends with $(m systemctl show -P Result ocai-engine.service)"
[[ $(m curl -sS http://127.0.0.1:8080/health) == '{"status":"ok"}' ]] || fail "it does not come back"
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
ok "ocai asks the user's engine, which its socket starts"

# ---- flip ------------------------------------------------------------------------------------------------------------------
if [[ -e /dev/fuse ]]; then
	m systemctl enable --now flip-snapshotter.service 2>/dev/null || { m journalctl --no-pager -u flip-snapshotter; fail "flip does not start"; }
	m flip stat >"$machine/stat" 2>&1 || { cat "$machine/stat"; fail "flip stat"; }
	m grep -q '/var/lib/flip/fuse' /proc/1/mounts || fail "its mount is not seen by others: $(m grep flip /proc/1/mounts)"
	before=$(m systemctl show -P MainPID flip-snapshotter.service)
	ok "flip starts with its restrictions, its mount is the host's"
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
	m journalctl --no-pager -u flip-snapshotter | grep -q 'going on with the mount that is there' || fail "flip mounts anew after an upgrade"
fi
ok "an upgrade restarts what runs; flip goes on with its mounts"

m yum -y remove ocai-agent ocai-engine ocai-model-mini oc-flip >"$machine/yum" 2>&1 || { tail -n 20 "$machine/yum"; fail "yum remove"; }
[[ $(state ocai-engine.socket)$(state ocai-engine.service)$(state flip-snapshotter.service) =~ ^(inactive|unknown){3}$ ]] ||
	fail "still running after the removal: $(m systemctl --no-pager list-units 'ocai*' 'flip*')"
ok "a removal stops them"
