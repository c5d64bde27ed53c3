#!/bin/bash
# flip behind a caching proxy, as clusters have one already: nginx in front of a registry, caching slices of 1 MiB. The first
# node fills the cache by the ranges it asks for; the second starts the same image from it while the registry is away.
. "$(dirname "$0")/flip/lib.sh"
begin flip-mirror docker-registry skopeo nginx
nginx -V 2>&1 | grep -q http_slice_module || skip "this nginx cannot cache slices"

python3 $here/herd-tree.py "$work/tree" 12
layout_of "$work/plain" t "$work/tree"
"$flip" convert -f zstd-chunked --no-prefetch "oci:$work/plain:t" "oci:$work/lazy:t" >/dev/null || fail "convert"
start_registry
skopeo copy -q --dest-tls-verify=false "oci:$work/lazy:t" "docker://$at:t" || fail "push"
next_port proxy
mkdir -p "$work/cache" "$work/etc/flip"
cat >"$work/nginx.conf" <<N
daemon off;
worker_processes 1;
user root;
pid $work/nginx.pid;
error_log $work/proxy.log;
events {}
http {
  access_log off;
  client_body_temp_path $work/cache/body;
  proxy_temp_path $work/cache/proxy;
  fastcgi_temp_path $work/cache/fastcgi;
  uwsgi_temp_path $work/cache/uwsgi;
  scgi_temp_path $work/cache/scgi;
  proxy_cache_path $work/cache/store keys_zone=layers:10m max_size=1g inactive=1d;
  server {
    listen 127.0.0.1:$proxy;
    location / {
      slice 1m;
      proxy_pass http://127.0.0.1:$port;
      proxy_cache layers;
      proxy_cache_key \$uri\$slice_range;
      proxy_set_header Range \$slice_range;
      proxy_http_version 1.1;
      proxy_cache_valid 200 206 1d;
      proxy_cache_use_stale error timeout http_502;
      # What a tag names may move; what a digest names may not.
      location ~ /manifests/[^/:]+\$ {
        proxy_pass http://127.0.0.1:$port;
        proxy_cache layers;
        proxy_cache_key \$uri;
        proxy_cache_valid 200 1s;
        proxy_cache_use_stale error timeout http_502;
      }
      location ~ /manifests/sha256: {
        proxy_pass http://127.0.0.1:$port;
        proxy_cache layers;
        proxy_cache_key \$uri;
        proxy_cache_valid 200 1d;
      }
    }
  }
}
N
nginx -c "$work/nginx.conf" -p "$work" >>"$work/proxy.log" 2>&1 &
keep $!
answers "$proxy" $! || fail "nginx does not start: $(tail -n 1 "$work/proxy.log")"

start_behind() { # NAME: a fresh node whose registry is asked through the mirror
	node=$work/$1
	FLIP_MIRRORS="127.0.0.1:$port=http://127.0.0.1:$proxy" FLIP_RETRIES=1 FLIP_BACKGROUND_WAIT=3600 start_flip
}
start_behind one
ctl mount "$at:t" "$work/mnt" || fail "mount through the mirror"
diff -r "$work/tree" "$work/mnt" >"$work/out" || fail "other bytes through the mirror: $(head -n 3 "$work/out")"
# A slice is kept when the registry has given all of it, which may be after somebody has read what he wanted.
layer=$(find "$work/lazy/blobs" -type f -printf '%s\n' | sort -n | tail -n 1)
cached() { find "$work/cache/store" -type f -printf '%s\n' | awk '{ s += $1 } END { print s + 0 }'; }
is_cached() { (($(cached) >= layer)); }
until_true is_cached || fail "the mirror has only $(cached) of $layer bytes: it was not asked"
ctl unmount "$work/mnt"
stop_flip
stop_registry
start_behind two
ctl mount "$at:t" "$work/mnt" || fail "mount out of the mirror"
diff -r "$work/tree" "$work/mnt" >"$work/out" || fail "other bytes out of the mirror: $(head -n 3 "$work/out")"
echo "a caching proxy in between: $(cached) bytes in its cache, a second node started from it without the registry"
