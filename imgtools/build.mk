# Image tools: the rooms that both programs use, flip's own rooms, two programs.
LIBS += imgtools lazyimages
imgtools_SRCS := $(wildcard imgtools/src/*/*.c)
lazyimages_SRCS := $(wildcard imgtools/flip/*/*.c)
# libfabric is opened when it is first needed; its headers alone are needed here, and FABRIC= (empty) is without them.
FABRIC ?= $(wildcard /usr/include/rdma/fabric.h)
lazyimages_SRCS := $(filter-out $(addprefix imgtools/flip/peer/fabric_,$(if $(FABRIC),line_none.c,open.c line.c step.c)),$(lazyimages_SRCS))

# The messages of flip's gRPC room, generated from its .proto files into build/<config>/gen, which is <pb/NAME.pb-c.h>.
FLIP_PROTOS := $(wildcard imgtools/flip/grpc/*.proto)
FLIP_PB := $(FLIP_PROTOS:imgtools/flip/grpc/%.proto=$(B)/gen/pb/%.pb-c)
lazyimages_SRCS += $(FLIP_PB:=.c)

# Each depends on all: they import each other. One run makes the source and the header.
$(B)/gen/pb/%.pb-c.c $(B)/gen/pb/%.pb-c.h: imgtools/flip/grpc/%.proto $(FLIP_PROTOS)
	$(call say,PROTOC,$<)
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=imgtools/flip/grpc --c_out=$(B)/gen/pb $<

# libfuse: the private static build of tools/fuse3.sh where there is one, else the system's. What does not use it does
# not link it: archives give only what is asked for, and --as-needed drops the rest. FUSE3=system chooses the system's.
FUSE3_PC := $(if $(filter system,$(FUSE3)),,$(wildcard build/deps/fuse3/lib/libfuse3.a))
fuse3_config = PKG_CONFIG_PATH=$(FUSE3_PC:%/libfuse3.a=%/pkgconfig) pkg-config $(if $(FUSE3_PC),--static) $(1) fuse3 2>/dev/null
FUSE3_CFLAGS = $(eval FUSE3_CFLAGS := $(shell $(call fuse3_config,--cflags)))$(FUSE3_CFLAGS)
FUSE3_LIBS = $(eval FUSE3_LIBS := $(shell $(call fuse3_config,--libs)))$(FUSE3_LIBS)
LDLIBS += $(FUSE3_LIBS)
$(B)/obj/imgtools/flip/fusefs/%.o $(B)/obj/tests/bench/flip_fuse.o: CPPFLAGS += $(FUSE3_CFLAGS)
# Another libfuse, other structures: what was compiled with the one is not linked with the other.
$(B)/fuse3-flags: export STAMP = $(FUSE3_CFLAGS)
$(B)/fuse3-flags: FORCE
	$(keep_if_same)
$(patsubst %.c,$(B)/obj/%.o,$(wildcard imgtools/flip/fusefs/*.c) tests/bench/flip_fuse.c): $(B)/fuse3-flags

PKGS += gnutls expat libnghttp2 libprotobuf-c libdeflate libisal

PROGRAMS += $(if $(wildcard imgtools/cmd/slimtrace/*.c),slimtrace)
slimtrace_SRCS := $(wildcard imgtools/cmd/slimtrace/*.c imgtools/cmd/common/*.c)
slimtrace_LIBS := imgtools base

PROGRAMS += $(if $(wildcard imgtools/cmd/flip/*.c),flip)
flip_SRCS := $(wildcard imgtools/cmd/flip/*.c imgtools/cmd/common/*.c)
flip_LIBS := lazyimages imgtools base

$(B)/obj/imgtools/src/%.o $(B)/obj/imgtools/cmd/%.o: CPPFLAGS += -Iimgtools/src -Iimgtools/cmd/common
$(B)/obj/imgtools/flip/%.o $(B)/obj/imgtools/cmd/flip/%.o: CPPFLAGS += -Iimgtools/src -Iimgtools/flip

$(B)/obj/imgtools/flip/%.o: CPPFLAGS += -I$(B)/gen
# Before the first compilation the compiler has not yet told who includes what.
$(patsubst %.c,$(B)/obj/%.o,$(wildcard imgtools/flip/grpc/*.c) $(FLIP_PB:=.c) $(wildcard tests/*/*/*flip_snapshots*.c tests/fuzz/*snapshots*.c tests/bench/flip_grpc.c)): | $(FLIP_PB:=.h)

$(B)/obj/tests/%.o: CPPFLAGS += -Iimgtools/src -Iimgtools/flip -I$(B)/gen
