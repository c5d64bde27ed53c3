#!/bin/bash
# Inside the machine (lib.sh), without a network and without a GPU: the packages of the plugins as somebody would use them.
# /srv/gpu is a repository that has them, /srv/base the distribution.
#   yum-gpu.sh cuda rocm
set -u
. /mnt/say.sh
declare -A kind=([cuda]=cuda [rocm]=hip)
declare -A missing=([cuda]='driver' [rocm]='no ROCm here')

asked() { # PACKAGE: for its backend by name, which fails here; what is said in /tmp/said
	ocai-engine run --backend "${kind[$1]}" --temperature 0 --max-tokens 4 "show disk usage" >/tmp/out 2>/tmp/said </dev/null && return 1
	grep -o "backend ${kind[$1]}:.*" /tmp/said
}

export HOME=/tmp
mkdir -p /usr/share/licenses /usr/share/zsh/site-functions
use gpu
expect_yum install ocai-engine ocai-model-mini
compgen -G '/usr/lib*/ocai/*' && fail "ocai-engine brings a plugin"
for w in "$@"; do
	[[ $(asked "$w") == *'is not installed'* ]] || fail "without ocai-engine-$w: $(</tmp/said)"
done
files >/tmp/before
for w in "$@"; do
	expect_yum install "ocai-engine-$w"
	grep -iE '^ *(cuda|nvidia|rocm|hip|amd)' /tmp/yum && fail "ocai-engine-$w brings something of a vendor's"
	[[ $(rpm -q --qf '%{RSAHEADER:pgpsig}' "ocai-engine-$w") == RSA/* ]] || fail "ocai-engine-$w: not there, or not signed"
	rpm -V "ocai-engine-$w" || fail "rpm -V ocai-engine-$w"
	said=$(asked "$w") || fail "--backend ${kind[$w]} without a device: $(</tmp/said)"
	[[ $said == *"${missing[$w]}"* ]] || fail "the plugin was found, and then: $said"
	ok "yum install ocai-engine-$w: $said"
done
said=$(systemd-analyze verify /usr/lib/systemd/system/ocai-engine.service 2>&1)
[[ -z $said ]] || fail "the unit with its drop-ins: $said"

# By itself it takes the processor, and its log says why.
ocai-engine serve --port 0 --port-file /tmp/port 2>/tmp/log &
server=$!
for _ in {1..200}; do
	[[ -s /tmp/port ]] && break
	sleep 0.1
done
curl -fsS "http://127.0.0.1:$(</tmp/port)/v1/completions" -d '{"prompt":"show disk usage","max_tokens":4}' >/tmp/answer 2>/tmp/err || fail "no answer: $(cat /tmp/log /tmp/err)"
grep -q '"text"' /tmp/answer || fail "an empty answer: $(</tmp/answer)"
for w in "$@"; do
	grep -q "backend ${kind[$w]}: .*${missing[$w]}" /tmp/log || fail "the log does not say why ${kind[$w]} is not used: $(</tmp/log)"
done
kill $server
wait $server 2>/dev/null
ok "serve answers from the processor and says why"

expect_yum remove "${@/#/ocai-engine-}"
rpm -q ocai-engine >/dev/null || fail "the removal took the engine along"
files >/tmp/after
comm -3 /tmp/before /tmp/after | grep . >/tmp/more && fail "the removal is not clean: $(tr '\n' ' ' </tmp/more)"
for w in "$@"; do
	[[ $(asked "$w") == *'is not installed'* ]] || fail "after the removal: $(</tmp/said)"
done
ok "a removal leaves nothing"
