#!/bin/bash
# Inside the machine (lib.sh), without a network: the packages as somebody would use them. /srv/release1 and release2 are
# repositories of two builds, /srv/base the distribution, /srv/bad-* are repositories that somebody has changed.
set -u
. /mnt/say.sh
question="查看哪个进程占用80端口"

answers() { # [COMMAND...]: out of the catalogue, and the model
	local said
	"$@" ocai-engine run --temperature 0 "show disk usage" 2>/tmp/said | grep -q 'df -h' || { cat /tmp/said; fail "ocai-engine run ($*)"; }
	said=$("$@" ocai cmd "$question" --print 2>/tmp/said) || { cat /tmp/said; fail "ocai cmd ($*)"; }
	[[ $said =~ (ss|lsof|fuser|netstat).*80 ]] || fail "ocai cmd says '$said'"
}

# ---- What was changed by others is refused. First, so that nothing is there that could hide it -----------------------------
for bad in metadata unsigned-metadata payload header unsigned-package other-key; do
	use "bad-$bad"
	yum_ install ocai-agent && fail "bad-$bad: installed"
	rpm -q ocai-agent ocai-engine >/dev/null 2>&1 && fail "bad-$bad: something was installed"
	case $bad in
	*metadata) words='Bad GPG signature|GPG verification|repomd.xml.*(signature|asc)|Cannot download repomd|Ignoring repositories' ;;
	payload | header) words='incorrect checksum|checksum' ;;
	unsigned-package) words='is not signed' ;;
	other-key) words='not (correct|trusted)|GPG check FAILED|no public key|is not installed' ;;
	esac
	grep -qiE "$words" /tmp/yum || { tail -n 8 /tmp/yum; fail "bad-$bad: refused for another reason than $words"; }
	rpm -e --allmatches gpg-pubkey >/dev/null 2>&1
	rm -rf /var/cache/dnf/*
done
ok "changed repositories and packages are refused"

# ---- First installation ----------------------------------------------------------------------------------------------------
# The filesystem package of RPM distributions has these.
mkdir -p /usr/share/licenses /usr/share/zsh/site-functions
files >/tmp/before
use release1
expect_yum install ocai-agent
for p in ocai-agent ocai-engine ocai-model-mini; do
	[[ $(rpm -q --qf '%{VERSION}-%{RELEASE} %{RSAHEADER:pgpsig}' $p) == *-1\ RSA/* ]] || fail "$p: not there, or not signed"
done
ok "yum install ocai-agent brings the engine and the model, all signed"
answers
useradd -m somebody
answers setpriv --reuid somebody --regid "$(id -g somebody)" --clear-groups env HOME=/home/somebody
ok "ocai cmd answers without a network, root and others"

expect_yum install oc-flip oc-slimtrace
rpm -V ocai-agent ocai-engine ocai-model-mini oc-flip oc-slimtrace >/tmp/verify || { cat /tmp/verify; fail "rpm -V"; }
id ocai >/dev/null || fail "no user for the engine"
systemd-tmpfiles --create /usr/lib/tmpfiles.d/ocai-engine.conf || fail "systemd-tmpfiles"
slimtrace cut --repo /srv/base --no-gpg --out /tmp/cut /usr/bin/true >/tmp/said 2>&1 || { cat /tmp/said; fail "slimtrace cut"; }
chroot /tmp/cut /usr/bin/true || fail "what slimtrace cut does not run"
flip snapshotter --show-config | grep -q '^root = /var/lib/flip' || fail "flip --show-config"
for page in ocai ocai-engine slimtrace flip; do
	MANPAGER=cat man $page >/tmp/said 2>&1 || fail "man $page"
	bash -c ". /usr/share/bash-completion/completions/$page && complete -p $page" >/dev/null || fail "completion of $page"
done
ok "oc-flip and oc-slimtrace run; rpm -V, manual pages, completions"

for unit in system/ocai-engine.socket system/ocai-engine.service system/flip-snapshotter.service \
	user/ocai-engine.socket user/ocai-engine.service; do
	said=$(XDG_RUNTIME_DIR=/run systemd-analyze "--${unit%%/*}" verify "/usr/lib/systemd/$unit" 2>&1 |
		grep -vE "Unknown key( name)? 'FileDescriptorStorePreserve'")
	[[ -z $said ]] || fail "$unit: $said"
	[[ $(systemctl "--${unit%%/*}" --root=/ is-enabled "${unit#*/}" 2>/dev/null) != enabled ]] || fail "$unit is enabled by itself"
