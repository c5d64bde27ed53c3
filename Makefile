# One dependency graph for the whole tree. Each component's build.mk lists its sources and programs;
# objects go to build/<config>/, so that release, sanitizer and other builds live side by side.
#
#   make            build all programs                make check       build and run every test
#   make deps       install what is needed            make quickstart  install, build, run the main job
#   make fuzz       libFuzzer targets (clang)         make bench       benchmarks, JSON lines
#   SAN=address,undefined | SAN=thread                sanitizer variant of any target
#   V=1 shows commands; DESTDIR, PREFIX do what people expect; WERROR=1 makes warnings errors

.DEFAULT_GOAL := all
SHELL := /bin/bash

VERSION := 0.1.0
PREFIX ?= /usr
DESTDIR ?=

empty :=
space := $(empty) $(empty)
comma := ,

CONFIG := release
ifdef SAN
CONFIG := san-$(subst $(comma),-,$(SAN))
CC := clang
endif
ifeq ($(origin CC),default)
CC := gcc
endif
B := build/$(CONFIG)

Q := $(if $(V),,@)
say = $(if $(V),@:,@printf '  %-7s %s\n' '$(1)' '$(2)')

PKGS := jansson libcurl libmicrohttpd libcrypto libpcre2-8 libutf8proc inih
# Lazily, once: the tools may not be installed before `make deps`.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null))$(PKG_LIBS)

OPT ?= -O2
CPPFLAGS += -D_GNU_SOURCE -DOCAI_VERSION='"$(VERSION)"' -DOCAI_PREFIX='"$(PREFIX)"' \
	-Ibase/include -Ikernels/include -Iengine/include -Iagent/include
CFLAGS += -std=gnu11 $(OPT) -g -fno-strict-aliasing -pthread \
	-Wall -Wextra -Wmissing-prototypes -Wvla -Wno-unused-parameter $(if $(WERROR),-Werror)
LDFLAGS += -pthread
LDLIBS = $(PKG_LIBS) -lm -ldl
ifdef SAN
CFLAGS += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
endif

# ---- Components: each build.mk adds to LIBS (library name -> sources) and PROGRAMS --------------------
LIBS :=
PROGRAMS :=
include base/build.mk kernels/build.mk engine/build.mk agent/build.mk

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))

# library <name>: $(B)/lib/lib<name>.a from $(<name>_SRCS)
define library_rule
$(B)/lib/lib$(1).a: $(call obj,$($(1)_SRCS))
	$(call say,AR,$$@)
	@mkdir -p $$(@D); rm -f $$@
	$(Q)ar rcs $$@ $$^
ALL_OBJS += $(call obj,$($(1)_SRCS))
endef
$(foreach l,$(LIBS),$(eval $(call library_rule,$(l))))

# program <name>: $(B)/bin/<name> from $(<name>_SRCS) and the libraries $(<name>_LIBS), in link order
define program_rule
$(B)/bin/$(1): $(call obj,$($(1)_SRCS)) $(patsubst %,$(B)/lib/lib%.a,$($(1)_LIBS))
	$(call say,LINK,$$@)
	@mkdir -p $$(@D)
	$(Q)$(CC) $(LDFLAGS) -o $$@ $$^ $(LDLIBS)
ALL_OBJS += $(call obj,$($(1)_SRCS))
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rule,$(p))))

$(B)/obj/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(FILE_CFLAGS) -MMD -MP -c -o $@ $<

.PHONY: all
all: $(PROGRAMS:%=$(B)/bin/%)

# ---- Tests ----------------------------------------------------------------------------------------------
# tests/unit/<component>/test_<module>.c, tests/fuzz/fuzz_<parser>.c, tests/integration/*.sh, tests/bench/*.c
# are picked up by name.
TEST_LIBS := engine_http engine kernels agent base
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*/test_*.c))
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_REPLAYS := $(FUZZ_NAMES:%=$(B)/tests/replay/%)
BENCHES := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(wildcard tests/bench/*.c))
TEST_ARCHIVES := $(TEST_LIBS:%=$(B)/lib/lib%.a)

$(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $(TEST_ARCHIVES)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group -lcmocka $(LDLIBS)

$(B)/tests/replay/%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/replay_main.o $(TEST_ARCHIVES)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(B)/obj/tests/fuzz/replay_main.o \
		-Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LDLIBS)

$(B)/tests/bench/%: $(B)/obj/tests/bench/%.o $(TEST_ARCHIVES)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LDLIBS)

$(B)/obj/tests/%.o: CPPFLAGS += -Itests/unit -Ibase/src -Iengine/src -Iengine/http

.PHONY: tests
tests: all $(UNIT_TESTS) $(FUZZ_REPLAYS)

.PHONY: clean
clean:
	rm -rf build

-include tests/check.mk
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
.SECONDARY:
.DELETE_ON_ERROR:
