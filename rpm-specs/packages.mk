# make rpms, make repo, make check-packages. RELEASE=N; WITH='cuda rocm' makes the packages of GPU plugins too; GPG_KEY=ID signs by a key of yours, REPO_URL=URL is written into
# ocai.repo.
RELEASE ?= 1

.PHONY: rpms repo check-packages check-packages-gpu
rpms:
	@rpm-specs/build-rpms.sh --release '$(RELEASE)' $(WITH:%=--with %)
repo:
	@test -d build/rpms/RPMS || $(MAKE) --no-print-directory rpms
	@rpm-specs/build-repo.sh $(if $(GPG_KEY),--key '$(GPG_KEY)') $(if $(REPO_URL),--url '$(REPO_URL)')

# The packages as somebody would use them; beside make check, because it compiles the tree once more.
check-packages: deps
	+@tests/packages/run.sh || [[ $$? == 77 ]]

# Those of the GPU plugins, all targets: a quarter of an hour of four cores. KEEP=1 leaves and takes build/packages-gpu.
check-packages-gpu: deps-build all
	+@tests/packages/gpu.sh $(if $(KEEP),--keep) || [[ $$? == 77 ]]
