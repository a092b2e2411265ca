"""The keys of generations: what changes them, what doesn't, and that they stay what they were."""

import pickle

import pytest

from gentrain.study.lineage import GenerationSpec, NetworkSpec, build_chain
from gentrain.study.loading import load_study
from gentrain.study.sections import RecipeConfig
from gentrain.study.tasks import PretrainedSpec


def chain(*overrides, data="d" * 64, num_classes=100):
    return build_chain(load_study(overrides=overrides), data=data, num_classes=num_classes)


def keys(*overrides, **settings):
    return [spec.key for spec in chain(*overrides, **settings).specs]


@pytest.mark.parametrize(
    "change",
    ["workers=2", "device=cpu", "name=other", "cpus_per_worker=1", "evaluate_every=7", "description=x",
     "dataset.path=/somewhere/else", "pin_workers=true", "pin_workers=false", "compile=auto", "compile=false"],
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
        (("recipe.on_divergence=stop", "recipe.clip_gradients=null"), 1, "f7c8906809bb31a6"),  # the defaults
        (("recipe.on_divergence=rollback",), 0, "65d4574e62437f27"),
        (("recipe.clip_gradients=1",), 0, "7616be25999408e7"),
        (("process.k={top_p: 0.9, by: class, k_max: 150}",), 2, "9f685a340808a1bd"),
        (("recipe.schedule=milestones", "recipe.optimizer=sgd", "recipe.label_smoothing=0"), 1, "f7c8906809bb31a6"),
        (("recipe.beta2=0.9",), 1, "f7c8906809bb31a6"),  # of AdamW alone
        (("recipe.schedule=cosine",), 0, "bd4e1de6b3c72b5f"),
        (("recipe.optimizer=adamw",), 0, "149763be3d0cd9b8"),
        (("recipe.label_smoothing=0.1",), 0, "7c388d48fc772043"),  # of students alone
        (("recipe.label_smoothing=0.1",), 1, "d700b2c8507c08a0"),
        (("recipe.mixup=0", "recipe.cutmix=0"), 1, "f7c8906809bb31a6"),  # the defaults
        (("recipe.ema=null",), 1, "f7c8906809bb31a6"),
        (("process.patriarch.name=score_difference", "process.student.name=kl"), 1, "f7c8906809bb31a6"),  # the defaults
        (("process.patriarch.name=label_smoothing",), 0, "b95a9bea6785b633"),
        (("process.patriarch.name=label_smoothing", "process.f_a1=1"), 0, "114ef9cfdbbf6cd2"),  # cross-entropy
        (("process.patriarch.name=confidence_penalty", "process.f_a1=0.8"), 0, "eb291362ca19e9a6"),
        (("process.patriarch.name=mse", "process.f_a1=1"), 0, "988a42aa8e9a1dc0"),
        (("process.student={name: dkd, beta: 2}",), 1, "8f0d1bb205f85382"),
        (("process.student.name=dist",), 1, "e591d59ac1c1a004"),
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
