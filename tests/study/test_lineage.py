import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain.errors import ConfigError
from gentrain.study import lineage
from gentrain.study.lineage import AdaptiveKSpec, GenerationSpec, NetworkSpec, PretrainedSpec, build_chain, build_forest
from gentrain.study.loading import load_study
from gentrain.study.schema import Study
from gentrain.study.sections import RecipeConfig


def chain(*overrides, data="d" * 64, num_classes=100):
    return build_chain(load_study(overrides=overrides), data=data, num_classes=num_classes)


def keys(*overrides, **settings):
    return [spec.key for spec in chain(*overrides, **settings).specs]


def test_a_chain_is_a_path_of_teachers():
    built = chain()
    assert built.name == "D(0.6,0.6)-resnet20-s0"
    assert len(built.specs) == 6
    assert built.specs[0].teacher is None
    for teacher, student in zip(built.specs, built.specs[1:], strict=False):
        assert student.teacher == teacher.key
    assert len(set(keys())) == 6
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys())


@pytest.mark.parametrize(
    "change",
    ["workers=2", "device=cpu", "name=other", "cpus_per_worker=1", "evaluate_every=7", "description=x",
     "dataset.path=/somewhere/else", "pin_workers=true"],
)  # fmt: skip
def test_what_does_not_change_the_result_does_not_change_the_key(change):
    assert keys(change) == keys()


@pytest.mark.parametrize(
    "change",
    ["seed=1", "precision=fp32", "recipe.epochs=3", "recipe.batch_size=64", "network.name=resnet32", "recipe.padding=2",
     "recipe.weight_decay=0", "process.f_a1=0.7", "process.k=4", "sync_batchnorm=true"],
)  # fmt: skip
def test_what_changes_the_result_changes_every_key(change):
    assert not set(keys(change)) & set(keys())


def test_data_changes_every_key():
    assert not set(keys(data="e" * 64)) & set(keys())


def test_patriarchs_are_shared_between_lambdas():
    one, other = keys("process.lambda=0.5"), keys("process.lambda=0.7")
    assert one[0] == other[0]
    assert not set(one[1:]) & set(other[1:])


def test_the_baseline_is_the_born_again_patriarch_whatever_k():
    baseline = keys("process.f_a1=1.0", "process.lambda=0.0", "process.k=3")
    assert len(baseline) == 1
    assert baseline[0] == keys("process.f_a1=1.0", "process.lambda=0.5")[0]


def test_fewer_generations_are_a_prefix():
    assert keys("generations=2") == keys()[:3]


def test_k_above_the_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"process\.k: 5 is more than the dataset's 4 classes"):
        chain(num_classes=4)


@given(st.floats(0.21, 1.0), st.floats(0.01, 1.0))
def test_targets_rise_towards_one(f_a1, lam):
    targets = chain(f"process.f_a1={f_a1!r}", f"process.lambda={lam!r}").targets
    assert targets[0] == pytest.approx(f_a1)
    assert list(targets) == sorted(targets)
    assert targets[-1] <= 1


# The grid

PAPER = (
    "grid.process=[{f_a1: 1.0, lambda: 0.0}, {f_a1: 1.0, lambda: 0.5}, {f_a1: 0.6, lambda: 0.5},"
    " {f_a1: 0.6, lambda: 0.6}, {f_a1: 0.6, lambda: 0.7}]"
)


def forest(*overrides):
    return build_forest(load_study(overrides=overrides), data="d" * 64, num_classes=100)


def test_figure_2_of_one_network_shares_its_patriarchs():
    built = forest(PAPER)
    assert [chain.name for chain in built.chains] == [
        f"D({point})-resnet20-s0" for point in ("1.0,0.0", "1.0,0.5", "0.6,0.5", "0.6,0.6", "0.6,0.7")
    ]
    assert (built.wanted, len(built.specs)) == (25, 22)  # four chains of six and the baseline: three patriarchs saved
    patriarchs = [built.wanted_by[key] for key, spec in built.specs.items() if spec.generation == 0]
    assert sorted(map(len, patriarchs)) == [2, 3]


def test_the_whole_of_figure_2():
    built = forest(PAPER, "grid.network=[resnet20, resnet32, resnet44, resnet56, resnet74, resnet92, resnet110]")
    assert (len(built.chains), built.wanted, len(built.specs)) == (35, 175, 154)


def test_seeds_networks_and_extra_points():
    built = forest(
        "grid.seed=[0, 1]", "grid.points=[{network: resnet32, process: {f_a1: 0.8, lambda: 0.5}}, {seed: 1}]"
    )
    names = [chain.name for chain in built.chains]
    assert names == ["D(0.6,0.6)-resnet20-s0", "D(0.6,0.6)-resnet20-s1", "D(0.8,0.5)-resnet32-s0"]
    assert len(built.specs) == 18


