#!/bin/bash
# ocai kb: add, list, search, update and rm from the command line; interruption, misfortunes, a server of vectors.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BUILD_DIR:-$top/build/release}/bin
case $bin in /*) ;; *) bin=$top/$bin ;; esac
ocai=$bin/ocai
fail() { echo "FAILED: $*"; exit 1; }
work=$(mktemp -d)
trap 'kill $(jobs -pr) 2>/dev/null || true; wait || true; chmod -R u+rwX "$work"; rm -rf "$work"' EXIT
export XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/config HOME=$work LC_ALL=C.UTF-8
mkdir -p "$work/docs/sub" "$work/man/man1" "$work/config/ocai"

"$ocai" kb list 2>"$work/err" && fail "list without a knowledge base: exit 0"
grep -q 'ocai kb add' "$work/err" || fail "list: $(cat "$work/err")"
[ ! -e "$work/data" ] || fail "looking created a database"

printf '# 磁盘\n\n用 df -h 查看磁盘剩余空间。\n' >"$work/docs/disk.md"
printf '<html><title>Ports</title><body><p>ss -ltnp shows listening ports' >"$work/docs/sub/ports.html"
printf '\177ELF\0\1' >"$work/docs/program"
printf 'secret' >"$work/docs/server.key"
ln -s .. "$work/docs/sub/up"
out=$("$ocai" kb add "$work/docs" 2>"$work/err")
[ "$out" = "2 files: 2 indexed, 0 unchanged, 0 removed, 2 skipped" ] || fail "add: $out"
grep -q 'server.key: it may hold secrets' "$work/err" || fail "add: $(cat "$work/err")"
[ "$(stat -c %a "$work/data/ocai/kb.sqlite")" = 600 ] || fail "mode of the database"

out=$("$ocai" kb search 怎么看磁盘空间) || fail "search: exit $?"
[ "$(head -n1 <<<"$out")" = "$work/docs/disk.md:1  磁盘" ] || fail "search: $out"
"$ocai" kb search --color=always 剩余 | grep -q $'\033\[1;33m剩余\033\[0m' || fail "search: no highlight"
"$ocai" kb search --json LISTENING ports | grep -q '"path":".*ports.html","line":1' || fail "search --json"
"$ocai" kb search kubernetes 2>/dev/null && fail "nothing found: exit 0"

printf '.TH HELLO 1\n.SH NAME\nhello \\- says hello\n.SH OPTIONS\n.TP\n\\fB\\-\\-traditional\\fR\nuse the old greeting\n' |
	gzip >"$work/man/man1/hello.1.gz"
printf '.so man1/hello.1\n' >"$work/man/man1/hi.1"
out=$(MANPATH=$work/man "$ocai" kb add man) || fail "add man"
[ "$out" = "1 files: 1 indexed, 0 unchanged, 0 removed, 0 skipped" ] || fail "add man: $out"
"$ocai" kb search old greeting | grep -q 'hello.1.gz:.*hello(1)' || fail "search man: $("$ocai" kb search old greeting)"

rm "$work/docs/sub/ports.html"
printf '# 网络\n\n用 ip addr 查看地址。\n' >"$work/docs/net.md"
out=$(MANPATH=$work/man "$ocai" kb update -q) || fail "update"
[ "$out" = "3 files: 1 indexed, 2 unchanged, 1 removed, 2 skipped" ] || fail "update: $out"
[ "$("$ocai" kb list | wc -l)" = 2 ] || fail "list: $("$ocai" kb list)"
"$ocai" kb rm "$work/docs" || fail "rm"
"$ocai" kb search 磁盘 2>/dev/null && fail "found after rm"
"$ocai" kb rm "$work/docs" 2>/dev/null && fail "rm twice: exit 0"
for wrong in "" "add" "list x" "nothing" "search --limit=0 x"; do
	# shellcheck disable=SC2086
	code=0; "$ocai" kb $wrong >/dev/null 2>&1 || code=$?
	[ $code = 2 ] || fail "kb $wrong: exit $code"
done

# Interrupted: what is there is whole, update goes on.
mkdir "$work/many"
for i in $(seq 2000); do printf '# page %d\n\nword%d and others\n' "$i" "$i" >"$work/many/$i.md"; done
"$ocai" kb add "$work/many" >/dev/null 2>&1 & pid=$!
sleep 0.05; kill -INT $pid 2>/dev/null || true; wait $pid || true
"$ocai" kb add "$work/many" >/dev/null & pid=$!
sleep 0.05; kill -KILL $pid 2>/dev/null || true; wait $pid 2>/dev/null || true
out=$(MANPATH=$work/man "$ocai" kb add "$work/many") || fail "add after interruption"
grep -q '^2000 files' <<<"$out" || fail "add after interruption: $out"
"$ocai" kb search word1999 | grep -q '/1999.md:1' || fail "search after interruption"

# Damaged: moved aside, said so, begun anew.
printf 'x%.0s' $(seq 5000) >"$work/data/ocai/kb.sqlite"
"$ocai" kb add "$work/docs" 2>"$work/err" >/dev/null || fail "add to a damaged database: $(cat "$work/err")"
grep -q 'is damaged and was moved to' "$work/err" || fail "damaged: $(cat "$work/err")"
ls "$work"/data/ocai/kb.sqlite.damaged-* >/dev/null || fail "the damaged database is gone"

# Vectors from an engine; without it, words alone and a remark.
"$bin/ocai-engine" serve --model "$top/tests/fixtures/models/qwen3" --port 0 --port-file "$work/port" 2>"$work/log" &
server=$!
for _ in $(seq 1200); do [ -s "$work/port" ] && break; sleep 0.1; done
[ -s "$work/port" ] || fail "the engine did not start: $(cat "$work/log")"
export OCAI_EMBEDDINGS_URL=http://127.0.0.1:$(cat "$work/port")
printf '[embeddings]\nmodel = qwen3\n' >"$work/config/ocai/kb.conf"
out=$("$ocai" kb add -q "$work/docs") || fail "add with vectors"
grep -q ', 2 vectors' <<<"$out" || fail "add with vectors: $out"
"$ocai" kb search --json 磁盘 | grep -q '"by_vector":true' || fail "no hit by vector"
kill "$server"; wait "$server" 2>/dev/null || true
"$ocai" kb search 磁盘 2>"$work/err" | grep -q disk.md || fail "search without the server"
grep -q 'searching by words only' "$work/err" || fail "no remark: $(cat "$work/err")"
echo ok
