# The GPU backend three times from one source: a plugin by nvcc where it is, one for AMD where its toolchain was installed
# (make deps-hip), and on the host for tests, with waves of 32 and of 64 lanes.
#
#   GPU_ARCHS='sm_80 sm_90a'  what the CUDA plugin is made for [sm_90a]; GPU_ARCHS=all: what packages are made for
#   HIP_ARCHS=gfx942          the one for AMD [all that packages are made for]
#   NVCC=, HIP_TOOLCHAIN= (empty): without that plugin

GPU_CU := $(wildcard kernels/gpu/*.cu)
GPU_C := $(filter-out %/gemm_none.c %/gemm_cublaslt.c %/gemm_hipblaslt.c %/rt_host.c %/entry.c,$(wildcard kernels/gpu/*.c))
# What a plugin takes along of the rest: it shares nothing with the program but the table.
GPU_SHARED_C := base/src/err.c $(wildcard kernels/ref/dtype.c kernels/ref/quant*.c)

$(B)/obj/kernels/gpu/%.o: FILE_CFLAGS += -Ikernels

# ---- On the host ---------------------------------------------------------------------------------------------
# Fibers change stacks by longjmp, which _FORTIFY_SOURCE forbids. Warnings are for what has a compiler of its own. clang
# would unroll all that devices want unrolled, which with sanitizers takes minutes a file; and each fiber would map a stack
# of its own for what is used after a return.
is_clang = $(filter clang%,$(notdir $(lastword $(CC))))
CXX_OF = $(if $(is_clang),$(patsubst %clang,%clang++,$(CC)),$(patsubst %gcc,%g++,$(CC)))
GPU_SHIM_CXXFLAGS = -std=gnu++17 -O2 -g -pthread -fno-exceptions -fno-rtti -fno-strict-aliasing -U_FORTIFY_SOURCE \
	-Wall -Wextra -Wno-unused-parameter -Wno-unused-function -Wno-unknown-pragmas -Wno-pass-failed $(if $(WERROR),-Werror) \
	$(if $(is_clang),-mllvm -pragma-unroll-threshold=0) \
	$(if $(and $(is_clang),$(findstring address,$(SAN))),-fsanitize-address-use-after-return=never) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)

# shim_rule WAVE: libgpu_shimWAVE.a
define shim_rule
$(B)/obj/shim$(1)/%.o: % $(B)/flags
	$$(call say,CXX,$$< ($(1)))
	@mkdir -p $$(@D)
	$$(Q)$$(CXX_OF) $(CPPFLAGS) -Ikernels -Itests/unit/gpu -DGPU_HOST_WARP=$(1) $$(GPU_SHIM_CXXFLAGS) -MMD -MP -x c++ -c -o $$@ $$<
$(B)/shim/libgpu_shim$(1).a: $(patsubst %,$(B)/obj/shim$(1)/%.o,$(filter-out %/rt.cu %/wide_sm90.cu,$(GPU_CU)) kernels/gpu/gpu_host.cc) \
		$(call obj,$(GPU_C) kernels/gpu/gemm_none.c kernels/gpu/rt_host.c)
	$$(call say,AR,$$@)
	@mkdir -p $$(@D); rm -f $$@
	$$(Q)ar rcs $$@ $$^
endef
$(foreach w,32 64,$(eval $(call shim_rule,$(w))))

# The host side alone, over launchers in plain loops: tests/unit/gpu_host.
GPU_PLAIN_C := $(filter-out %/hipblaslt_plain.c %/nccl_plain.c,$(wildcard tests/unit/gpu_host/*_plain.c))
$(B)/shim/gpu_plain.a: $(call obj,$(GPU_C) kernels/gpu/rt_host.c $(GPU_PLAIN_C))
	$(call say,AR,$@)
	@mkdir -p $(@D); rm -f $@
	$(Q)ar rcs $@ $^
$(B)/tests/unit/gpu_host/%: $(B)/obj/tests/unit/gpu_host/%.o $(B)/shim/gpu_plain.a $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lcmocka $(LDLIBS)
$(B)/obj/tests/unit/gpu_host/%.o: CPPFLAGS += -Ikernels -Itests/unit/engine

# For test_gpu_hipblaslt.c: hipBLASLt as documented, in plain loops.
HIPBLASLT_PLAIN := $(B)/tests/hipblaslt-plain/libhipblaslt.so.1
$(HIPBLASLT_PLAIN): tests/unit/gpu_host/hipblaslt_plain.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(PLUGIN_CFLAGS) -fvisibility=default $(if $(SAN),-fsanitize=$(SAN)) -shared -o $@ $<
# For test_gpu_nccl.c and test_gpu_order.c: NCCL likewise.
NCCL_PLAIN := $(B)/tests/nccl-plain/libnccl.so.2
$(NCCL_PLAIN): tests/unit/gpu_host/nccl_plain.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(PLUGIN_CFLAGS) -fvisibility=default $(if $(SAN),-fsanitize=$(SAN)) -shared -o $@ $<
$(B)/tests/unit/gpu_host/test_gpu_nccl $(B)/tests/unit/gpu_host/test_gpu_order: | $(NCCL_PLAIN)
$(B)/tests/unit/gpu_host/test_gpu_hipblaslt: $(B)/obj/kernels/gpu/gemm_hipblaslt.o | $(HIPBLASLT_PLAIN)
$(B)/tests/unit/gpu_host/test_gpu_alike: | $(HIPBLASLT_PLAIN)

# tests/unit/gpu/test_NAME.c twice: test_NAME with waves of 32 lanes, wave64/test_NAME with 64.
GPU_TESTS := $(wildcard tests/unit/gpu/test_*.c)
GPU_TESTS64 := $(patsubst tests/unit/gpu/%.c,$(B)/tests/unit/gpu/wave64/%,$(GPU_TESTS))
gpu_test_link = $(CXX_OF) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lcmocka $(LDLIBS)
$(B)/tests/unit/gpu/%: $(B)/obj/tests/unit/gpu/%.o $(B)/shim/libgpu_shim32.a $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(gpu_test_link)
$(B)/tests/unit/gpu/wave64/%: $(B)/obj/tests/unit/gpu/%.o $(B)/shim/libgpu_shim64.a $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(gpu_test_link)
$(B)/obj/tests/unit/gpu/%.o: CPPFLAGS += -Ikernels -Itests/unit/engine -Itests/unit/kernels

# Kernels by themselves, every launcher beside kernels/ref: tests/unit/gpu/*.cc, programs without a test library that also
# run on a device ($(B)/tests/unit/gpu/kernels_device).
GPU_KERNEL_TESTS := $(wildcard tests/unit/gpu/*.cc)
gpu_kernel_test = $(B)/tests/unit/gpu/kernels$(1)
define kernel_test_rule
$(call gpu_kernel_test,$(1)): $(patsubst %,$(B)/obj/shim$(1)/%.o,$(GPU_KERNEL_TESTS)) $(B)/shim/libgpu_shim$(1).a \
		$(B)/lib/libkernels.a $(B)/lib/libbase.a $(B)/ldflags
	$$(call say,LINK,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(CXX_OF) $(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $(LDLIBS)
endef
$(foreach w,32 64,$(eval $(call kernel_test_rule,$(w))))
GPU_KERNEL_PROGRAMS := $(if $(GPU_KERNEL_TESTS),$(foreach w,32 64,$(call gpu_kernel_test,$(w))))

# ---- Plugins -------------------------------------------------------------------------------------------------
PLUGIN_CFLAGS = -std=gnu11 -O2 -g -fPIC -fvisibility=hidden -fno-strict-aliasing -Wall -Wextra -Wmissing-prototypes -Wvla \
	-Wno-unused-parameter $(if $(WERROR),-Werror)

# plugin_objects KIND,GEMM: objects of the C side
plugin_c = $(GPU_C) kernels/gpu/entry.c kernels/gpu/$(1) $(GPU_SHARED_C)
plugin_objects = $(patsubst %.c,$(B)/obj/$(1)/%.o,$(call plugin_c,$(2))) $(patsubst %.cu,$(B)/obj/$(1)/%.cu.o,$(filter-out $(3),$(GPU_CU)))

NVCC ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
ifneq ($(NVCC),)
ifeq ($(SAN)$(FUZZ),)
# Packages are made for all of GPU_ALL_ARCHS (rpm-specs/ocai.spec), which takes four cores ten minutes.
GPU_ALL_ARCHS := sm_80 sm_89 sm_90a sm_100 sm_120
GPU_ARCHS ?= sm_90a
ifeq ($(GPU_ARCHS),all)
override GPU_ARCHS := $(GPU_ALL_ARCHS)
endif
CUDA_HOME := $(abspath $(dir $(NVCC))/..)
comma_gencode = -gencode arch=$(patsubst sm_%,compute_%,$(1)),code=$(1)
NVCC_ARCH_FLAGS = $(foreach a,$(filter-out %a,$(GPU_ARCHS)),$(call comma_gencode,$(a))) \
	$(if $(filter sm_80,$(GPU_ARCHS)),-gencode arch=compute_80$(comma)code=compute_80)
NVCC_ALL_FLAGS = $(NVCC_ARCH_FLAGS) $(foreach a,$(filter %a,$(GPU_ARCHS)),$(call comma_gencode,$(a)))
NVCC_FLAGS = -std=c++17 -O3 --compress-mode=size $(if $(GPU_LINEINFO),-lineinfo) -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-O2 $(if $(WERROR),-Werror all-warnings)

$(B)/cuda.flags: export STAMP = $(NVCC) $(GPU_ARCHS) $(NVCC_FLAGS) $(WERROR)
$(B)/cuda.flags: FORCE
	$(keep_if_same)
$(B)/obj/cuda/%.cu.o: %.cu $(B)/cuda.flags
	$(call say,NVCC,$<)
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(NVCC_ALL_FLAGS) $(NVCC_FLAGS) $(CPPFLAGS) -Ikernels -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
# Hopper's own instructions exist for sm_90a alone.
$(B)/obj/cuda/%_sm90.cu.o: %_sm90.cu $(B)/cuda.flags
	$(call say,NVCC,$<)
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(call comma_gencode,sm_90a) $(NVCC_FLAGS) $(CPPFLAGS) -Ikernels -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(B)/obj/cuda/%.o: %.c $(B)/cuda.flags
	$(call say,CC,$< (cuda))
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Ikernels -isystem $(CUDA_HOME)/include -DGPU_KIND='"cuda"' $(PLUGIN_CFLAGS) -MMD -MP -c -o $@ $<
# The runtime is linked in, the driver is found when the plugin runs: nothing of CUDA is needed to load it.
$(B)/plugins/libocai-engine-cuda.so: $(call plugin_objects,cuda,gemm_cublaslt.c)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(NVCC) -shared -cudart static -Xlinker -z,defs,--exclude-libs,ALL,--build-id=sha1 -o $@ $^ -lm -ldl -lpthread
PLUGINS += $(B)/plugins/libocai-engine-cuda.so

$(B)/obj/cuda/%.cc.o: %.cc $(B)/cuda.flags
	$(call say,NVCC,$<)
	@mkdir -p $(@D)
	$(Q)$(NVCC) -x cu $(NVCC_ALL_FLAGS) $(NVCC_FLAGS) $(CPPFLAGS) -Ikernels -Itests/unit/gpu -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
# cuda_program PROGRAM,OBJECTS: one that has kernels of ours in it.
define cuda_program
$(B)/$(1): $(2) $(B)/lib/libkernels.a $(B)/lib/libbase.a
	$$(call say,LINK,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(NVCC) -cudart static -o $$@ $$(filter %.o,$$^) -Xlinker --start-group $$(filter %.a,$$^) -Xlinker --end-group -lm -ldl -lpthread
endef
cuda_kernels = $(patsubst %,$(B)/obj/cuda/kernels/gpu/%.cu.o,$(1))
ALL_CUDA_KERNELS := $(GPU_CU:%.cu=$(B)/obj/cuda/%.cu.o)
# The tests of kernels; each kernel, attention, products and the library's kernels beside what the device can do.
$(eval $(call cuda_program,tests/unit/gpu/kernels_device,$(GPU_KERNEL_TESTS:%=$(B)/obj/cuda/%.o) $(ALL_CUDA_KERNELS)))
$(eval $(call cuda_program,tests/bench/gpu/gpu_bench,$(patsubst %,$(B)/obj/cuda/%.o,$(wildcard tests/bench/gpu/gpu_bench*.cc)) \
	$(ALL_CUDA_KERNELS)))
$(eval $(call cuda_program,tests/bench/gpu/attention_bench,$(B)/obj/cuda/tests/bench/gpu/attention_bench.cc.o $(ALL_CUDA_KERNELS)))
$(eval $(call cuda_program,tests/bench/gpu/product_bench,$(B)/obj/cuda/tests/bench/gpu/product_bench.cc.o \
	$(B)/obj/cuda/tests/bench/gpu/library.o $(B)/obj/cuda/kernels/gpu/gemm_cublaslt.o \
	$(call cuda_kernels,alike elementwise fp8 product_sm90 device matpack rt)))
$(eval $(call cuda_program,tests/bench/gpu/alike_bench,$(B)/obj/cuda/tests/bench/gpu/alike_bench.cc.o $(call cuda_kernels,device)))
GPU_BENCHES := $(B)/tests/bench/gpu/gpu_bench
# The times of all launches of a program: a library that CUDA loads into it.
$(B)/tests/bench/gpu/libgpu_timeline.so: tests/bench/gpu/gpu_timeline.c $(B)/cuda.flags
	$(call say,CC,$< (cuda))
	@mkdir -p $(@D)
	$(Q)$(CC) -I$(CUDA_HOME)/include $(PLUGIN_CFLAGS) -shared -o $@ $< -L$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/lib -lcupti
endif
endif

# The table of docs/gpu.md: JSON lines. OPTIONS='--start DIR --quick --only TEXT --backend hip': see table.py.
.PHONY: bench-gpu
bench-gpu: all $(B)/tests/bench/bench_gpu $(GPU_BENCHES)
	@tests/bench/gpu/table.py --build $(B) $(OPTIONS)

# Several GPUs beside one: JSON lines. OPTIONS='--devices 4 --quick --only TEXT': see parallel.py.
.PHONY: bench-gpu-parallel
bench-gpu-parallel: all $(B)/tests/bench/gpu/comm_bench $(B)/tests/bench/bench_split \
		$(B)/tests/unit/gpu_host/test_gpu_device tests/fixtures/.unpacked
	@tests/bench/gpu/parallel.py --build $(B) $(OPTIONS)

# ---- AMD: Debian's clang in a folder of its own (tools/deps-hip.sh) --------------------------------------------
HIP_CXX ?= $(wildcard build/deps/hip/clang++)
ifneq ($(HIP_CXX),)
ifeq ($(SAN)$(FUZZ),)
# CDNA 2, 3 and 4, RDNA 3 and 4: eleven minutes of a core.
HIP_ALL_ARCHS := gfx90a gfx942 gfx950 gfx1100 gfx1201
HIP_ARCHS ?= $(HIP_ALL_ARCHS)
ifeq ($(HIP_ARCHS),all)
override HIP_ARCHS := $(HIP_ALL_ARCHS)
endif
HIP_FLAGS = -std=c++17 -O3 -fPIC -fvisibility=hidden -fno-exceptions -Wno-unknown-pragmas -Wno-pass-failed $(HIP_ARCHS:%=--offload-arch=%)
HIP_ONLY_CUDA := $(wildcard kernels/gpu/*_sm90.cu)

$(B)/hip.flags: export STAMP = $(HIP_CXX) $(HIP_FLAGS) $(WERROR)
$(B)/hip.flags: FORCE
	$(keep_if_same)
$(B)/obj/hip/%.cu.o: %.cu $(B)/hip.flags
	$(call say,HIP,$<)
	@mkdir -p $(@D)
	$(Q)$(HIP_CXX) -x hip $(HIP_FLAGS) $(CPPFLAGS) -Ikernels -MMD -MP -c -o $@ $<
$(B)/obj/hip/%.o: %.c $(B)/hip.flags
	$(call say,CC,$< (hip))
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Ikernels -DGPU_KIND='"hip"' $(PLUGIN_CFLAGS) -MMD -MP -c -o $@ $<
# The runtime's functions stay undefined: kernels/plugin loads whichever ROCm is here first.
$(B)/plugins/libocai-engine-hip.so: $(call plugin_objects,hip,gemm_hipblaslt.c,$(HIP_ONLY_CUDA))
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(HIP_CXX) -shared -no-hip-rt -Wl,--exclude-libs,ALL,--build-id=sha1 -o $@ $^ -lm -ldl -lpthread
PLUGINS += $(B)/plugins/libocai-engine-hip.so
endif
endif
.PHONY: deps-hip
deps-hip:
	@tools/deps-hip.sh

# For test_plugin.c: one of another version.
TEST_PLUGIN := $(B)/tests/plugin-other/libocai-engine-cuda.so
$(TEST_PLUGIN): tests/unit/kernels/plugin_other.c kernels/include/kernel_plugin.h kernels/include/kernels.h
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(PLUGIN_CFLAGS) -fvisibility=default -shared -o $@ $<
$(B)/tests/unit/kernels/test_plugin: | $(TEST_PLUGIN)

# For test_gpu_engine.c and others: a plugin whose device is the host, its launchers plain loops.
HOST_PLUGIN := $(B)/tests/plugin-host/libocai-engine-cuda.so
$(HOST_PLUGIN): $(GPU_C) kernels/gpu/entry.c kernels/gpu/rt_host.c $(GPU_PLAIN_C) \
		$(GPU_SHARED_C) $(wildcard kernels/gpu/*.h) kernels/include/kernel_plugin.h kernels/include/kernels.h
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Ikernels -DGPU_KIND='"cuda"' $(PLUGIN_CFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -shared -o $@ \
		$(filter %.c,$^) -lm
$(B)/tests/unit/gpu_host/test_gpu_engine $(B)/tests/unit/gpu_host/test_gpu_tiers $(B)/tests/unit/gpu_host/test_gpu_split \
		$(B)/tests/unit/gpu_host/test_gpu_deterministic: | $(HOST_PLUGIN)

.PHONY: plugins
plugins: $(PLUGINS)
# What tests/tools/check-hip.sh looks at: $(HIP_ARCHS) as they are; empty where there is no compiler for them.
.PHONY: print-hip-archs
print-hip-archs:
	@echo $(if $(HIP_CXX),$(HIP_ARCHS))

# Installed as far as they were built (install.mk has the rest): PLUGINDIR is where the engine looks beside its own folder.
PLUGINDIR ?= $(PREFIX)/lib64/ocai
define plugin_rule
.PHONY: install-ocai-engine-$(1)
install-ocai-engine-$(1): all
	install -D -m 755 $(B)/plugins/libocai-engine-$(2).so $(DESTDIR)$(PLUGINDIR)/libocai-engine-$(2).so
	install -D -m 644 engine/cmd/system/$(1).drop-in $(DESTDIR)$(PREFIX)/lib/systemd/system/ocai-engine.service.d/$(1).conf
install: $$(if $$(filter %-$(2).so,$$(PLUGINS)),install-ocai-engine-$(1))
endef
$(eval $(call plugin_rule,cuda,cuda))
$(eval $(call plugin_rule,rocm,hip))
