# Which package every installed file belongs to, and how it gets there: `make install` puts all in place, `make
# install-oc-flip` what is in that package. The spec builds its packages out of these.

PACKAGES := ocai-engine ocai-model-mini ocai-agent oc-slimtrace oc-flip
SYSCONFDIR ?= /etc

# NAME_PROGRAMS bring their manual page and completions; NAME_CONF is source and folder of /etc; NAME_UNITS, NAME_FILES
# is source and folder, and the name where it is another.
ocai-engine_PROGRAMS := ocai-engine
ocai-engine_CONF := engine/cmd/engine.conf:ocai
ocai-engine_UNITS := $(patsubst %,%:lib/systemd/system,$(wildcard engine/cmd/system/*.service engine/cmd/system/*.socket)) \
	$(patsubst %,%:lib/systemd/user,$(wildcard engine/cmd/user/*.service engine/cmd/user/*.socket))
ocai-engine_FILES := engine/cmd/system/ocai-engine.sysusers:lib/sysusers.d:ocai-engine.conf \
	engine/cmd/system/ocai-engine.tmpfiles:lib/tmpfiles.d:ocai-engine.conf

# The model is what the engine reads, without the recipe that made it.
ocai-model-mini_FILES := $(patsubst %,%:share/ocai/models,$(wildcard engine/models/*/*.gguf))

ocai-agent_PROGRAMS := ocai
ocai-agent_CONF := $(patsubst %,%:ocai,$(wildcard agent/cmd/*.conf))
ocai-agent_FILES := $(patsubst %,%:share/ocai/shell,$(wildcard agent/shell/ocai.*)) \
	$(patsubst %,%:share/ocai/knowledge,$(wildcard agent/knowledge/*.tasks))

oc-slimtrace_PROGRAMS := slimtrace

oc-flip_PROGRAMS := flip
oc-flip_CONF := imgtools/cmd/flip/flip.conf:flip
oc-flip_UNITS := imgtools/cmd/flip/flip-snapshotter.service:lib/systemd/system

MAN_PAGES := $(patsubst docs/man/%.scd,build/man/%,$(wildcard docs/man/*.scd))

build/man/%: docs/man/%.scd
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	$(Q)scdoc <$< >$@

.PHONY: man install
man: $(MAN_PAGES)

# part N of source:folder:name
part = $(word $(1),$(subst :, ,$(2)))
installed_name = $(or $(call part,3,$(1)),$(notdir $(call part,1,$(1))))

define install_program
	install -D -m 755 $(B)/bin/$(1) $(DESTDIR)$(PREFIX)/bin/$(1)
	install -D -m 644 build/man/$(1).1 $(DESTDIR)$(PREFIX)/share/man/man1/$(1).1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	$(B)/bin/$(1) --completion=bash | install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$(1)
	$(B)/bin/$(1) --completion=zsh | install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$(1)

endef
define install_file
	install -D -m 644 $(call part,1,$(1)) $(DESTDIR)$(PREFIX)/$(call part,2,$(1))/$(installed_name)

endef
# A file that somebody may have changed is not replaced.
define install_conf
	test -e $(DESTDIR)$(SYSCONFDIR)/$(call part,2,$(1))/$(installed_name) || \
		install -D -m 644 $(call part,1,$(1)) $(DESTDIR)$(SYSCONFDIR)/$(call part,2,$(1))/$(installed_name)

endef
define install_unit
	install -d $(DESTDIR)$(PREFIX)/$(call part,2,$(1))
	sed 's,=/usr/bin/,=$(PREFIX)/bin/,' $(call part,1,$(1)) | \
		install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/$(call part,2,$(1))/$(installed_name)

endef

define package_rule
.PHONY: install-$(1)
install-$(1): all man
	$$(foreach p,$$(filter $$(PROGRAMS),$$($(1)_PROGRAMS)),$$(call install_program,$$(p)))
	$$(foreach f,$$($(1)_FILES),$$(call install_file,$$(f)))
	$$(foreach f,$$($(1)_CONF),$$(call install_conf,$$(f)))
	$$(foreach f,$$($(1)_UNITS),$$(call install_unit,$$(f)))
endef
$(foreach p,$(PACKAGES),$(eval $(call package_rule,$(p))))

install: $(PACKAGES:%=install-%)
