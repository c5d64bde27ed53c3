#!/bin/bash
# make repo: copies of the packages of make rpms, signed, as a repository whose metadata are signed too.
#
#   build-repo.sh [--top DIR] [--out DIR] [--url URL] [--key ID]
#
#   --top DIR      of build-rpms.sh [build/rpms]
#   --out DIR      the repository, replaced: *.rpm, repodata, RPM-GPG-KEY-ocai, ocai.repo [build/repo]
#   --url URL      where it will be, for ocai.repo [file:// and the folder]
#   --key ID       the key of gpg's (GNUPGHOME) to sign with; its passphrase is gpg's business. Without one a key is made
#                  and kept beside the packages: for tests, worth no trust.
set -euo pipefail
cd "$(dirname "$0")/.."

top=build/rpms out=build/repo url= key=
while (($#)); do
	case $1 in
	--top) top=$2 ;;
	--out) out=$2 ;;
	--url) url=$2 ;;
	--key) key=$2 ;;
	*) echo "build-repo.sh: $1?" >&2; exit 2 ;;
	esac
	shift 2
done
compgen -G "$top/RPMS/*/*.rpm" >/dev/null || { echo "make repo: no packages in $top/RPMS (make rpms)" >&2; exit 1; }
top=$(realpath "$top")
mkdir -p "$(dirname "$out")"
out=$(realpath -m "$out")

if [[ -z $key ]]; then
	key="ocai throw-away key (for tests)"
	export GNUPGHOME=$top/test-key
	if [[ ! -d $GNUPGHOME ]]; then
		mkdir -m 700 "$GNUPGHOME"
		gpg --batch --quiet --passphrase '' --quick-gen-key "$key" rsa3072 sign never 2>"$top/gpg.log" || {
			cat "$top/gpg.log" >&2
			rm -rf "$GNUPGHOME"
			exit 1
		}
	fi
	echo "make repo: signed by a key made for tests ($GNUPGHOME); GPG_KEY=ID takes yours" >&2
fi
trap 'gpgconf --kill gpg-agent 2>/dev/null || true' EXIT
[[ ${GNUPGHOME:-} == "$top/test-key" ]] || trap - EXIT

rm -rf "$out.new"
mkdir -p "$out.new"
cp "$top"/RPMS/*/*.rpm "$out.new"
gpg --batch --armor --export "$key" >"$out.new/RPM-GPG-KEY-ocai"
[[ -s $out.new/RPM-GPG-KEY-ocai ]] || { echo "make repo: gpg has no key '$key'" >&2; exit 1; }
# Debian's rpm looks for gpg in another place.
rpmsign -D "__gpg $(command -v gpg)" -D "_gpg_name $key" ${GNUPGHOME:+-D "_gpg_path $GNUPGHOME"} \
	--addsign "$out.new"/*.rpm >"$top/rpmsign.log" 2>&1 || { tail -n 5 "$top/rpmsign.log" >&2; exit 1; }
# Times inside the metadata are those of the packages' build.
epoch=$(rpm -qp --nosignature --qf '%{BUILDTIME}\n' "$out.new"/*.rpm | sort -n | tail -n 1)
touch -d "@$epoch" "$out.new"/*.rpm
createrepo_c --quiet --no-database --revision "$epoch" --set-timestamp-to-revision "$out.new"
gpg --batch --yes --armor --local-user "$key" --detach-sign "$out.new/repodata/repomd.xml"
cat >"$out.new/ocai.repo" <<REPO
[ocai]
name=ocai
baseurl=${url:-file://$out}
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=${url:-file://$out}/RPM-GPG-KEY-ocai
REPO
rm -rf "$out"
mv "$out.new" "$out"
echo "$out: $(find "$out" -name '*.rpm' | wc -l) packages"
