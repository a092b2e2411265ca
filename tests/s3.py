"""An S3 server on loopback (moto), for stores that are no disk."""

import contextlib
import logging
import threading

import boto3
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@contextlib.contextmanager
def s3_server(monkeypatch):
    """Run a server for the block; yield a function from a bucket's name to the URL of a run folder in it.

    moto looks at If-Match and If-None-Match before it writes; that both are one step, as in S3, needs a lock.
    """
    lock, put = threading.Lock(), S3Response.put_object

    def put_in_one_step(response):
        with lock:
            return put(response)

    monkeypatch.setattr(S3Response, "put_object", put_in_one_step)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")

    def bucket(name):
        client.create_bucket(Bucket=name)
        return f"s3://{name}/runs?scheme=http&endpoint_override={host}:{port}&region=us-east-1"

    try:
        yield bucket
    finally:
        server.stop()
