"""Study files of bad intentions or bad luck: each is refused in one short line with exit status 2, at once."""

import pytest

from gentrain import cli
from gentrain.errors import SHOWN, ConfigError, cut, printable, shown, shown_path
from gentrain.study.documents import MAX_NODES
from gentrain.study.loading import load_study
from gentrain.study.reference import schema_reference

LONGEST = 500
"""Most characters of a message, the file's path left out."""
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def refusal(tmp_path, content, *arguments):
    """Return what `gentrain plan` says of a study file."""
    path = tmp_path / "study.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path, ["plan", str(path), "--runs", str(tmp_path / "runs"), *arguments]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"{BOMB}description: *i", "line 5, column 28: more than 50,000 values, each alias counted with all it means"),
        ("grid: &x [*x]", "line 1, column 11: *x stands for what it lies in"),
        (f"recipe: {{milestones: [{'1,' * MAX_NODES}1]}}", "more than 50,000 values"),
        (f"grid: {'[' * 3000}", "line 1, column 46: nested deeper than 40 levels"),
        (f"seed: {'{a: ' * 100}1{'}' * 100}", "nested deeper than 40 levels"),
        ("seed: 2001-13-01", "line 1, column 7: 2001-13-01 is no date (month must be in 1..12); put it in quotes"),
        ("name: a\nseed: 2001-02-03 25:00:00", "line 2, column 7: 2001-02-03 25:00:00 is no date (hour must"),
        ("description: 2001-12-01", "description: input should be a valid string (got the date 2001-12-01; put it in"),
        ("dataset: {classes: [cat, 010]}", "dataset.classes.1: input should be a valid string (got 10; put it in quot"),
        ("dataset: {classes: !!set {a, b}}", "line 1, column 20: tag !!set; a study file has plain values only"),
        ("name: !!python/object:os.system x", "tag !!python/object:os.system"),
        ("seed: !!int ''", "not valid YAML: a value that its tag does not fit"),
        (f"seed: {'9' * 5000}", "line 1, column 7: a number of 5,000 characters, more than 40"),
        (f"seed: 0x{'f' * 5000}", "a number of 5,002 characters"),
        (f"recipe: {{learning_rate: 0.{'1' * 5000}}}", "a number of 5,002 characters"),
        ("recipe: {learning_rate: 1e99999}", "recipe.learning_rate: input should be a finite number"),
        (f"seed: '{'a' * 5000}'", "aaa...aaa"),
        (f"{'a' * 500}: 1", f"{'a' * 79}…: unknown key"),
        (f"name: {'a' * 5000}", "name: string should have at most 100 characters"),
        (f"name: *{'x' * 3000}", "found undefined alias 'xxx"),
        ('"a\\nb\\e[2J": 1', "a\\nb\\x1b[2J: unknown key"),
        ('seed: "a\\nb\\e[2J"', "(got 'a\\nb\\x1b[2J')"),
        ("1: 2", "keys should be strings"),
        ("network: {name: ../../x:y}", "network '../../x:y': not package.module:function"),
        ("network: {students: '..:y'}", "network '..:y': not package.module:function"),
        ("grid: {network: ['../../x:y']}", "grid: network '../../x:y': not package.module:function"),
        ("network: {name: torchvision/../../x}", "unknown network 'torchvision/../../x'; known: torchvision/alexnet"),
        ("network: {name: antigravity_x:y}", "module antigravity_x can't be imported: No module named"),
        ("network: {name: tests.study.raising:y}", "module tests.study.raising can't be imported: on purpose"),
        ("network: {name: resnet6000002}", "unknown network 'resnet6000002'"),
        (f"network: {{name: resnet{'2' * 5000}}}", "unknown network 'resnet222"),
        ("network: {name: densenet100-k999999999}", "unknown network 'densenet100-k999999999'"),
        ("generations: 1000000000", "generations: input should be less than or equal to 1000 (got 1000000000)"),
        ("recipe: {epochs: 1000000000}", "recipe.epochs: input should be less than or equal to 1000000"),
        ("recipe: {batch_size: 4611686018427387904}", "recipe.batch_size: input should be less than or equal to"),
        ("dataset: {source: imagefolder, image_size: 1000000000}", "dataset.image_size: input should be less than"),
        ("recipe: {padding: 1000000000}", "recipe.padding: input should be less than or equal to 8192"),
        ("process: {k: 99999999999}", "process.k: input should be at most 1,000,000"),
        (
            f"generations: 500\ngrid: {{seed: [{','.join(map(str, range(2000)))}]}}",
            "`grid` has 2,000 chains of 501 generations, 1,002,000 together, more than 100,000; shorten its lists",
        ),
        (
            f"generations: 100\nprocess: {{lambda: [{','.join(['0.5'] * 100)}]}}",
            "has 418 characters, more than the 200 of a file's name; give λ as a schedule",
        ),
        ("seed: 4294967296", "seed: input should be less than 2147483648 (got 4294967296)"),
        ("grid: {seed: [0, 18446744073709551616]}", "grid.seed.1: input should be less than 2147483648"),
        ("pretrained: [{checkpoint: ~no-such-user/x}]", "checkpoint: ~no-such-user/x: no such file"),
        (f"pretrained: [{{checkpoint: {'a' * 5000}}}]", "aaa: no such file"),
        ("pretrained: [{checkpoint: 's4://b/generations/0123456789abcdef'}]", "s4://b/generations/0123456789abcdef: "),
        ("name: a".encode("utf-16"), "not UTF-8 (invalid start byte at byte 0); save it as UTF-8"),
        (b"name: a\n" + b"#" * 3_000_000, "longer than 1,048,576 characters, so it is no study file"),
        ("\ufeffrecipe: {epoch: 2}".encode(), "study.yaml: recipe.epoch: unknown key; did you mean epochs"),
    ],
    ids=lambda value: shown(value)[:40],
)  # fmt: skip
def test_a_hostile_study_file_is_refused_in_one_short_line(tmp_path, capsys, content, expected):
    path, command = refusal(tmp_path, content)
    assert cli.run(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert err.count("\n") == 1
    assert len(err.replace(str(path), "")) < LONGEST


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", f"seed={'9' * 5000}"], "a number of 5,000 characters, more than 40"),
        (["--set", f"seed={'[' * 3000}"], "nested deeper than 40 levels"),
        (["--set", f"a{'.b' * 5000}=1"], "a key of more than 40 parts"),
        (["--runs", "s4://bucket/runs"], "--runs s4://bucket/runs: no folder that can be opened (Unrecognized filesys"),
        (["--runs", "s3://"], "--runs s3://: names no bucket; give s3://BUCKET/FOLDER"),
        (["--runs", "://"], "--runs ://: no folder that can be opened"),
        (["--runs", "~no-such-user/x"], "--runs ~no-such-user/x: no folder's path"),
    ],
    ids=lambda value: shown(value)[:40],
)
def test_a_hostile_option_is_refused_in_one_short_line(tmp_path, capsys, options, expected):
    assert cli.run(refusal(tmp_path, "")[1] + options) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert len(err) < LONGEST


