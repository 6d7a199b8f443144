"""The cluster launcher's files: valid by the schema and the rules that ship with the installed Ray."""

import copy
import shlex
import tomllib

import jsonschema
import pytest
import yaml
from infra_files import INFRA, ROOT
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

FILES = sorted((INFRA / "vm").glob("*.yaml"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def cluster(path):
    return yaml.safe_load(path.read_text())


def start_commands(config):
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    words = [shlex.split(line.rpartition(";")[2]) for line in lines]
    return [line for line in words if "start" in line]


@every_file
def test_launcher_accepts_the_file(path):
    prepared = prepare_config(cluster(path))

    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@every_file
def test_launcher_refuses_a_misspelt_field(path):
    spoiled = copy.deepcopy(cluster(path))
    spoiled["hed_start_ray_commands"] = spoiled.pop("head_start_ray_commands")

    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(spoiled))


@every_file
def test_nodes_start_with_options_that_ray_has_and_show_metrics(path):
    known = {name for option in start.params for name in option.opts}
    lines = start_commands(cluster(path))

    assert len(lines) == 2
    for line in lines:
        asked = {word.partition("=")[0] for word in line if word.startswith("--")}
        assert asked <= known, asked - known
        assert "--metrics-export-port" in asked


@every_file
def test_token_reaches_every_node_and_stands_in_no_file(path):
    text = path.read_text()

    assert any(name.endswith("/.ray/auth_token") for name in cluster(path)["file_mounts"])
    assert text.count("RAY_AUTH_MODE=token") >= 1
    assert "RAY_AUTH_TOKEN=" not in text


def test_images_are_the_ones_we_build():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    config = cluster(INFRA / "vm" / "aws.yaml")
    images = {config["docker"]["image"]}
    images |= {kind["docker"]["worker_image"] for kind in config["available_node_types"].values() if "docker" in kind}

    assert images == {f"registry.example/lesionary:{version}-{target}" for target in ("slim", "gpu")}


def test_spot_nodes_are_preferred_and_disks_are_encrypted():
    kinds = cluster(INFRA / "vm" / "aws.yaml")["available_node_types"]

    for name, kind in kinds.items():
        assert kind["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"], name
        assert ("InstanceMarketOptions" in kind["node_config"]) == name.endswith("_spot"), name
        assert kind.get("priority", 0) == (10 if name.endswith("_spot") else 0), name
    assert kinds["head"]["node_config"]["IamInstanceProfile"] != kinds["cpu"]["node_config"]["IamInstanceProfile"]
