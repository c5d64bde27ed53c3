# One dependency graph for the whole tree. Each component's build.mk lists its sources and programs;
# objects go to build/<config>/, so that release, sanitizer and other builds live side by side.
#
#   make            build all programs                make check       install what is needed, build, run every test
#   make deps       install what is needed            make quickstart  install, build, ask the assistant a question
#   make fuzz       libFuzzer binaries in build/fuzz  make bench       benchmarks, JSON lines on standard output
#   make check-newcomer    quickstart (and, if told so, check) on a bare Debian 12 that it makes
#   make soak       24,000 requests under the address and the thread sanitizer
#   make bench-flip cold starts of containers beside overlayfs and stargz-snapshotter (tests/bench/flip_table.sh)
#   make bench-gpu  what the engine reaches on a GPU, beside its limits (tests/bench/gpu/table.py)
#   make bench-p2p  1 to 32 nodes that start one image at once, models, faults (tests/bench/flip_p2p_parts.sh)
#   make man        manual pages in build/man         make install     programs, pages, completions, shell keys, configuration, units, model
#   make rpms       signed by nobody: build/rpms      make repo     the same as a signed repository: build/repo
#   make check-packages  builds, installs, updates and removes them in a root of their own; check-packages-gpu: the GPU plugins'
#   SAN=address,undefined | SAN=thread                sanitizer variant of any target
#   make images     container images in build/images, one JSON line each (containers/README.md)
#   V=1 shows commands; DESTDIR, PREFIX do what people expect; WERROR=1 makes warnings errors

.DEFAULT_GOAL := all
SHELL := /bin/bash

VERSION := 0.1.0
PREFIX ?= /usr
DESTDIR ?=

empty :=
space := $(empty) $(empty)
comma := ,
define newline


endef

CONFIG := release
ifdef FUZZ # set by `make fuzz` for its own sub-make
CONFIG := fuzz
CC := clang
endif
ifdef SAN
CONFIG := san-$(subst $(comma),-,$(SAN))
CC := clang
endif
ifeq ($(origin CC),default)
CC := gcc
endif
B := build/$(CONFIG)

# For sub-makes that build a lot: all cores, unless the caller has said how many.
parallel = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

Q := $(if $(V),,@)
say = $(if $(V),@:,@printf '  %-7s %s\n' '$(1)' '$(2)')

PKGS := jansson libcurl libmicrohttpd libcrypto libpcre2-8 libutf8proc inih sqlite3 libcmark zlib libarchive libzstd rpm libelf libseccomp
# Lazily, once: the tools may not be installed before `make deps`.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null))$(PKG_LIBS)

OPT ?= -O2
CPPFLAGS += -D_GNU_SOURCE -DOCAI_VERSION='"$(VERSION)"' -DOCAI_PREFIX='"$(PREFIX)"' \
	-Ibase/include -Ikernels/include -Iengine/include -Iagent/include
CFLAGS += -std=gnu11 $(OPT) -g -fno-strict-aliasing -pthread \
	-Wall -Wextra -Wmissing-prototypes -Wvla -Wno-unused-parameter $(if $(WERROR),-Werror)
LDFLAGS += -pthread -Wl,--as-needed
LDLIBS = $(PKG_LIBS) -lm -ldl
ifdef SAN
CFLAGS += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
endif
ifdef FUZZ
CFLAGS += -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS += -fsanitize=fuzzer,address,undefined
endif

# ---- Components: each build.mk adds to LIBS (library name -> sources) and PROGRAMS --------------------
LIBS :=
PROGRAMS :=
include base/build.mk kernels/build.mk engine/build.mk agent/build.mk imgtools/build.mk

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))

# Files that change only when their text does: the flags that objects were compiled with, and the sources that a
# library was made of, so that a changed flag or a removed file rebuilds what it must.
.PHONY: FORCE
FORCE:
keep_if_same = @mkdir -p $(@D); printf '%s\n' "$$STAMP" | cmp -s - $@ || printf '%s\n' "$$STAMP" >$@

$(B)/flags: export STAMP = $(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(shell grep -h FLAGS */build.mk)
$(B)/flags: FORCE
	$(keep_if_same)
$(B)/ldflags: export STAMP = $(CC) $(LDFLAGS) $(LDLIBS)
$(B)/ldflags: FORCE
	$(keep_if_same)

# library <name>: $(B)/lib/lib<name>.a from $(<name>_SRCS)
define library_rule
$(B)/lib/$(1).list: export STAMP = $($(1)_SRCS)
$(B)/lib/$(1).list: FORCE
	$$(keep_if_same)
$(B)/lib/lib$(1).a: $(call obj,$($(1)_SRCS)) $(B)/lib/$(1).list
	$$(call say,AR,$$@)
	@mkdir -p $$(@D); rm -f $$@
	$$(Q)ar rcs $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(LIBS),$(eval $(call library_rule,$(l))))

