#!/bin/bash
# make install DESTDIR=...: every file in its place, readable for all whatever the umask, and nothing else; each belongs to
# one package; a configuration that is there stays.
set -u
cd "$(dirname "$0")/../.."
build=${BUILD_DIR:-build/release}
[[ -x $build/bin/ocai ]] || { echo "no $build/bin/ocai"; exit 77; }
command -v scdoc >/dev/null || { echo "no scdoc"; exit 77; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

san=()
[[ $(basename "$build") == san-* ]] && san=("SAN=$(basename "$build" | sed 's/^san-//; s/-/,/g')")
# What is installed was built before; `-o all` keeps this make from looking after it, while other tests use it.
install_to() { # DIR TARGET...
	local dir=$1
	shift
	(umask 077; ${MAKE:-make} --no-print-directory -s -o all "$@" DESTDIR="$dir" PREFIX=/usr ${san[@]+"${san[@]}"}) || fail "make $*"
}
install_to "$root" install

expected=$(
	for p in "$build"/bin/*; do
		p=${p##*/}
		echo "755 usr/bin/$p"
		echo "644 usr/share/bash-completion/completions/$p"
		echo "644 usr/share/zsh/site-functions/_$p"
	done
	for f in docs/man/*.scd; do f=${f%.scd}; echo "644 usr/share/man/man${f##*.}/${f##*/}"; done
	for f in agent/cmd/*.conf engine/cmd/*.conf; do echo "644 etc/ocai/${f##*/}"; done
	echo "644 etc/flip/flip.conf"
	for f in engine/cmd/system/*.service engine/cmd/system/*.socket imgtools/cmd/flip/*.service; do
		echo "644 usr/lib/systemd/system/${f##*/}"
	done
	for f in engine/cmd/user/*.*; do echo "644 usr/lib/systemd/user/${f##*/}"; done
	echo "644 usr/lib/sysusers.d/ocai-engine.conf"
	echo "644 usr/lib/tmpfiles.d/ocai-engine.conf"
	for f in engine/models/*/*.gguf; do echo "644 usr/share/ocai/models/${f##*/}"; done
	for f in agent/knowledge/*.tasks; do echo "644 usr/share/ocai/knowledge/${f##*/}"; done
	echo "644 usr/share/ocai/shell/ocai.bash"
	echo "644 usr/share/ocai/shell/ocai.zsh"
	# Plugins as far as they were built.
	for kind in cuda:cuda rocm:hip; do
		[[ -e $build/plugins/libocai-engine-${kind#*:}.so ]] || continue
		echo "755 usr/lib64/ocai/libocai-engine-${kind#*:}.so"
		echo "644 usr/lib/systemd/system/ocai-engine.service.d/${kind%:*}.conf"
	done
)
diff <(sort <<<"$expected") <(find "$root" -type f -printf '%m %P\n' | sort) || fail "not what should be there (<), or more (>)"
[[ -z $(find "$root" ! -type f ! -type d) ]] || fail "$(find "$root" ! -type f ! -type d)"

cmp "$build/bin/ocai" "$root/usr/bin/ocai" || fail "another program"
for f in agent/shell/ocai.*; do cmp "$f" "$root/usr/share/ocai/shell/${f##*/}" || fail "$f"; done
for f in "$root"/usr/share/bash-completion/completions/*; do
	bash -n "$f" || fail "$f"
	grep -q "^complete .* ${f##*/}\$" "$f" || fail "$f: not for its program"
done
for f in "$root"/usr/share/zsh/site-functions/*; do
	head -n 1 "$f" | grep -q "^#compdef ${f##*/_}\$" || fail "$f: not for its program"
	! command -v zsh >/dev/null || zsh -n "$f" || fail "$f"
done
for f in "$root"/usr/lib/systemd/{system,user}/*.service; do
	program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$f")
	[[ -x $root$program ]] || fail "$f: starts $program, which is not there"
done

# Each file comes with one package and no other.
sed -n 's/^PACKAGES := //p' rpm-specs/install.mk | tr ' ' '\n' >"$root/packages"
[[ $(wc -l <"$root/packages") -ge 5 ]] || fail "rpm-specs/install.mk names no packages"
for kind in cuda:cuda rocm:hip; do
	[[ -e $build/plugins/libocai-engine-${kind#*:}.so ]] && echo "ocai-engine-${kind%:*}" >>"$root/packages"
done
while read -r package; do
	install_to "$root/one/$package" "install-$package"
	[[ -n $(find "$root/one/$package" -type f) ]] || fail "$package is empty"
done <"$root/packages"
diff <(sed 's/^[0-9]* //' <<<"$expected" | sort) <(find "$root/one" -type f -printf '%P\n' | sed 's,^[^/]*/,,' | sort) ||
	fail "the packages' files together are not those of make install (<: in none, >: in more than one)"

# What somebody changed is kept, by the next installation too.
echo changed >"$root/etc/ocai/engine.conf"
install_to "$root" install-ocai-engine
[[ $(<"$root/etc/ocai/engine.conf") == changed ]] || fail "make install overwrites a configuration"

for f in "$root"/usr/share/man/man*/*; do grep -q '^\.TH' "$f" || fail "$f is no manual page"; done
"$root/usr/bin/ocai" --version | grep -q '^ocai ' || fail "the installed program does not run"
echo "make install: passed"
