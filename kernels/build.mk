# ref: plain C. cpu: one file per instruction set, by suffix; chosen at run time. Other machines than x86-64
# get the portable level alone.
LIBS += kernels
kernels_X86 := $(wildcard kernels/cpu/*_avx2.c kernels/cpu/*_avx512.c kernels/cpu/*_avx512bf16.c kernels/cpu/*_amx.c)
kernels_SRCS := $(wildcard kernels/ref/*.c kernels/plugin/*.c) $(filter-out $(kernels_X86),$(wildcard kernels/cpu/*.c))
ifneq ($(filter x86_64%,$(shell $(CC) -dumpmachine 2>/dev/null)),)
kernels_SRCS += $(kernels_X86)
endif

$(B)/obj/kernels/%.o: CPPFLAGS += -Ikernels
# A product and a sum stay two roundings unless the code says fma: results must not depend on the tile.
# Instrumented tiles, unrolled, take a compiler minutes a file; the loops are as good for finding errors.
$(B)/obj/kernels/cpu/%.o: FILE_CFLAGS += $(if $(SAN)$(FUZZ),-O1 -DCPU_NO_UNROLL,-O3) -ffp-contract=off
$(B)/obj/kernels/cpu/%_avx2.o: FILE_CFLAGS += -mavx2 -mfma -mf16c
$(B)/obj/kernels/cpu/%_avx512.o: FILE_CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c
$(B)/obj/kernels/cpu/%_avx512bf16.o: FILE_CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mfma -mf16c
$(B)/obj/kernels/cpu/%_amx.o: FILE_CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mfma -mf16c -mamx-tile -mamx-int8 -mamx-bf16
