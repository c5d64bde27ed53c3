# The assistant. Reaches the engine over its HTTP API only.
LIBS += agent
agent_SRCS := $(wildcard agent/src/*.c agent/src/*/*.c)

PROGRAMS += $(if $(wildcard agent/cmd/*.c),ocai)
ocai_SRCS := $(wildcard agent/cmd/*.c)
ocai_LIBS := agent base

$(B)/obj/agent/src/%.o: CPPFLAGS += -Iagent/src
$(B)/obj/agent/cmd/%.o: CPPFLAGS += -Iagent/src
$(B)/obj/tests/%.o: CPPFLAGS += -Iagent/src
# Manual pages and package documents are compressed.
PKGS += zlib
