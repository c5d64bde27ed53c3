"""The assistant's own matcher (agent/src/know), for the recipe: the task templates nearest to a question.

At run time the model sees them in its system message; so it does in training. The sources are compiled once with the C
compiler at hand; the same code, the same order, the same cut as in ag_know_hints().
"""
import ctypes
import glob
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../../..")
CATALOGUE = os.path.join(ROOT, "agent/knowledge")
N_HINTS = 4
GLUE = """
#include <string.h>
#include "know/know.h"
struct ag_know *nearest_open(const char *folder);
struct ag_know *nearest_open(const char *folder)
{
	struct ag_know *k = NULL;
	return ag_know_open(folder, &k, NULL) < 0 ? NULL : k;
}
int nearest_hints(const struct ag_know *k, const char *question, int n, char *out, int size);
int nearest_hints(const struct ag_know *k, const char *question, int n, char *out, int size)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	int r = ag_know_hints(k, question, (size_t)n, &b);
	if (r >= 0 && b.len < (size_t)size)
		memcpy(out, b.len ? b.data : "", b.len + (b.len ? 1 : 0));
	if (r < 0 || !b.len || b.len >= (size_t)size)
		out[0] = 0;
	base_buf_done(&b);
	return r;
}
"""
_state = {}


def build(folder):
    """Compiles the matcher into folder/libnearest.so."""
    target = os.path.join(folder, "libnearest.so")
    glue = os.path.join(folder, "nearest.c")
    with open(glue, "w", encoding="utf-8") as f:
        f.write(GLUE)
    sources = glob.glob(ROOT + "/agent/src/know/*.c") + glob.glob(ROOT + "/agent/src/gate/*.c")
    sources = [s for s in sources if os.path.basename(s) not in ("audit.c", "mask.c", "rules.c")]
    sources += [ROOT + "/base/src/" + name for name in ("buf.c", "err.c", "mapfile.c")]
    subprocess.run(["cc", "-std=gnu11", "-O2", "-march=native", "-shared", "-fPIC", "-D_GNU_SOURCE", '-DOCAI_PREFIX="/usr"', '-DOCAI_VERSION="0"',
                    "-I" + ROOT + "/agent/src", "-I" + ROOT + "/agent/include", "-I" + ROOT + "/base/include", "-o", target, glue, *sources, "-lm"], check=True)
    return target


def load(folder):
    if not _state:
        lib = ctypes.CDLL(os.path.join(folder, "libnearest.so"))
        lib.nearest_open.restype = ctypes.c_void_p
        lib.nearest_open.argtypes = [ctypes.c_char_p]
        lib.nearest_hints.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        know = lib.nearest_open(CATALOGUE.encode())
        if not know:
            raise SystemExit(f"{CATALOGUE}: the catalogue cannot be read")
        _state.update(lib=lib, know=know, out=ctypes.create_string_buffer(4096))


def hints(question, n=N_HINTS):
    """The templates of the nearest tasks, best first."""
    _state["lib"].nearest_hints(_state["know"], question.replace("\0", " ").encode("utf-8", "ignore"), n, _state["out"], 4096)
    return [l for l in _state["out"].value.decode("utf-8", "ignore").split("\n") if l]
