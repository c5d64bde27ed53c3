# The assistant. Reaches the engine over its HTTP API only.
LIBS += agent
agent_SRCS := $(wildcard agent/src/*.c agent/src/*/*.c)

PROGRAMS += $(if $(wildcard agent/cmd/*.c),ocai)
ocai_SRCS := $(wildcard agent/cmd/*.c)
ocai_LIBS := agent base

$(B)/obj/agent/src/%.o: CPPFLAGS += -Iagent/src

$(B)/obj/agent/cmd/%.o $(B)/obj/tests/%.o: CPPFLAGS += -Iagent/src

# These run the programs themselves, which are looked for beside the test.
E2E_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/agent/test_e2e_*.c))
$(E2E_TESTS): | $(B)/bin/ocai $(B)/bin/ocai-engine
