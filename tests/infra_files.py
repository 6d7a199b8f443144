"""What the tests of infra/ share: its YAML documents, its Ray nodes, and the commands of ours that it carries."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
INFRA = ROOT / "infra"


def documents(folder: str) -> Iterator[tuple[str, dict]]:
    """(file and name, document) of every YAML document below infra/FOLDER."""
    for path in sorted((INFRA / folder).glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}: {document.get('kind', path.stem)}", document


def clusters() -> Iterator[tuple[str, dict]]:
    """(where, specification) of every Ray cluster that a KubeRay manifest describes."""
    for where, document in documents("kuberay"):
        if document["kind"] == "RayCluster":
            yield where, document["spec"]
        elif document["kind"] == "RayJob":
            yield where, document["spec"]["rayClusterSpec"]


def node_groups(cluster: dict) -> Iterator[dict]:
    """The head's group and those of the workers."""
    yield cluster["headGroupSpec"]
    yield from cluster["workerGroupSpecs"]


def commands(text: str) -> list[list[str]]:
    """The `lesionary …` commands of a text: comments, scripts and folded YAML alike, continued lines joined."""
    joined = re.sub(r"\\\n[ \t]*#?", " ", text)
    # A folded entrypoint goes on in the next, equally indented line.
    joined = re.sub(
        r"(entrypoint: >-\n)((?:[ ]{4}.+\n)+)", lambda hit: hit[1] + " ".join(hit[2].split()) + "\n", joined
    )
    lines = re.findall(r"^[ #]*(?:- |\$ )?(lesionary(?: [a-z-]+)+ .+|lesionary [a-z]+)$", joined, re.MULTILINE)
    lines += [" ".join(line.split()) for line in re.findall(r"`(lesionary [^`…]+)`", text)]
    return [shlex.split(line.replace('"$@"', ""), comments=True) for line in lines]
