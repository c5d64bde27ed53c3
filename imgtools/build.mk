# Image tools: the rooms that both programs use, flip's own rooms, two programs.
LIBS += imgtools lazyimages
imgtools_SRCS := $(wildcard imgtools/src/*/*.c)
lazyimages_SRCS := $(wildcard imgtools/flip/*/*.c)

PKGS += expat libnghttp2 libprotobuf-c libdeflate libisal

PROGRAMS += $(if $(wildcard imgtools/cmd/slimtrace/*.c),slimtrace)
slimtrace_SRCS := $(wildcard imgtools/cmd/slimtrace/*.c imgtools/cmd/common/*.c)
slimtrace_LIBS := imgtools base

PROGRAMS += $(if $(wildcard imgtools/cmd/flip/*.c),flip)
flip_SRCS := $(wildcard imgtools/cmd/flip/*.c imgtools/cmd/common/*.c)
flip_LIBS := lazyimages imgtools base

$(B)/obj/imgtools/src/%.o $(B)/obj/imgtools/cmd/%.o: CPPFLAGS += -Iimgtools/src -Iimgtools/cmd/common
$(B)/obj/imgtools/flip/%.o $(B)/obj/imgtools/cmd/flip/%.o: CPPFLAGS += -Iimgtools/src -Iimgtools/flip

$(B)/obj/tests/%.o: CPPFLAGS += -Iimgtools/src -Iimgtools/flip
