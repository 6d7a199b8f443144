"""Nodes that would not make the same rows refuse the work, in one line that says what is wrong with which node."""

import shutil
import subprocess
import sys

import pytest
from cluster.ray_nodes import REPOSITORY, RayNodes

from lesionary.lake import Lake
from lesionary.provenance import PACKAGES, code_fingerprint

PROGRAM = "from cli.main import main; main()"


@pytest.fixture
def changed_code(tmp_path):
    """Our packages with one byte changed, where it changes nothing but the digest."""
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / "code" / package)
    module = tmp_path / "code" / "lesionary" / "recist.py"
    module.write_bytes(module.read_bytes() + b"\n")
    return tmp_path / "code"


@pytest.fixture
def other_numpy(tmp_path):
    """A folder that, early on the path, has another version of a library found."""
    folder = tmp_path / "path" / "numpy-1.2.3.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.2.3\n")
    return folder.parent


def ingest(nodes, release, lake, **variables):
    """The command beside the head, whose own node has no core for work."""
    command = [sys.executable, "-c", PROGRAM, "ingest", str(release), "--lake", str(lake)]
    return nodes.run(
        [*command, "--ray-address", nodes.address], capture_output=True, text=True, timeout=120, variables=variables
    )


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(280)
@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0,
    reason="a node cannot have folders of its own here: `unshare --mount` is refused",
)
def test_a_node_with_other_code_another_library_or_another_store_is_refused(
    tmp_path, release, changed_code, other_numpy
):
    with RayNodes(1, cores=0) as nodes:
        for changes, sentences in (
            ({"code": changed_code}, [f"where the driver has {code_fingerprint()};"]),
            (
                {"PYTHONPATH": str(other_numpy), "AWS_ENDPOINT_URL": "http://secret@elsewhere"},
                ["numpy 1.2.3 where the driver has ", "another value of AWS_ENDPOINT_URL;"],
            ),
        ):
            odd = nodes.add(cores=1, **changes)
            done = ingest(nodes, release, tmp_path / "lake")

            assert done.returncode == 1, done.stderr
            lines = done.stderr.strip().splitlines()
            assert len(lines) == 1, done.stderr
            assert lines[0].startswith(f"lesionary: Ray worker on node {odd.address}: ")
            assert all(sentence in lines[0] for sentence in sentences), lines[0]
            assert "secret" not in lines[0]
            assert Lake.open(str(tmp_path / "lake")).read("units").num_rows == 0
            nodes.kill(odd)

        nodes.add(cores=1)
        assert ingest(nodes, release, tmp_path / "lake").returncode == 0
        assert Lake.open(str(tmp_path / "lake")).read("slices", columns=["series_id"]).num_rows == 15


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_cluster_that_wants_another_token_is_named_in_one_line(tmp_path, release):
    with RayNodes(1) as nodes:
        done = ingest(nodes, release, tmp_path / "lake", RAY_AUTH_TOKEN="0" * 64)

    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"lesionary: --ray-address {nodes.address}: the Ray cluster does not answer ")
    assert "check the address and RAY_AUTH_TOKEN" in done.stderr
    assert done.stderr.count("\n") == 1
