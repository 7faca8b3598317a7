"""The S3 server of these tests keeps its word: it asks for a secret, and has what it had before it was killed."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.stack


@pytest.fixture
def restarted(seaweed_server: Any) -> Iterator[Any]:
    """The server, up again however the test ends."""
    yield seaweed_server
    if seaweed_server.process.poll() is not None:
        seaweed_server.start()


def test_a_wrong_secret_is_refused(seaweed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("s3").put_object(Bucket=seaweed.name, Key="mine", Body=b"text")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        boto3.client("s3").get_object(Bucket=seaweed.name, Key="mine")


def test_a_killed_server_has_every_object_that_it_took(seaweed: Any, restarted: Any) -> None:
    for number in range(50):
        boto3.client("s3").put_object(Bucket=seaweed.name, Key=f"{number:02}", Body=bytes([number]) * 1000)
    restarted.kill()
    restarted.start()
    assert seaweed.keys() == [f"{number:02}" for number in range(50)]
    last = boto3.client("s3").get_object(Bucket=seaweed.name, Key="49")["Body"].read()
    assert last == bytes([49]) * 1000
