#!/bin/sh
# Run on a node, as root, by the DaemonSet: install or remove. Again and again without harm: containerd is restarted only
# when its configuration changed. Containers go on over a restart of containerd.
#
# CONTAINERD_CONFIG, FLIP_PACKAGE: for nodes that have the one elsewhere, or the other under another name.
set -eu
config=${CONTAINERD_CONFIG:-/etc/containerd/config.toml}
package=${FLIP_PACKAGE:-oc-flip}

sum() {
	if [ -e "$config" ]; then cksum <"$config"; else echo none; fi
}

before=$(sum)
case ${1:-} in
install)
	# From the node's own repositories, with their keys: the node trusts what its administrator trusts.
	command -v flip >/dev/null 2>&1 || dnf -y install "$package"
	systemctl daemon-reload
	systemctl enable --now flip-snapshotter.service
	# Its mounts outlive it.
	[ "${FLIP_RESTART:-no}" = no ] || systemctl restart flip-snapshotter.service
	n=0
	until flip stat >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 60 ] || { echo "flip does not answer: journalctl -u flip-snapshotter" >&2; exit 1; }
		sleep 1
	done
	flip setup containerd --cri --config "$config"
	;;
remove)
	# The service goes on: containers that were started by it stand on its mounts until they end.
	command -v flip >/dev/null 2>&1 || exit 0
	flip setup containerd --undo --config "$config"
	systemctl disable flip-snapshotter.service
	;;
*)
	echo "node.sh: install or remove" >&2
	exit 2
	;;
esac
[ "$before" = "$(sum)" ] || systemctl restart containerd
