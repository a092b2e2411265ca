"""Conditional writes on S3, served on loopback: claims, DONE, results; one place decides how the bucket is reached."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest
from moto.s3.responses import S3Response

from gentrain.errors import ConfigError, DependencyError, StoreError, TakenOverError
from gentrain.events import GenerationWaiting
from gentrain.running.chain import ensure_generation, lease_by_claim
from gentrain.store import claims
from gentrain.store.conditional import compare_and_swap
from gentrain.store.done import DONE, EPOCHS, MODEL, PREDICTIONS, SPEC, Done, FileDigest, describe
from gentrain.store.folder import decode_table, digest
from gentrain.store.generation import encode_spec, restore_spec
from gentrain.store.record import RECORD
from gentrain.store.run import RunStore
from gentrain.store.s3 import S3Settings
from gentrain.store.study_record import RESULTS_TABLE, StudyRecord
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from tests.s3 import s3_server
from tests.store.test_store import FACTS

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as bucket:
        yield bucket


@pytest.fixture
def store(bucket, request):
    return RunStore(bucket(f"conditional-{digest(request.node.name.encode())[:16]}"))


@pytest.fixture
def impatient(monkeypatch):
    """Claims lapse after a moment, and those who wait ask often."""
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.3)
    monkeypatch.setattr("gentrain.store.claims.POLL_SECONDS", 0.05)


def take(folder, holder="someone"):
    claim = folder.claimant(holder).attempt(pytest.fail)
    assert claim is not None
    return claim


def take_over(folder, holder):
    claimant = folder.claimant(holder)
    while (claim := claimant.attempt(lambda _: None)) is None:
        threading.Event().wait(0.05)
    return claim


def test_of_many_who_claim_at_once_one_gets_the_claim(store):
    with ThreadPoolExecutor(8) as pool:
        claimants = [store.generation(KEY).claimant(str(number)) for number in range(8)]
        got = list(pool.map(lambda claimant: claimant.attempt(lambda _: None), claimants))
    assert sum(claim is not None for claim in got) == 1
    assert store.generation(KEY).record.read().term == 1


def test_a_holder_that_slept_through_its_claim_is_refused_and_overwrites_nothing(store, impatient):
    asleep, folder = store.generation(KEY), store.generation(KEY)
    first = take(asleep)
    asleep.check_claim(first.token)
    second = take_over(folder, "the second")
    assert folder.record.read().term == 2
    folder.finish({MODEL: b"of the second"}, token=second.token, **FACTS)
    with pytest.raises(TakenOverError, match="the second has taken this generation over; this one stops"):
        asleep.check_claim(first.token)
    asleep.record.check = lambda _: None  # its last look was before it fell asleep
    with pytest.raises(TakenOverError):
        asleep.finish({MODEL: b"of the first"}, token=first.token, **FACTS)
    assert folder.inspect().valid
    assert folder.read_verified(MODEL) == b"of the second"


def test_a_claim_that_is_renewed_is_not_taken_over_and_one_given_back_is_free(store, impatient, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.05)
    folder, reasons = store.generation(KEY), []
    with folder.claimed("figure2, process 7 on a", waiting=pytest.fail) as claim:
        other = store.generation(KEY).claimant("other")
        for _ in range(12):
            assert other.attempt(reasons.append) is None
            threading.Event().wait(0.05)
        folder.check_claim(claim.token)
        assert folder.at_work()
    assert other.attempt(reasons.append) is not None
    (reason,) = reasons
    assert reason.startswith("figure2, process 7 on a since 20")
    assert "claim 1" in reason


def test_two_processes_share_the_work_and_say_for_whom_they_wait(store, monkeypatch):
    monkeypatch.setattr("gentrain.store.claims.POLL_SECONDS", 0.05)
    study = load_study(overrides=["generations=1"])
    specs = build_chain(study, data="d", num_classes=10).specs
    trained, waited = [], []

    class Runner:
        def __init__(self, name):
            self.name, self.lease = name, lease_by_claim(store, study=name)

        def run_generation(self, spec, *, claim, weights_done=False):
            trained.append(spec.key)
            threading.Event().wait(0.5)
            files = {MODEL: b"", PREDICTIONS: b"", EPOCHS: b"", SPEC: encode_spec(spec)}
            store.generation(spec.key).finish(files, token=claim.token, **FACTS)

    def run(name):
        observe = lambda event: waited.append((name, event)) if isinstance(event, GenerationWaiting) else None  # noqa: E731
        for spec in specs:
            ensure_generation(spec, store=store, runner=Runner(name), observe=observe)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ("one", "two")))
    assert trained == [spec.key for spec in specs]
    assert waited
    for name, event in waited:
        assert event.holder.startswith(f"{'two' if name == 'one' else 'one'}, process ")


@pytest.mark.parametrize("after", [True, False], ids=["done", "not done"])
def test_a_write_that_is_not_answered_is_recognised(store, monkeypatch, after):
    """The server does it, or doesn't, and answers 500; the client sends it again by itself."""
    put, failures = S3Response.put_object, [500]

    def fail_once(response):
        answer = put(response) if after or not failures else None
        return (failures.pop(), {}, "") if failures else answer

    monkeypatch.setattr(S3Response, "put_object", fail_once)
    folder = store.generation(KEY)
    claim = take(folder)
    assert not failures
    failures.append(503)
    folder.finish({MODEL: b"weights"}, token=claim.token, **FACTS)
    failures.append(500)
    folder.record.write_done(folder.done(), token=claim.token)
    folder.claimant("").release(claim)
    assert folder.inspect().valid
    assert folder.record.read().term == 1
    assert folder.record.read().claim is None


