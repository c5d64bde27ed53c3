# make rpms, make repo, make check-packages. RELEASE=N; WITH='cuda rocm' makes the packages of GPU plugins too, for all
# targets or for GPU_ARCHS and HIP_ARCHS where they are given; GPG_KEY=ID signs by a key of yours, REPO_URL=URL is written
# into ocai.repo.
RELEASE ?= 1
# What was said, not what kernels/gpu.mk takes when nothing was.
given = $(if $(filter command environment override,$(firstword $(origin $(1)))),$($(1)))
rpm_archs = $(if $(call given,GPU_ARCHS),-D 'gpu_archs $(GPU_ARCHS)') $(if $(call given,HIP_ARCHS),-D 'hip_archs $(HIP_ARCHS)')

.PHONY: rpms repo check-packages check-packages-gpu
rpms:
	@rpm-specs/build-rpms.sh --release '$(RELEASE)' $(WITH:%=--with %) $(rpm_archs)
repo:
	@test -d build/rpms/RPMS || $(MAKE) --no-print-directory rpms
	@rpm-specs/build-repo.sh $(if $(GPG_KEY),--key '$(GPG_KEY)') $(if $(REPO_URL),--url '$(REPO_URL)')

# The packages as somebody would use them; beside make check, because it compiles the tree once more.
check-packages: deps
	+@tests/packages/run.sh || [[ $$? == 77 ]]

# Those of the GPU plugins, all targets or GPU_ARCHS and HIP_ARCHS. KEEP=1 leaves and takes build/packages-gpu.
check-packages-gpu: deps-build all
	+@$(if $(call given,GPU_ARCHS),GPU_ARCHS='$(GPU_ARCHS)') $(if $(call given,HIP_ARCHS),HIP_ARCHS='$(HIP_ARCHS)') \
		tests/packages/gpu.sh $(if $(KEEP),--keep) || [[ $$? == 77 ]]
