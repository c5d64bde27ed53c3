#!/usr/bin/python3
"""render.py FOLDER: what `kubectl kustomize FOLDER` prints, as one JSON list.

Only what our kustomizations use; anything else in one is an error, so that nothing is passed over: resources, namespace,
images, patches (JSON 6902, by file), configMapGenerator (by file, without the hash in the name)."""
import json
import os
import sys

import yaml

CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass", "RuntimeClass"}


def load(path):
    with open(path) as f:
        return [d for d in yaml.safe_load_all(f) if d is not None]


def lookup(doc, pointer):
    """The container and key that a JSON pointer (RFC 6901) names."""
    parts = [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]
    for part in parts[:-1]:
        doc = doc[int(part)] if isinstance(doc, list) else doc[part]
    return doc, parts[-1]


def patch(doc, steps):
    for step in steps:
        at, key = lookup(doc, step["path"])
        op = step["op"]
        if op == "add" and isinstance(at, list):
            at.insert(len(at) if key == "-" else int(key), step["value"])
        elif op == "add" or (op == "replace" and not isinstance(at, list) and key in at):
            at[key] = step["value"]
        elif op == "replace" and isinstance(at, list):
            at[int(key)] = step["value"]
        elif op == "remove":
            del at[int(key) if isinstance(at, list) else key]
        else:
            sys.exit(f"{step}: cannot be done")


def containers(doc):
    spec = doc.get("spec", {}).get("template", {}).get("spec", {})
    return spec.get("containers", []) + spec.get("initContainers", [])


def set_images(docs, images):
    for image in images:
        found = False
        for c in (c for d in docs for c in containers(d)):
            name = c["image"].rsplit(":", 1)[0] if ":" in c["image"].rsplit("/", 1)[-1] else c["image"]
            if name == image["name"]:
                c["image"] = image.get("newName", name) + ":" + image["newTag"]
                found = True
        if not found:
            sys.exit(f"images: nothing uses {image['name']}")


def render(folder):
    [k] = load(os.path.join(folder, "kustomization.yaml"))
    if k.pop("apiVersion") != "kustomize.config.k8s.io/v1beta1" or k.pop("kind") != "Kustomization":
        sys.exit(f"{folder}: no Kustomization")
    docs = []
    for r in k.pop("resources"):
        path = os.path.join(folder, r)
        docs += render(path) if os.path.isdir(path) else load(path)
    for g in k.pop("configMapGenerator", []):
        data = {os.path.basename(f): open(os.path.join(folder, f)).read() for f in g["files"]}
        docs.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": g["name"]}, "data": data})
    namespace = k.pop("namespace", None)
    for d in docs:
        if namespace and d["kind"] not in CLUSTER_WIDE:
            d["metadata"]["namespace"] = namespace
    for p in k.pop("patches", []):
        hit = [d for d in docs if d["kind"] == p["target"]["kind"] and d["metadata"]["name"] == p["target"]["name"]]
        if len(hit) != 1:
            sys.exit(f"{folder}: {p['path']}: {len(hit)} targets")
        [steps] = load(os.path.join(folder, p["path"]))
        patch(hit[0], steps)
    set_images(docs, k.pop("images", []))
    if k:
        sys.exit(f"{folder}: render.py does not know {', '.join(k)}")
    return docs


if __name__ == "__main__":
    json.dump(render(sys.argv[1]), sys.stdout)
