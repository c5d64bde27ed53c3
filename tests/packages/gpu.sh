#!/bin/bash
# make check-packages-gpu: the packages of the plugins for GPUs, all targets of both, which takes four cores a quarter of an
# hour (GPU_ARCHS, HIP_ARCHS: these alone). What is in them, that they require nothing of a vendor's, that every target is in
# there; then, in a machine of its own (lib.sh): dnf installs them out of a signed repository, the engine says why it does
# not use a GPU that is not there, and answers from the processor; their removal leaves nothing.
#
#   gpu.sh [--keep]     leaves build/packages-gpu, with all that was compiled; takes packages that are there already
set -u
cd "$(dirname "$0")/../.."
. tests/packages/lib.sh
top=$PWD/build/packages-gpu
for tool in rpmbuild rpm2cpio cpio readelf nm; do
	command -v $tool >/dev/null || skip "$tool is missing"
done
[[ -x build/release/bin/slimtrace ]] || fail "no build/release/bin/slimtrace, which lists a plugin's targets: make"
with=()
if [[ -x ${NVCC:-/usr/local/cuda/bin/nvcc} ]] || command -v nvcc >/dev/null; then
	with+=(cuda)
else
	echo "skipped: ocai-engine-cuda, there is no nvcc"
fi
if [[ ${HIP_CXX:-} || -x build/deps/hip/clang++ ]]; then
	with+=(rocm)
else
	echo "skipped: ocai-engine-rocm, there is no compiler (make deps-hip)"
fi
((${#with[@]})) || skip "no compiler for any GPU"
WORK=$(mktemp -d /var/tmp/packages-gpu.XXXXXX)
cleanup() {
	gpgconf --homedir "$top/test-key" --kill gpg-agent 2>/dev/null
	rm -rf "$WORK"
	[[ ${keep:-} ]] || rm -rf "$top"
}
[[ ${1:-} != --keep ]] || keep=1
trap cleanup EXIT

package() { # NAME: its file
	compgen -G "$top/RPMS/*/$1-[0-9]*.rpm" | grep -v -- -debug
}
missing=
for w in "${with[@]}"; do
	[[ $(package "ocai-engine-$w") ]] || missing=1
done
if [[ $missing || ! ${keep:-} ]]; then
	rpm-specs/build-rpms.sh --top "$top" ${keep:+--keep} $(printf -- '--with %s ' "${with[@]}") \
		${GPU_ARCHS:+-D "gpu_archs $GPU_ARCHS"} ${HIP_ARCHS:+-D "hip_archs $HIP_ARCHS"} >"$WORK/log" 2>&1 ||
		{ tail -n 30 "$WORK/log"; fail "make rpms WITH='${with[*]}'"; }
fi

mkdir "$WORK/root"
unpack() {
	(cd "$WORK/root" && rpm2cpio "$(package "$1")" | cpio -idm --quiet 2>/dev/null) || fail "$1 cannot be unpacked"
}
unpack ocai-engine
unpack ocai-model-mini
[[ ! -e $(compgen -G "$WORK/root/usr/lib*/ocai/*.so") ]] || fail "ocai-engine holds a plugin"
rpm -qp --nosignature --requires --recommends "$(package ocai-engine)" | grep -iE 'cuda|cublas|nvidia|hip|rocm|amd' && fail "ocai-engine asks for a vendor's library"

# What a target is called in the fat binary of nvcc, and in clang's bundle.
declare -A library=([cuda]=cuda [rocm]=hip)
declare -A targets=([cuda]="${GPU_ARCHS:-all}" [rocm]="${HIP_ARCHS:-all}")
[[ ${targets[cuda]} != all ]] || targets[cuda]="sm_80 sm_89 sm_90a sm_100 sm_120"
[[ ${targets[rocm]} != all ]] || targets[rocm]="gfx90a gfx942 gfx950 gfx1100 gfx1201"
for w in "${with[@]}"; do
	name=ocai-engine-$w
	file=$(package "$name")
	[[ $file ]] || fail "no package $name"
	requires=$(rpm -qp --nosignature --requires "$file" | grep -vE '^rpmlib\(|^rtld\(|^ocai-engine[( ]|^lib(c|m|dl|pthread|gcc_s|stdc\+\+)\.so\.|^ld-linux')
	[[ -z $requires ]] || fail "$name requires $requires"
	[[ $(rpm -qp --nosignature --licensefiles "$file") == */LICENSE ]] || fail "$name: no licence"
	unpack "$name"
	so=$(compgen -G "$WORK/root/usr/lib*/ocai/libocai-engine-${library[$w]}.so")
	[[ -e $so ]] || fail "$name holds no plugin"
	[[ -e $WORK/root/usr/lib/systemd/system/ocai-engine.service.d/$w.conf ]] || fail "$name: no drop-in"
	needed=$(readelf -d "$so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libstdc\+\+|libgcc_s|libdl|libpthread|ld-linux-x86-64)\.so')
	[[ -z $needed ]] || fail "$name is linked with $needed"
	[[ $(nm -D --defined-only "$so" | awk '{ print $NF }' | grep -v '^__hip_') == kn_plugin_entry ]] || fail "$name exports more than its entry"
	have=$(build/release/bin/slimtrace gpu "$so" 2>/dev/null | awk '/cubin|PTX|ptx/ { print $1, tolower($2) }')
	for target in ${targets[$w]}; do
		[[ $w != cuda ]] || grep -q "^${target%a} cubin" <<<"$have" || fail "$name has no code for $target: $have"
		[[ $w != rocm ]] || grep -qa -- "--$target\b" "$so" || fail "$name has no code for $target"
	done
	[[ $w != cuda || ${targets[cuda]} != *sm_80* ]] || grep -q ' ptx' <<<"$have" || fail "$name has no PTX for what comes: $have"
	ok "$name: $(stat -c %s "$file") bytes, the plugin $(stat -c %s "$so"), for ${targets[$w]}; nothing of a vendor's is required"
done

# ---- Installed ------------------------------------------------------------------------------------------------------------
(base_root)
case $? in
0) base_root ;;
77)
	echo "skipped: their installation by dnf"
	exit 0
	;;
*) exit 1 ;;
esac
rpm-specs/build-repo.sh --top "$top" --out "$WORK/srv/gpu" >"$WORK/log" 2>&1 || { cat "$WORK/log"; fail "make repo"; }
in_machine "$WORK/machine" yum-gpu.sh "${with[@]}" || fail "see above"
echo "check-packages-gpu: passed"