def test_processes_that_add_rows_at_once_lose_none_on_s3(store):
    study = load_study(overrides=["name=rows"])
    one = {"key": "k", "network": "n", "seed": 0}

    def add(number):
        record = StudyRecord(study, store=RunStore(store.uri))
        for generation in range(5):
            record.add([{"chain": f"c{number}", "generation": generation, **one}])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert len(decode_table(store.study("rows").read(RESULTS_TABLE))) == 20


def test_a_generation_of_the_version_before_is_read_mended_and_rebuilt(store):
    """It has DONE.json, and files without checksums in their names."""
    spec = build_chain(load_study(), data="d", num_classes=10).specs[0]
    folder = store.generation(spec.key)
    files = {MODEL: b"weights", PREDICTIONS: b"p", SPEC: encode_spec(spec)}
    digests = {name: FileDigest(**describe(content)) for name, content in files.items()}
    for name, content in files.items():
        folder.write(name, content)
    folder.write_json(DONE, Done.sealed(key=spec.key, files=digests, **FACTS).model_dump())
    assert folder.inspect().valid
    assert folder.spec() == spec
    assert not restore_spec(folder, spec)
    folder.write(SPEC, b"{}")
    assert folder.inspect().damaged == (SPEC,)
    assert restore_spec(folder, spec)
    assert folder.inspect().valid
    assert folder.spec() == spec
    folder.write(MODEL, b"wrong")
    assert folder.inspect().damaged == (MODEL,)
    claim = take(folder)
    assert folder.inspect().done is not None, "what was finished is read until it is replaced"
    folder.finish(files, token=claim.token, **FACTS)
    assert folder.inspect().valid
    assert folder.read_verified(MODEL) == b"weights"


def test_a_damaged_record_is_damage_and_the_next_claim_mends_it(store):
    folder = store.generation(KEY)
    claim = take(folder)
    folder.finish({MODEL: b"weights"}, token=claim.token, **FACTS)
    content = json.loads(folder.read(RECORD))
    content["done"]["scores"]["top1_error"] = 0.0123
    for damaged in (json.dumps(content).encode(), b"", b"{}", b"[" * 10_000):
        folder.write(RECORD, damaged)
        assert folder.inspect().damaged == (RECORD,)
        assert folder.done() is None
    with pytest.raises(TakenOverError):
        folder.check_claim(claim.token)
    claim = take(folder)
    folder.finish({MODEL: b"weights"}, token=claim.token, **FACTS)
    assert folder.inspect().valid


def test_a_store_that_ignores_conditions_is_refused_in_one_line(store, monkeypatch):
    store.check_writable()
    assert store.root.names() == []
    put = S3Response.put_object

    def ignore(response):
        response.headers = {name: value for name, value in response.headers.items() if not name.startswith("If-")}
        return put(response)

    monkeypatch.setattr(S3Response, "put_object", ignore)
    with pytest.raises(
        StoreError, match=r"^s3://conditional-[0-9a-f]+/runs: this store does writes whose condition"
    ) as error:
        store.check_writable()
    assert "\n" not in str(error.value)


