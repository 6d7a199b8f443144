"""KubeRay's manifests: against the operator's published schema where it is at hand, and against ourselves always.

The schema is not part of this project. To check against it, put the files `ray.io_rayclusters.yaml` and
`ray.io_rayjobs.yaml` of KubeRay's `ray-operator/config/crd/bases/` into a folder and name it:

    LESIONARY_KUBERAY_CRDS=FOLDER python -m pytest tests/infra/test_kuberay.py

Other definitions that lie there (Prometheus' operator) are used as well.
"""

import functools
import inspect
import os
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from infra_files import INFRA, ROOT, clusters, documents, node_groups

PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
KINDS = ("kuberay", "monitoring")

every_cluster = pytest.mark.parametrize(
    ("where", "cluster"), [pytest.param(*one, id=one[0].split(":")[0]) for one in clusters()]
)


def closed(schema):
    """A structural schema as JSON Schema: fields that the API server would drop without a word are errors here."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {key: value for key, value in schema.items() if key in {"anyOf", "enum"}}
    inner = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes") and key != "format"}
    if "properties" in inner:
        inner["properties"] = {name: closed(value) for name, value in inner["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            inner.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in inner:
            inner[key] = closed(inner[key])
    return inner


@functools.cache
def definitions():
    """(group and version, kind) to schema, of all definitions in the folder that the environment names."""
    folder = os.environ.get("LESIONARY_KUBERAY_CRDS")
    if not folder:
        pytest.skip("LESIONARY_KUBERAY_CRDS does not name a folder with KubeRay's definitions")
    found = {}
    for path in sorted(Path(folder).glob("*.yaml")):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)
        for version in definition["spec"]["versions"]:
            name = f"{definition['spec']['group']}/{version['name']}"
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[name, definition["spec"]["names"]["kind"]] = schema
    return found


def test_manifests_are_what_the_operators_schema_allows():
    schemas = definitions()

    checked = []
    for folder in KINDS:
        for where, document in documents(folder):
            schema = schemas.get((document.get("apiVersion"), document.get("kind")))
            if schema is not None:
                jsonschema.Draft202012Validator(schema).validate(document)
                checked.append(where)

    assert {"RayCluster", "RayJob"} <= {where.split(": ")[1] for where in checked}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "autoscalerOptions", "version"), "v3"),
        (("spec", "authOptions", "tokn"), "x"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resources", "limit"), {}),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "many"),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "gcs"),
    ],
)
def test_schema_check_notices_a_spoiled_manifest(path, value):
    schema = definitions()["ray.io/v1", "RayCluster"]
    [document] = [document for _, document in documents("kuberay") if document["kind"] == "RayCluster"]
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)


@every_cluster
def test_every_node_has_our_image_and_the_pinned_ray(where, cluster):
    assert cluster["rayVersion"] == PINS["ray"], where
    for group in node_groups(cluster):
        for container in group["template"]["spec"]["containers"]:
            name, _, tag = container["image"].rpartition(":")
            version, _, target = tag.rpartition("-")
            assert (name, version) == ("registry.example/lesionary", VERSION), where
            assert f" AS {target}\n" in (INFRA / "Dockerfile").read_text(), where
            asks_for_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            assert target == "gpu" or not asks_for_gpu, where


@every_cluster
def test_clusters_ask_for_the_token_and_keep_the_head_free(where, cluster):
    assert cluster["authOptions"] == {"mode": "token"}, where
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", where
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP", where
    for group in node_groups(cluster):
        # The second autoscaler replaces nodes itself and refuses any other policy.
        assert "restartPolicy" not in group["template"]["spec"], where


@every_cluster
def test_no_node_runs_as_root_and_workers_have_no_token_of_kubernetes(where, cluster):
    for group in node_groups(cluster):
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"], where
        assert f"--uid {spec['securityContext']['runAsUser']} " in (INFRA / "Dockerfile").read_text()
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"]["requests"] == container["resources"]["limits"], where
    for group in cluster["workerGroupSpecs"]:
        assert group["template"]["spec"]["automountServiceAccountToken"] is False, where
        assert "volumes" not in group["template"]["spec"], "the key of the pseudonyms is the head's alone"


@every_cluster
def test_start_parameters_are_options_of_the_installed_ray(where, cluster):
    from ray.scripts.scripts import start

    known = {name for option in start.params for name in option.opts}
    for group in node_groups(cluster):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known, where


def test_objects_that_pods_name_are_made_here_or_are_optional():
    made = {(document["kind"], document["metadata"]["name"]) for _, document in documents("kuberay")}
    for where, cluster in clusters():
        for group in node_groups(cluster):
            spec = group["template"]["spec"]
            assert ("ServiceAccount", spec["serviceAccountName"]) in made, where
            for volume in spec.get("volumes", ()):
                if "configMap" in volume:
                    assert ("ConfigMap", volume["configMap"]["name"]) in made, where
                else:
                    assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in made, where
            for container in spec["containers"]:
                assert all(source["secretRef"]["optional"] for source in container["envFrom"]), where


def test_spot_groups_are_preferred_and_may_vanish():
    spot = [group for _, cluster in clusters() for group in cluster["workerGroupSpecs"] if "spot" in group["groupName"]]
    assert spot
    for group in spot:
        assert group["minReplicas"] == 0
        assert group["priority"] > 0
        assert group["template"]["spec"]["tolerations"]
        [terms] = group["template"]["spec"]["affinity"]["nodeAffinity"].values()
        assert len(terms["nodeSelectorTerms"]) >= 3


def test_no_manifest_carries_a_secret():
    for folder in (*KINDS, "vm"):
        for where, document in documents(folder):
            assert document.get("kind") != "Secret", where
            text = yaml.safe_dump(document)
            assert not re.search(r"(SECRET_ACCESS_KEY|AUTH_TOKEN|PASSWORD)\S*\s*[:=]\s*\S", text), where
            assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", text), where


def test_metrics_ports_are_named_as_the_monitors_ask():
    named = {
        port["name"]: port["containerPort"]
        for _, cluster in clusters()
        for group in node_groups(cluster)
        for container in group["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    from ray.autoscaler._private.constants import AUTOSCALER_METRIC_PORT
    from ray.dashboard.consts import DASHBOARD_METRIC_PORT

    assert named["as-metrics"] == AUTOSCALER_METRIC_PORT
    assert named["dash-metrics"] == DASHBOARD_METRIC_PORT
    for _, cluster in clusters():
        for group in node_groups(cluster):
            assert group["rayStartParams"]["metrics-export-port"] == str(named["metrics"])


def test_key_on_a_claim_keeps_the_mode_that_the_command_asks_for():
    from etl.deidentify import load_key

    assert "0o077" in inspect.getsource(load_key), "the reason for OnRootMismatch is gone"
    for where, cluster in clusters():
        head = cluster["headGroupSpec"]["template"]["spec"]
        assert head["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", where
