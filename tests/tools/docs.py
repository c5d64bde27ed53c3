#!/usr/bin/env python3
"""Documentation that runs: the commands and links of Markdown pages.

    docs.py check PAGE...             every relative link leads somewhere, every fence follows the convention below
    docs.py commands PAGE             the commands that would be run, for a look (and to compare translations)
    docs.py run [--root] PAGE         runs them in order, in one shell, here and now; tests/integration/docs.sh makes the place

The convention, which CONTRIBUTING.md tells to people:

    ```sh            is run, in order, in one bash per page that stops at the first failure
    ```sh root       the same, where root's rights are to be had; else the rest of the page's root blocks is left out
    ```sh status=3   is run in a subshell and must end with that status
    ```text          right behind a block that is run: its output. Numbers and digests may differ, `...` stands for anything,
                     a line `...` for any lines. What else is text is output that follows no block, and is not compared.
    ```console       shown, not run. In front stands why: <!-- not run: REASON -->, or what the test does in its place:
                     <!-- not run: REASON; instead: COMMAND -->

In front of a block that is run may stand <!-- wait: COMMAND -->, tried until it succeeds (a server that has to be up), and
<!-- file: PATH --> in front of any other block makes it a file. <!-- fixtures: NAME... --> near the top of a page names what it
takes for granted (a registry, an image): shell functions of tests/tools/docs-fixtures.sh.
"""

import glob
import os
import re
import subprocess
import sys
import time
import unicodedata

FENCE = re.compile(r"^( {0,3})(```+)\s*(.*?)\s*$")
COMMENT = re.compile(r"^<!--\s*(not run|wait|file|fixtures):\s*(.*?)\s*-->$", re.S)
PROGRAMS = r"(?:\$ |sudo |)(?:ocai|ocai-engine|slimtrace|flip|make|ctr|curl|systemctl)(?:\s|$)"
PLACES = r"(?:tests|docs|tools|base|kernels|engine|agent|imgtools)/[A-Za-z0-9_./*-]+"
WAIT_S = 60


class Block:
    def __init__(self, line, info, notes):
        words = info.split()
        self.line, self.lang, self.words = line, (words[0] if words else ""), words[1:]
        self.notes = notes  # of the comments right in front
        self.text = []
        self.output = None

    @property
    def runs(self):
        return self.lang == "sh"

    @property
    def root(self):
        return "root" in self.words

    @property
    def status(self):
        return next((int(w[7:]) for w in self.words if w.startswith("status=")), 0)


def parse(path):
    """Blocks, fixtures, and the page's prose as (line number, text)."""
    blocks, fixtures, prose, notes = [], [], [], {}
    block, closing, last = None, None, None
    pending = ""
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if block is not None:
            if fence and fence.group(2).startswith(closing) and not fence.group(3):
                block.text = "\n".join(block.text) + "\n"
                # Only blank lines between a block and its output.
                if block.lang == "text" and last and last.runs and last.output is None:
                    last.output = block.text
                blocks.append(block)
                last, block = block, None
            else:
                block.text.append(line[len(indent):] if line.startswith(indent) else line)
            continue
        if fence:
            indent, closing = fence.group(1), fence.group(2)
            block, notes = Block(number, fence.group(3), notes), {}
            continue
        prose.append((number, line))
        # A comment may take several lines.
        if pending or line.startswith("<!--"):
            pending = (pending + " " + line.strip()).strip()
            if not pending.endswith("-->"):
                continue
            comment, pending = COMMENT.match(pending), ""
            if comment and comment.group(1) == "fixtures":
                fixtures += comment.group(2).split()
            elif comment:
                notes[comment.group(1)] = comment.group(2)
            continue
        if line.strip():
            notes, last = {}, None
    if block is not None:
        sys.exit(f"{path}:{block.line}: a fence that is not closed")
    return blocks, fixtures, prose


# ---- Links and convention ------------------------------------------------------------------------------------------


