#!/usr/bin/python3
"""cross.py RENDERED.json [restricted]: what the schemas do not say. Names lead somewhere; `restricted`: every pod meets the
Pod Security Standard of that name (kubernetes.io/docs/concepts/security/pod-security-standards)."""
import json
import sys

docs = json.load(open(sys.argv[1]))
restricted = "restricted" in sys.argv[2:]
problems = []


def named(kind):
    return {d["metadata"]["name"]: d for d in docs if d["kind"] == kind}


def need(ok, where, what):
    if not ok:
        problems.append(f"{where}: {what}")


def fits(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


pods = {}
for d in docs:
    where = f"{d['kind']} {d['metadata']['name']}"
    if d["kind"] not in ("Deployment", "DaemonSet"):
        continue
    t = d["spec"]["template"]
    s = t["spec"]
    pods[where] = t
    need(fits(d["spec"]["selector"]["matchLabels"], t["metadata"]["labels"]), where, "the selector misses its own pods")
    if "serviceAccountName" in s:
        need(s["serviceAccountName"] in named("ServiceAccount"), where, "its service account is nowhere")
    volumes = {v["name"]: v for v in s.get("volumes", [])}
    for v in volumes.values():
        if "configMap" in v:
            need(v["configMap"]["name"] in named("ConfigMap"), where, f"volume {v['name']}: its map is nowhere")
        if "persistentVolumeClaim" in v:
            need(v["persistentVolumeClaim"]["claimName"] in named("PersistentVolumeClaim"), where, "its claim is nowhere")
        need(not restricted or "hostPath" not in v, where, "restricted: a path of the host")
    for c in s["containers"] + s.get("initContainers", []):
        at = f"{where}, {c['name']}"
        ports = {p["name"] for p in c.get("ports", [])}
        need(":" in c["image"], at, "an image without a tag")
        need("requests" in c.get("resources", {}), at, "no requests")
        for m in c.get("volumeMounts", []):
            need(m["name"] in volumes, at, f"mounts {m['name']}, which is no volume")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = c.get(probe, {}).get("httpGet", {}).get("port")
            need(port is None or port in ports or isinstance(port, int), at, f"{probe}: there is no port {port}")
        context, pod = c.get("securityContext", {}), s.get("securityContext", {})
        if context.get("privileged"):
            need(not restricted, at, "restricted: privileged")
        else:
            need(context.get("allowPrivilegeEscalation") is False, at, "may gain privileges")
            need(context.get("capabilities", {}).get("drop") == ["ALL"], at, "keeps capabilities")
            need((context.get("seccompProfile") or pod.get("seccompProfile", {})).get("type") == "RuntimeDefault", at, "seccomp")
        need(context.get("readOnlyRootFilesystem") is True, at, "its root can be written to")
        if restricted:
            need(pod.get("runAsNonRoot") is True and context.get("runAsUser", pod.get("runAsUser")) != 0, at, "runs as root")
    if restricted:
        need(not any(s.get(k) for k in ("hostPID", "hostNetwork", "hostIPC")), where, "restricted: a namespace of the host")

for d in docs:
    where = f"{d['kind']} {d['metadata']['name']}"
    spec = d.get("spec", {})
    if d["kind"] == "Service":
        hit = [t for t in pods.values() if fits(spec["selector"], t["metadata"]["labels"])]
        need(hit, where, "no pods")
        for p in spec["ports"]:
            need(any(q["name"] == p["targetPort"] for t in hit for c in t["spec"]["containers"] for q in c.get("ports", [])), where,
                 f"no pod has the port {p['targetPort']}")
    if d["kind"] == "HorizontalPodAutoscaler":
        ref = spec["scaleTargetRef"]
        need(ref["name"] in named(ref["kind"]), where, "scales nothing")
        need("replicas" not in named(ref["kind"])[ref["name"]]["spec"], where, "the number of pods has two owners")
    if d["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
        selector = (spec.get("selector") or spec.get("podSelector"))["matchLabels"]
        need(any(fits(selector, t["metadata"]["labels"]) for t in pods.values()), where, "no pods")
for p in problems:
    print(p)
sys.exit(bool(problems))
