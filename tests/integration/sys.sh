#!/bin/bash
# ocai sys against this machine, a real rpm database, a real journal, a bus with a stand-in for systemd, and a tree of
# ten thousand processes. What needs a tool that is not here is left out, and said.
set -u
cd "$(dirname "$0")/../.."
bin=$(realpath "${BUILD_DIR:-build/release}")/bin
[[ -x $bin/ocai ]] || { echo "no $bin/ocai"; exit 77; }
tests=$(realpath "${TESTS_DIR:-tests}")

tmp=$(mktemp -d)
finish() {
	kill $(jobs -pr) 2>/dev/null
	rm -rf "$tmp"
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }
export LC_ALL=C.UTF-8
unset NO_COLOR

# run EXPECTED_STATUS ARGS...: output in $out, errors in $errors
run() {
	local want=$1 rc
	shift
	out=$("$bin/ocai" sys "$@" 2>"$tmp/err")
	rc=$?
	errors=$(<"$tmp/err")
	[[ $rc == "$want" ]] || fail "ocai sys $*: status $rc, expected $want: $out $errors"
}
# json PYTHON-EXPRESSION over d: must be true
json() {
	python3 -c 'import json, sys; d = json.load(sys.stdin); sys.exit(0 if eval(sys.argv[1]) else 1)' "$1" <<<"$out" ||
		fail "$1 is not so in: ${out:0:2000}"
}

# Wrong usage.
run 2 nonsense
[[ $errors == *'no section "nonsense"'* && $errors == *"--help"* ]] || fail "$errors"
run 2 perf --seconds 0
run 1 host --root /nonexistent
[[ $errors == *"/nonexistent"* ]] || fail "$errors"

# Languages, colours, one JSON document.
server=$tests/fixtures/sys/server
run 0 host --root "$server" --lang zh
[[ $out == *"主机名"*"db1.example.org"* ]] || fail "$out"
[[ $out != *$'\033'* ]] || fail "colours in a pipe"
run 0 host --root "$server" --color always
[[ $out == *$'\033['* ]] || fail "no colours"
command -v python3 >/dev/null || { echo "no python3: JSON was not tested"; exit 77; }
run 0 --json
json 'set(d) == {"host", "hardware", "gpu", "packages", "services", "logs", "network", "storage", "users", "findings"}'
json 'd["hardware"]["memory"]["total_bytes"] > 0 and len(d["storage"]["mounts"]) > 0'
run 0 perf --seconds 0.5 --json
json '0.5 <= d["perf"]["seconds"] and d["perf"]["processes"]["total"] > 0'

# A listener of ours has its owner.
python3 -c 'import socket, time
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(600)' >"$tmp/port" &
listener=$!
for _ in {1..600}; do [[ -s $tmp/port ]] && break; sleep 0.1; done
run 0 network --json
json "any(s['port'] == $(<"$tmp/port") and s.get('pid') == $listener for s in d['network']['listening'])"

# A closed pipe and a full disk are failures, not crashes.
"$bin/ocai" sys --root "$server" host >/dev/full 2>/dev/null && fail "a full disk was not noticed"

# Without root: what it could not see is said.
if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null; then
	out=$(setpriv --reuid=65534 --regid=65534 --clear-groups "$bin/ocai" sys storage --json 2>/dev/null) || out=
	[[ -z $out ]] || json 'any("root" in n["en"] for n in d["storage"]["notes"])'
fi

# Ten thousand processes, sampled twice.
mkdir -p "$tmp/many/proc"
python3 - "$tmp/many/proc" "$server/proc/stat" <<'PY'
import os, shutil, sys
proc = sys.argv[1]
shutil.copy(sys.argv[2], proc + "/stat")
for pid in range(10, 10010):
    os.mkdir(f"{proc}/{pid}")
    with open(f"{proc}/{pid}/stat", "w") as f:
        f.write(f"{pid} (worker) S 1 1 1 0 -1 4194304 10 0 0 0 5 6 0 0 20 0 1 0 1000 1000000 25 1 " + "0 " * 27)
    with open(f"{proc}/{pid}/io", "w") as f:
        f.write("rchar: 1\nread_bytes: 5\nwrite_bytes: 6\n")