def test_lambda_schedules_share_their_common_beginning():
    built = forest(
        "generations=2", "process.lambda=[0.5, 0.6]", "grid.process=[{lambda: [0.5, 0.6]}, {lambda: [0.5, 0.7]}]"
    )
    assert [chain.name for chain in built.chains] == ["D(0.6,0.5-0.6)-resnet20-s0", "D(0.6,0.5-0.7)-resnet20-s0"]
    assert (built.wanted, len(built.specs)) == (6, 4)
    assert built.chains[0].targets == pytest.approx((0.6, 1 - 0.4 * 0.5, 1 - 0.4 * 0.5 * 0.6))
    constant = forest("generations=2", "process.lambda=0.5").chains[0]
    assert constant.specs[1] == built.chains[0].specs[1]


def test_teachers_come_before_their_students():
    seen = set()
    for key, spec in forest(PAPER).specs.items():
        assert spec.teacher is None or spec.teacher in seen
        seen.add(key)


def test_points_that_make_no_study_are_named():
    with pytest.raises(ConfigError, match=r"grid\.network\.0: unknown network 'resnet21'"):
        forest("grid.network=[resnet21]")
    with pytest.raises(ConfigError, match=r"grid\.points\.1\.network: unknown network 'resnet21'"):
        forest("grid.points=[{seed: 1}, {network: resnet21}]")
    with pytest.raises(ConfigError, match=r"grid\.process\.1: `lambda` has 2 values but `generations` is 5"):
        forest("grid.process=[{lambda: 0.6}, {lambda: [0.5, 0.6]}]")
    with pytest.raises(ConfigError, match=r"grid\.points\.0\.process: `lambda` has 2 values but `generations` is 5"):
        forest("grid.points=[{process: {lambda: [0.5, 0.6]}}]")
    with pytest.raises(ConfigError, match=r"grid: two different points are named D\(0\.6,0\.6\)-resnet20-s0"):
        forest("generations=1", "grid.process=[{lambda: 0.6}, {lambda: [0.6]}]")


def test_the_keys_of_old_studies_stay():
    """A change of these trains every network again: only with METHOD_VERSION."""
    assert keys()[:2] == ["7c388d48fc772043", "f7c8906809bb31a6"]
    assert keys("network.memory_efficient=true") == keys()
    assert keys("process.f_a1=1.0", "process.lambda=0.5")[:2] == ["114ef9cfdbbf6cd2", "8b20ffb9f0a5d707"]
    assert keys("process.k=4")[0] == "8dd58ce067e45afa"
    assert keys("process.lambda=[0.5,0.6,0.7,0.8,0.9]", "process.temperature=2")[2] == "bf98847a0f94331d"
    assert keys("network.students=resnet14", "precision=fp32", "seed=3")[2] == "3b3e5f74125dd1bc"


IMAGES = ("dataset.source=imagefolder", "dataset.storage=jpeg", "recipe.padding=0")
EVERYTHING = (
    "compile=true", "fold_batchnorm=true", "process.teacher=ensemble", "process.k={top_p: 0.8, k_max: 3}",
    "sync_batchnorm=true",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "generation", "key"),
    [
        ((*IMAGES, "recipe.images={}"), 0, "9ab523989e20607b"),
        ((*IMAGES, "recipe.images={scale: [0.2, 1], rotation: 0}"), 1, "8501fc4f6d51dca9"),
        (("compile=true",), 0, "cadf59bf9498f86e"),
        (("precision=tf32",), 0, "7b0ed5c96583cc37"),
        (("sync_batchnorm=true",), 0, "ee0104680d9c484b"),
        (("fold_batchnorm=true",), 1, "f611afd617e054c2"),
        (("process.teacher=ensemble",), 1, "f7c8906809bb31a6"),  # of one member: a plain student
        (("process.teacher=ensemble",), 3, "89ef7f7f7ad27bdc"),
        (("process.k={top_p: 0.95}",), 0, "bfd3e8079c51e455"),
        (("process.k={top_p: 0.9, by: class, k_max: 150}",), 2, "9f685a340808a1bd"),
        (EVERYTHING, 0, "e016c1d2490aebf2"),
        (EVERYTHING, 5, "4a7d4abbc0b8b1f4"),
    ],
)
def test_the_keys_of_every_kind_of_generation_stay(changes, generation, key):
    assert keys(*changes)[generation] == key


