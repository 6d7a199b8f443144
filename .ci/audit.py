"""What Lesionary is made of, and whether any of it is known to be unsafe: `make audit`, or

    python .ci/audit.py [--out build]

* pins: everything that any extra brings is pinned in constraints.txt and installed as pinned; no pin is for nothing;
* licences: of what runs (the extras train and cluster included), into OUT/licences.txt; strong copyleft fails;
* bill of materials: the same packages as CycloneDX 1.6, into OUT/bom.cdx.json; the same environment gives the same
  bytes, without a path, a host or a time;
* advisories: asked through pip-audit. A known vulnerability fails. A service that does not answer does not, but is said
  plainly: pip-audit itself calls packages that it could not ask about free of known vulnerabilities.
"""

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
RUNTIME_EXTRAS = ("train", "cluster")
# pip comes with every virtual environment, in whatever version.
_UNPINNED = frozenset({"lesionary", "pip"})
_STRONG_COPYLEFT = re.compile(r"(?<!L)(?<!Lesser )\bA?GPL|GNU (Affero )?General Public", re.IGNORECASE)
_LONGEST_LICENCE = 120
_ADVISORY_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Closure:
    """Packages that requirements lead to."""

    found: dict[str, Distribution] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    """Required and not installed."""
    needs: dict[str, set[str]] = field(default_factory=dict)
    """A package to those that it asks for itself."""


@dataclass(frozen=True, slots=True)
class Advisories:
    """What the advisory service said."""

    asked: int
    unanswered: tuple[str, ...]
    known: tuple[str, ...]
    """Package, version and identifier of each known vulnerability."""


def installed() -> dict[str, Distribution]:
    """Every installed distribution by its normalised name."""
    return {canonicalize_name(one.name): one for one in importlib.metadata.distributions()}


def closure(requirements: Iterable[str], there: Mapping[str, Distribution]) -> Closure:
    """Everything that requirements need, with what that needs, on this machine and Python."""
    result = Closure()
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        if name not in there:
            result.missing.add(name)
            continue
        result.found[name] = there[name]
        for text in there[name].requires or ():
            inner = Requirement(text)
            extras = ("", *requirement.extras)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                result.needs.setdefault(name, set()).add(canonicalize_name(inner.name))
                waiting.append(inner)
    return result


def read_pins(text: str) -> dict[str, str]:
    """Normalised names and versions of a constraints file."""
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in text.split())}


def pin_faults(pins: Mapping[str, str], everything: Closure) -> list[str]:
    """Sentences about packages without a pin, installed otherwise than pinned, and pins that nothing asks for."""
    faults = [f"{name} is required and not installed: install all extras" for name in sorted(everything.missing)]
    for name, distribution in sorted(everything.found.items()):
        if name in _UNPINNED:
            continue
        if name not in pins:
            faults.append(f"{name} {distribution.version} has no pin in constraints.txt")
        elif pins[name] != distribution.version:
            faults.append(f"{name} is installed as {distribution.version} and pinned as {pins[name]}")
    if not everything.missing:
        faults += [f"{name} is pinned and nothing asks for it" for name in sorted(set(pins) - set(everything.found))]
    return faults


def licence(distribution: Distribution) -> str:
    """What a distribution says of its licence, in one line."""
    about = distribution.metadata
    if stated := about.get("License-Expression"):
        return str(stated)
    classifiers = [
        line.split(" :: ")[-1] for line in about.get_all("Classifier") or () if line.startswith("License ::")
    ]
    if classifiers:
        return ", ".join(classifiers)
    free_text = " ".join((about.get("License") or "").split())
    return free_text[:_LONGEST_LICENCE] or "not stated"


