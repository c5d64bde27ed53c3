#!/bin/bash
# kill -9 at random points of everything the daemon does: reads of what is missing, the list of a start, the fetch of the
# rest, pulls by containerd (lazy and unpacked), mounts being set up, garbage collection, conversion. After each kill a new
# daemon must go on: readers over the kill get right bytes, a container that was there before is there with what it wrote,
# the whole tree reads right, fsck finds nothing.
#
#   FLIP_KILLS=N   kills [16]; FLIP_KILLS=200 is the long way, some 12 minutes. They are dealt out evenly over the phases.
#   FLIP_SEED=N    the same points again (as far as time repeats itself)
#   FLIP_PHASES=   some of: read prefetch background pull unpack mount gc convert
. "$(dirname "$0")/flip/lib.sh"
n_kills=${FLIP_KILLS:-16}
seed=${FLIP_SEED:-$$}
phases=(${FLIP_PHASES:-read prefetch background pull unpack mount gc convert})
begin flip-kills containerd ctr docker-registry skopeo umoci
. $here/faulty.sh
export FLIP_BACKGROUND_WAIT=1

is_mounted() { awk -v d="$1" '$2 == d' /proc/self/mounts | grep -q .; }
wait_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }
pull() { "$flip" pull -q --address "$work/containerd.sock" --namespace $namespace "$at:$1" >"$work/out" 2>&1; }

# ---- A container that lives all the time -------------------------------------------------------------------------------

mkdir -p "$work/kept" "$work/lives" "$work/view"
head -c 5000000 /dev/urandom >"$work/kept/large"
echo "a file" >"$work/kept/small"
layout_of "$work/image" kept "$work/kept"
"$flip" convert --no-prefetch -f zstd-chunked "oci:$work/image:kept" "docker://127.0.0.1:$port/img:kept" >/dev/null || fail "convert"
containerd_config
printf '[proxy_plugins.flip]\n  type = "snapshot"\n  address = "%s"\n' "$work/flip.sock" >>"$work/config.toml"
start_flip
start_containerd
where=start
pull kept || fail "pull: $(<"$work/out")"
chain=$(ctr snapshots --snapshotter flip ls | awk '$NF == "Committed" { print $1 }')
ctr snapshots --snapshotter flip prepare lives "$chain" >"$work/out" 2>&1 || fail "prepare: $(<"$work/out")"
eval "$(ctr snapshots --snapshotter flip mounts "$work/lives" lives)" || fail "no mount of the container"
echo written >"$work/lives/written"
lives() {
	cmp "$work/kept/large" "$work/lives/large" && cmp "$work/kept/small" "$work/lives/small" &&
		[[ $(<"$work/lives/written") == written ]] || fail "$where: the container has lost something"
}

# ---- Phases ------------------------------------------------------------------------------------------------------------

# Nothing but the container, mounted or stored.
empty() {
	local image
	if is_mounted "$work/view"; then
		umount "$work/view" || fail "$where: umount of the view"
		redialled
		ctr snapshots --snapshotter flip rm view || fail "$where: rm of the view"
	fi
	! is_mounted "$work/mnt" || ask unmount "$work/mnt" || fail "$where: unmount: $(<"$work/out")"
	for image in $(ctr images ls -q | grep -v ':kept$'); do
		redialled
		ctr images rm --sync "$image" >"$work/out" 2>&1 || fail "$where: $image is not removed: $(<"$work/out")"
	done
	ask gc --all || fail "$where: gc: $(<"$work/out")"
}
mounted() { is_mounted "$work/mnt" || ask mount "$at:$1" "$work/mnt" || fail "$where: $1 is not mounted: $(<"$work/out")"; }
# The image as containerd starts it, as far as that is ours.
view() {
	pull "$1" || fail "$where: pull: $(<"$work/out")"
	chain=$(ctr snapshots --snapshotter flip ls | awk -v kept="$chain" '$NF == "Committed" && $1 != kept { print $1 }' | head -n 1)
	# A view would be garbage to containerd: `ctr snapshots view` roots nothing.
	ctr snapshots --snapshotter flip prepare view "$chain" >"$work/out" 2>&1 || fail "$where: prepare: $(<"$work/out")"
	eval "$(ctr snapshots --snapshotter flip mounts "$work/view" view)" || fail "$where: no mount of the view"
}
# Until the daemon has fetched something for this reason, so that the kill meets it.
has_begun() {
	until_true stat_is reads "$1_bytes" ">" 0 || fail "$where: nothing was fetched"
}
speed=1000000 # of what a kill is to meet: a second, each connection

