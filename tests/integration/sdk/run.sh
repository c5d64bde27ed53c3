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
	if ! cmp -s "$top/tests/integration/$1/package.json" "$client/package.json" || [ ! -d "$client/node_modules/$2" ]; then
		cp "$top/tests/integration/$1/package.json" "$client/"
		(cd "$client" && timeout 120 npm install --no-audit --no-fund --no-package-lock --loglevel=error >npm.log 2>&1) ||
			skip "the client package could not be installed ($(tail -n1 "$client/npm.log"))"
	fi
	cp "$top/tests/integration/$1/tour.js" "$client/"

	work=$(mktemp -d)
	trap 'kill $(jobs -pr) 2>/dev/null || true; wait || true; rm -rf "$work"' EXIT
	"$engine" serve --model "$top/tests/fixtures/models/qwen3" --port 0 --port-file "$work/port" 2>"$work/log" &
	for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.1; done
	[ -s "$work/port" ] || { cat "$work/log"; exit 1; }
	cd "$client"
	BASE_URL=http://127.0.0.1:$(cat "$work/port") MODEL=qwen3 timeout 120 node tour.js || { cat "$work/log"; exit 1; }
}
