"""Workers of a training find each other by the addresses that Ray knows their nodes by.

Gloo asks the resolver for the machine's own name instead. On many systems that is an address of the loopback, and
workers on different nodes wait for each other in vain.
"""

import fcntl
import os
import socket
import struct

import ray
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_VARIABLE = "GLOO_SOCKET_IFNAME"

# Linux's request for an interface's address (SIOCGIFADDR), what it takes, and where in the answer the address stands.
_ASK_ADDRESS, _REQUEST, _ADDRESS = 0x8915, "256s", slice(20, 24)
_LONGEST_NAME = 15


class NodeTorchConfig(TorchConfig):  # type: ignore[misc]
    """PyTorch's process group over the nodes' own addresses."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What Ray's controller runs before the workers' own code."""
        return _NodeTorchBackend


class _NodeTorchBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: object, backend_config: BackendConfig) -> None:
        """Have every worker choose its network, then bring them together."""
        worker_group.execute(choose_interface)  # type: ignore[attr-defined]
        super().on_start(worker_group, backend_config)


def choose_interface() -> None:
    """Tell Gloo, in a worker, which interface is the node's; what somebody chose before stays."""
    if _VARIABLE not in os.environ and (name := interface_of(ray.util.get_node_ip_address())) is not None:
        os.environ[_VARIABLE] = name


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address; None where none is found."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, _ASK_ADDRESS, struct.pack(_REQUEST, name.encode()[:_LONGEST_NAME]))
            except OSError:
                continue
            if socket.inet_ntoa(answer[_ADDRESS]) == address:
                return name
    return None
