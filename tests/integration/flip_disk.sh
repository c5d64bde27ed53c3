#!/bin/bash
# A full disk, and a session that cannot be gone on with: a small file system of its own is filled while files arrive and
# while an image is unpacked; what the next daemon is to go on with is lost, or replaced by nonsense. Errors that say what
# they are, and everything right again when there is room, or a new mount.
. "$(dirname "$0")/flip/lib.sh"
begin flip-disk docker-registry skopeo mkfs.ext4
. $here/faulty.sh

# ---- A full disk -----------------------------------------------------------------------------------------------------------

truncate -s 64M "$work/disk"
mkfs.ext4 -q -O ^has_journal -m 0 "$work/disk" || fail "mkfs"
mkdir "$work/small"
mount -o loop "$work/disk" "$work/small" || skip "no loop device"
mkdir "$work/other"
head -c 16000000 /dev/urandom >"$work/other/large"
for kind in zstd plain; do
	end_node
	node=$work/small/$kind
	start_flip
	pid=$daemon
	if [[ $kind == zstd ]]; then
		ask mount "$at:zstd" "$work/mnt" || fail "full: mount"
		fallocate -l $(($(stat -f -c "%a*%S" "$work/small") - 6000000)) "$work/small/fill" || fail "fallocate"
		read_all >"$work/reads"
		code=$?
		((code == 3)) || fail "full: expected errors, got $code: $(<"$work/reads")"
		grep -qE '\((EIO|ENOSPC|EIO ENOSPC)\)$' "$work/reads" || fail "full: $(<"$work/reads")"
		kill -0 $pid || fail "full: the daemon is gone"
		clean "full"
		rm "$work/small/fill"
	else
		fallocate -l $(($(stat -f -c "%a*%S" "$work/small") - 6000000)) "$work/small/fill" || fail "fallocate"
		ask mount "$at:plain" "$work/mnt" && fail "full: unpacked"
		grep -q "space" "$work/out" || fail "full: no word of space: $(<"$work/out")"
		kill -0 $pid || fail "full: the daemon is gone"
		clean "full"
		rm "$work/small/fill"
		ask mount "$at:plain" "$work/mnt" || fail "mount after there was room: $(<"$work/out")"
	fi
	equal "$kind after there was room"
	clean "$kind after there was room"
	printf '%-6s %-14s %s\n' $kind "disk full" "$([[ $kind == zstd ]] && cat "$work/reads")"
done
end_node

# Contents that are complete and that nobody uses make room for what somebody reads: no error at all.
layout_of "$work/image" other "$work/other"
"$flip" convert --no-prefetch "oci:$work/image:other" "docker://127.0.0.1:$port/img:other" >/dev/null || fail "convert"
node=$work/small/evict
start_flip
ask mount "$at:zstd" "$work/mnt" || fail "evict: mount"
read_all >"$work/reads" || fail "evict: $(<"$work/reads")"
ask unmount "$work/mnt" || fail "evict: unmount"
before=$(stat_of store objects)
fallocate -l $(($(stat -f -c "%a*%S" "$work/small") - 6000000)) "$work/small/fill" || fail "fallocate"
ask mount "$at:other" "$work/mnt" || fail "evict: mount: $(<"$work/out")"
cmp "$work/other/large" "$work/mnt/large" || fail "evict: contents that nobody uses were kept: $before before, $(stat_of store objects) now"
clean "evict"
ask unmount "$work/mnt"
rm "$work/small/fill"
ask mount "$at:zstd" "$work/mnt" || fail "evict: mount again"
equal "what had to go"
end_node
echo "$before contents, then room for what was read"
umount -l "$work/small" # the kernel lets go of what was mounted on it a little later

# ---- A session that cannot be gone on with ------------------------------------------------------------------------------

for how in state descriptor silent; do
	fresh_node
	ask mount "$at:zstd" "$work/mnt" || fail "$how: mount"
	read_all >"$work/reads" || fail "$how: $(<"$work/reads")"
	kill_flip
	case $how in
	state) # what was noted in /run is lost
		rm "$(session_of "$node")" || fail "no state"
		;;
	descriptor | silent) # the holder has something else, or says nothing that can be understood
		python3 - "$node/holder.sock" $how <<'PY' || fail "no other holder"
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
fd = os.open("/dev/null" if sys.argv[2] == "descriptor" else "/dev/fuse", os.O_RDWR)
s.sendmsg([b"P"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
assert s.recv(1) == b"K"
PY
		;;
	esac
	start_flip
	# What was mounted over the lost session is lost; a new mount works.
	umount -l "$work/mnt" 2>/dev/null
	ask mount "$at:zstd" "$work/mnt" || fail "$how: mount anew: $(<"$work/out")"
	equal "$how lost"
	# And the new session is one that can be gone on with.
	kill_flip
	start_flip
	read_all >"$work/reads" || fail "$how, next start: $(<"$work/reads")"
	clean "$how"
	echo "session: $how lost, mounted anew"
done

end_node
no_sanitizer
echo "a full disk and three lost sessions: everything right afterwards"
