# Sourced behind repo.sh: whole roots, as a package manager would install them, to be slimmed.
#
#   slim_install ROOT PACKAGE...   the packages of $REPO and all that they require, with their database

slim_install() {
	local root=$1 list
	shift
	list=$(slim_closure "$@") || fail "closure of $*"
	mkdir -p "$root/var/lib/rpm"
	(root=$(realpath "$root") && cd "$REPO" && xargs rpm --root "$root" \
		--dbpath /var/lib/rpm -i --nodeps --noscripts --notriggers --nosignature --nodigest <<<"$list") >/dev/null 2>&1 ||
		fail "rpm cannot install $*"
}

# Files of the packages that these need, by what the packages say: the first provider of each requirement.
slim_closure() {
	python3 - "$REPO" "$@" <<'PY'
import glob, os, subprocess, sys
repo, wanted = sys.argv[1], sys.argv[2:]
files = sorted(glob.glob(repo + "/*.rpm"))
def query(fmt):
    out = subprocess.run(["rpm", "-qp", "--nosignature", "--qf", fmt] + files, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in out.stdout.splitlines() if "\t" in line]
place = dict(zip([x[0] for x in query("%{NAME}\t\n")], files))
provider = {}
for name, what in query("[%{=NAME}\t%{PROVIDENAME}\n]") + query("[%{=NAME}\t%{FILENAMES}\n]"):
    provider.setdefault(what, name)
requires = {}
for name, what in query("[%{=NAME}\t%{REQUIRENAME}\n]"):
    requires.setdefault(name, []).append(what)
todo, done = list(wanted), set()
while todo:
    name = todo.pop()
    if name in done:
        continue
    done.add(name)
    for what in requires.get(name, []):
        if what.startswith("rpmlib("):
            continue
        choices = what.strip("()").split(" or ") if what.startswith("(") else [what]
        for choice in choices:
            choice = choice.strip().split(" ")[0]
            if choice in provider:
                todo.append(provider[choice])
                break
print("\n".join(sorted(os.path.basename(place[n]) for n in done)))
PY
}
