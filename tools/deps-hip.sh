#!/bin/bash
# make deps-hip: a compiler for AMD GPUs, which Debian 12 does not have, in a folder of its own: packages of Debian's
# unstable suite are unpacked into build/deps/hip, not installed. 720 MB; the system is not touched. What it builds needs
# the system's own C library only. Needs apt-get, dpkg, patchelf; no root.
set -euo pipefail
cd "$(dirname "$0")/.."

version=21
prefix=$PWD/build/deps/hip
[[ -x $prefix/clang++ && -e $prefix/rocm/include/hipblaslt ]] && exit 0
for tool in apt-get dpkg patchelf; do
	command -v $tool >/dev/null || {
		echo "make deps-hip: $tool is missing" >&2
		exit 1
	}
done

rm -rf "$prefix"
apt=$prefix/apt
mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial "$prefix"/root "$prefix"/rocm/include "$prefix"/rocm/share
: >"$apt/status"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
echo "deb $mirror sid main" >"$apt/sources.list"
cat >"$apt/apt.conf" <<END
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Check-Valid-Until "false";
END
export APT_CONFIG=$apt/apt.conf
apt-get -qq update
apt-get -qq -y -d -o Debug::NoLocking=1 install clang-$version lld-$version clang-tools-$version llvm-$version \
	rocm-device-libs-$version libamdhip64-dev >/dev/null
# Headers only, to compare what we declare of the library with; the library itself is for machines with a device.
(cd "$apt/cache/archives" && apt-get -qq -o Debug::NoLocking=1 download libhipblaslt-dev libhipblas-common-dev)
for deb in "$apt"/cache/archives/*.deb; do
	dpkg -x "$deb" "$prefix/root"
done

# Programs find the libraries, and the C library, that they were made with.
lib=$prefix/root/usr/lib
arch=$lib/$(gcc -dumpmachine)
llvm=$lib/llvm-$version
for program in clang lld clang-offload-bundler clang-linker-wrapper llvm-objdump llvm-readelf; do
	patchelf --set-interpreter "$arch/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$arch:$llvm/lib" \
		"$(readlink -f "$llvm/bin/$program")"
done
find "$lib" \( -name 'libLLVM*.so*' -o -name 'libclang-cpp*.so*' -o -name 'liblld*.so*' \) -type f \
	-exec patchelf --force-rpath --set-rpath "$arch:$llvm/lib" {} \;
for headers in hip hipblaslt hipblas-common; do
	ln -sfn ../../root/usr/include/$headers "$prefix/rocm/include/$headers"
done
ln -sfn ../../root/usr/share/hip "$prefix/rocm/share/hip"
rm -rf "$apt"

cat >"$prefix/clang++" <<END
#!/bin/sh
exec "$llvm/bin/clang++" --rocm-path="$prefix/rocm" \\
	--rocm-device-lib-path="$llvm/lib/clang/$version/amdgcn/bitcode" "\$@"
END
chmod +x "$prefix/clang++"
