#!/bin/bash
# make check-packages-gpu: the packages of the plugins for GPUs, all targets of both, which takes four cores a quarter of an
# hour. What is in them, that they require nothing of a vendor's, that every target is in there; then, where there is no
# GPU: the installed engine says why it does not use one, and answers from the processor.
#
#   gpu.sh [--keep]     leaves build/packages-gpu, with all that was compiled; takes packages that are there already
set -u
cd "$(dirname "$0")/../.."
top=$PWD/build/packages-gpu
fail() {
	echo "FAIL: $*"
	exit 1
}
ok() {
	echo "ok $*"
}
skip() {
	echo "$*"
	exit 77
}
for tool in rpmbuild rpm2cpio cpio readelf nm; do
	command -v $tool >/dev/null || skip "$tool is missing"
done
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
work=$(mktemp -d /var/tmp/packages-gpu.XXXXXX)
cleanup() {
	rm -rf "$work"
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
	rpm-specs/build-rpms.sh --top "$top" ${keep:+--keep} $(printf -- '--with %s ' "${with[@]}") >"$work/log" 2>&1 ||
		{ tail -n 30 "$work/log"; fail "make rpms WITH='${with[*]}'"; }
fi

mkdir "$work/root"
unpack() {
	(cd "$work/root" && rpm2cpio "$(package "$1")" | cpio -idm --quiet 2>/dev/null) || fail "$1 cannot be unpacked"
}
unpack ocai-engine
unpack ocai-model-mini
[[ ! -e $(compgen -G "$work/root/usr/lib*/ocai/*.so") ]] || fail "ocai-engine holds a plugin"
rpm -qp --nosignature --requires --recommends "$(package ocai-engine)" | grep -iE 'cuda|cublas|nvidia|hip|rocm|amd' && fail "ocai-engine asks for a vendor's library"

# What a target is called in the fat binary of nvcc, and in clang's bundle.
declare -A library=([cuda]=cuda [rocm]=hip)
declare -A targets=([cuda]="sm_80 sm_89 sm_90 sm_100 sm_120" [rocm]="gfx90a gfx942 gfx950 gfx1100 gfx1201")
for w in "${with[@]}"; do
	name=ocai-engine-$w
	file=$(package "$name")
	[[ $file ]] || fail "no package $name"
	requires=$(rpm -qp --nosignature --requires "$file" | grep -vE '^rpmlib\(|^rtld\(|^ocai-engine[( ]|^lib(c|m|dl|pthread|gcc_s|stdc\+\+)\.so\.|^ld-linux')
	[[ -z $requires ]] || fail "$name requires $requires"
	[[ $(rpm -qp --nosignature --licensefiles "$file") == */LICENSE ]] || fail "$name: no licence"
	unpack "$name"
	so=$(compgen -G "$work/root/usr/lib*/ocai/libocai-engine-${library[$w]}.so")
	[[ -e $so ]] || fail "$name holds no plugin"
	[[ -e $work/root/usr/lib/systemd/system/ocai-engine.service.d/$w.conf ]] || fail "$name: no drop-in"
	needed=$(readelf -d "$so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libstdc\+\+|libgcc_s|libdl|libpthread|ld-linux-x86-64)\.so')
	[[ -z $needed ]] || fail "$name is linked with $needed"
	[[ $(nm -D --defined-only "$so" | awk '{ print $NF }' | grep -v '^__hip_') == kn_plugin_entry ]] || fail "$name exports more than its entry"
	have=$(build/release/bin/slimtrace gpu "$so" 2>/dev/null | awk '/cubin|PTX|ptx/ { print $1, tolower($2) }')
	for target in ${targets[$w]}; do
		[[ $w != cuda ]] || grep -q "^$target cubin" <<<"$have" || fail "$name has no code for $target: $have"
		[[ $w != rocm ]] || grep -qa -- "--$target\b" "$so" || fail "$name has no code for $target"
	done
	[[ $w != cuda ]] || grep -q ' ptx' <<<"$have" || fail "$name has no PTX for what comes: $have"
	ok "$name: $(stat -c %s "$file") bytes, the plugin $(stat -c %s "$so"), for ${targets[$w]}; nothing of a vendor's is required"
done

# ---- Without a GPU --------------------------------------------------------------------------------------------------------
engine=$work/root/usr/bin/ocai-engine
said() { # BACKEND: what is said when it is asked for, and that is a failure
	HOME=$work "$engine" run --backend "$1" --temperature 0 --max-tokens 4 "show disk usage" >"$work/out" 2>"$work/err" </dev/null && return 1
	grep -q "backend $1" "$work/err"
}
for w in "${with[@]}"; do
	compgen -G '/dev/nvidia[0-9]*' >/dev/null || compgen -G '/dev/kfd' >/dev/null && { echo "skipped: there is a GPU"; break; }
	said "${library[$w]}" || fail "--backend ${library[$w]} without a device: $(cat "$work/err")"
	ok "--backend ${library[$w]}: $(grep -o "backend ${library[$w]}.*" "$work/err" | head -n 1)"
done
# By itself it takes the processor, and its log says why.
HOME=$work "$engine" serve --port 0 --port-file "$work/port" 2>"$work/log" &
server=$!
for _ in {1..200}; do
	[[ -s $work/port ]] && break
	sleep 0.1
done
curl -fsS "http://127.0.0.1:$(<"$work/port")/v1/completions" -d '{"prompt":"show disk usage","max_tokens":4}' >"$work/answer" 2>"$work/err"
rc=$?
kill $server
wait $server 2>/dev/null
((rc == 0)) || fail "no answer: $(cat "$work/log" "$work/err")"
grep -q '"text"' "$work/answer" || fail "an empty answer: $(<"$work/answer")"
for w in "${with[@]}"; do
	grep -q "backend ${library[$w]}:" "$work/log" || fail "the log does not say why ${library[$w]} is not used: $(<"$work/log")"
done
ok "it answers from the processor and says why"
echo "check-packages-gpu: passed"
