# Shared by all; includes nothing of ours outside itself.
LIBS += base
base_SRCS := $(wildcard base/src/*.c)