done
ok "systemd-analyze verify has nothing to say"

# ---- Upgrade ---------------------------------------------------------------------------------------------------------------
sed -i 's/^#max-running = .*/max-running = 3/' /etc/ocai/engine.conf
printf '[node]\nlog-level = warn\n' >/etc/flip/flip.conf.d/50-ours.conf
echo '#ours' >>/etc/flip/flip.conf
cp /etc/ocai/engine.conf /tmp/engine.conf
cp /etc/flip/flip.conf /tmp/flip.conf
echo model >/var/lib/ocai/models/ours.gguf
mkdir -p /var/lib/flip/objects
echo content >/var/lib/flip/objects/ours
HOME=/home/somebody find /home/somebody /root -type f | sort | xargs -r sha256sum >/tmp/homes
systemctl --root=/ enable ocai-engine.socket 2>/dev/null || fail "systemctl enable"

use release2
expect_yum upgrade
for p in ocai-agent ocai-engine ocai-model-mini oc-flip oc-slimtrace; do
	[[ $(rpm -q --qf '%{RELEASE} ' $p) == "2 " ]] || fail "$p: $(rpm -q $p) after the upgrade"
done
[[ $(</etc/ocai/engine.conf) == "$(</tmp/engine.conf)" && $(</etc/flip/flip.conf) == "$(</tmp/flip.conf)" ]] || fail "the upgrade changes configuration"
ocai-engine serve --show-config | grep -q '^max-running = 3  ; /etc/ocai/engine.conf' || fail "the configuration does not count"
flip snapshotter --show-config | grep -q '^log-level = warn  ; /etc/flip/flip.conf.d/50-ours.conf' || fail "the drop-in does not count"
[[ $(cat /var/lib/ocai/models/ours.gguf /var/lib/flip/objects/ours | tr '\n' ' ') == "model content " ]] || fail "data are gone"
[[ -s /tmp/homes ]] && sha256sum --quiet -c /tmp/homes || fail "what users have was changed"
[[ $(systemctl --root=/ is-enabled ocai-engine.socket) == enabled ]] || fail "the upgrade disables what was enabled"
answers
ok "an upgrade keeps configuration, data and what is enabled"

# ---- Removal ---------------------------------------------------------------------------------------------------------------
expect_yum remove ocai-agent ocai-engine ocai-model-mini oc-flip oc-slimtrace
rm -rf /tmp/cut
files >/tmp/after
# Left on purpose: what somebody changed or brought, users' homes, and the account, which owns no file.
left='/etc/ocai|/etc/ocai/engine\.conf\.rpmsave|/etc/flip|/etc/flip/flip\.conf\.rpmsave|/etc/flip/flip\.conf\.d|/etc/flip/flip\.conf\.d/50-ours\.conf'
left+='|/var/lib/ocai|/var/lib/ocai/models|/var/lib/ocai/models/ours\.gguf|/var/lib/flip|/var/lib/flip/objects|/var/lib/flip/objects/ours'
left+='|/(root|home/somebody)(/.*)?|/var/(spool/)?mail(/.*)?|/etc/(passwd|group|shadow|gshadow|subuid|subgid|\.pwd\.lock)-?'
# Where two packages have build IDs of one first byte, rpmbuild gives their folder to one of them alone; empty it may stay.
for p in /srv/release[12]/{ocai-agent,ocai-engine,oc-flip,oc-slimtrace}-[0-9]*.rpm; do
	rpm -qlp --nosignature "$p" >/tmp/listed
	for folder in $(grep -oE '^/usr/lib/\.build-id/..' /tmp/listed | sort -u); do
		grep -qxF "$folder" /tmp/listed || left+="|/usr/lib/\.build-id|$folder"
	done
done
comm -13 /tmp/before /tmp/after | grep -vxE "$left" >/tmp/more && fail "left behind: $(tr '\n' ' ' </tmp/more)"
comm -23 /tmp/before /tmp/after | grep . && fail "the removal took more than came"
for f in /etc/ocai/engine.conf.rpmsave /etc/flip/flip.conf.rpmsave /var/lib/ocai/models/ours.gguf /var/lib/flip/objects/ours; do
	[[ -e $f ]] || fail "$f is gone"
done
rpm -qa 'ocai*' 'oc-*' | grep . && fail "packages are left"
ok "a removal leaves data and nothing else"