def bill_of_materials(runtime: Closure, version: str) -> str:
    """The packages as a CycloneDX document."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    us = Component(name="lesionary", version=version, type=ComponentType.APPLICATION, bom_ref=f"lesionary=={version}")
    parts = {
        name: Component(
            name=name,
            version=one.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={one.version}",
            purl=PackageURL("pypi", name=name, version=one.version),
            licenses=[DisjunctiveLicense(name=licence(one))],
        )
        for name, one in sorted(runtime.found.items())
    }
    document = Bom(components=parts.values())
    document.metadata.component = us
    named = ",".join(str(part.bom_ref) for part in parts.values())
    document.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"lesionary=={version}:{named}")
    asked_for = set(parts) - {need for needs in runtime.needs.values() for need in needs}
    document.register_dependency(us, [parts[name] for name in sorted(asked_for)])
    for name, part in parts.items():
        document.register_dependency(
            part, [parts[need] for need in sorted(runtime.needs.get(name, ())) if need in parts]
        )
    plain = json.loads(JsonV1Dot6(document).output_as_string())
    # When it was made says nothing about what it is made of.
    del plain["metadata"]["timestamp"]
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


def read_advisories(output: str, expected: int) -> Advisories:
    """What pip-audit's JSON says; nothing that can be read stands for a service that was not reached."""
    try:
        rows = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Advisories(expected, ("all of them",), ())
    unanswered = tuple(row["name"] for row in rows if "skip_reason" in row)
    known = tuple(f"{row['name']} {row['version']}: {one['id']}" for row in rows for one in row.get("vulns", ()))
    return Advisories(len(rows), unanswered, known)


def ask_for_advisories(packages: Mapping[str, Distribution], out: Path) -> Advisories:
    """Ask pip-audit about installed packages, by name and version."""
    listing = out / "audited.txt"
    listing.write_text("".join(f"{name}=={one.version}\n" for name, one in sorted(packages.items())))
    command = ["-m", "pip_audit", "--requirement", str(listing), "--no-deps", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(
            [sys.executable, *command, "--progress-spinner", "off", "--timeout", "15"],
            capture_output=True, text=True, check=False, timeout=_ADVISORY_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return read_advisories("", len(packages))
    return read_advisories(done.stdout, len(packages))


def told(advisories: Advisories) -> str:
    """One sentence about what is known."""
    unanswered = advisories.asked if advisories.unanswered == ("all of them",) else len(advisories.unanswered)
    answered = advisories.asked - unanswered
    if not answered:
        return f"advisories: NOT CHECKED, the service answered for none of {advisories.asked} packages"
    left = f"; NOT CHECKED: {', '.join(advisories.unanswered)}" if unanswered else ""
    return f"advisories: {len(advisories.known)} known for {answered} of {advisories.asked} packages{left}"


def main() -> None:
    """Check, write, and exit 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder of the two lists [build]")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: Mapping[str, list[str]] = project["optional-dependencies"]
    there = installed()
    everything = closure([*project["dependencies"], *(text for one in extras.values() for text in one)], there)
    runtime = closure([*project["dependencies"], *(text for one in RUNTIME_EXTRAS for text in extras[one])], there)

    pins = read_pins((ROOT / "constraints.txt").read_text())
    faults = pin_faults(pins, everything)
    print(f"pins: {len(pins)} for {len(everything.found)} packages of all extras, {len(faults)} faults")
    licences = {name: licence(one) for name, one in sorted(runtime.found.items())}
    (out / "licences.txt").write_text(
        "".join(f"{name} {there[name].version}: {text}\n" for name, text in licences.items())
    )
    faults += [f"{name} is under {text}" for name, text in licences.items() if _STRONG_COPYLEFT.search(text)]
    unstated = [name for name, text in licences.items() if text == "not stated"]
    print(f"licences: {len(licences)} packages at run time; not stated: {', '.join(unstated) or 'none'}")
    (out / "bom.cdx.json").write_text(bill_of_materials(runtime, project["version"]))
    print(f"bill of materials: {len(runtime.found)} packages")
    advisories = ask_for_advisories(everything.found, out)
    print(told(advisories))
    faults += [f"known vulnerability: {one}" for one in advisories.known]
    for fault in faults:
        print(f"  {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
