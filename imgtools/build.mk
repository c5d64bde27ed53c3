# Image tools: one library, two programs (slimtrace now, flip later).
LIBS += imgtools
imgtools_SRCS := $(wildcard imgtools/src/*/*.c)

PKGS += expat

PROGRAMS += $(if $(wildcard imgtools/cmd/slimtrace/*.c),slimtrace)
slimtrace_SRCS := $(wildcard imgtools/cmd/slimtrace/*.c)
slimtrace_LIBS := imgtools base

$(B)/obj/imgtools/src/%.o $(B)/obj/imgtools/cmd/%.o: CPPFLAGS += -Iimgtools/src

$(B)/obj/tests/%.o: CPPFLAGS += -Iimgtools/src
