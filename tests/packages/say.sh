# Sourced by the scripts that run inside the machine.
fail() {
	echo "FAIL: $*"
	exit 1
}
ok() {
	echo "ok $*"
}

use() { # REPOSITORY: what /etc/yum.repos.d says
	sed "s,file://.*/,file:///srv/$1/,; s,^baseurl=.*,baseurl=file:///srv/$1," "/srv/$1/ocai.repo" >/etc/yum.repos.d/ocai.repo
}
yum_() { # ARGUMENT...: quietly, output in /tmp/yum
	yum -y --refresh "$@" >/tmp/yum 2>&1
}
expect_yum() {
	yum_ "$@" || { tail -n 30 /tmp/yum; fail "yum $*"; }
}
# Everything but what belongs to the package manager itself.
files() {
	find / \( -path /proc -o -path /sys -o -path /dev -o -path /srv -o -path /mnt -o -path /tmp -o -path /run -o -path /var/cache \
		-o -path /var/log -o -path /var/lib/dnf -o -path /var/lib/rpm -o -path /etc/yum.repos.d \) -prune -o -print | sort
}
