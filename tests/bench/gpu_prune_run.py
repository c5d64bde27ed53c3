#!/usr/bin/env python3
"""One operation of each kind of each CUDA library, for a comparison of full and pruned libraries.

Prints one line per operation: its name and a digest of the result (or the error). Run once as things are, and once with
LD_PRELOAD naming the copies made by `slimtrace gpu --gpu-arch ARCH -o DIR`: the two outputs must be the same.
Needs PyTorch with CUDA."""
import ctypes
import hashlib
import sys

import torch

torch.manual_seed(1)
DEV = "cuda"


def digest(*tensors):
    h = hashlib.sha256()
    for t in tensors:
        h.update(t.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def rand(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7)).to(dtype).to(DEV)


def matmul(dtype, m, n, k):
    return lambda: digest(rand(m, k, dtype=dtype) @ rand(k, n, dtype=dtype))


def fp8():
    a = rand(256, 512).to(torch.float8_e4m3fn)
    b = rand(1024, 512).to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=DEV)
    return digest(torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16))


def conv(dtype, transposed=False):
    def run():
        x = rand(8, 32, 40, 40, dtype=dtype).requires_grad_()
        layer = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
        torch.manual_seed(3)
        c = layer(32, 64, 3, padding=1).to(DEV, dtype)
        y = c(x)
        y.sum().backward()
        return digest(y)
    return run


def norm():
    torch.manual_seed(4)
    b = torch.nn.BatchNorm2d(32).to(DEV)
    return digest(b(rand(8, 32, 20, 20)))


def rnn():
    torch.manual_seed(5)
    r = torch.nn.LSTM(64, 128, 2, batch_first=True).to(DEV)
    return digest(r(rand(4, 30, 64))[0])


def fft(sizes, kind, dtype=torch.float32):
    def run():
        h = hashlib.sha256()
        for n in sizes:
            x = rand(4, n, dtype=dtype)
            y = torch.fft.rfft(x) if kind == "r2c" else torch.fft.fft(torch.complex(x, x))
            h.update(digest(torch.view_as_real(y)).encode())
            if kind == "r2c":
                h.update(digest(torch.fft.irfft(y, n)).encode())
        return h.hexdigest()[:16]
    return run


def fft_nd():
    return digest(torch.view_as_real(torch.fft.fft2(rand(3, 96, 130))), torch.view_as_real(torch.fft.rfftn(rand(20, 24, 36))))


def sparse():
    m = rand(400, 400)
    m = torch.where(m > 1.0, m, torch.zeros_like(m)).to_sparse_csr()
    return digest(m @ rand(400, 64))


def curand():
    lib = ctypes.CDLL("libcurand.so.10")
    h = hashlib.sha256()
    for kind in (100, 121, 131, 141, 142, 161):  # pseudo: xorwow, mrg32k3a, mtgp32, mt19937, ... ; negative answers are noted too
        gen = ctypes.c_void_p()
        if lib.curandCreateGenerator(ctypes.byref(gen), kind) != 0:
            h.update(b"none")
            continue
        out = torch.zeros(4096, device=DEV)
        r = lib.curandGenerateUniform(gen, ctypes.c_void_p(out.data_ptr()), ctypes.c_size_t(4096))
        torch.cuda.synchronize()
        h.update(f"{kind} {r} {digest(out)}".encode())
        lib.curandDestroyGenerator(gen)
    return h.hexdigest()[:16]


SPD = lambda: (lambda a: a @ a.t() + 50 * torch.eye(96, device=DEV))(rand(96, 96))
OPERATIONS = {
    "cublas float32": matmul(torch.float32, 300, 200, 100),
    "cublas float64": matmul(torch.float64, 128, 96, 64),
    "cublasLt bfloat16 large": matmul(torch.bfloat16, 2048, 2048, 2048),
    "cublasLt bfloat16 odd": matmul(torch.bfloat16, 77, 53, 200),
    "cublasLt float16": matmul(torch.float16, 512, 1024, 256),
    "cublasLt fp8": fp8,
    "cublas batched": lambda: digest(torch.bmm(rand(16, 40, 60), rand(16, 60, 50))),
    "cublas linear with bias and gelu": lambda: digest(torch.nn.functional.gelu(torch.addmm(rand(256), rand(64, 128), rand(128, 256)))),
    "cudnn convolution float32": conv(torch.float32),
    "cudnn convolution bfloat16": conv(torch.bfloat16),
    "cudnn convolution transposed": conv(torch.float32, True),
    "cudnn batch norm": norm,
    "cudnn lstm": rnn,
    "cufft c2c powers": fft([2 ** i for i in range(1, 15)], "c2c"),
    "cufft r2c powers": fft([2 ** i for i in range(1, 15)], "r2c"),
    "cufft c2c 2..300": fft(range(2, 301), "c2c"),
    "cufft r2c 2..300": fft(range(2, 301), "r2c"),
    "cufft double 2..200": fft(range(2, 201), "c2c", torch.float64),
    "cufft primes": fft([331, 509, 1021, 2053, 4099, 10007], "c2c"),
    "cufft two and three dimensions": fft_nd,
    "cusolver cholesky": lambda: digest(torch.linalg.cholesky(SPD())),
    "cusolver qr": lambda: digest(torch.linalg.qr(rand(80, 60))[1]),
    "cusolver svd": lambda: digest(torch.linalg.svdvals(rand(80, 60))),
    "cusolver eigh": lambda: digest(torch.linalg.eigvalsh(SPD())),
    "cusolver solve": lambda: digest(torch.linalg.solve(SPD(), rand(96, 3))),
    "cusparse product": sparse,
    "curand uniform": curand,
}


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = True
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, run in OPERATIONS.items():
        if only not in name:
            continue
        try:
            result = run()
        except Exception as e:  # the error is the result
            result = "error: " + str(e).split("\n")[0]
        print(f"{name}: {result}", flush=True)


if __name__ == "__main__":
    main()
