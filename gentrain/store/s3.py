"""S3: one place that decides endpoint, region and credentials for both clients, PyArrow's and obstore's.

PyArrow reads and writes whole objects and lists folders; obstore alone has conditional writes. Importing obstore takes
some 10 ms, so a store on a disk doesn't.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import pyarrow.fs as pafs

from gentrain.errors import ConfigError, DependencyError, StoreError, first_line
from gentrain.store.conditional import UnansweredError, Versioned

SCHEME = "s3"
RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
ELSEWHERE = ("role_arn", "credential_process", "sso_session", "sso_start_url", "web_identity_token_file")
"""Settings of a profile whose credentials are asked for elsewhere."""


@dataclass(frozen=True)
class S3Settings:
    """Where a bucket is and who asks for it, decided by the URI, then the environment, then AWS's files.

    Credentials that are None are left to both clients, which ask a web identity, the container or the machine for them
    in the same order.
    """

    bucket: str
    endpoint: str | None
    """With its scheme; None: AWS."""
    region: str
    key: str | None = None
    secret: str | None = None
    token: str | None = None
    profile: str | None = None
    """Profile whose credentials come from elsewhere: a role, a command, single sign-on."""
    certificates: str | None = None
    """File of certificates that the endpoint's must be signed by."""

    @classmethod
    def resolve(cls, uri: str, environment: Mapping[str, str] | None = None) -> S3Settings:
        """Return the settings of a URI.

        Raises:
            StoreError: when no region is named and the bucket's can't be asked for.
        """
        environment = os.environ if environment is None else environment
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        bucket = unquote(parts.netloc.rpartition("@")[2])
        endpoint = options.get("endpoint_override")
        endpoint = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        if endpoint and "://" not in endpoint:
            endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
        named = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        region = options.get("region") or (named or "us-east-1" if endpoint or not bucket else _region_of(bucket))
        if parts.username and parts.password:
            credentials: dict[str, str | None] = {"key": unquote(parts.username), "secret": unquote(parts.password)}
        else:
            credentials = _credentials(environment)
        return cls(bucket, endpoint or None, region, **credentials, certificates=options.get("tls_ca_file_path"))

    def uri(self, uri: str) -> str:
        """Return the URI with these settings written into it, for PyArrow."""
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query)) | {"region": self.region}
        if self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            options |= {"scheme": scheme, "endpoint_override": host}
        return urlunsplit(parts._replace(query=urlencode(options, quote_via=quote)))

    def filesystem(self, uri: str) -> tuple[pafs.FileSystem, str]:
        """Return PyArrow's filesystem and the path in it."""
        filesystem, path = pafs.FileSystem.from_uri(self.uri(uri))
        return filesystem, path

    def objects(self) -> S3Objects:
        """Return the bucket's objects, for conditional writes."""
        return S3Objects(self)


class S3Objects:
    """A bucket through obstore; implements `ConditionalObjects` by `If-None-Match: *` and `If-Match: <etag>`.

    A request that isn't answered is sent again by obstore, so a write can be refused because it was done the first
    time: `compare_and_swap` reads what is there.
    """

    def __init__(self, settings: S3Settings) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        self._bucket = settings.bucket
        options: dict[str, Any] = {"region": settings.region, "conditional_put": "etag"}
        if settings.endpoint:
            options |= {"endpoint": settings.endpoint, "aws_endpoint_url_s3": settings.endpoint}
        if settings.key:
            options |= {"access_key_id": settings.key, "secret_access_key": settings.secret}
            options |= {"session_token": settings.token} if settings.token else {}
        elif settings.profile:
            options["credential_provider"] = _provider(settings.profile)
        client = _client_options(settings)
        try:
            self._store = S3Store(settings.bucket, **options, client_options=client, retry_config=RETRIES)
        except (BaseError, ValueError) as error:
            raise ConfigError(f"--runs s3://{settings.bucket}: can't be opened: {first_line(error)}") from error

    def read(self, path: str) -> Versioned | None:
        """See `ConditionalObjects.read`."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            result = obstore.get(self._store, self._name(path))
            return Versioned(bytes(result.bytes()), _tag(result.meta["e_tag"], path))
        except FileNotFoundError:
            return None
        except (BaseError, OSError, ValueError) as error:
            raise StoreError(f"{path}: can't be read: {first_line(error)}") from error

    def write(self, path: str, content: bytes, etag: str | None) -> Versioned | None:
        """See `ConditionalObjects.write`."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        mode: Any = "create" if etag is None else {"e_tag": etag}
        try:
            result = obstore.put(self._store, self._name(path), content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):  # not found: deleted meanwhile
            return None
        except (BaseError, OSError, ValueError) as error:
            raise UnansweredError(f"{path}: can't be written: {first_line(error)}") from error
        return Versioned(content, _tag(result["e_tag"], path))

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._bucket}/")


def _client_options(settings: S3Settings) -> Any:
    """Return how obstore connects: as PyArrow does, which uses no proxy of the environment."""
    endpoint = urlsplit(settings.endpoint or "https://amazonaws.com")
    options: dict[str, Any] = {"allow_http": endpoint.scheme == "http"}
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES):
        direct = (endpoint.hostname, "169.254.0.0/16", "127.0.0.0/8")  # and who gives containers their credentials
        options |= {"proxy_url": "http://proxy.invalid", "proxy_excludes": ",".join(map(str, direct))}
    if settings.certificates:
        try:
            options["root_certificate"] = Path(settings.certificates).read_bytes()
        except OSError as error:
            raise ConfigError(f"--runs: tls_ca_file_path={settings.certificates}: {error.strerror}") from error
    return options


@lru_cache
def _region_of(bucket: str) -> str:
    try:
        return str(pafs.resolve_s3_region(bucket))
    except OSError as error:
        raise StoreError(
            f"s3://{bucket}: its region can't be asked for ({first_line(error)}); does the bucket exist? "
            f"Name it in the URL: s3://{bucket}/runs?region=REGION"
        ) from error


def _credentials(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the credentials of the environment, else those of AWS's files, else none."""
    if environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"):
        names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
        return {name: environment.get(variable) for name, variable in names.items()}
    profile = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"
    home = Path(environment.get("HOME") or "/")
    files = {
        environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials": profile,
        environment.get("AWS_CONFIG_FILE") or home / ".aws" / "config": (
            profile if profile == "default" else f"profile {profile}"
        ),
    }
    elsewhere = False
    for file, section in files.items():
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(file)
        except (configparser.Error, UnicodeDecodeError):
            continue
        values = parser[section] if parser.has_section(section) else {}
        if values.get("aws_access_key_id") and values.get("aws_secret_access_key"):
            names = {"key": "aws_access_key_id", "secret": "aws_secret_access_key", "token": "aws_session_token"}
            return {name: values.get(option) for name, option in names.items()}
        elsewhere |= any(values.get(option) for option in ELSEWHERE)
    return {"profile": profile} if elsewhere else {}


def _provider(profile: str) -> Any:
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"AWS profile {profile}: its credentials come from a role, a command or single sign-on, for which boto3 is "
            "needed: pip install 'gentrain[aws]'"
        ) from error
    return Boto3CredentialProvider(boto3.session.Session(profile_name=profile))


def _tag(etag: str | None, path: str) -> str:
    if etag is None:
        raise StoreError(f"{path}: the store gives its objects no ETag; two writers could not be kept apart there")
    return etag
