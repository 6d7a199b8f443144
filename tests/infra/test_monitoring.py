"""Alerts ask for metrics that Ray was seen to show, and Prometheus looks where Ray writes."""

import re

import pytest
import yaml
from infra_files import INFRA, ROOT

MONITORING = INFRA / "monitoring"
SEEN = {line for line in (MONITORING / "metrics.txt").read_text().splitlines() if line and not line.startswith("#")}
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"][0]["rules"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_asks_for_metrics_that_were_seen(rule):
    asked = set(re.findall(r"\b(?:ray|autoscaler)_[a-z_]+\b(?=[{\[) ]|$)", rule["expr"])) - {"ray_io_cluster"}

    assert asked
    assert asked <= SEEN, asked - SEEN
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")


def test_page_names_operators_as_our_jobs_do():
    page = (MONITORING / "README.md").read_text()

    # Their names are those of the functions that Ray is handed; importing them would load Ray Data for a word.
    assert "def _run_pickled(" in (ROOT / "etl" / "ingest_job.py").read_text()
    assert "class _Actor:" in (ROOT / "etl" / "inference_job.py").read_text()
    assert "Map(_run_pickled)_1" in page
    assert "MapBatches(_Actor)_1" in page


def test_prometheus_reads_the_list_that_ray_writes():
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    [job] = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())["scrape_configs"]

    [files] = [service["files"] for service in job["file_sd_configs"]]
    assert files == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]


def test_monitor_asks_for_ports_that_heads_have():
    monitor = yaml.safe_load((MONITORING / "monitors.yaml").read_text())
    cluster = (INFRA / "kuberay" / "cluster.yaml").read_text()

    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert f"name: {endpoint['port']}}}" in cluster
