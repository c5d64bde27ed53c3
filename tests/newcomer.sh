#!/bin/bash
# make check-newcomer: what happens to somebody who has a bare Debian 12 and this repository. A root is made by
# debootstrap from the mirrors that this machine's apt uses, the committed tree (HEAD) is cloned in it, and the two commands
# of the README are run there. Nothing else is given to it: no locale, no cache of ours, no file of the build folder.
#
#   newcomer.sh [OPTION]...
#     --check         also `make check`; without it only `make quickstart`
#     --user          as an ordinary user with sudo rather than as root
#     --deps          `make deps` twice, too: what both lists install, and that the second time does nothing
#     --keep          the root stays, and its place is printed
#     --cache DIR     downloaded packages are kept here [build/newcomer-debs]
#
# Needs root, debootstrap and a mirror; some 3 GB in $TMPDIR or /var/tmp. Four cores in use by others took 4 minutes (load
# 10) to 10 minutes (load 40) for quickstart, half of it packages, half the build; the packages of --deps another 5. Exit 77 where it cannot be done. Not part of `make check`.
set -euo pipefail
cd "$(dirname "$0")/.."

check= user= deps= keep= cache=$PWD/build/newcomer-debs
while (($#)); do
	case $1 in
	--check) check=1 ;;
	--user) user=1 ;;
	--deps) deps=1 ;;
	--keep) keep=1 ;;
	--cache) cache=$2 && shift ;;
	*)
		sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"
		exit 2
		;;
	esac
	shift
done

skip() {
	echo "$*"
	exit 77
}
((EUID == 0)) || skip "not root: debootstrap needs it"
command -v debootstrap >/dev/null || skip "debootstrap is missing (apt-get install debootstrap)"
git rev-parse --verify -q HEAD >/dev/null || skip "not a git checkout: nothing to clone"
git diff --quiet HEAD || echo "note: changes that are not committed are not in the clone"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
security=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian-Security' | head -n 1)
[[ $mirror ]] || skip "this machine's apt knows no Debian mirror"
# Debian's own keys: apt may trust further ones.
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -e $keys ]] || skip "$keys is missing (apt-get install debian-archive-keyring)"

work=$(mktemp -d "${TMPDIR:-/var/tmp}/newcomer.XXXXXX")
chmod 755 "$work"
finish() {
	if [[ $keep ]]; then
		echo "kept: $work/root"
	else
		rm -rf --one-file-system "$work"
	fi
}
trap finish EXIT
trap 'exit 130' INT TERM
mkdir -p "$cache"
begin=$SECONDS
step() {
	printf '== %4d s  %s\n' $((SECONDS - begin)) "$*"
}

step "debootstrap bookworm from $mirror"
debootstrap --variant=minbase --keyring="$keys" --cache-dir="$(realpath "$cache")" bookworm "$work/root" "$mirror" >"$work/log" 2>&1 || {
	tail -n 20 "$work/log"
	exit 1
}
{
	echo "deb $mirror bookworm main"
	echo "deb $mirror bookworm-updates main"
	[[ -z $security ]] || echo "deb $security bookworm-security main"
} >"$work/root/etc/apt/sources.list"
cp /etc/resolv.conf "$work/root/etc/resolv.conf"
echo "127.0.0.1 localhost $(hostname)" >"$work/root/etc/hosts" # as an installed system has it: sudo asks
apt-config dump | grep -E '^Acquire::https?::Proxy' >"$work/root/etc/apt/apt.conf.d/30proxy" || true
git clone -q --bare --no-local . "$work/ocai.git"
# Named for whoever reads the log.
step "a clone of $(git log -1 --format='%h %s')"

cat >"$work/root/newcomer" <<'INSIDE'
set -e
begin=$SECONDS
step() { printf '== %4d s  inside: %s\n' $((SECONDS - begin)) "$*"; }
export DEBIAN_FRONTEND=noninteractive
step "apt-get install git make"
apt-get -qq update
apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends git make ca-certificates ${NEWCOMER_USER:+sudo} >/dev/null
home=/root
as=()
if [ "$NEWCOMER_USER" ]; then
	useradd -m -s /bin/bash newcomer
	echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/newcomer
	home=/home/newcomer
	as=(setpriv --reuid newcomer --regid newcomer --init-groups env HOME=$home USER=newcomer)
fi
git config --system --add safe.directory '*'
cd $home
"${as[@]}" git clone -q /ocai.git ocai
cd ocai
"${as[@]}" git log -1 --format='%h %s'
step "make quickstart"
"${as[@]}" make quickstart 2>&1 | tee /tmp/quickstart.log
test "${PIPESTATUS[0]}" = 0
# The assistant's answer is the last line, and is a command.
tail -n 1 /tmp/quickstart.log | grep -qE '(yum|dnf)' || { echo "FAIL: quickstart ended with: $(tail -n 1 /tmp/quickstart.log)"; exit 1; }
step "quickstart again: nothing to install, nothing to build"
"${as[@]}" make quickstart 2>&1 | tee /tmp/again.log
if grep -qE '^  (CC|LINK)|installing' /tmp/again.log; then echo "FAIL: the second quickstart did it all again"; exit 1; fi
if [ "$NEWCOMER_DEPS" ]; then
	step "make deps"
	"${as[@]}" make deps
	step "make deps again"
	"${as[@]}" make deps | tee /tmp/deps.log
	test ! -s /tmp/deps.log || { echo "FAIL: the second make deps did something"; exit 1; }
fi
if [ "$NEWCOMER_CHECK" ]; then
	step "make check"
	"${as[@]}" make check 2>&1 | tee /tmp/check.log
	test "${PIPESTATUS[0]}" = 0
fi
"${as[@]}" git status --porcelain | tee /tmp/status
test ! -s /tmp/status || { echo "FAIL: the commands changed or left files in the tree"; exit 1; }
step "done"
INSIDE

# Its own mounts and processes, all of which end with it.
cat >"$work/enter" <<'ENTER'
set -e
root=$1
# A root of its own rather than chroot, in which no user namespaces can be made.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for d in null zero full random urandom tty fuse; do
	[ -e /dev/$d ] || continue
	: >"$root/dev/$d"
	mount --bind /dev/$d "$root/dev/$d"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mkdir -p "$root/ocai.git" "$root/var/cache/apt/archives"
mount --bind "$2" "$root/ocai.git"
mount --bind "$3" "$root/var/cache/apt/archives"
mkdir -p "$root/old"
cd "$root"
pivot_root . old
umount -l /old
# As a login gives it: no locale, no colours.
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root SHELL=/bin/bash TERM=dumb \
	NEWCOMER_USER="$4" NEWCOMER_CHECK="$5" NEWCOMER_DEPS="$6" /bin/bash /newcomer
ENTER
rc=0
unshare --mount --pid --fork --kill-child --propagation private bash "$work/enter" "$work/root" "$work/ocai.git" "$(realpath "$cache")" \
	"$user" "$check" "$deps" || rc=$?
step "ended with $rc"
exit $rc
