"""A server and a proxy for the whole session, and what both ends of a comparison are made of."""

import pytest
from object_store.fault_proxy import FaultPlan, fault_proxy
from object_store.s3_server import client_environment, s3_server, server_binary
from object_store.workloads import Store


@pytest.fixture(scope="session")
def running_store(tmp_path_factory):
    """The server behind the proxy."""
    if server_binary() is None:
        pytest.skip("no S3 server: install the extra `dev`")
    with (
        s3_server(tmp_path_factory.mktemp("s3") / "server") as server,
        fault_proxy(server.endpoint, FaultPlan(0, 0.0)) as proxy,
    ):
        yield Store(server, proxy)


@pytest.fixture
def store(running_store, monkeypatch):
    """The server behind the proxy, which spoils nothing yet; this process is its client."""
    for name, value in client_environment(running_store.proxy.endpoint, running_store.server.credentials).items():
        monkeypatch.setenv(name, value)
    # Tests have no time for a minute of patience where failing is what they want to see.
    monkeypatch.setenv("LESIONARY_OBJECT_STORE_ATTEMPTS", "8")
    running_store.proxy.use(FaultPlan(0, 0.0))
    return running_store