def test_a_server_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr("gentrain.store.s3.RETRIES", {"max_retries": 0})
    monkeypatch.setattr("gentrain.store.conditional.PAUSES", ())
    objects = S3Settings("b", "http://127.0.0.1:9", "r", "key", "secret").objects()
    for act in (lambda: objects.read("b/x"), lambda: objects.write("b/x", b"", None)):
        with pytest.raises(StoreError, match=r"^b/x: can't be (read|written): ") as error:
            act()
        assert "\n" not in str(error.value)


def test_what_change_raises_ends_the_swap_and_none_leaves_the_object(store):
    objects, path = store.root.objects, f"{store.root}/x"
    assert compare_and_swap(objects, path, lambda _: None) is None
    assert compare_and_swap(objects, path, lambda _: b"1").content == b"1"
    with pytest.raises(ZeroDivisionError):
        compare_and_swap(objects, path, lambda _: 1 // 0)
    assert compare_and_swap(objects, path, lambda _: None).content == b"1"


def test_the_url_comes_before_the_environment(bucket):
    environment = {"AWS_ENDPOINT_URL": "http://one:1", "AWS_REGION": "region-1", "AWS_ACCESS_KEY_ID": "k",
                   "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "HOME": "/nowhere"}  # fmt: skip
    assert S3Settings.resolve("s3://b/runs", environment) == S3Settings("b", "http://one:1", "region-1", "k", "s", "t")
    url = "s3://K:S%2Fx@b/runs?endpoint_override=two:2&scheme=http&region=region-2"
    assert S3Settings.resolve(url, environment) == S3Settings("b", "http://two:2", "region-2", "K", "S/x")
    for_arrow = S3Settings.resolve(url, environment).uri(url)
    assert S3Settings.resolve(for_arrow, {"HOME": "/nowhere"}) == S3Settings.resolve(url, environment)
    assert urlsplit(for_arrow).netloc == "K:S%2Fx@b"
    environment["AWS_ENDPOINT_URL_S3"] = "https://three"
    assert S3Settings.resolve("s3://b/runs", environment).endpoint == "https://three"


def test_both_clients_reach_a_server_that_only_the_environment_and_a_profile_name(bucket, tmp_path, monkeypatch):
    (endpoint,) = parse_qs(urlsplit(bucket("by-environment")).query)["endpoint_override"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = key-of-the-lab\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    keys, get, put = set(), S3Response.get_object, S3Response.put_object

    def noting(what, method):
        def note(response):
            keys.add((what, response.headers["Authorization"].split("Credential=")[1].split("/")[0]))
            return method(response)

        return note

    monkeypatch.setattr(S3Response, "get_object", noting("get", get))
    monkeypatch.setattr(S3Response, "put_object", noting("put", put))
    store = RunStore("s3://by-environment/runs")
    store.check_writable()
    store.root.write("a", b"1")
    assert store.root.read("a") == b"1"
    assert keys == {("get", "key-of-the-lab"), ("put", "key-of-the-lab")}
    folder = store.generation(KEY)
    folder.finish({MODEL: b"weights"}, token=take(folder).token, **FACTS)
    assert folder.read_verified(MODEL) == b"weights"
    assert folder.names() == [f"model.{digest(b'weights')[:16]}.safetensors", RECORD]


def test_neither_client_goes_through_a_proxy_of_the_environment(store, monkeypatch):
    """PyArrow knows none, so obstore must not."""
    monkeypatch.setattr("gentrain.store.s3.RETRIES", {"max_retries": 0})
    monkeypatch.setattr("gentrain.store.conditional.PAUSES", ())
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    RunStore(store.uri).check_writable()


def test_certificates_of_the_url_are_those_of_both_clients(tmp_path):
    settings = S3Settings.resolve("s3://K:S@b/runs?region=r&tls_ca_file_path=/missing/ca.pem", {})
    with pytest.raises(ConfigError, match=r"tls_ca_file_path=/missing/ca\.pem: No such file"):
        settings.objects()
    (tmp_path / "ca.pem").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^--runs s3://b: can't be opened: No certificates found"):
        S3Settings.resolve(f"s3://K:S@b/runs?region=r&tls_ca_file_path={tmp_path}/ca.pem", {}).objects()


def test_a_profile_whose_credentials_come_from_elsewhere_needs_boto3(tmp_path, monkeypatch):
    (tmp_path / "config").write_text("[profile lab]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n")
    environment = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "lab", "HOME": str(tmp_path)}
    settings = S3Settings.resolve("s3://b/runs?region=r", environment)
    assert settings == S3Settings("b", None, "r", profile="lab")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(DependencyError, match=r"pip install 'gentrain\[aws\]'"):
        settings.objects()