PY
begin=$(date +%s%N)
run 0 perf --root "$tmp/many" --seconds 0.1 --json
took=$((($(date +%s%N) - begin) / 1000000 - 100))
json 'd["perf"]["processes"]["total"] == 10000'
echo "two samples of 10000 processes and their difference: $took ms"

# A real rpm database, in a home of its own.
if command -v rpmbuild >/dev/null && [[ $(HOME=$tmp/home rpm -E '%{_dbpath}') == "$tmp/home"* ]]; then
	mkdir -p "$tmp/home"
	cat >"$tmp/example.spec" <<SPEC
Name: ocai-example
Version: 1.2
Release: 3
Summary: example
License: MIT
BuildArch: noarch
%description
example
%install
mkdir -p %{buildroot}$tmp/opt
echo data >%{buildroot}$tmp/opt/data.txt
echo conf >%{buildroot}$tmp/opt/example.conf
%files
%defattr(-, $(id -un), $(id -gn))
$tmp/opt/data.txt
%config $tmp/opt/example.conf
SPEC
	HOME=$tmp/home rpmbuild -bb --quiet --define "_topdir $tmp/rpm" "$tmp/example.spec" >/dev/null 2>&1 || fail "rpmbuild"
	HOME=$tmp/home rpm -i --nodeps "$tmp"/rpm/RPMS/noarch/*.rpm >/dev/null 2>&1
	[[ -e $tmp/opt/data.txt ]] || fail "the example package could not be installed"
	export HOME=$tmp/home
	run 0 packages --owns "$tmp/opt/data.txt" --verify ocai-example --json
	json 'd["packages"]["count"] == 1 and d["packages"]["verify"]["files_checked"] == 2'
	json 'd["packages"]["verify"]["problems"] == [] and d["findings"] == []'
	json 'd["packages"]["owns"]["packages"] == [{"name": "ocai-example", "version": "1.2-3.noarch"}]'
	json 'd["packages"]["transactions"][0]["first_packages"] == ["ocai-example"]'
	echo changed >"$tmp/opt/data.txt"
	rm "$tmp/opt/example.conf"
	run 0 --owns /nonexistent --verify ocai-example --json
	json '{p["file"].split("/")[-1]: p["differs"] for p in d["packages"]["verify"]["problems"]}["example.conf"] == ["missing"]'
	json 'any("content" in p["differs"] for p in d["packages"]["verify"]["problems"])'
	json '"No installed package" in d["packages"]["owns"]["notes"][0]["en"]'
	run 0 --verify no-such-package --json
	json '"no-such-package" in d["packages"]["verify"]["notes"][0]["en"]'
else
	echo "no rpmbuild: packages were not tested"
fi

# A real journal, made from the export format.
remote=/lib/systemd/systemd-journal-remote
if [[ -x $remote ]]; then
	mkdir -p "$tmp/j/var/log/journal" "$tmp/j/proc/sys/kernel/random"
	boot=0123456789abcdef0123456789abcdef
	echo "01234567-89ab-cdef-0123-456789abcdef" >"$tmp/j/proc/sys/kernel/random/boot_id"
	entry() { # SECONDS PRIORITY UNIT BOOT MESSAGE
		printf '__REALTIME_TIMESTAMP=%d000000\n__MONOTONIC_TIMESTAMP=%d000000\n_BOOT_ID=%s\nPRIORITY=%s\n' "$1" "$1" "$4" "$2"
		printf '_SYSTEMD_UNIT=%s\nMESSAGE=%s\n\n' "$3" "$5"
	}
	{
		entry 1 3 web.service ffffffffffffffffffffffffffffffff "an error of an earlier boot"
		for i in {2..151}; do entry $i 3 web.service $boot "connection $i to 10.0.0.$i lost"; done
		entry 200 6 web.service $boot "all is well"
		entry 201 3 kernel $boot "Out of memory: Killed process 4242 (java) total-vm:1kB"
		entry 202 2 db.service $boot "disk gone"
	} >"$tmp/export"
	"$remote" -o "$tmp/j/var/log/journal/x.journal" "$tmp/export" >/dev/null 2>&1 || fail "systemd-journal-remote"
	run 0 logs --root "$tmp/j" --json
	json 'd["logs"]["error_entries"] == 152'
	json 'd["logs"]["errors"][0]["unit"] == "web.service" and d["logs"]["errors"][0]["count"] == 150'
	json 'd["logs"]["oom_kills"] == [{"time_s": 201, "pid": 4242, "process": "java", "limit_of_group": False}]'
	json '{"error-flood", "oom-in-journal"} <= {f["rule"] for f in d["findings"]}'
else
	echo "no systemd-journal-remote: logs were not tested"
fi

# Without a journal: the kernel's own buffer, here a file with one record.
mkdir -p "$tmp/k/dev"
printf '3,7,5000000,-;Memory cgroup out of memory: Killed process 77 (worker) total-vm:1kB\n' >"$tmp/k/dev/kmsg"
run 0 logs --root "$tmp/k" --json
json 'd["logs"]["oom_kills"] == [{"time_s": 5, "pid": 77, "process": "worker", "limit_of_group": True}]'
json 'd["logs"]["errors"][0]["unit"] == "kernel" and len(d["logs"]["notes"]) == 2'

# A bus with something that answers as systemd does.
if command -v dbus-daemon >/dev/null && /usr/bin/python3 -c 'import dbus, gi' 2>/dev/null; then # the system's: modules are its
	export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$tmp/bus
	cat >"$tmp/bus.conf" <<CONF
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path=$tmp/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
CONF
	dbus-daemon --config-file="$tmp/bus.conf" --nofork --nopidfile >/dev/null 2>&1 &
	cat >"$tmp/systemd.py" <<'PY'
import sys
import dbus, dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib
DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
name = dbus.service.BusName("org.freedesktop.systemd1", bus)
UNIT = "/org/freedesktop/systemd1/unit/web"
class Object(dbus.service.Object):
    properties = {}
    @dbus.service.method("org.freedesktop.DBus.Properties", "ss", "v")
    def Get(self, interface, member):
        return self.properties[(interface.rsplit(".", 1)[1], member)]
class Manager(Object):
    properties = {("Manager", "Version"): "255", ("Manager", "SystemState"): "degraded"}
    @dbus.service.method("org.freedesktop.systemd1.Manager", "as", "a(ssssssouso)")
    def ListUnitsFiltered(self, states):
        return [("web.service", "The web server", "loaded", "failed", "failed", "", UNIT, dbus.UInt32(0), "", "/")]
class Unit(Object):
    properties = {("Service", "Result"): "exit-code", ("Service", "ExecMainStatus"): dbus.Int32(3),
                  ("Unit", "InactiveEnterTimestamp"): dbus.UInt64(1700000000000000)}
manager, unit = Manager(bus, "/org/freedesktop/systemd1"), Unit(bus, UNIT)
open(sys.argv[1], "w").close()
GLib.MainLoop().run()
PY
	for _ in {1..600}; do [[ -S $tmp/bus ]] && break; sleep 0.1; done
	/usr/bin/python3 "$tmp/systemd.py" "$tmp/ready" 2>"$tmp/systemd.err" &
	for _ in {1..1200}; do [[ -e $tmp/ready ]] && break; sleep 0.1; done
	[[ -e $tmp/ready ]] || fail "the stand-in for systemd did not start: $(<"$tmp/systemd.err")"
	run 0 services --json
	json 'd["services"]["state"] == "degraded" and d["services"]["failed_units"] == 1'
	json 'd["services"]["failed"][0]["unit"] == "web.service" and d["services"]["failed"][0]["result"] == "exit-code"'
	json 'd["services"]["failed"][0]["exit_status"] == 3 and d["services"]["failed"][0]["since_s"] == 1700000000'
	json 'd["findings"][0]["rule"] == "units-failed" and "web.service" in d["findings"][0]["en"]'
	run 0 services
	[[ $out == *"degraded"*"web.service"*"exit-code"* ]] || fail "$out"
else
	echo "no dbus-daemon or python3-dbus: services were not tested"
fi
echo "ocai sys: all as expected"
