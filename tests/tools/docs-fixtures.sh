# Sourced by the script that docs.py makes of a page: what its commands take for granted, one function each, run in the page's
# own place (tests/integration/docs.sh): HOME and the working folder are fresh, the network is loopback alone.
# A function that exits with 77 skips the page; its last line says why.

docs_need() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || {
			echo "$tool is missing"
			exit 77
		}
	done
}

docs_until() { # WORDS COMMAND...: until it succeeds
	local words=$1
	shift
	SECONDS=0
	until "$@" >/dev/null 2>&1; do
		((SECONDS < 30)) || {
			echo "$words"
			exit 1
		}
		sleep 0.1
	done
}

docs_need_rpms() {
	[[ $DOCS_RPMS ]] || {
		echo "$DOCS_NO_RPMS"
		exit 77
	}
}

# A registry on localhost:5000.
fixture_registry() {
	docs_need docker-registry skopeo
	cat >"$DOCS_LOGS/registry.yml" <<-Y
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $DOCS_LOGS/registry}}
		http: {addr: 'localhost:5000'}
	Y
	# No job of the page's shell: pages say %1.
	(docker-registry serve "$DOCS_LOGS/registry.yml" >"$DOCS_LOGS/registry.log" 2>&1 &)
	docs_until "the registry does not start" curl -fs http://localhost:5000/v2/
}

# images/, an OCI layout whose image `app` has an interpreter and a program for it; made once, of $DOCS_RPMS.
fixture_image() {
	docs_need_rpms
	cp -r "$DOCS_IMAGE" images
}

# The same image in the registry, as app:1.
fixture_pushed_image() {
	docs_need_rpms
	docs_need skopeo
	skopeo copy -q --dest-tls-verify=false "oci:$DOCS_IMAGE:app" docker://localhost:5000/app:1
}

# rpms/, a repository of packages.
fixture_rpms() {
	docs_need_rpms
	ln -s "$DOCS_RPMS" rpms
}

# ~/models/Qwen3-0.6B, a folder as it is downloaded: the architecture, with weights that fit into a test.
fixture_models() {
	[[ -e $DOCS_TOP/tests/fixtures/models/qwen3/model.safetensors ]] || {
		echo "the weights of fixtures are packed: make tests/fixtures/.unpacked"
		exit 77
	}
	mkdir -p ~/models
	cp -r "$DOCS_TOP/tests/fixtures/models/qwen3" ~/models/Qwen3-0.6B
	chmod -R u+w ~/models
}

# The reader's clone of this repository, as far as a page works in it.
fixture_tree() {
	docs_need g++
	mkdir -p ocai/docs
	cp -r "$DOCS_TOP/docs/tutorial" ocai/docs/
	cd ocai
}

# What containerd's package brings where it has no configuration.
fixture_containerd_folder() {
	mkdir -p /etc/containerd
}

# containerd's own configuration, and nothing running.
fixture_containerd() {
	docs_need containerd ctr runc
	[[ -c /dev/fuse ]] || {
		echo "no /dev/fuse"
		exit 77
	}
	mkdir -p /etc/containerd
	containerd config default | sed 's/^disabled_plugins = .*/disabled_plugins = ["io.containerd.grpc.v1.cri"]/' >/etc/containerd/config.toml
}
