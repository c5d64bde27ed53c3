#!/bin/bash
# Functions that cannot be used safely, or whose errors cannot be seen, do not appear in the tree.
set -u
. tests/tools/sources.sh
banned='strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atof|gets|alloca'
status=0

while read -r file; do
	strip_comments "$file" | grep -nE "(^|[^A-Za-z0-9_])($banned)[[:space:]]*\(" | sed "s,^,$file: ," | grep . && status=1
done < <(sources c h)
exit $status
