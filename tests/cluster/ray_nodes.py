"""A Ray cluster on this machine whose nodes can be killed: each a raylet with its workers in a session of its own.

Where the system allows it, each node also has a network namespace with an address of its own on a bridge that nothing
else is on: nodes then reach each other through the network alone, and a node's cable can be pulled. Elsewhere nodes are
plain processes that share an address, and `RayNodes.why_plain` says why. Everything lies under one short folder, ends
with the object, and touches no other Ray of the machine.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cluster.kept_session import start_kept_session
from faults.processes import kill_tree

REPOSITORY = Path(__file__).parents[2]

_GCS_PORT = 6379
_START_SECONDS = 90
_STORE_BYTES = 80 << 20
# A node that is cut off is given up after some 15 seconds; Ray's own settings take most of a minute.
_QUICK_CHECKS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}


@dataclass(slots=True)
class Node:
    """One node of the cluster."""

    number: int
    address: str
    prefix: list[str]
    """Before a command that is to run in the node's network."""
    process: subprocess.Popen
    alive: bool = True


class Network:
    """A bridge of our own, and a namespace for each node on it; the machine's own network is not touched."""

    def __init__(self) -> None:
        self._name = f"lsn{os.getpid()}"
        self._spaces: list[str] = []
        _ip("netns", "add", self._add("sw"))
        self._in_switch("link", "add", "br0", "type", "bridge")
        self._in_switch("link", "set", "br0", "up")

    @property
    def switch(self) -> str:
        """The namespace that holds the bridge."""
        return f"{self._name}sw"

    def join(self, number: int) -> tuple[str, list[str]]:
        """A new namespace on the bridge: its address, and what goes before a command to run there."""
        space, port = self._add(str(number)), f"p{number}"
        _ip("netns", "add", space)
        self._in_switch("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        self._in_switch("link", "set", port, "master", "br0", "up")
        address = f"10.213.{number // 250}.{number % 250 + 1}"
        inside = ["ip", "-n", space]
        for words in (
            ["link", "set", "lo", "up"],
            ["addr", "add", f"{address}/16", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            subprocess.run([*inside, *words], check=True, capture_output=True)
        return address, ["ip", "netns", "exec", space]

    def pull_cable(self, number: int) -> None:
        """Nothing reaches the node any more, and it reaches nobody; no connection is told."""
        self._in_switch("link", "set", f"p{number}", "down")

    def close(self) -> None:
        """Take everything away again."""
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)

    def _add(self, suffix: str) -> str:
        self._spaces.append(f"{self._name}{suffix}")
        return self._spaces[-1]

    def _in_switch(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.switch, *words], check=True, capture_output=True)


class RayNodes:
    """A head and some workers, to be killed and replaced one by one."""

    def __init__(self, count: int = 3, cores: int = 1) -> None:
        """Start so many nodes with so many cores each."""
        self._cores = cores
        self._folder = Path(tempfile.mkdtemp(prefix="lsn-", dir="/tmp"))
        self._network, self.why_plain = _network()
        self._token = secrets.token_hex(32)
        self._numbers = 0
        self.nodes: list[Node] = []
        self._port = _GCS_PORT if self._network else _free_port()
        try:
            # One after the other: two that start at once may choose the same names for their sockets.
            for _ in range(count):
                self.add()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RayNodes":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> Node:
        """The first node, which knows of the others."""
        return self.nodes[0]

    @property
    def workers(self) -> list[Node]:
        """The other nodes that live."""
        return [node for node in self.nodes[1:] if node.alive]

    @property
    def address(self) -> str:
        """What `--ray-address` takes."""
        return f"{self.head.address}:{self._port}"

    @property
    def form(self) -> str:
        """How the nodes are kept apart."""
        return "network namespaces" if self._network else f"plain processes ({self.why_plain})"

    def environment(self, **more: str) -> dict[str, str]:
        """Variables of nodes and drivers: whose code they run, and nothing of another Ray."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LESIONARY_"))}
        path = [*filter(None, [more.pop("PYTHONPATH", "")]), str(REPOSITORY), str(REPOSITORY / "tests")]
        return kept | {
            "PYTHONPATH": os.pathsep.join(path),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_raylet_start_wait_time_s": "120",
            "OMP_NUM_THREADS": "1",
            **_QUICK_CHECKS,
            **more,
        }

    def add(self, *, cores: int | None = None, code: Path | None = None, wait: bool = True, **variables: str) -> Node:
        """Start one more node.

        Args:
            cores: of it, if not as many as the others'.
            code: a folder with other packages, which the node sees where the others have theirs.
            wait: until it has joined.
            variables: of its environment, beside those of the others.
        """
        number, self._numbers = self._numbers, self._numbers + 1
        address, prefix = self._network.join(number) if self._network else ("127.0.0.1", [])
        role = ["--address", self.address] if self.nodes else ["--head", "--port", str(self._port)]
        command = [
            *prefix, *_seeing(code), sys.executable, "-m", "ray.scripts.scripts", "start", *role,
            "--node-ip-address", address, "--num-cpus", str(self._cores if cores is None else cores), "--num-gpus", "0",
            "--object-store-memory", str(_STORE_BYTES), "--min-worker-port", "0", "--max-worker-port", "0",
            "--include-log-monitor", "false", "--disable-usage-stats", "--block",
        ]  # fmt: skip
        if not self.nodes:
            command += ["--include-dashboard", "false", "--temp-dir", str(self._folder / "r")]
        log = (self._folder / f"node{number}.log").open("wb")
        process = start_kept_session(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=self.environment(**variables),
        )
        log.close()
        self.nodes.append(Node(number, address, prefix, process))
        if len(self.nodes) == 1:
            self._wait_for_head()
        elif wait:
            self.wait_for(sum(node.alive for node in self.nodes))
        return self.nodes[-1]

    def kill(self, node: Node) -> None:
        """SIGKILL of a node's raylet and of all its workers, at once."""
        kill_tree(node.process)
        node.alive = False

    def cut_off(self, node: Node) -> None:
        """Pull a node's cable; its processes go on, alone. Without namespaces it is killed."""
        if self._network is None:
            self.kill(node)
        else:
            self._network.pull_cable(node.number)
            node.alive = False

    def wait_for(self, count: int) -> None:
        """Wait until so many nodes are there.

        Raises:
            RuntimeError: they did not come; with what the nodes said.
        """
        program = (
            "import sys, time\nfrom ray._raylet import GcsClient\nclient = GcsClient(address=sys.argv[1])\n"
            "while sum(one.state == 0 for one in client.get_all_node_info().values()) < int(sys.argv[2]):\n"
            "    time.sleep(0.2)\n"
        )
        try:
            self.run([sys.executable, "-c", program, self.address, str(count)], timeout=_START_SECONDS, check=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as cause:
            said = "\n".join(path.read_text() for path in sorted(self._folder.glob("node*.log")))
            raise RuntimeError(f"there are no {count} nodes:\n{said}") from cause

    def run(
        self, command: list[str], variables: Mapping[str, str] = MappingProxyType({}), **options: object
    ) -> subprocess.CompletedProcess:
        """Run something beside the head, as a driver would."""
        command, environment = [*self.head.prefix, *command], self.environment(**variables)
        return subprocess.run(command, env=environment, **options)  # noqa: PLW1510 (the caller's business)

    def close(self) -> None:
        """End every process and take the network and the folder away."""
        for node in reversed(self.nodes):
            kill_tree(node.process)
        if self._network:
            self._network.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_for_head(self) -> None:
        program = "import socket, sys\nsocket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()\n"
        until = time.monotonic() + _START_SECONDS
        while True:
            host, _, port = self.address.partition(":")
            if self.run([sys.executable, "-S", "-c", program, host, port], capture_output=True).returncode == 0:
                return
            if time.monotonic() > until or self.head.process.poll() is not None:
                raise RuntimeError((self._folder / "node0.log").read_text())
            time.sleep(0.3)


def _seeing(code: Path | None) -> list[str]:
    """Before a command that is to find these packages in the place of ours: as another machine would."""
    if code is None:
        return []
    mounts = [f"mount --bind '{folder}' '{REPOSITORY / folder.name}'" for folder in code.iterdir()]
    return ["unshare", "--mount", "sh", "-c", f'{" && ".join(mounts)} && exec "$0" "$@"']


def _network() -> tuple[Network | None, str]:
    """The nodes' network, or why there is none."""
    if shutil.which("ip") is None:
        return None, "there is no `ip` command"
    network = None
    try:
        network = Network()
    except subprocess.CalledProcessError as refused:
        return None, refused.stderr.decode(errors="replace").strip() or "namespaces are refused"
    return network, ""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