@pytest.mark.parametrize("path", ["~no-such-user/x", "a" * 5000, "a\0b", "s4://bucket/images"], ids=cut)
def test_a_data_folder_that_no_folder_can_have_is_refused_in_one_short_line(tmp_path, capsys, path):
    command = ["prepare", "imagefolder", "--data", path, "--runs", str(tmp_path)]
    assert cli.run(command) == 2
    err = capsys.readouterr().err
    assert f"dataset.path: {shown_path(path)}: no such folder" in err
    assert err.count("\n") == 1
    assert len(err) < LONGEST


def test_many_mistakes_are_listed_to_a_number(tmp_path):
    path, _ = refusal(tmp_path, "\n".join(f"k{i}: 1" for i in range(1000)))
    with pytest.raises(ConfigError) as error:
        load_study(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == f"{path}: and 980 mistakes more"


def test_what_only_looks_hostile_is_read(tmp_path):
    classes = ["no", "on", "5e-1", "010", "2001-13-01", "[/b]", "../../x:y"]
    path, _ = refusal(
        tmp_path, f"\ufeffrecipe: {{learning_rate: 5e-1}}\ndataset: {{source: digits, classes: {classes}}}"
    )
    study = load_study(path)
    assert study.dataset.classes == tuple(classes)
    assert study.recipe.learning_rate == 0.5
    unquoted, _ = refusal(tmp_path, "dataset: {source: digits, classes: [no, on]}\nseed: 010\nprocess: {lambda: 5e-1}")
    study = load_study(unquoted)
    assert (study.dataset.classes, study.seed, study.process.lam) == (("no", "on"), 10, 0.5)
    shared, _ = refusal(tmp_path, "grid:\n  process: [&a {f_a1: 0.7}, *a, {<<: *a, lambda: 0.5}]\n")
    assert len(load_study(shared).grid.process) == 3


@pytest.mark.parametrize(
    "value", [10**5000, "x" * 10**6, list(range(10**5)), {"a": "\x1b[2J\ud800"}, b"x" * 1000], ids=shown
)
def test_a_shown_value_is_short_and_printable(value):
    assert len(shown(value)) <= SHOWN
    assert shown(value).isprintable()


def test_printable_escapes_what_breaks_a_line_and_nothing_else():
    assert printable("é 漢字 [/b] <b> 👩‍🔬") == "é 漢字 [/b] <b> 👩‍🔬"
    assert printable("a\nb\r\x1b[2J\x85\u2028\udcff\0") == "a\\nb\\r\\x1b[2J\\x85\\u2028\\udcff\\x00"


def test_limits_stand_in_the_reference():
    assert "1000" in next(line for line in schema_reference().splitlines() if line.startswith("| `generations`"))


def test_a_path_is_shown_whole_or_with_both_ends():
    path = "/data/" + "x" * 230 + "/end"
    assert shown_path(path) == path
    assert shown_path("b\n/" + "x" * 5000 + "/end") == "b\\n/" + "x" * 76 + "…" + "x" * 155 + "/end"
