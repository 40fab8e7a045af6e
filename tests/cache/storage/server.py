"""An S3 server on the loopback interface, for tests."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BUCKET = "bucket"
_numbers = itertools.count()


@contextmanager
def running_server() -> Iterator[str]:
    """Run a server with an empty bucket, and yield its endpoint."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    names = {
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "region_name": "us-east-1",
    }
    boto3.client("s3", endpoint_url=endpoint, **names).create_bucket(Bucket=BUCKET)
    try:
        yield endpoint
    finally:
        server.stop()


def new_address() -> str:
    """Return an unused address."""
    return f"s3://{BUCKET}/caches/{next(_numbers)}"
