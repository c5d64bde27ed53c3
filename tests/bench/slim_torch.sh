#!/bin/bash
# PyTorch cut from packages: bytes of the root beside those of its 380 packages, and the time it takes. Makes the packages
# first (a download of some 400 MB, minutes), so it runs only when SLIM_TORCH=1 says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [[ ${SLIM_TORCH:-} != 1 ]]; then
	echo "slim_torch: left out, SLIM_TORCH=1 runs it (makes 380 packages)" >&2
	exit 0
fi
slimtrace=${BUILD_DIR:-build/release}/bin/slimtrace
top=$PWD/build/fixtures
packages=(busybox bash coreutils libc-bin base-files base-passwd python3 python3-torch ca-certificates)
repo=$top/rpm-repo/torch
if [[ ! -e $repo/packages.txt ]]; then
	rm -rf "$repo" "$repo.new"
	tests/fixtures/make-rpm-repo --cache "$top/debs" "$repo.new" "${packages[@]}" >&2
	mv "$repo.new" "$repo"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

begin=${EPOCHREALTIME/./}
"$slimtrace" cut --repo "$repo" --out "$work/root" /usr/bin/python3 python:torch "$@" >"$work/log" || { tail -n 3 "$work/log" >&2; exit 1; }
us=$((${EPOCHREALTIME/./} - begin))
bytes=$(find "$work/root" -type f -printf '%i %s\n' | sort -u | awk '{ n += $2 } END { print n }')
tail -n 1 "$work/log" >&2
if ((EUID == 0)); then
	mkdir -p "$work/root/dev"
	mknod -m 666 "$work/root/dev/null" c 1 3
	mknod -m 666 "$work/root/dev/urandom" c 1 9
	chroot "$work/root" /usr/bin/python3 -c 'import torch
x = torch.ones(3, requires_grad=True); (x * 2).sum().backward(); print(x.grad.tolist())' >&2
fi
row='{"bench":"slim_torch","case":"%s","value":%s,"unit":"%s","limit":null,"share":null,"peer":%s,"ratio":%s}\n'
# The peer: what the closest a package manager comes to it installs (sum of the packages that dnf would choose).
peer=1068900000
printf "$row" "cut, bytes" "$bytes" bytes "$peer" "$(awk -v a="$peer" -v b="$bytes" 'BEGIN { printf "%.2f", a / b }')"
printf "$row" "cut, time" "$((us / 1000))" ms null null
