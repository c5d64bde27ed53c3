#!/bin/bash
# What goes wrong in practice, for the daemon as a whole: a registry that is slow, corrupt, cut short, wants another token
# or is not there. Never a wrong byte; an error only for the reads of that time; the same mount reads everything right when
# the fault is over. (A full disk: flip_disk.sh; kill -9: flip_kills.sh.)
. "$(dirname "$0")/flip/lib.sh"
begin flip-faults docker-registry skopeo
large_mib=6 # for it is read again after every fault
. $here/faulty.sh

# ---- Reads --------------------------------------------------------------------------------------------

# try EXPECTED KIND FAULT...: EXPECTED is "right" (reads wait and succeed), "error" (some fail, with EIO) or "any" of both.
try() {
	local expected=$1 kind=$2 folder= pid code
	shift 2
	[[ $1 == stall || $* == "status 429" ]] && folder=few # each takes its seconds
	fault none
	[[ $1 == stall ]] && export FLIP_STALL=3
	fresh_node
	export FLIP_STALL=5
	pid=$daemon
	ask mount "$at:$kind" "$work/mnt" || fail "$*: mount"
	fault "$@"
	[[ $1 == down ]] && end_child $proxy
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
fault tokens 20
fresh_node
ask mount "$at:zstd" "$work/mnt" || fail "tokens: mount"
read_all 4 >"$work/reads" || fail "tokens: $(<"$work/reads")"
equal "tokens"
n_tokens=$(python3 -c "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:$proxy_port/tokens').read().decode())")
((n_tokens >= 2)) || fail "the token has changed only $n_tokens times"
echo "read on while the token changed $n_tokens times"

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
SECONDS=0
read_all >"$work/reads" && fail "reads without a registry"
lines=$(($(wc -l <"$work/flip.log") - before))
errors=$(stat_of reads errors)
# One of a kind in five seconds.
((errors > 50 && lines < 20 + 4 * SECONDS)) || fail "$lines lines for $errors failed reads"
fault none
equal "after the log"
echo "$errors failed reads made $lines lines"
end_node
no_sanitizer
echo "reads and mounts went on after every fault"