def pretrained(sha256="0" * 64):
    return GenerationSpec(
        data="", num_classes=10, network=NetworkSpec(name="resnet20"), recipe=RecipeConfig(), precision="fp32",
        sync_batchnorm=False, seed=0, generation=0, task=PretrainedSpec(sha256=sha256),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("several", "teacher", "name", "key"),
    [
        (1, "previous", "D(given-00000000,0.6)-resnet20-s0", "382d7061a1554f67"),
        (1, "ensemble", "D(given-00000000,0.6,ensemble)-resnet20-s0", "275394ce95ef83a4"),
        (2, "previous", "D(given2-a6ef4ea0,0.6)-resnet20-s0", "8a594fa3fe0dacff"),
        (2, "ensemble", "D(given2-a6ef4ea0,0.6,ensemble)-resnet20-s0", "d3ea08b3daf052bc"),
    ],
)
def test_the_keys_and_names_after_pretrained_networks_stay(several, teacher, name, key):
    networks = (pretrained(), pretrained("1" * 64).model_copy(update={"generation": 1}))[:several]
    entries = ", ".join(["{checkpoint: x}"] * several)
    study = load_study(overrides=[f"pretrained=[{entries}]", f"process.teacher={teacher}", "generations=3"])
    built = build_chain(study, data="d" * 64, num_classes=10, resolve=lambda _: networks)
    assert (built.name, built.keys[0], built.keys[-1]) == (name, "d6c3d313b2f30787", key)
    assert (built.pretrained, [spec.work for spec in built.specs][several - 1]) == (several, "pretrained")


def test_specs_are_stored_under_the_names_they_always_had():
    images = chain(*IMAGES, "recipe.images={}").specs[0]
    adaptive = chain("process.k={top_p: 0.95}").specs[0]
    student = chain("fold_batchnorm=true", "process.teacher=ensemble").specs[2]
    stored = [spec.model_dump(mode="json") for spec in (images, adaptive, student, pretrained())]
    assert stored[0]["recipe"]["pad"] == 0
    assert stored[0]["recipe"]["pictures"]["scale"] == [0.08, 1.0]
    assert stored[1]["task"] == {
        "kind": "patriarch", "eta": None, "k": None,
        "mass": {"f_a1": 0.6, "mass": 0.95, "by": "sample", "most": 20},
    }  # fmt: skip
    assert stored[2]["task"] == {
        "kind": "student", "lam": 0.6, "temperature": 1.0, "teacher": "f611afd617e054c2", "teacher_pass": "folded",
        "members": ["7c388d48fc772043", "f611afd617e054c2"],
    }  # fmt: skip
    assert stored[3]["task"] == {"kind": "given", "sha256": "0" * 64}
    assert list(stored[0]) == [
        "method", "data", "num_classes", "network", "recipe", "precision", "compile", "sync_batchnorm", "seed",
        "generation", "task",
    ]  # fmt: skip
    for spec in (images, adaptive, student, pretrained()):
        assert GenerationSpec.parse(spec.model_dump_json().encode(), key=spec.key) == spec


def test_a_folded_teacher_makes_other_students():
    folded = keys("fold_batchnorm=true")
    assert folded[0] == keys()[0]
    assert not set(folded[1:]) & set(keys())


def test_compilation_and_tf32_make_other_generations():
    compiled, tf32 = keys("compile=true"), keys("precision=tf32")
    assert not set(compiled) & set(keys())
    assert not set(tf32) & {*keys(), *keys("precision=fp32")}
    assert keys("compile=false") == keys()
    assert not set(keys("compile=true", "fold_batchnorm=true")[1:]) & set(compiled)


def test_students_may_have_another_network():
    built = chain("network.students=resnet14", "generations=2")
    assert [spec.network.name for spec in built.specs] == ["resnet20", "resnet14", "resnet14"]
    assert built.name == "D(0.6,0.6)-resnet20-resnet14-s0"
    assert built.keys[0] == keys()[0]
    assert built.keys[1] != keys()[1]
    assert chain("network.name=torchvision/resnet18").name == "D(0.6,0.6)-torchvision-resnet18-s0"


# Beyond the paper


def test_a_schedule_is_the_list_of_its_numbers():
    linear = chain("process.lambda={schedule: linear, from: 0.8, to: 0.4}")
    assert linear.weights == (0.8, 0.7, 0.6, 0.5, 0.4)
    assert linear.keys == chain("process.lambda=[0.8, 0.7, 0.6, 0.5, 0.4]").keys
    assert linear.name == "D(0.6,linear-0.8-0.4)-resnet20-s0"
    assert linear.targets[-1] == pytest.approx(1 - 0.4 * 0.8 * 0.7 * 0.6 * 0.5 * 0.4)
    cosine = chain("process.lambda={schedule: cosine, from: 0.8, to: 0.4}")
    assert cosine.keys[:2] == linear.keys[:2]  # the same first λ
    assert not set(cosine.keys[2:]) & set(linear.keys[2:])