# program <name>: $(B)/bin/<name> from $(<name>_SRCS) and the libraries $(<name>_LIBS), in link order
define program_rule
$(B)/bin/$(1): $(call obj,$($(1)_SRCS)) $(patsubst %,$(B)/lib/lib%.a,$($(1)_LIBS)) $(B)/ldflags
	$$(call say,LINK,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$(filter %.o %.a,$$^) $$(LDLIBS)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rule,$(p))))

$(B)/obj/%.o: %.c $(B)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(FILE_CFLAGS) -MMD -MP -c -o $@ $<

.PHONY: all plugins
all: $(PROGRAMS:%=$(B)/bin/%) plugins

# ---- Manual pages, installation, packages ---------------------------------------------------------------------
include rpm-specs/install.mk rpm-specs/packages.mk

# ---- Everything from nothing --------------------------------------------------------------------------------
# Sub-makes: what is installed by deps changes what this Makefile finds.
.PHONY: deps deps-build quickstart
deps:
	@tools/deps.sh --tests
deps-build:
	@tools/deps.sh

QUESTION ?= 如何更新yum源
quickstart: deps-build
	+@$(MAKE) --no-print-directory $(parallel) all
	@test -x $(B)/bin/ocai || { echo "quickstart: this tree has no $(B)/bin/ocai" >&2; exit 1; }
	@echo "\$$ ocai cmd --print \"$(QUESTION)\""
	@OCAI_ENGINE="$(CURDIR)/$(B)/bin/ocai-engine" PATH="$(CURDIR)/$(B)/bin:$$PATH" ocai cmd --print "$(QUESTION)"

# ---- Images -------------------------------------------------------------------------------------------------
# BASE_REPO=WHERE is the distribution's repository; without it Debian's packages as RPMs stand in for it.
.PHONY: images
images: all man
	@BASE_REPO="$${BASE_REPO:-$$(containers/stand-in.sh)}" BUILD_DIR=$(B) MAKE='$(MAKE)' containers/build.sh $(IMAGES)

# ---- Tests ----------------------------------------------------------------------------------------------
# tests/unit/<component>/test_<module>.c, tests/fuzz/fuzz_<parser>.c, tests/integration/*.sh, tests/bench/*.c and
# tests/tools/*.c (programs that scripts use) are picked up by name.
TEST_LIBS := engine_http engine kernels agent lazyimages imgtools base
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*/test_*.c))
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_REPLAYS := $(FUZZ_NAMES:%=$(B)/tests/replay/%)
BENCHES := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(wildcard tests/bench/*.c))
TEST_TOOLS := $(patsubst tests/tools/%.c,$(B)/tests/tools/%,$(wildcard tests/tools/*.c))
TEST_ARCHIVES := $(TEST_LIBS:%=$(B)/lib/lib%.a)

$(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group -lcmocka $(LDLIBS)

$(B)/tests/replay/%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/replay_main.o $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(B)/obj/tests/fuzz/replay_main.o \
		-Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LDLIBS)

$(B)/tests/bench/%: $(B)/obj/tests/bench/%.o $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LDLIBS)

$(B)/tests/tools/%: $(B)/obj/tests/tools/%.o $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LDLIBS)

$(B)/obj/tests/%.o: CPPFLAGS += -Itests/unit -Ibase/src -Iengine/src -Iengine/http

# Weights and references of the tiny models, a third smaller packed.
tests/fixtures/.unpacked: tests/fixtures/weights.tar.xz tests/fixtures/references.tar.xz
	$(call say,UNPACK,$^)
	$(Q)for archive in $^; do xz -dc $$archive | tar -C $(@D) --no-same-owner -xf - || exit 1; done; touch $@

.PHONY: tests units-and-replays
units-and-replays: $(UNIT_TESTS) $(GPU_TESTS64) $(GPU_KERNEL_PROGRAMS) $(FUZZ_REPLAYS) $(TEST_TOOLS) tests/fixtures/.unpacked
tests: all units-and-replays $(BENCHES)

.PHONY: clean
clean:
	rm -rf build

include kernels/gpu.mk
-include tests/check.mk
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
.SECONDARY:
.DELETE_ON_ERROR:
