#!/bin/bash
# Runs in namespaces of its own (lib.sh): puts a root together and gives it to a script or to systemd.
#   machine.sh BASE REPO FOLDER SRV chroot SCRIPT [ARG...]
#   machine.sh BASE REPO FOLDER SRV boot
#   machine.sh cgroups              removes what boot left in the hierarchy of control groups
set -eu
cgroup=ocai-machine
mount --make-rprivate /

# A control group of its own, so that the systemd in it takes nothing else for its own.
if [[ $1 == cgroups ]]; then
	mount -t cgroup2 none /mnt
	cd /mnt
	for _ in $(seq 50); do # processes that were killed are gone a little later
		[[ -d $cgroup ]] || exit 0
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
		sleep 0.1
	done
	exit 1
fi
base=$1 repo=$2 folder=$3 srv=$4 how=$5
shift 5
here=$(cd "$(dirname "$0")" && pwd)
if [[ $how == boot ]]; then
	mkdir -p "$folder/cgroup"
	mount -t cgroup2 none "$folder/cgroup"
	mkdir -p "$folder/cgroup/$cgroup"
	echo 0 >"$folder/cgroup/$cgroup/cgroup.procs"
	umount "$folder/cgroup"
	exec unshare -C bash "$0" "$base" "$repo" "$folder" "$srv" boot-in-cgroup
fi

root=$folder/root
mount -t overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" none "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs none dev
for d in null zero full random urandom tty fuse loop-control; do
	[[ -e /dev/$d ]] || continue
	: >"dev/$d"
	mount --bind "/dev/$d" "dev/$d"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs none dev/shm
mount -t tmpfs none run
mkdir -p srv/base
mount --rbind "$srv" srv
mkdir -p srv/base
mount --bind "$repo" srv/base
mount --bind "$here" mnt
ip link set lo up
if [[ $how == chroot ]]; then
	exec env -i PATH=/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 chroot . /bin/bash "/mnt/$1" "${@:2}"
fi
# Not on an overlay, which no overlay can stand on.
mkdir -p "$folder/flip" var/lib/flip
mount --bind "$folder/flip" var/lib/flip
: >dev/console
mount --bind "$folder/console" dev/console
mount -t cgroup2 none sys/fs/cgroup
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old 2>/dev/null || true
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --unit=multi-user.target
