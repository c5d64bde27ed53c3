"""The little grammar of the task catalogue (agent/knowledge).

A wording such as `(show|list) <all> files? in {dir}` stands for many sentences: (a|b|) is a choice, <name> one of the
words of an "@name = ..." line, `x?` makes the character or group before it optional, {slot} or {name:type} is a slot,
and a backslash takes the next character literally. parse() makes a tree; sample() draws one sentence; to_regex() gives
an expression that matches all of them (used to keep the development questions apart from the training text).
"""
import glob
import os
import re

SLOT = re.compile(r"\{([a-z][a-z0-9_]*)(?::([a-z0-9_]+))?\}")


class Task:
    """One administrator task: its id, risk class, command template and the parsed wordings per language."""

    def __init__(self, task_id, risk):
        self.id, self.risk, self.command = task_id, risk, ""
        self.wordings = {"zh": [], "en": []}


def _parse_sequence(text, pos, macros, inside):
    """Parses until the end of text, or (inside a group) until '|' or ')'. Returns (nodes, position)."""
    nodes = []
    while pos < len(text):
        ch = text[pos]
        if inside and ch in "|)":
            return nodes, pos
        if ch == "(":
            choices, pos = _parse_group(text, pos + 1, macros)
            nodes.append(("choice", choices))
        elif ch == "<":
            end = text.index(">", pos)
            name = text[pos + 1:end]
            if name not in macros:
                raise ValueError(f"unknown <{name}> in: {text}")
            nodes.append(("choice", [[("text", w)] for w in macros[name]]))
            pos = end + 1
        elif ch == "{":
            m = SLOT.match(text, pos)
            if not m:
                raise ValueError(f"bad slot in: {text}")
            nodes.append(("slot", m.group(1), m.group(2) or m.group(1)))
            pos = m.end()
        elif ch == "?" and nodes:
            nodes[-1] = ("choice", [[nodes[-1]], []])
            pos += 1
        else:
            if ch == "\\":
                pos += 1
                ch = text[pos]
            nodes.append(("text", ch))
            pos += 1
    if inside:
        raise ValueError(f"missing ')' in: {text}")
    return nodes, pos


def _parse_group(text, pos, macros):
    choices = []
    while True:
        nodes, pos = _parse_sequence(text, pos, macros, True)
        choices.append(nodes)
        if text[pos] == ")":
            return choices, pos + 1
        pos += 1  # the '|'


def parse(text, macros):
    return _parse_sequence(text, 0, macros, False)[0]


def sample(nodes, rng, out):
    """Appends the parts of one sentence to out: strings, and (name, type) pairs for slots."""
    for node in nodes:
        if node[0] == "text":
            out.append(node[1])
        elif node[0] == "slot":
            out.append((node[1], node[2]))
        else:
            sample(rng.choice(node[1]), rng, out)
    return out


def to_regex(nodes):
    parts = []
    for node in nodes:
        if node[0] == "text":
            parts.append(re.escape(node[1]))
        elif node[0] == "slot":
            parts.append(r"[!-~]+?")
        else:
            parts.append("(?:" + "|".join(to_regex(c) for c in node[1]) + ")")
    return "".join(parts)


def load_tasks(folder):
    """Reads the *.tasks files of a folder (docs/formats/task-catalogue.md). A mistake is an error that names the line."""
    tasks, macros = [], {}
    for path in sorted(glob.glob(os.path.join(folder, "*.tasks"))):
        _load_file(path, tasks, macros)
    if not tasks:
        raise SystemExit(f"{folder}: no tasks")
    ids = [t.id for t in tasks]
    if len(set(ids)) != len(ids):
        raise SystemExit(f"{folder}: an id occurs twice: {sorted({i for i in ids if ids.count(i) > 1})}")
    return tasks


def _load_file(path, tasks, macros):
    task = None
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        line = line.rstrip("\n")
        try:
            if not line.strip() or line.startswith(("#", "% ", "? ")):
                continue
            if line[0] == "@":
                name, words = line[1:].split("=", 1)
                macros[name.strip()] = [w.strip() for w in words.strip().split("|")]
            elif line[0] == "[":
                head, risk = line[1:].split("]")
                if risk.strip() not in ("read", "change", "destructive"):
                    raise ValueError("risk is none of read, change, destructive")
                task = Task(head, risk.strip())
                tasks.append(task)
            elif line.startswith("$ "):
                task.command = line[2:]
            elif line[:3] in ("zh ", "en "):
                for wording in re.split(r" ;(?: |$)", line[3:]):
                    if wording.strip():
                        task.wordings[line[:2]].append(parse(wording.strip(), macros))
            else:
                raise ValueError("not understood")
        except (ValueError, AttributeError, IndexError) as e:
            raise SystemExit(f"{path}:{number}: {e}")
