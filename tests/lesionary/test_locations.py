"""Places are named without secrets."""

import pytest

from lesionary.errors import UsageError
from lesionary.locations import open_location


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:sEcReT@bucket/lake",
        "s3://AKIAKEY@bucket/lake",
        "S3://AKIAKEY:sEcReT@bucket/lake",
        "abfs://:sEcReT@account.blob.example/lake",
        "abfss://container:sEcReT@account.dfs.example/lake",
        "hdfs://person:sEcReT@host:8020/lake",
        "gs://person:sEcReT@bucket/lake",
    ],
)
def test_url_with_credentials_is_refused_and_not_repeated(url):
    with pytest.raises(UsageError, match="the URL carries credentials") as refused:
        open_location(url)

    assert "sEcReT" not in str(refused.value)
    assert "AKIAKEY" not in str(refused.value)