def slug(heading):
    """The anchor that a heading gets, as GitHub makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    kept = (c for c in text if c in " -_" or unicodedata.category(c)[0] in "LN" or unicodedata.category(c) in ("Mn", "Mc"))
    return "".join(kept).replace(" ", "-")


def anchors(path):
    found = {}
    for _, line in parse(path)[2]:
        heading = re.match(r"^#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            name = slug(heading.group(1))
            found[name] = found.get(name, 0) + 1
            if found[name] > 1:
                found[f"{name}-{found[name] - 1}"] = 1
    return found


def links_of(prose):
    for number, line in prose:
        plain = re.sub(r"`[^`]*`", "", line)
        for m in re.finditer(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)", plain):
            yield number, m.group(1)
        for m in re.finditer(r"""(?:src|href)=["']([^"']+)["']""", plain):
            yield number, m.group(1)
        m = re.match(r"^\[[^\]]+\]:\s+(\S+)", plain)
        if m:
            yield number, m.group(1)


def check_links(path, prose, complain):
    for number, link in links_of(prose):
        if re.match(r"^[a-z][a-z0-9+.-]*:", link):
            continue
        target, _, anchor = link.partition("#")
        there = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
        if target.startswith("/") or there.startswith(".."):
            complain(number, f"{link} leads out of the tree")
        elif not os.path.exists(there):
            complain(number, f"{link} leads nowhere")
        elif anchor and there.endswith(".md") and anchor not in anchors(there):
            complain(number, f"{link}: {there} has no such heading")


def check_paths(path, prose, complain):
    """Files of the tree that code spans name, as a benchmark for a claim."""
    for number, line in prose:
        for span in re.findall(r"`([^`]+)`", line):
            here = os.path.dirname(path)
            places = (span, os.path.join(here, span), os.path.join(here, "src", span))
            if re.fullmatch(PLACES, span) and not any(glob.glob(p.rstrip("/")) for p in places):
                complain(number, f"there is no {span}")


def check_fences(path, blocks, prose, complain):
    for b in blocks:
        if b.lang == "":
            complain(b.line, "a fence without a language: sh is run, console is shown, text is neither")
        if b.lang in ("bash", "shell", "zsh", "shell-session"):
            complain(b.line, f"{b.lang}: commands are `sh` (run) or `console` (shown, with a reason)")
        if b.lang == "console" and "not run" not in b.notes:
            complain(b.line, "console without <!-- not run: REASON --> in front")
        for w in b.words if b.runs else []:
            if w != "root" and not re.fullmatch(r"status=\d+", w):
                complain(b.line, f"unknown word {w}")
        if "file" in b.notes and (b.runs or b.lang == "console"):
            complain(b.line, "a file that is a command")
    for number, line in prose:
        if re.match(r"^(?:    |\t)\s*" + PROGRAMS, line):
            complain(number, "a command in an indented block: nobody runs it. Use a fence")


def options_named(blocks, prose):
    """(line, program, subcommand, option) of the commands of blocks and of code spans in prose."""
    text = [(b.line + i + 1, line) for b in blocks if b.runs or b.lang == "console" for i, line in enumerate(b.text.split("\n"))]
    joined, held = [], None
    for number, line in text:
        held = (held[0], held[1][:-1] + " " + line.strip()) if held else (number, line)
        if held[1].endswith("\\"):
            continue
        joined.append(held)
        held = None
    joined += [(n, span) for n, line in prose for span in re.findall(r"`([^`]+)`", line)]
    for number, line in joined:
        line = re.sub(r"(^|\s)#\s.*$", "", line)
        # What stands behind -- or in quotes is somebody else's.
        line = re.sub(r"'[^']*'|\"[^\"]*\"", "''", line)
        for piece in re.split(r"\s*(?:\|\||&&|[|;&]|\$\()\s*", line):
            words = piece.split()
            while words and (words[0] in ("$", "#", "sudo", "time", "exec", "do", "then", "env") or re.match(r"^[A-Z_]+=", words[0])):
                words.pop(0)
            if not words or words[0] not in ("ocai", "ocai-engine", "slimtrace", "flip"):
                continue
            if " -- " in piece + " ":
                words = words[: words.index("--")] if "--" in words else words
            sub = words[1] if len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1]) else ""
            for w in words[1:]:
                if re.match(r"^--?[a-zA-Z]", w):
                    yield number, words[0], sub, w.split("=")[0].rstrip(",.)")


def option_tables(bin_dir):
    """program -> subcommand -> its options, as `PROGRAM --option-names` prints them."""
    tables = {}
    for program in ("ocai", "ocai-engine", "slimtrace", "flip"):
        names = subprocess.run([f"{bin_dir}/{program}", "--option-names"], capture_output=True, text=True, check=True).stdout.split()
        table, sub = {}, ""
        for name in names:
            if name.startswith("-"):
                table.setdefault(sub, set()).add(name)
            else:
                sub = name
                table.setdefault(sub, set())
        tables[program] = table
    return tables


def check_options(blocks, prose, tables, complain):
    general = {"--help", "--version", "--completion", "--option-names", "-h"}
    for number, program, sub, option in options_named(blocks, prose):
        table = tables[program]
        if program == "ocai" and sub not in table:
            known = table.get("ask", set())
        elif sub not in table:
            if sub:
                complain(number, f"{program} has no command {sub}")
            known = set().union(*table.values())
        else:
            known = table[sub]
        # A flag that is on can be switched off; short options may carry their value.
        names = {option, option.replace("--no-", "--", 1), option[:2] if not option.startswith("--") else option}
        if not names & (known | general):
            complain(number, f"{program} {sub} has no option {option}")


def check(pages):
    wrong = 0
    tables = option_tables(os.path.join(os.environ.get("BUILD_DIR", "build/release"), "bin"))
    for page in pages:

        def complain(number, text, page=page):
            nonlocal wrong
            wrong += 1
            print(f"{page}:{number}: {text}")

        blocks, _, prose = parse(page)
        check_links(page, prose, complain)
        check_paths(page, prose, complain)
        check_fences(page, blocks, prose, complain)
        check_options(blocks, prose, tables, complain)
    return 1 if wrong else 0


# ---- Running ------------------------------------------------------------------------------------------------------------


def pattern_of(line):
    """A line of expected output as a regular expression: numbers, digests and runs of blanks may differ."""
    out = []
    for part in re.split(r"(\.\.\.|\b[0-9a-f]{12,}\b|[0-9][0-9.,]*|\s+)", line.strip()):
        if part == "...":
            out.append(".*?")
        elif re.fullmatch(r"[0-9a-f]{12,}", part):
            out.append("[0-9a-f]+")
        elif re.fullmatch(r"[0-9][0-9.,]*", part):
            tail = part[len(part.rstrip(".,")) :]
            out.append("[0-9]+(?:[.,][0-9]+)*" + re.escape(tail))
        elif part and part.isspace():
            out.append(r"[ \t]+")
        else:
            out.append(re.escape(part))
    return r"[ \t]*" + "".join(out) + r"[ \t]*\n"


def mismatch(expected, got):
    """None, or the first expected line that is not there. Lines follow each other; a line `...` lets any come between."""
    text = "".join(l + "\n" for l in re.sub(r"\x1b\[[0-9;]*m", "", got).split("\n") if l.strip())
    wanted = [l for l in expected.split("\n") if l.strip()]
    pattern = ""
    for want in wanted:
        pattern += r"(?:.*\n)*?" if want.strip() == "..." else pattern_of(want)
        if not re.match(pattern, text):
            return want
    return None if re.fullmatch(pattern, text) else "the end"


def script_of(blocks, fixtures, here, is_root):
    """One bash script of all blocks; what each prints goes to its own file, what has begun to the file `at`."""
    out = ["set -eo pipefail", f". {os.path.dirname(os.path.abspath(__file__))}/docs-fixtures.sh"]
    out += [f'echo "fixture {name}" >{here}/at; exec >{here}/fixture.log 2>&1; fixture_{name}' for name in fixtures]
    for i, b in enumerate(blocks):
        code = None
        if b.runs and (is_root or not b.root):
            code = b.text if not b.status else f"rc=0; (\n{b.text}\n) || rc=$?; [ $rc = {b.status} ]"
        elif b.lang == "console" and "; instead: " in b.notes.get("not run", ""):
            if is_root or not b.root:
                code = b.notes["not run"].split("; instead: ", 1)[1]
        elif "file" in b.notes:
            code = f'mkdir -p "$(dirname {b.notes["file"]})"; cat >{b.notes["file"]} <<\'END OF FILE\'\n{b.text}END OF FILE'
        if code is None:
            continue
        out.append(f"echo {i} >{here}/at; exec >{here}/out.{i} 2>&1")
        if "wait" in b.notes:
            out.append(f"SECONDS=0; until {{ {b.notes['wait']}; }} >/dev/null 2>&1; do ((SECONDS < {WAIT_S})); sleep 0.1; done")
        out.append(code)
    out.append(f"echo end >{here}/at")
    return "\n".join(out) + "\n"


def run(page, is_root):
    blocks, fixtures, _ = parse(page)
    here = os.environ["DOCS_LOGS"]
    os.makedirs(here, exist_ok=True)
    with open(f"{here}/script", "w", encoding="utf-8") as f:
        f.write(script_of(blocks, fixtures, here, is_root))
    begin = time.monotonic()
    rc = subprocess.run(["bash", f"{here}/script"], stdin=subprocess.DEVNULL, check=False).returncode
    at = open(f"{here}/at").read().strip() if os.path.exists(f"{here}/at") else "nothing"
    if rc == 77 and at.startswith("fixture"):
        print(open(f"{here}/fixture.log", errors="replace").read().strip().split("\n")[-1])
        return 77
    wrong = 0
    if at != "end":
        log = f"{here}/out.{at}" if at.isdigit() else f"{here}/fixture.log"
        where = f"{page}:{blocks[int(at)].line}" if at.isdigit() else f"{page}: {at}"
        print(f"{where}: the block ended with {rc}:")
        if os.path.exists(log):
            print("".join("    " + l for l in open(log, errors="replace").readlines()[-40:]))
        return 1
    n_run = n_compared = 0
    for i, b in enumerate(blocks):
        if not b.runs or not os.path.exists(f"{here}/out.{i}"):
            continue
        n_run += 1
        if b.output is None:
            continue
        n_compared += 1
        got = open(f"{here}/out.{i}", errors="replace").read()
        missing = mismatch(b.output, got)
        if missing is not None:
            wrong += 1
            print(f"{page}:{b.line}: the output differs; expected next: {missing}\n" + "".join(f"    | {l}\n" for l in got.split("\n")[-60:]))
    left = sum(b.runs and b.root for b in blocks) if not is_root else 0
    if os.environ.get("DOCS_SHOW"):
        for i, b in enumerate(blocks):
            if b.runs and os.path.exists(f"{here}/out.{i}"):
                print(f"==== {page}:{b.line}\n{b.text}----\n{open(f'{here}/out.{i}', errors='replace').read()}")
    print(f"{page}: {n_run} blocks run, {n_compared} outputs compared{f', {left} left out without root' if left else ''}, "
          f"{time.monotonic() - begin:.1f} s")
    return 1 if wrong else 0


def main():
    args = sys.argv[1:]
    if len(args) >= 2 and args[0] == "check":
        return check(args[1:])
    if len(args) == 2 and args[0] == "commands":
        for b in parse(args[1])[0]:
            if b.runs or b.lang == "console" or "file" in b.notes:
                print(b.lang, *b.words, sorted(b.notes.items()))
                print(b.text, end="")
        return 0
    if args[:1] == ["run"] and len(args) in (2, 3):
        return run(args[-1], "--root" in args)
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
