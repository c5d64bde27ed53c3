#!/bin/bash
# Each program has a manual page that scdoc accepts and that names every subcommand and option of its tables.
set -u
status=0
shopt -s nullglob

for prog in "$BUILD_DIR"/bin/*; do
	page=docs/man/$(basename "$prog").1.scd
	if [[ ! -e $page ]]; then
		echo "$page is missing"
		status=1
		continue
	fi
	names=$("$prog" --option-names) || { echo "$prog --option-names failed"; status=1; }
	while read -r name; do
		grep -qE -- "(^|[^a-zA-Z0-9-])$name([^a-zA-Z0-9-]|\$)" "$page" || { echo "$page does not name $name"; status=1; }
	done <<<"$names"
done
for page in docs/man/*.scd; do
	scdoc <"$page" >/dev/null || { echo "$page: scdoc refuses it"; status=1; }
done
exit $status
