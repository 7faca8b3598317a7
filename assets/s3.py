"""S3 configured by the standard AWS variables, AWS_ENDPOINT_URL included: a client, and its errors on one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from assets.exceptions import EvergreenError, SourceError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["UnreachableError", "s3_client", "s3_errors"]


class UnreachableError(SourceError):
    """A source that may be available later: a retry can help."""


def s3_client(attempts: int = 2) -> "S3Client":
    """A client configured by the standard AWS variables that asks at most `attempts` times, waiting longer each time.

    With two it gives up on an endpoint within about 10 s.
    """
    import boto3
    from botocore.config import Config

    patience = Config(connect_timeout=2, read_timeout=30, retries={"mode": "standard", "total_max_attempts": attempts})
    # boto3's default session would stay with the first keys that the process had.
    return boto3.Session().client("s3", config=patience)


@contextmanager
def s3_errors(
    what: str, refused: type[EvergreenError] = SourceError, unreachable: type[EvergreenError] = UnreachableError
) -> Iterator[None]:
    """Turn boto3's errors into one line that names the object and the endpoint.

    `refused` is raised for an answer that is an error, `unreachable` where no whole answer came.
    """
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, IncompleteReadError

    try:
        yield
    except ClientError as error:
        raise refused(f"{what}: {error.response['Error'].get('Message', error)}{_endpoint()}") from None
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise unreachable(f"{what}: no answer{_endpoint()}: {type(error).__name__}") from None
    except BotoCoreError as error:
        raise refused(f"{what}: {str(error).rstrip('.')}{_endpoint()}") from None


def _endpoint() -> str:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f" (S3 endpoint {endpoint})" if endpoint else ""
