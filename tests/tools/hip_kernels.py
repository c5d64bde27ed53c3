#!/usr/bin/env python3
"""What the compiler made of the kernels for AMD's GPUs: hip_kernels.py [--all] TOOLS FOLDER ARCH...

TOOLS has llvm-readelf, llvm-objdump and clang-offload-bundler, FOLDER the objects (*.cu.o). For each target one line: how many
kernels, how many of them keep something in memory that they have no registers for (scratch), which most, and which has the most
code; --all: which how much. Ends with 1, and says where, when a kernel has more shared memory than a block may have by itself,
or more code than a branch reaches across (the compiler gives up then, sooner or later), or when a file that multiplies has no
instruction of the matrix units.
"""
import os
import re
import subprocess
import sys
import tempfile

MOST_SHARED = 64 << 10
MOST_CODE = 128 << 10
# Files with products on matrix units, and the instructions' names.
MULTIPLY = re.compile(r"(few|many|steady|experts)_(16bit|blocks|k)|attention|attention_few|route")
MATRIX = {"gfx9": "v_mfma_", "gfx11": "v_wmma_", "gfx12": "v_wmma_"}


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout.decode()


def kernels(tools, code):
    """{.name, .vgpr_spill_count, ...} of each kernel of a code object."""
    found, now = [], None
    for line in run(tools + "/llvm-readelf", "--notes", code).splitlines():
        field = re.match(r"(  - |    )(\.[a-z_]+): *(\S*)$", line)
        if field and field[1] == "  - ":
            now = {}
            found.append(now)
        if field and now is not None:
            now[field[2]] = field[3]
    return [k for k in found if ".kernarg_segment_size" in k]


def code_sizes(tools, code):
    """Bytes by name of function."""
    rows = [line.split() for line in run(tools + "/llvm-readelf", "--symbols", "--wide", code).splitlines()]
    return {r[7]: int(r[2]) for r in rows if len(r) == 8 and r[3] == "FUNC"}


def main(tools, folder, archs, every):
    status = 0
    with tempfile.TemporaryDirectory() as work:
        for arch in archs:
            n, spills, shared, sizes = 0, [], 0, {}
            for name in sorted(os.listdir(folder)):
                if not name.endswith(".cu.o"):
                    continue
                bundle, code = work + "/bundle", work + "/code"
                subprocess.run(["objcopy", "-O", "binary", "--only-section=.hip_fatbin", f"{folder}/{name}", bundle], check=True)
                if not os.path.getsize(bundle):
                    continue
                run(tools + "/clang-offload-bundler", "--unbundle", "--type=o", "--input=" + bundle, "--output=" + code,
                    f"--targets=hipv4-amdgcn-amd-amdhsa--{arch}")
                sizes.update(code_sizes(tools, code))
                for k in kernels(tools, code):
                    n += 1
                    if int(k[".private_segment_fixed_size"]):
                        spills.append((int(k[".private_segment_fixed_size"]), k[".name"], name))
                    shared = max(shared, int(k[".group_segment_fixed_size"]))
                matrix = next(v for k, v in MATRIX.items() if arch.startswith(k))
                if MULTIPLY.fullmatch(name[: -len(".cu.o")]) and matrix not in run(tools + "/llvm-objdump", "-d", code):
                    print(f"{name}: no {matrix}* for {arch}")
                    status = 1
            if shared > MOST_SHARED:
                print(f"{arch}: {shared} bytes of shared memory, a block has {MOST_SHARED}")
                status = 1
            longest = max(sizes, key=sizes.get)
            if sizes[longest] > MOST_CODE:
                print(f"{arch}: {sizes[longest]} bytes of code, a branch reaches {MOST_CODE}: {longest}")
                status = 1
            spills.sort(reverse=True)
            worst = f", most of all {spills[0][0]} bytes a lane: {spills[0][1]}" if spills else ""
            print(f"{arch}: {n} kernels, {sum(sizes.values()) >> 10} KiB of code, most in {longest} ({sizes[longest] >> 10} KiB), "
                  f"{len(spills)} with scratch{worst}")
            for size, kernel, name in spills if every else ():
                print(f"  {size} {name} {kernel}")
    return status


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--all"]
    sys.exit(main(arguments[0], arguments[1], arguments[2:], "--all" in sys.argv))
