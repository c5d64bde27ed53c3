#!/usr/bin/python3
"""same.py RENDERED.json KUSTOMIZED.yaml: both are the same resources. kustomize adds a hash to names of generated maps."""
import json
import re
import sys

import yaml


def plain(doc):
    return json.loads(re.sub(r'"(flip-node)-[a-z0-9]{10}"', r'"\1"', json.dumps(doc)))


def key(doc):
    return doc["kind"], doc["metadata"]["name"]


ours = sorted(json.load(open(sys.argv[1])), key=key)
theirs = sorted((plain(d) for d in yaml.safe_load_all(open(sys.argv[2])) if d), key=key)
for a, b in zip(ours, theirs):
    if a != b:
        sys.exit(f"{key(a)}: {json.dumps(a)}\nkustomize says {json.dumps(b)}")
if len(ours) != len(theirs):
    sys.exit(f"{len(ours)} resources, kustomize says {len(theirs)}")
