#!/bin/bash
# Markdown pages: links lead somewhere, files and options that they name exist, commands stand in fences that say whether they are
# run, and every page with commands that are run is in the list of tests/integration/docs.sh. A translation runs what its original
# runs. The picture of measurements is what its script makes of the table.
set -u
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
. tests/tools/sources.sh
status=0
mapfile -t pages < <(sources md)
python3 tests/tools/docs.py check "${pages[@]}" || status=1

listed=$(sed -n '/^pages=(/,/)/p; /^elsewhere=(/,/)/p' tests/integration/docs.sh)
for page in "${pages[@]}"; do
	original=
	case $page in
	*.zh.md) original=${page%.zh.md}.md ;;
	docs/zh/*) original=docs/${page#docs/zh/} ;;
	esac
	if [[ $original ]]; then
		differ=$(diff <(python3 tests/tools/docs.py commands "$original") <(python3 tests/tools/docs.py commands "$page")) || {
			echo "$page does not run what $original runs:"
			head -n 20 <<<"$differ"
			status=1
		}
	elif grep -qE '^```sh( |$)' "$page" && ! grep -qwF "$page" <<<"$listed"; then
		echo "$page: its commands are not run: put it into the list of tests/integration/docs.sh"
		status=1
	fi
done

docs/pictures/cold_start.py | cmp - docs/pictures/cold-start.svg || {
	echo "to be made again: docs/pictures/cold_start.py >docs/pictures/cold-start.svg"
	status=1
}
exit $status
