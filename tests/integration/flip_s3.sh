#!/bin/bash
# Models in an object store, s3://BUCKET/KEY: pulled from a server that computes every request's signature anew; keys of the
# environment, of the usual files, for a while; none for a public bucket; wrong ones end in words.
. "$(dirname "$0")/flip/lib.sh"
begin flip-s3
unset ${!AWS_@}
export FLIP_MODELS=$work/models FLIP_RETRIES=1 FLIP_STALL=20 FLIP_MIN_FREE=1M HOME=$work/home
tree=$work/store/bucket/team/a+b
mkdir -p "$tree/sub" "$work/home/.aws" "$work/store/open"
head -c $((5 << 20)) /dev/urandom >"$tree/model 1=2.safetensors"
head -c 70000 /dev/urandom >"$tree/sub/tokenizer.json"
cp -a "$work/store/bucket/team" "$work/store/open/"
cp -a "$tree" "$work/expected"
for bucket in bucket open; do # one says nothing of where files are, the other one where
	"$flip" model manifest $([[ $bucket == open ]] && echo --url "s3://open/team/a%2Bb") "$work/expected" >"$work/store/$bucket/team/a+b/model.json" || fail "manifest"
done
next_port store
python3 $here/s3-server.py $store "$work/store" AKTEST 'se/cret+' "" open >>"$work/out" 2>&1 &
keep $!
next_port temporary
python3 $here/s3-server.py $temporary "$work/store" AKSHORT short 'to/ken==' none >>"$work/out" 2>&1 &
keep $!
answers $store && answers $temporary || fail "no store"
n_nodes=0
fresh_node() { # VAR=VALUE...
	[[ -z $daemon ]] || stop_flip
	unmount_below "$work"
	end_holder "$node"
	node=$work/n$((++n_nodes))
	for v; do export "$v"; done
	start_flip
	for v; do unset "${v%%=*}"; done
}
pull() { # SOURCE NAME
	ctl model pull "$1" "$2" >"$work/out" 2>&1 || fail "$1: $(<"$work/out")"
	dir=$(ctl model mount "$2") || fail "no mount"
	diff -r "$work/expected" "$dir" >"$work/out" || fail "$1: other bytes"
}

fresh_node AWS_ENDPOINT_URL=http://127.0.0.1:$store AWS_ACCESS_KEY_ID=AKTEST AWS_SECRET_ACCESS_KEY=se/cret+ AWS_REGION=somewhere
pull "s3://bucket/team/a+b/model.json" by-environment
ctl model pull "s3://bucket/nothing/model.json" x 2>"$work/out" && fail "what is not there was pulled"
grep -q "404" "$work/out" || fail "not told why: $(<"$work/out")"

# Keys for a while, by a profile of the usual files.
cat >"$work/home/.aws/credentials" <<C
[default]
aws_access_key_id = AKOTHER
aws_secret_access_key = other
[short]
aws_access_key_id = AKSHORT
aws_secret_access_key = short
aws_session_token = to/ken==
C
printf '[profile short]\nregion = eu-test-1\nendpoint_url = http://127.0.0.1:%s\n' "$temporary" >"$work/home/.aws/config"
fresh_node AWS_PROFILE=short
pull "s3://bucket/team/a%2Bb/model.json" by-file

# A key that is not known there; a secret that is wrong; nobody, of a public bucket.
fresh_node AWS_ENDPOINT_URL=http://127.0.0.1:$store AWS_ACCESS_KEY_ID=AKTEST AWS_SECRET_ACCESS_KEY=wrong
ctl model pull "s3://bucket/team/a+b/model.json" x 2>"$work/out" && fail "pulled with a wrong secret"
grep -q "403" "$work/out" || fail "not told why: $(<"$work/out")"
rm "$work/home/.aws/credentials"
fresh_node AWS_ENDPOINT_URL=http://127.0.0.1:$store
pull "s3://open/team/a+b/model.json" public
ctl model pull "s3://bucket/team/a+b/model.json" x 2>"$work/out" && fail "pulled without a key"
ctl model pull "s3://bucket" x 2>"$work/out" && fail "pulled a bucket"
grep -q "not s3://BUCKET/KEY" "$work/out" || fail "not told why: $(<"$work/out")"
! grep -E "Sanitizer|runtime error" "$work/flip.log" || fail "sanitizer"
echo ok
