# ref: plain C. cpu: one file per instruction set, by suffix; chosen at run time.
LIBS += kernels
kernels_SRCS := $(wildcard kernels/ref/*.c kernels/cpu/*.c)

$(B)/obj/kernels/%.o: CPPFLAGS += -Ikernels
$(B)/obj/kernels/cpu/%.o: FILE_CFLAGS += -O3
$(B)/obj/kernels/cpu/%_avx2.o: FILE_CFLAGS += -mavx2 -mfma -mf16c
$(B)/obj/kernels/cpu/%_avx512.o: FILE_CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c
$(B)/obj/kernels/cpu/%_avx512bf16.o: FILE_CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mfma -mf16c
