# make check, make fuzz, make bench.

# Everything that can be tested, one line per test program, the last line counts. The script calls back for builds.
.PHONY: check
check: deps
	+@MAKE='$(MAKE)' BUILD_DIR=$(B) SAN='$(SAN)' PARALLEL='$(parallel)' tests/tools/check.sh

# The two commands of the README on a bare Debian 12, made by debootstrap: needs root, a mirror, 3 GB and minutes.
# OPTIONS='--check --user': see the script.
.PHONY: check-newcomer
check-newcomer:
	@tests/newcomer.sh $(OPTIONS)

# 24,000 requests of random shape under both sanitizers; some 15 minutes. COUNT= and SEED= as http_load.sh has them.
.PHONY: soak
soak:
	+@MAKE='$(MAKE)' PARALLEL='$(parallel)' tests/tools/soak.sh

# libFuzzer binaries: build/fuzz/fuzz_NAME; to fuzz: build/fuzz/fuzz_NAME NEW_CORPUS tests/fuzz/corpus/NAME
.PHONY: fuzz fuzz-binaries
fuzz:
	+@$(MAKE) --no-print-directory $(parallel) FUZZ=1 SAN= fuzz-binaries
fuzz-binaries: $(FUZZ_NAMES:%=$(B)/fuzz_%)

ifdef FUZZ
$(B)/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(TEST_ARCHIVES) $(B)/ldflags
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LDLIBS)
endif

# JSON lines on standard output, everything else on standard error. LLAMA_BENCH=PROGRAM compares with llama.cpp.
.PHONY: bench bench-binaries
bench-binaries: all $(BENCHES)
bench:
	+@$(MAKE) --no-print-directory $(parallel) bench-binaries >&2
	@for b in $(BENCHES); do TESTS_DIR=$(CURDIR)/tests $$b || exit; done
	@for b in $(filter-out %/flip_table.sh %/flip_p2p.sh %/flip_p2p_parts.sh %/flip_p2p_model.sh %/flip_pressure.sh,$(wildcard tests/bench/*.sh)); do BUILD_DIR=$(B) $$b || exit; done
# By itself: it fetches packages, needs root and some 15 GB, and takes many minutes.
.PHONY: bench-flip
bench-flip: all
	@FLIP=$(B)/bin/flip tests/bench/flip_table.sh
# Likewise: 1 to 32 nodes in network namespaces, with peers and without, what goes wrong, a model to 8 nodes, a busy node, a simulation;
# PARTS="curve faults model pressure fabric sim" says which, SVG=docs/pictures/p2p.svg draws the curves.
.PHONY: bench-p2p
bench-p2p: all
	@BUILD_DIR=$(B) tests/bench/flip_p2p_parts.sh
