#!/usr/bin/env python3
"""man_options.py PROGRAM PAGE.scd: options of each subcommand stand in its part of the manual page, and no others in the page.

The part of a subcommand: sections whose title names it, the sections OPTIONS..., and, where its own says "of *cut*" or "as
*slim*", those of the other. A title without a program's name (SERVE) names it, too."""

import re
import subprocess
import sys

program, page = sys.argv[1:3]
tables, sub = {}, None
for name in subprocess.run([program, "--option-names"], capture_output=True, text=True, check=True).stdout.split():
    if name.startswith("-"):
        tables[sub].append(name)
    else:
        sub = name
        tables[sub] = []

sections, title = [], ""
for line in open(page, encoding="utf-8").read().split("\n"):
    heading = re.match(r"^(#{1,2}) (.*)", line)
    if heading:
        # The second level belongs to what it stands under.
        title = heading.group(2).lower() if heading.group(1) == "#" else f"{title.split(': ')[0]}: {heading.group(2).lower()}"
        sections.append([title, ""])
    elif sections:
        sections[-1][1] += line + "\n"


def own(command):
    return "".join(text for t, text in sections if re.search(rf"(^|[ ,:]){re.escape(command)}($|[ ,])", t))


def has(text, option):
    return re.search(rf"(^|[^A-Za-z0-9-]){re.escape(option)}([^A-Za-z0-9-]|$)", text)


wrong = 0
general = "".join(text for t, text in sections if re.fullmatch(r"options( of several commands)?", t))
for command, options in tables.items():
    part = own(command)
    for other in re.findall(r"(?:of|as|for)\s+\*(?:\w+ )?([a-z-]+)\*", part):
        if other in tables and other != command:
            part += own(other)
    part += general
    for option in options:
        if not has(part, option):
            print(f"{page}: {command} has the option {option}, which its part of the page does not name")
            wrong = 1

known = {o for options in tables.values() for o in options} | {"--help", "--version"}
for title, text in sections:
    if title in ("examples", "see also") or re.match(r"other|the key", title):
        continue
    for option in set(re.findall(r"\*(--[a-z][a-z-]+)\*", text)):
        if option not in known and option.replace("--no-", "--", 1) not in known:
            print(f"{page}: {title.upper()} describes {option}, which no table has")
            wrong = 1
sys.exit(wrong)
