# Sourced by tests that start the engine's server.
#
#   $top $build $engine   the tree, the build that BUILD_DIR names, its ocai-engine: without it the test is skipped
#   $work                 a folder of the test's own, removed at the end with everything in the background; what else the test has
#                         to undo is its own at_end()
#   start OPTION...       `ocai-engine serve OPTION...` on a port of its own; waits until it listens: $server, $url; it logs to
#                         $work/log, which `fail WORDS...` shows the end of
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
build=${BUILD_DIR:-$top/build/release}
[[ $build == /* ]] || build=$top/$build
engine=$build/bin/ocai-engine
[[ -x $engine ]] || { echo "no $engine"; exit 77; }
work=$(mktemp -d)
server= url=

at_end() { :; }
finish() {
	kill -9 $(jobs -pr) 2>/dev/null || true
	wait 2>/dev/null || true
	at_end
	rm -rf "$work"
}
trap finish EXIT
fail() {
	echo "FAIL: $*"
	tail -n 40 "$work/log" 2>/dev/null || true
	exit 1
}

start() {
	rm -f "$work/port"
	"$engine" serve --port 0 --port-file "$work/port" "$@" >"$work/log" 2>&1 &
	server=$!
	for _ in {1..2400}; do
		[[ -s $work/port ]] && break
		kill -0 $server 2>/dev/null || fail "the server ended"
		sleep 0.05
	done
	[[ -s $work/port ]] || fail "the server does not listen"
	url=http://127.0.0.1:$(<"$work/port")
}