begin_phase() { # sets $reader or $doing, and $ms
	reader='' doing=''
	kinds=(zstd gzip listed)
	kind=${kinds[RANDOM % 3]}
	ms=$((RANDOM % 400))
	kept_chain=$chain
	case $phase in
	read) # sometimes half of it is there from the last time
		((RANDOM % 3)) && empty
		mounted $kind
		read_all 8 >"$work/reads" 2>&1 &
		reader=$!
		;;
	prefetch)
		kind=listed
		empty
		fault slow $speed
		ask mount "$at:$kind" "$work/mnt" || fail "$where: mount: $(<"$work/out")"
		has_begun prefetch
		;;
	background)
		kind=zstd
		empty
		redialled
		fault slow $speed
		view $kind
		has_begun background
		;;
	pull | unpack)
		[[ $phase == unpack ]] && kind=plain
		empty
		redialled
		pull $kind 2>/dev/null &
		doing=$!
		;;
	mount)
		empty
		ask mount "$at:$kind" "$work/mnt" &
		doing=$!
		ms=$((ms / 8))
		;;
	gc)
		mounted $kind
		read_all 8 >"$work/reads" || fail "$where: $(<"$work/reads")"
		ask unmount "$work/mnt" || fail "$where: unmount"
		ctl gc --all >/dev/null 2>&1 &
		doing=$!
		ms=$((ms / 8))
		;;
	convert)
		mounted $kind
		rm -rf "$work/converted"
		# umoci, which judges the result, reads no zstd.
		"$flip" convert -f estargz "oci:$work/image:a" "oci:$work/converted:new" >/dev/null 2>&1 &
		doing=$!
		# Every second time as soon as the result has its name: what has it must be whole.
		if ((${rounds[convert]:-0} % 2)); then
			ms=0
			until grep -qs '"new"' "$work/converted/index.json" || ! kill -0 $doing 2>/dev/null; do :; done
		fi
		;;
	esac
	chain=$kept_chain
}

converted() { # the conversion was killed
	if skopeo inspect --raw "oci:$work/converted:new" >/dev/null 2>&1; then # it was done before the kill
		rm -rf "$work/unpacked"
		umoci unpack --rootless --image "$work/converted:new" "$work/unpacked" >"$work/out" 2>&1 || fail "$where: half an image"
		rm -f "$work/unpacked/rootfs"/{.no.prefetch.landmark,.prefetch.landmark,stargz.index.json} # what the format adds
		diff -r "$work/tree" "$work/unpacked/rootfs" >"$work/out" || fail "$where: another image"
	fi
	"$flip" convert "oci:$work/image:a" "oci:$work/converted:new" >"$work/out" 2>&1 || fail "$where: no conversion after a kill: $(<"$work/out")"
	[[ -z $(ls "$TMPDIR") ]] || fail "$where: conversions left $(ls "$TMPDIR")"
}

RANDOM=$seed
echo "kills: seed $seed"
declare -A rounds=()
for ((round = 1; round <= n_kills; round++)); do
	phase=${phases[(round - 1) % ${#phases[@]}]}
	where="round $round ($phase)"
	begin_phase
	wait_ms $ms
	where="round $round ($phase $kind, $ms ms)"
	if [[ $phase == convert ]]; then
		end_child $doing -9
		converted
	fi
	kill_flip
	[[ -n $doing ]] && wait $doing 2>/dev/null
	fault none
	start_flip
	if [[ -n $reader ]]; then
		wait $reader || fail "$where: a reader over the kill: $(<"$work/reads")"
	fi
	lives
	if is_mounted "$work/view"; then
		mnt=$work/view
	else
		if [[ $phase == pull || $phase == unpack ]]; then # it is to work now, whatever was begun
			redialled
			pull $kind || fail "$where: the next pull: $(<"$work/out")"
		fi
		mnt=$work/mnt
		mounted $kind
	fi
	read_all 16 >"$work/reads" || fail "$where: $(<"$work/reads")"
	clean "$where"
	touch -r "$work/tree" "$mnt" 2>/dev/null # the root of what can be written to is of today
	((round % 5)) || equal "$where"
	rounds[$phase]=$((${rounds[$phase]:-0} + 1))
done

# The rest of what a container stands on goes on after a kill, without a read.
where="the rest"
phase=background
speed=300000 # so that it has not all come before the next daemon has answered
begin_phase
kill_flip
n_contents=$(find "$work/tree" "$work/kept" -type f -size +0 -exec sha256sum {} + | cut -d' ' -f1 | sort -u | wc -l)
start_flip
stat_is store objects "<" $n_contents || fail "$where: there is none"
fault none
until_true stat_is store objects == $n_contents || fail "$where: $(stat_of store objects) of $n_contents contents came"
mnt=$work/view
read_all 16 >"$work/reads" || fail "$where: $(<"$work/reads")"
lives
where=end
redialled
ctr snapshots --snapshotter flip info lives >"$work/out" 2>&1 || fail "containerd's container: $(<"$work/out")"
no_sanitizer
for phase in "${phases[@]}"; do
	echo "kill -9: $phase ${rounds[$phase]:-0}"
done
