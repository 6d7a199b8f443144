"""Which interface a worker tells Gloo to use."""

import os
import socket

import pytest

from trainers import node_addresses
from trainers.node_addresses import choose_interface, interface_of


def test_the_loopback_is_found_by_its_address_and_a_strangers_address_is_not():
    assert interface_of("127.0.0.1") in {name for _, name in socket.if_nameindex()}
    assert interface_of("203.0.113.7") is None


@pytest.mark.parametrize(("before", "after"), [(None, interface_of("127.0.0.1")), ("eth7", "eth7")])
def test_a_worker_takes_the_nodes_interface_unless_somebody_chose_one(monkeypatch, before, after):
    monkeypatch.setattr(node_addresses.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", before or "")
    if before is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")

    choose_interface()

    assert os.environ["GLOO_SOCKET_IFNAME"] == after
