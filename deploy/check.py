#!/usr/bin/env python3
"""Holds the deployment files against their schemas and against what they promise.

    pip install --requirement tests/requirements.txt && deploy/check.py
"""

import pathlib
import re
import sys

import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent
KUBERNETES = DEPLOY / "kubernetes"


def documents(path):
    """The documents of a YAML file; a key that stands twice is an error."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path}: a key stands twice in {keys}"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return list(yaml.load_all(path.read_text(), Strict))


def resources():
    kustomization = documents(KUBERNETES / "kustomization.yaml")[0]
    listed = kustomization["resources"]
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == there, f"{listed} is not what is there: {there}"
    found = {}
    for name in listed:
        for document in documents(KUBERNETES / name):
            kubernetes_validate.validate(document, "1.34", strict=True)
            found[document["kind"], document["metadata"]["name"]] = document
    return kustomization, found


def check_pod(pod, generated):
    security = pod["securityContext"]
    assert security["runAsNonRoot"] and security["seccompProfile"]["type"] == "RuntimeDefault"
    assert not pod["automountServiceAccountToken"], "a node does not talk to Kubernetes"
    affinity = pod["affinity"]["podAntiAffinity"]
    assert affinity["requiredDuringSchedulingIgnoredDuringExecution"], "nodes may share a machine"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"]["drop"] == ["ALL"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
            assert container[probe]["httpGet"]["port"] in ports
        assert container["resources"]["limits"]["memory"]
        writable = [m["name"] for m in container["volumeMounts"] if not m.get("readOnly")]
        assert writable == ["data"], f"{writable} can be written to"
        for mount in container["volumeMounts"]:
            if mount["name"] == "data":
                continue
            volume = volumes[mount["name"]]
            source = volume.get("configMap", {}).get("name") or volume["secret"]["secretName"]
            assert source in generated, f"{source} is not generated"
    assert {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v} == {
        "oncekey-tls",
        "oncekey-peers",
        "oncekey-tokens",
    }


def check_kubernetes():
    kustomization, found = resources()
    generators = kustomization["configMapGenerator"] + kustomization["secretGenerator"]
    generated = {generator["name"]: generator["files"] for generator in generators}
    nodes = found["StatefulSet", "oncekey"]["spec"]
    labels = nodes["template"]["metadata"]["labels"]
    for kind, name in [("PodDisruptionBudget", "oncekey")]:
        assert found[kind, name]["spec"]["selector"]["matchLabels"] == labels
    for name in ["oncekey", "oncekey-peers"]:
        assert found["Service", name]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget", "oncekey"]["spec"]["maxUnavailable"] == 1
    assert found["NetworkPolicy", "oncekey"]["spec"]["podSelector"]["matchLabels"] == labels
    assert nodes["serviceName"] == "oncekey-peers"
    check_pod(nodes["template"]["spec"], generated)
    # Ids, names of pods, members and certificates go together.
    ids = range(nodes["ordinals"]["start"], nodes["ordinals"]["start"] + nodes["replicas"])
    config = (KUBERNETES / "node.toml").read_text()
    members = re.findall(r'\{ id = (\d+), peer = "oncekey-(\d+)\.oncekey-peers:7080"', config)
    assert members == [(str(i), str(i)) for i in ids], members
    peers = {pathlib.PurePath(file).name for file in generated["oncekey-peers"]}
    assert {f"node-{i}.pem" for i in ids} < peers and {f"node-{i}-key.pem" for i in ids} < peers
    mounts = nodes["template"]["spec"]["containers"][0]["volumeMounts"]
    folders = {m["mountPath"]: m["name"] for m in mounts}
    for path in re.findall(r'"(/etc/oncekey/[^"]+)"', config):
        folder, file = path.rsplit("/", 1)
        files = generated[f"oncekey-{folders[folder]}"]
        assert file in {pathlib.PurePath(f).name for f in files}, f"{path} is not mounted"
    return len(found)


def check_compose():
    services = documents(DEPLOY / "compose" / "compose.yaml")[0]["services"]
    nodes = {name: service for name, service in services.items() if name.startswith("node-")}
    assert len({service["labels"]["oncekey.region"] for service in nodes.values()}) == 3
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    return len(services)


print(f"{check_kubernetes()} Kubernetes resources and {check_compose()} compose services are as promised")
sys.exit(0)
