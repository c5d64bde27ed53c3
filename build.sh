set -e
cd /tmp/attnv; mkdir -p o
F="-gencode arch=compute_90a,code=sm_90a -std=c++17 -O3 -lineinfo -I. -Ikernels -Ikernels/include -Ibase/include -Itests/unit/gpu -Xcompiler -fno-exceptions,-O2"
make_o() { nvcc $F $3 -c $1 -o o/$2.o; }
(make_o kernels/gpu/attention.cu attention) &
(make_o kernels/gpu/plan.cu plan; make_o kernels/gpu/device.cu device;  nvcc $F -x cu -c tests/bench/gpu/attention_bench.cc -o o/bench.o) &
(make_o kernels/gpu/position.cu position; make_o kernels/gpu/matpack.cu matpack) &
(nvcc $F -x cu -c tests/unit/gpu/gpu_test.cc -o o/gpu_test.o; nvcc $F -x cu -c tests/unit/gpu/gpu_test_attention.cc -o o/gpu_test_attention.o) &
wait
L="-Xlinker --unresolved-symbols=ignore-all -lm -ldl -lpthread"
nvcc -cudart static -o attention_bench o/bench.o o/attention.o o/plan.o o/device.o o/position.o $L
nvcc -cudart static -o kernels_device o/gpu_test.o o/gpu_test_attention.o o/attention.o o/plan.o o/device.o o/position.o o/matpack.o /work/wt/attn/build/release/lib/libkernels.a /work/wt/attn/build/release/lib/libbase.a $L
