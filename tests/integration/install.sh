#!/bin/bash
# make install DESTDIR=...: every file in its place, readable for all whatever the umask, and nothing else.
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
(umask 077; ${MAKE:-make} --no-print-directory -s -o all install DESTDIR="$root" PREFIX=/usr ${san[@]+"${san[@]}"}) ||
	fail "make install"

expected=$(
	for p in "$build"/bin/*; do
		p=${p##*/}
		echo "755 usr/bin/$p"
		echo "644 usr/share/bash-completion/completions/$p"
		echo "644 usr/share/zsh/site-functions/_$p"
	done
	for f in docs/man/*.scd; do f=${f%.scd}; echo "644 usr/share/man/man${f##*.}/${f##*/}"; done
	for f in $(compgen -G '*/cmd/*.conf') $(compgen -G '*/cmd/*/*.conf'); do echo "644 usr/lib/ocai/${f##*/}"; done
	for f in $(compgen -G '*/cmd/*/*.service'); do echo "644 usr/lib/systemd/system/${f##*/}"; done
	for f in $(compgen -G 'engine/models/*/*.gguf'); do echo "644 usr/share/ocai/models/${f##*/}"; done
	for f in $(compgen -G 'agent/knowledge/*.tasks'); do echo "644 usr/share/ocai/knowledge/${f##*/}"; done
	echo "644 usr/share/ocai/shell/ocai.bash"
	echo "644 usr/share/ocai/shell/ocai.zsh"
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
for f in "$root"/usr/lib/systemd/system/*.service; do
	program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$f")
	[[ -x $root$program ]] || fail "$f: starts $program, which is not there"
	! command -v systemd-analyze >/dev/null || systemd-analyze verify --root="$root" --man=no "${f##*/}" >"$root/unit" 2>&1 || true
	# What systemd has had since 254 only is passed over by older ones.
	! grep -E "${f##*/}:[0-9]+:" "$root/unit" 2>/dev/null | grep -v "'FileDescriptorStorePreserve'" || fail "$f: systemd does not understand it"
	rm -f "$root/unit"
done
for f in "$root"/usr/share/man/man*/*; do grep -q '^\.TH' "$f" || fail "$f is no manual page"; done
"$root/usr/bin/ocai" --version | grep -q '^ocai ' || fail "the installed program does not run"
echo "make install: passed"
