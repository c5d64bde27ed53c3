#!/bin/bash
# The documentation runs: every command of the pages below, in order, each page in a place of its own with a fresh home, a
# fresh folder, no network but loopback, empty /run, /var/lib/flip and /etc/containerd. What a page says a command prints is
# compared. tests/tools/docs.py tells the convention. Translations have the same blocks: tests/tools/check-docs.sh sees to that,
# and to links, fences and options of all pages.
#
#   docs.sh [PAGE]...      all pages of the list below; DOCS_SHOW=1 prints what each block printed
set -u
cd "$(dirname "$0")/../.."
[[ ${BUILD_DIR:-} == *san-* ]] && { echo "the documentation is for users' builds"; exit 77; }
export DOCS_TOP=$PWD BUILD_DIR=${BUILD_DIR:-build/release}
. tests/integration/slim/repo.sh
bin=$(realpath "$BUILD_DIR")/bin
for p in ocai ocai-engine slimtrace flip; do
	[[ -x $bin/$p ]] || skip "no $bin/$p"
done

# Pages whose commands are run, those that take longest first.
pages=(docs/cold-starts.md README.md docs/slim.md docs/cluster.md docs/serve.md docs/weights.md docs/admin.md docs/kernels.md
	docs/slimming.md)
# Their commands take minutes, and tests of their own do what they tell.
# shellcheck disable=SC2034 # read by tests/tools/check-docs.sh
elsewhere=(docs/packaging.md docs/images.md)
[[ ${1:-} ]] && pages=("$@")

# As an ordinary user: root in a user namespace, where blocks that need the real one are left out.
as_root=--root as=()
if ((EUID != 0)); then
	as_root= as=(--user --map-root-user)
fi
unshare "${as[@]}" --mount --pid --net --fork --kill-child --propagation private true 2>/dev/null || skip "no namespaces here"
command -v ip >/dev/null || skip "ip is missing"

work=$(mktemp -d /var/tmp/ocai-docs.XXXXXX)
finish() {
	# What ran in the namespaces ended with them, and their mounts.
	rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM

# The image that pages work on: python3 with its packages' runtime slices, and a program. Made once.
slim_repo
export DOCS_RPMS
DOCS_RPMS=$(realpath "$REPO")
key=$(cat "$0" "$DOCS_RPMS/packages.txt" | sha256sum | cut -c1-16)
export DOCS_IMAGE=$PWD/build/fixtures/docs-image/$key
mkdir -p build/fixtures/docs-image
exec 9>build/fixtures/docs-image/lock
flock 9
if [[ ! -e $DOCS_IMAGE/index.json ]]; then
	rm -rf build/fixtures/docs-image/[0-9a-f]*
	mkdir -p "$work/app/srv" "$work/image"
	"$bin/slimtrace" cut --repo "$DOCS_RPMS" --no-gpg --out "$work/root" --with-requires --generate users --generate tmp --ignore-missing \
		bash coreutils python3 ca-certificates >"$work/log" 2>&1 || fail "no image: $(tail -n 5 "$work/log")"
	cat >"$work/root/srv/app.py" <<-'PY'
		import json, sqlite3

		db = sqlite3.connect(":memory:")
		print(json.dumps({"answer": db.execute("select 6 * 7").fetchone()[0]}))
	PY
	python3 tests/bench/make_oci.py "$work/image" app "$work/root" || fail "no image"
	mv "$work/image" "$DOCS_IMAGE"
	rm -rf "$work/root"
fi
exec 9>&-

# The place, made inside the namespaces. /var/tmp and /tmp stay the host's: $work is there.
cat >"$work/place" <<'PLACE'
set -e
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
here=$1
shift
mkdir -p "$here/home" "$here/folder" "$here/var-flip" "$here/var-containerd" "$here/up"
# What is written below /etc and /var/lib goes into memory.
mount -t tmpfs tmpfs "$here/up"
for d in etc var/lib; do
	mkdir -p "$here/up/$d" "$here/up/work/$d"
	mount -t overlay -o "lowerdir=/$d,upperdir=$here/up/$d,workdir=$here/up/work/$d" overlay "/$d"
done
rm -rf /etc/containerd /etc/ocai
# The stores want a real file system.
mkdir -p /var/lib/flip /var/lib/containerd
mount --bind "$here/var-flip" /var/lib/flip
mount --bind "$here/var-containerd" /var/lib/containerd
cd "$here/folder"
exec env -i PATH="$DOCS_PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$here/home" USER="$(id -un)" SHELL=/bin/bash \
	TERM=dumb LANG=C.UTF-8 TMPDIR="$here" DOCS_TOP="$DOCS_TOP" DOCS_RPMS="$DOCS_RPMS" DOCS_IMAGE="$DOCS_IMAGE" DOCS_LOGS="$here/logs" ${DOCS_SHOW:+DOCS_SHOW=1} \
	OCAI_MODEL_DIR="$DOCS_TOP/engine/models/mini" OCAI_KNOWLEDGE_DIR="$DOCS_TOP/agent/knowledge" "$@"
PLACE
export DOCS_PATH=$bin
run_page() { # PAGE
	local name=${1//\//_}
	mkdir -p "$work/$name/logs"
	timeout -k 5 200 unshare "${as[@]}" --mount --pid --net --fork --kill-child --propagation private \
		bash "$work/place" "$work/$name" python3 "$DOCS_TOP/tests/tools/docs.py" run $as_root "$DOCS_TOP/$1" >"$work/$name.out" 2>&1
	echo $? >"$work/$name.rc"
}

limit=${DOCS_JOBS:-3}
for page in "${pages[@]}"; do
	while (($(jobs -pr | wc -l) >= limit)); do
		wait -n
	done
	run_page "$page" &
done
wait

failed=0 skipped=
for page in "${pages[@]}"; do
	name=${page//\//_}
	sed "s,$DOCS_TOP/,," "$work/$name.out"
	case $(<"$work/$name.rc") in
	0) ;;
	77) skipped+="$page: $(tail -n 1 "$work/$name.out"); " ;;
	*) failed=1 ;;
	esac
done
((failed == 0)) || exit 1
[[ -z $skipped ]] || skip "not run: ${skipped%; }"
