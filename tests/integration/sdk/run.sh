# Sourced: run_tour NAME PACKAGE serves a small model and runs NAME/tour.js against it with the client from npm, which
# is installed into a folder of its own outside the tree.
run_tour() {
	top=$(cd "$(dirname "$0")/../.." && pwd)
	engine=${BUILD_DIR:-$top/build/release}/bin/ocai-engine
	case $engine in /*) ;; *) engine=$top/$engine ;; esac
	skip() { echo "skipped: $*"; exit 77; }
	command -v node >/dev/null && command -v npm >/dev/null || skip "node and npm are not installed"
	[ "$(node -p "parseInt(process.versions.node)")" -ge 20 ] || skip "node $(node --version) is older than 20"

	client=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ocai-tests/$1
	mkdir -p "$client"
	# Tests of several builds run side by side: one installs, the others wait. `done` stands for an installation that came to its end.
	exec 9>"$client/lock"
	flock 9
	if ! cmp -s "$top/tests/integration/$1/package.json" "$client/done" || [ ! -d "$client/node_modules/$2" ]; then
		rm -rf "$client/done" "$client/node_modules"
		cp "$top/tests/integration/$1/package.json" "$client/"
		(cd "$client" && timeout 300 npm install --prefer-offline --no-audit --no-fund --no-package-lock --loglevel=error >npm.log 2>&1) ||
			skip "the client package could not be installed ($(tail -n1 "$client/npm.log"))"
		cp "$client/package.json" "$client/done"
	fi
	exec 9>&-
	tour=$(mktemp -d "$client/tour.XXXXXX") # node looks for packages from where the script lies
	cp "$top/tests/integration/$1/tour.js" "$client/package.json" "$tour/"

	work=$(mktemp -d)
	trap 'kill $(jobs -pr) 2>/dev/null || true; wait || true; rm -rf "$work" "$tour"' EXIT
	"$engine" serve --model "$top/tests/fixtures/models/qwen3" --port 0 --port-file "$work/port" 2>"$work/log" &
	for _ in $(seq 1200); do [ -s "$work/port" ] && break; sleep 0.1; done
	[ -s "$work/port" ] || { cat "$work/log"; exit 1; }
	cd "$tour"
	BASE_URL=http://127.0.0.1:$(cat "$work/port") MODEL=qwen3 timeout 600 node tour.js || { cat "$work/log"; exit 1; }
}
