# The library (engine.h), the HTTP front (uses engine.h only) and the program.
LIBS += engine engine_http
engine_SRCS := $(wildcard engine/src/*.c engine/src/*/*.c)
engine_http_SRCS := $(wildcard engine/http/*.c)

PROGRAMS += $(if $(wildcard engine/cmd/main.c),ocai-engine)
ocai-engine_SRCS := $(wildcard engine/cmd/*.c)
ocai-engine_LIBS := engine_http engine kernels base

$(B)/obj/engine/src/%.o: CPPFLAGS += -Iengine/src
$(B)/obj/engine/http/%.o: CPPFLAGS += -Iengine/http

# The page at / as an array of bytes.
$(B)/gen/engine/page_html.h: engine/http/page.html
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(Q){ echo 'static const unsigned char page_html[] = {'; od -An -v -tx1 $< | sed 's/ \(..\)/0x\1,/g'; echo '};'; } >$@
$(B)/obj/engine/http/page.o: $(B)/gen/engine/page_html.h
$(B)/obj/engine/http/page.o: CPPFLAGS += -I$(B)/gen/engine
