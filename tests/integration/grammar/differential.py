"""Structured output against python3-jsonschema: whatever the masks accept must be valid, and valid instances as JSON libraries
write them must be accepted. Random schemas and instances, some of them mutated; and random regular expressions against re.

    differential.py TOOL MODEL [SEED [COUNT]]"""
import json
import random
import re
import subprocess
import sys

import jsonschema

TOOL, MODEL = sys.argv[1], sys.argv[2]
rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
COUNT = int(sys.argv[4]) if len(sys.argv) > 4 else 300

NAMES = ["a", "b", "ab", "abc", "x-a", "x-b", "", "é", "中", 'q"', "name", "type", "a/b"]
PATTERNS = ["^[a-z]+$", "^x-", "\\d{2,3}", "^(foo|ba[rz])$", "[A-Z]", "^\\w{1,5}$", "^.{2,4}$", "b$", "^[^a]*$", "^a?b+c*$", "é"]
WORDS = ["", "a", "b", "ab", "abc", "foo", "bar", "baz", "x-a", "12", "123", "1234", "A", "é", "中文", 'q"\\', "a\nb", "\U0001f600",
         "hello world", "bbbb", "abcc"]
FORMATS = {"date": ["2024-02-29", "2023-02-29", "2023-13-01", "1999-12-31"],
           "ipv4": ["1.2.3.4", "256.1.1.1", "01.2.3.4"],
           "uuid": ["123e4567-e89b-12d3-a456-426614174000", "123e4567"],
           "ipv6": ["::1", "fe80::1:2", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1::2::3", ":::"]}
NUMBERS = [0, 1, -1, 2, 3, 5, 7, 10, 12, 15, 42, 99, 100, 101, -5, -10, 1000000, 0.5, 1.5, -1.5, 2.25, 0.1, 0.25, 3.75, 99.99,
           -0.001, 1e-7, 123456789, 2.0]
KINDS = ["string", "integer", "number", "boolean", "null", "object", "array"]


def value(depth=0):
    kind = rng.choice(KINDS if depth < 3 else KINDS[:5])
    if kind == "string":
        return rng.choice(WORDS)
    if kind == "integer":
        return rng.choice([n for n in NUMBERS if isinstance(n, int)])
    if kind == "number":
        return rng.choice(NUMBERS)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    if kind == "array":
        return [value(depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(NAMES): value(depth + 1) for _ in range(rng.randrange(4))}


def string_schema():
    s = {"type": "string"}
    if rng.random() < 0.3:
        s["minLength"] = rng.randrange(4)
    if rng.random() < 0.3:
        s["maxLength"] = rng.randrange(2, 7)
    if rng.random() < 0.4:
        s["pattern"] = rng.choice(PATTERNS)
    elif rng.random() < 0.2:
        s["format"] = rng.choice(list(FORMATS))
    if rng.random() < 0.1:
        s["not"] = rng.choice([{"const": "foo"}, {"enum": ["a", "ab"]}, {"pattern": "^b"}])
    return s


def number_schema(kind):
    s = {"type": kind}
    if rng.random() < 0.4:
        s[rng.choice(["minimum", "exclusiveMinimum"])] = rng.choice(NUMBERS)
    if rng.random() < 0.4:
        s[rng.choice(["maximum", "exclusiveMaximum"])] = rng.choice(NUMBERS)
    if rng.random() < 0.2:
        s["multipleOf"] = rng.choice([2, 3, 5, 7, 10] if kind == "integer" else [1, 2, 0.5, 0.25])
    return s


def object_schema(depth):
    s = {"type": "object"}
    names = rng.sample(NAMES, rng.randrange(4))
    if names:
        s["properties"] = {n: schema(depth + 1) for n in names}
    if rng.random() < 0.5 and names:
        s["required"] = rng.sample(names, rng.randrange(len(names) + 1)) + (["name"] if rng.random() < 0.1 else [])
    if rng.random() < 0.5:
        s["additionalProperties"] = rng.choice([False, False, True, {"type": "integer"}, schema(depth + 1)])
    if rng.random() < 0.2:
        s["patternProperties"] = {rng.choice(["^x-", "^a", "b$"]): schema(depth + 1)}
    if rng.random() < 0.1:
        s["minProperties"] = rng.randrange(3)
    if rng.random() < 0.1:
        s["maxProperties"] = rng.randrange(4)
    if rng.random() < 0.1 and len(names) > 1:
        s["dependentRequired"] = {names[0]: [names[1]]}
    if rng.random() < 0.1:
        s["propertyNames"] = {"pattern": rng.choice(["^[a-z]*$", "a"])}
    if rng.random() < 0.05:
        s["not"] = {"required": ["a"]}
    return s


def array_schema(depth):
    s = {"type": "array"}
    if rng.random() < 0.8:
        s["items"] = schema(depth + 1)
    if rng.random() < 0.3:
        s["prefixItems"] = [schema(depth + 1) for _ in range(rng.randrange(1, 3))]
    if rng.random() < 0.3:
        s["minItems"] = rng.randrange(3)
    if rng.random() < 0.3:
        s["maxItems"] = rng.randrange(4)
    return s


def schema(depth=0):
    roll = rng.random()
    if depth > 3:
        return {"type": rng.choice(KINDS[:5])}
    if roll < 0.05:
        return rng.choice([True, {}])
    if roll < 0.12:
        return {"enum": [value(2) for _ in range(rng.randrange(1, 5))]}
    if roll < 0.15:
        return {"const": value(1)}
    if roll < 0.20:
        return {"type": rng.sample(KINDS, 2), "maxLength": 3, "minimum": 2}
    if roll < 0.27:
        return {"anyOf": [schema(depth + 1) for _ in range(rng.randrange(1, 4))]}
    if roll < 0.32:
        return {"oneOf": [schema(depth + 1) for _ in range(rng.randrange(1, 4))]}
    if roll < 0.38:
        return {"allOf": [schema(depth + 1) for _ in range(rng.randrange(1, 3))]}
    if roll < 0.42:
        return {"$ref": "#/$defs/r"}
    if roll < 0.44:
        s = object_schema(depth)
        s[rng.choice(["anyOf", "oneOf"])] = [{"required": ["a"]}, {"required": ["b"]}]
        return s
    kind = rng.choice(KINDS)
    if kind == "string":
        return string_schema()
    if kind in ("integer", "number"):
        return number_schema(kind)
    if kind == "object":
        return object_schema(depth)
    if kind == "array":
        return array_schema(depth)
    return {"type": kind}


def guided(s, root, depth=0):
    """An instance that has some chance."""
    if not isinstance(s, dict) or depth > 6 or rng.random() < 0.05:
        return value(depth)
    if "const" in s:
        return s["const"]
    if "enum" in s:
        return rng.choice(s["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in s and "type" not in s:
            return guided(rng.choice(s[key]), root, depth + 1)
    if "$ref" in s:
        return guided(root["$defs"]["r"], root, depth + 1)
    kind = s.get("type")
    if isinstance(kind, list):
        kind = rng.choice(kind)
    if kind == "string":
        return rng.choice(FORMATS[s["format"]]) if "format" in s else rng.choice(WORDS)
    if kind == "integer":
        return rng.choice([n for n in NUMBERS if isinstance(n, int)])
    if kind == "number":
        return rng.choice(NUMBERS)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    if kind == "array":
        prefix = s.get("prefixItems", [])
        n = rng.randrange(4)
        return [guided(prefix[i] if i < len(prefix) else s.get("items", True), root, depth + 1) for i in range(n)]
    if kind == "object":
        out = {}
        for name, sub in s.get("properties", {}).items():
            if name in s.get("required", []) or rng.random() < 0.5:
                out[name] = guided(sub, root, depth + 1)
        if rng.random() < 0.3:
            out[rng.choice(NAMES)] = guided(s.get("additionalProperties", True), root, depth + 1)
        items = list(out.items())
        if rng.random() < 0.3:
            rng.shuffle(items)
        return dict(items)
    return value(depth)


def spell(v):
    return rng.choice([
        lambda: json.dumps(v),
        lambda: json.dumps(v, ensure_ascii=False),
        lambda: json.dumps(v, indent=2, ensure_ascii=False),
        lambda: json.dumps(v, separators=(",", ":")),
    ])()


def mutate(text):
    text = list(text)
    for _ in range(rng.randrange(1, 3)):
        if not text:
            break
        i = rng.randrange(len(text))
        roll = rng.random()
        if roll < 0.3:
            del text[i]
        elif roll < 0.6:
            text.insert(i, rng.choice('{}[]",:0123456789.-eabx \\tnu'))
        else:
            text[i] = rng.choice('{}[]",:0123456789.-eabx \\tnu')
    return "".join(text)


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')


def is_laid_out(text):
    """White space between tokens is what is accepted (docs/structured-output.md): a blank, or, where lines end, a line's end
    and an indentation. A mutation may have put more there."""
    at, before = 0, None
    for m in TOKEN.finditer(text):
        gap, at = text[at:m.start()], m.end()
        lines_end = before in (None, "[", "{", ",") or m.group() in "]}"
        if not (gap in ("", " ", "\t") or (lines_end and re.fullmatch(r"\r?\n[ \t]{0,24}", gap))):
            return False
        before = m.group()
    return at == len(text)


def canonical(v):
    """What the mask promises to accept: integers without fraction, numbers without exponent where there are bounds."""
    if isinstance(v, float):
        return abs(v) < 1e15 and "e" not in repr(v) and v != int(v)
    if isinstance(v, list):
        return all(canonical(x) for x in v)
    if isinstance(v, dict):
        return all(canonical(x) for x in v.values())
    return True


checker = jsonschema.FormatChecker(["date", "ipv4", "uuid", "ipv6"])


def main():
    tool = subprocess.Popen([TOOL, MODEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    bad = n_ok = n_refused = n_valid = n_checked = 0
    errors = {}
    for _ in range(COUNT):
        s = schema()
        if not isinstance(s, dict):
            s = {"allOf": [s]}
        s["$defs"] = {"r": rng.choice([{"type": "array", "items": {"$ref": "#/$defs/r"}, "maxItems": 2},
                                       {"type": "object", "properties": {"a": {"$ref": "#/$defs/r"}, "b": {"type": "integer"}},
                                        "additionalProperties": False}])}
        validator = jsonschema.Draft202012Validator(s, format_checker=checker)
        texts = []
        for _ in range(25):
            t = spell(guided(s, s) if rng.random() < 0.8 else value())
            texts.append(t)
            texts.append(mutate(t))
        tool.stdin.write(json.dumps({"kind": "schema", "grammar": json.dumps(s), "instances": texts}) + "\n")
        tool.stdin.flush()
        line = tool.stdout.readline()
        if not line:
            print("tool died on", json.dumps(s))
            return 1
        answer = json.loads(line)
        if "error" in answer:
            n_refused += 1
            key = re.sub(r"#\S*", "#", answer["error"])
            errors[key] = errors.get(key, 0) + 1
            if "no value can satisfy" in answer["error"]:
                for t in texts:
                    try:
                        v = json.loads(t)
                    except ValueError:
                        continue
                    if validator.is_valid(v) and canonical(v):
                        bad += 1
                        print("SATISFIABLE", json.dumps(s), "BY", t)
            continue
        n_ok += 1
        for t, accepted in zip(texts, answer["accepted"]):
            n_checked += 1
            try:
                v = json.loads(t)
                valid = validator.is_valid(v)
            except (ValueError, RecursionError):
                v, valid = None, False
            n_valid += valid
            if accepted and not valid:
                bad += 1
                print("WRONGLY ACCEPTED", t, "BY", json.dumps(s, ensure_ascii=False))
            elif valid and not accepted and canonical(v) and is_plain(t, s) and is_laid_out(t):
                bad += 1
                print("WRONGLY REFUSED", t, "BY", json.dumps(s, ensure_ascii=False))
    tool.stdin.close()
    status = tool.wait()
    print(f"{n_ok} schemas checked, {n_refused} refused, {n_checked} instances, {n_valid} valid, {bad} wrong, tool {status}")
    for key, n in sorted(errors.items(), key=lambda x: -x[1]):
        print(f"  {n:4} {key}")
    return 1 if bad or status or n_valid < 100 else 0


def unique(pairs):
    names = [k for k, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError
    return dict(pairs)


def is_plain(t, s):
    """Not what only a mutation makes: the same name twice, lone surrogates, trailing blanks; nor what dialects of regular
    expressions disagree on (a word character beyond ASCII)."""
    if "\\\\w" in json.dumps(s) and json.dumps(json.loads(t), ensure_ascii=False) != json.dumps(json.loads(t)):
        return False
    try:
        json.loads(t, object_pairs_hook=unique).__repr__().encode()
    except ValueError:
        return False
    return t == t.rstrip() and "\\ud" not in t.lower().replace("\\ud83d\\ude00", "") and "-0" not in t


ATOMS = ["a", "b", "c", "[ab]", "[^a]", "\\d", ".", "1", "(a|b)", "(?:bc)", "\\.", "(?:x{2})", "[a-c1]", "\\w", "(a|)", "é", "\\s"]
SUFFIXES = ["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}", "*?", "+?"]
TEXTS = "aabbcc11xx. é"


def regex(depth=0):
    parts = [rng.choice(ATOMS) + rng.choice(SUFFIXES) for _ in range(rng.randrange(1, 4))]
    if depth < 2 and rng.random() < 0.3:
        parts.insert(rng.randrange(len(parts) + 1), "(" + regex(depth + 1) + ")" + rng.choice(SUFFIXES))
    out = "".join(parts)
    return out + "|" + regex(depth + 1) if rng.random() < 0.2 and depth < 2 else out


def regexes():
    """Whole texts against re.fullmatch."""
    tool = subprocess.Popen([TOOL, MODEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    bad = n_match = n_checked = 0
    for _ in range(COUNT):
        pattern = regex()
        texts = ["".join(rng.choice(TEXTS) for _ in range(rng.randrange(8))) for _ in range(40)]
        tool.stdin.write(json.dumps({"kind": "regex", "grammar": pattern, "instances": texts}) + "\n")
        tool.stdin.flush()
        answer = json.loads(tool.stdout.readline())
        if "error" in answer:
            bad += 1
            print("REFUSED", pattern, answer["error"])
            continue
        for t, accepted in zip(texts, answer["accepted"]):
            hit = re.fullmatch(pattern, t) is not None
            n_checked += 1
            n_match += hit
            if hit != accepted and not ("\\w" in pattern and "é" in t):
                bad += 1
                print("WRONG", pattern, repr(t), hit, accepted)
    tool.stdin.close()
    status = tool.wait()
    print(f"{n_checked} texts against regular expressions, {n_match} match, {bad} wrong, tool {status}")
    return 1 if bad or status or n_match < 100 else 0


if __name__ == "__main__":
    sys.exit(main() | regexes())
