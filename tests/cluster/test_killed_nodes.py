"""A few runs of the campaign (`campaign.py`), as many as CI can afford; docs/cluster.md has the long one."""

import pytest
from cluster.campaign import Campaign, Plan

RUNS = (
    Plan(number=1, job="ingest", harm="node replaced", share=0.4, victim=0),
    Plan(number=2, job="embed", harm="node and driver", share=0.3, victim=1),
)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_whatever_is_killed_the_lake_ends_as_the_calm_runs(tmp_path):
    campaign = Campaign(tmp_path, patients=12)
    try:
        outcomes = [campaign.run(plan) for plan in RUNS]
    finally:
        campaign.close()

    assert [outcome.problems for outcome in outcomes] == [[], []], outcomes
    assert any(outcome.landed for outcome in outcomes), outcomes
