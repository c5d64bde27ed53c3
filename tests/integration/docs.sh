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
pages=(docs/cold-starts.md README.md docs/slim.md docs/cluster.md docs/serve.md docs/structured-output.md docs/weights.md docs/admin.md
	docs/kernels.md docs/flip-models.md
	docs/slimming.md)
# Their commands take minutes, and tests of their own do what they tell.
# shellcheck disable=SC2034 # read by tests/tools/check-docs.sh
elsewhere=(docs/packaging.md docs/images.md docs/p2p.md)
[[ ${1:-} ]] && pages=("$@")

# As an ordinary user: one with the right to mount, in a user namespace; blocks that need root are left out.
as_root=--root as=()
if ((EUID != 0)); then
	as_root= as=(--user --map-current-user --keep-caps)
fi
unshare "${as[@]}" --mount --pid --net --fork --kill-child --propagation private true 2>/dev/null || skip "no namespaces here"
command -v ip >/dev/null || skip "ip is missing"

work=$(mktemp -d /var/tmp/ocai-docs.XXXXXX)
finish() {
	# What ran in the namespaces ended with them, and their mounts.
	rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'kill $(jobs -pr) 2>/dev/null; exit 130' INT TERM

# The image that pages work on: python3 with what it requires, and a program. Made once, of packages that are made once; where they
# cannot be had the pages that need them are skipped.
make_image() { # FOLDER
	local root=$work/root
	"$bin/slimtrace" cut --repo "$DOCS_RPMS" --no-gpg --out "$root" --with-requires --generate users --generate tmp --ignore-missing \
		bash coreutils python3 ca-certificates >"$work/log" 2>&1 || fail "no image: $(tail -n 5 "$work/log")"
	cat >"$root/srv/app.py" <<-'PY'
		import json, sqlite3

		db = sqlite3.connect(":memory:")
		print(json.dumps({"answer": db.execute("select 6 * 7").fetchone()[0]}))
	PY
	python3 tests/bench/make_oci.py "$work/image" app "$root" || fail "no image"
	rm -rf "$root"
	mv "$work/image" "$1" || fail "no image"
}
export DOCS_RPMS= DOCS_IMAGE= DOCS_NO_RPMS=
if DOCS_NO_RPMS=$(slim_repo && realpath "$REPO"); then
	DOCS_RPMS=$DOCS_NO_RPMS
	key=$({ declare -f make_image; cat tests/bench/make_oci.py "$DOCS_RPMS/packages.txt"; } | sha256sum | cut -c1-16)
	DOCS_IMAGE=$PWD/build/fixtures/docs-image/$key
	mkdir -p build/fixtures/docs-image
	exec 9>build/fixtures/docs-image/lock
	flock 9
	[[ -e $DOCS_IMAGE/index.json ]] || make_image "$DOCS_IMAGE"
	exec 9>&-
fi

# The place, made inside the namespaces. /var/tmp and /tmp stay the host's: $work is there.
cat >"$work/place" <<'PLACE'
set -e
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
here=$1
shift
mkdir -p "$here/home" "$here/folder" "$here/etc"
# /etc of its own, of what may be read, without anything configured.
cp -r --preserve=mode,links /etc/. "$here/etc" 2>/dev/null || true
rm -rf "$here/etc/containerd" "$here/etc/ocai"
mount --bind "$here/etc" /etc
if [[ $DOCS_ROOT ]]; then
	# What is made below /var/lib goes into memory; the stores want a real file system.
	mkdir -p "$here/up" "$here/var-flip" "$here/var-containerd"
	mount -t tmpfs tmpfs "$here/up"
	mkdir -p "$here/up/upper" "$here/up/work"
	mount -t overlay -o "lowerdir=/var/lib,upperdir=$here/up/upper,workdir=$here/up/work" overlay /var/lib
	mkdir -p /var/lib/flip /var/lib/containerd
	mount --bind "$here/var-flip" /var/lib/flip
	mount --bind "$here/var-containerd" /var/lib/containerd
fi
cd "$here/folder"
exec env -i PATH="$DOCS_PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$here/home" USER="$(id -un)" SHELL=/bin/bash \
	TERM=dumb LANG=C.UTF-8 TMPDIR="$here" DOCS_TOP="$DOCS_TOP" DOCS_RPMS="$DOCS_RPMS" DOCS_IMAGE="$DOCS_IMAGE" DOCS_NO_RPMS="$DOCS_NO_RPMS" DOCS_LOGS="$here/logs" ${DOCS_SHOW:+DOCS_SHOW=1} \
	OCAI_PLUGIN_DIR="$DOCS_TOP/no-plugins" OCAI_MODEL_DIR="$DOCS_TOP/engine/models/mini" OCAI_KNOWLEDGE_DIR="$DOCS_TOP/agent/knowledge" "$@"
PLACE
export DOCS_PATH=$bin DOCS_ROOT=$as_root
run_page() { # PAGE
	local name=${1//\//_}
	mkdir -p "$work/$name/logs"
	timeout -k 5 800 unshare "${as[@]}" --mount --pid --net --fork --kill-child --propagation private \
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