def test_what_goes_beyond_the_paper_stands_in_the_name():
    built = forest(
        "grid.process=[{k: 4}, {k: {top_p: 0.95}}, {k: {top_p: 0.95, by: class}}, {k: {top_p: 0.95, k_max: 10}},"
        " {temperature: 2}, {teacher: ensemble}, {lambda: {schedule: cosine, from: 0.8, to: 0.4}, teacher: ensemble}]"
    )
    names = [chain.name.removesuffix("-resnet20-s0") for chain in built.chains]
    assert names == [
        "D(0.6,0.6,K4)", "D(0.6,0.6,K0.95-sample-20)", "D(0.6,0.6,K0.95-class-20)", "D(0.6,0.6,K0.95-sample-10)",
        "D(0.6,0.6,T2.0)", "D(0.6,0.6,ensemble)", "D(0.6,cosine-0.8-0.4,ensemble)",
    ]  # fmt: skip
    assert len({chain.keys for chain in built.chains}) == 7
    assert built.chains[4].keys[0] == built.chains[5].keys[0]  # temperature and teacher are the students' affair


def test_an_adaptive_k_is_part_of_the_patriarch_and_cut_to_the_classes():
    task = chain("process.k={top_p: 0.9, by: class, k_max: 50}", num_classes=10).specs[0].task
    assert (task.eta, task.k) == (None, None)
    assert task.adaptive == AdaptiveKSpec(f_a1=0.6, top_p=0.9, by="class", k_max=10)
    assert keys("process.k={top_p: 0.9}") == keys("process.k={top_p: 0.9, k_max: 20}")
    plain = keys("process.f_a1=1.0", "process.k={top_p: 0.9}")
    assert plain == keys("process.f_a1=1.0")  # cross-entropy has no secondary classes


def test_an_ensemble_that_teaches_is_named_by_all_its_members():
    built, plain = chain("process.teacher=ensemble", "generations=3"), keys("generations=3")
    assert list(built.keys[:2]) == plain[:2]  # the first student's teacher is the patriarch either way
    assert not set(built.keys[2:]) & set(plain)
    for generation, spec in enumerate(built.specs[2:], start=2):
        assert spec.task.teachers == built.keys[:generation]
        assert spec.teacher == built.keys[generation - 1]
    e = [0.4, 0.24]
    e.append(0.6 * (e[0] + e[1]) / 2)
    e.append(0.6 * sum(e) / 3)
    assert built.targets == pytest.approx([1 - energy for energy in e])


# Specs and their keys


def test_a_key_is_cached_and_never_another_specs():
    spec = chain().specs[1]
    key = spec.key
    assert spec.__dict__["key"] is spec.key
    assert spec == chain().specs[1]  # whose key has not been asked for
    assert "key" not in spec.model_dump()
    assert pickle.loads(pickle.dumps(spec)).key == key
    assert spec.model_copy().key == key
    other = spec.model_copy(update={"seed": 7})
    assert other.key == GenerationSpec.model_validate(other.model_dump()).key != key


def test_a_spec_is_parsed_only_where_it_is_whole_and_the_keys_own():
    spec, other = chain().specs[:2]
    content = spec.model_dump_json().encode()
    assert GenerationSpec.parse(content, key=spec.key) == spec
    assert GenerationSpec.parse(content, key=other.key) is None
    assert GenerationSpec.parse(None, key=spec.key) is None
    for damaged in (b"", content[:-1], b"{}", b"\xff", content.replace(b'"seed":0', b'"seed":1')):
        assert GenerationSpec.parse(damaged, key=spec.key) is None


def test_a_chain_carries_the_study_of_its_own_point():
    for point, built in zip(load_study(overrides=[PAPER]).points(), forest(PAPER).chains, strict=True):
        assert built.settings == point
        assert built.settings.grid.empty
        assert build_chain(built.settings, data="d" * 64, num_classes=100) == built


def test_a_large_grid_costs_each_point_and_each_spec_once(monkeypatch):
    """Work is counted, since time depends on the machine: 60 chains of 6 share 20 patriarchs."""
    processes = ", ".join(f"{{f_a1: {0.5 + i / 50}, lambda: {lam}}}" for i in range(20) for lam in (0.4, 0.5, 0.6))
    study = load_study(overrides=[f"grid.process=[{processes}]"])
    hashed, validated = Counter(), []
    stored_form = lineage.stored_form
    monkeypatch.setattr(lineage, "stored_form", lambda spec, **how: hashed.update([spec]) or stored_form(spec, **how))
    monkeypatch.setattr(Study, "model_validate", lambda *_, **__: validated.append(1))
    built = build_forest(study, data="d" * 64, num_classes=100)
    assert (len(built.chains), built.wanted, len(built.specs)) == (60, 360, 320)
    assert [built.wanted_by[key] for chain in built.chains for key in chain.keys]
    assert set(hashed.values()) == {1}
    assert len(hashed) == 320
    assert validated == []
    assert len({id(spec) for chain in built.chains for spec in chain.specs}) == 320  # equal specs are one object
