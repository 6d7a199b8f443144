"""Settings: default < file < environment < flag, and no misspelling passes for a default."""

from dataclasses import dataclass

import pytest

from lesionary.errors import UsageError
from lesionary.settings import IngestSettings, given_settings, resolve


@dataclass(frozen=True)
class Curve:
    milestones: tuple[float, ...] = ()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "lesionary.toml"
    path.write_text("[ingest]\nworkers = 3\nshard_mb = 64\n")
    return path


def test_later_sources_overrule_earlier_ones(config):
    environment = {"LESIONARY_INGEST_SHARD_MB": "32", "LESIONARY_INGEST_COMMIT_SECONDS": "5"}

    found = resolve(
        IngestSettings,
        "ingest",
        flags={"commit_seconds": 9, "workers": None},
        environment=environment,
        config_file=config,
    )

    assert found.value == IngestSettings(workers=3, shard_mb=32, commit_seconds=9)
    assert found.origins["workers"] == "file"
    assert found.origins["shard_mb"] == "environment"
    assert found.origins["commit_seconds"] == "flag"
    assert found.origins["namespace"] == "default"
    assert found.record()["shard_mb"] == {"value": 32, "from": "environment"}


def test_defaults_hold_without_any_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert resolve(IngestSettings, "ingest", flags={}, environment={}).value == IngestSettings()


def test_file_in_the_current_folder_is_found(config, monkeypatch):
    monkeypatch.chdir(config.parent)

    assert resolve(IngestSettings, "ingest", flags={}, environment={}).value.workers == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[ingest]\nworker = 3\n", "there is no setting worker"),
        ("[ingest]\nworkers = 'three'\n", "a value of type int is needed, found str"),
        ("[ingest]\nworkers = true\n", "a value of type int is needed, found bool"),
        ("[ingest]\nworkers = 99999\n", "workers must lie between 0 and 65536, found 99999$"),
        (
            f"[ingest]\nworkers = 0x{'f' * 5000}\n",
            r"workers in \[ingest\]: the number is beyond any that can be computed",
        ),
        ("ingest = 3\n", "must be a table"),
        ("[ingest\n", "cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, sentence):
    path = tmp_path / "settings.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=sentence):
        resolve(IngestSettings, "ingest", flags={}, environment={}, config_file=path)


def test_values_in_a_list_are_checked_one_by_one(tmp_path):
    path = tmp_path / "settings.toml"

    def milestones(text):
        path.write_text(f"[fit]\nmilestones = {text}\n")
        return given_settings(Curve, "fit", flags={}, environment={}, config_file=path)[0]["milestones"]

    assert milestones("[0.5, 1]") == (0.5, 1.0)
    for text, found in (('[0.5, "a"]', "str"), ("[[0.5]]", "list"), ("[true]", "bool")):
        with pytest.raises(UsageError, match=rf"milestones in \[fit\]: a value of type float is needed, found {found}"):
            milestones(text)


def test_missing_file_is_an_error_when_it_was_asked_for(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        resolve(IngestSettings, "ingest", flags={}, environment={}, config_file=tmp_path / "none.toml")


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("off", False), ("YES", True), ("no", False)])
def test_switches_in_the_environment_take_the_usual_words(text, expected):
    found = resolve(IngestSettings, "ingest", flags={}, environment={"LESIONARY_INGEST_ANNOTATIONS_ONLY": text})

    assert found.value.annotations_only is expected


@pytest.mark.parametrize("name", ["WORKERS", "ANNOTATIONS_ONLY"])
def test_nonsense_in_the_environment_is_named(name):
    with pytest.raises(UsageError, match=f"LESIONARY_INGEST_{name}"):
        resolve(IngestSettings, "ingest", flags={}, environment={f"LESIONARY_INGEST_{name}": "perhaps"})


@pytest.mark.parametrize("flags", [{"workers": -1}, {"shard_mb": 0}, {"commit_seconds": 0}, {"namespace": "Dr. No"}])
def test_values_out_of_range_are_refused(flags):
    with pytest.raises(UsageError):
        resolve(IngestSettings, "ingest", flags=flags, environment={})
