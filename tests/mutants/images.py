"""Faults of images: augmentation, crops, orders and the parts of the workers."""

from tests.mutants.mutant import Mutant

CHAIN = ("train/test_reference.py::test_a_chain_of_one_worker",)
SEEDS = ("train/test_seeds.py",)
MIX = ("data/test_mix.py",)
AUGMENT = ("data/test_augment.py",)
LOADER = ("data/test_loader.py",)
DISTORT = ("data/test_images.py::test_distortion_depends_on_the_sample_alone_and_keeps_what_it_should",)
CROPS = ("data/test_images.py::test_random_crops_are_functions_of_seed_epoch_and_sample",)
BOXES = ("data/test_images.py::test_crop_boxes_have_the_areas_and_shapes_that_were_asked_for",)
MIDDLE = ("data/test_images.py::test_the_middle_is_what_a_careful_reader_cuts",)

MUTANTS = (
    Mutant(
        "crops reach one pixel less", "data/loading/augment.py", "side = 2 * padding + 1", "side = 2 * padding", AUGMENT
    ),
    Mutant(
        "padding isn't black",
        "data/loading/augment.py",
        "F.pad(images, (padding, padding, padding, padding))",
        "F.pad(images, (padding, padding, padding, padding), value=1)",
        AUGMENT,
    ),
    Mutant(
        "rows and columns have the same draw",
        "data/loading/augment.py",
        "left = ((draws >> 16",
        "left = ((draws >> 40",
        AUGMENT,
    ),
    Mutant(
        "the other half is mirrored",
        "data/loading/augment.py",
        "(draws & 1).bool()[:, None]",
        "~(draws & 1).bool()[:, None]",
        AUGMENT,
    ),
    Mutant(
        "draws are the same in every epoch",
        "data/loading/augment.py",
        "_mix_int(_mix_int(seed) + epoch)",
        "_mix_int(_mix_int(seed))",
        AUGMENT,
    ),
    Mutant(
        "draws are the same for every sample",
        "data/loading/augment.py",
        "indices * _signed(_GOLDEN)",
        "0 * indices",
        AUGMENT,
    ),
    Mutant(
        "how an image is mixed depends on its place in the batch",
        "data/loading/mix.py",
        "part[indices] for part in draws",
        "part[places] for part in draws",
        MIX,
    ),
    Mutant(
        "an image is mixed with any of its batch",
        "data/loading/mix.py",
        "torch.where((places ^ 1) < count, places ^ 1, places)",
        "places.flip(0)",
        MIX,
    ),
    Mutant(
        "the last batch parts a pair",
        "data/loading/loader.py",
        "together=self._together,\n        )\n        yield",
        ")\n        yield",
        MIX,
    ),
    Mutant(
        "CutMix keeps the drawn weight where the border cuts the box",
        "data/loading/mix.py",
        "torch.where(cut, outside, weight)",
        "weight",
        MIX,
    ),
    Mutant(
        "the teacher sees images that are not mixed",
        "train/epoch.py",
        "task(logits, images, batch.labels)",
        "task(logits, pixels(batch, epoch), batch.labels)",
        ("train/test_mixes.py::test_the_teacher_sees_the_very_mix_that_the_student_sees",),
    ),
    Mutant(
        "the primary score is measured on mixed images",
        "train/finish.py",
        "rows and job.spec.recipe.result_as_trained",
        "rows",
        ("train/test_mixes.py::test_the_primary_score_is_measured_on_images_that_are_not_mixed",),
    ),
    Mutant("pixels aren't divided by 255", "data/loading/augment.py", "1 / (255 * s) for s", "1 / s for s", AUGMENT),
    Mutant(
        "rotation is in radians",
        "data/loading/augment.py",
        "torch.deg2rad(angle * rotation)",
        "angle * rotation",
        DISTORT,
    ),
    Mutant(
        "brightness varies by twice as much",
        "data/loading/augment.py",
        "(1 + jitter * draw)",
        "(1 + 2 * jitter * draw)",
        DISTORT,
    ),
    Mutant(
        "saturation is about each channel's zero",
        "data/loading/augment.py",
        "(grey + (pixels - grey) * factors[2])",
        "(pixels * factors[2])",
        DISTORT,
    ),
    Mutant(
        "photographs are never mirrored",
        "data/loading/augment.py",
        "(random_bits(indices, seed=seed, epoch=epoch) & 1).bool()",
        "(0 * indices).bool()",
        DISTORT,
    ),
    Mutant(
        "crops are the same in every epoch",
        "data/loading/crops.py",
        "stream_of(seed=self._seed, epoch=epoch)",
        "stream_of(seed=self._seed, epoch=0)",
        CROPS,
    ),
    Mutant(
        "crops are the same for every sample",
        "data/loading/crops.py",
        "_mix(stream + index * _GOLDEN)",
        "_mix(stream)",
        BOXES,
    ),
    Mutant(
        "crops are never smaller than the image",
        "data/loading/crops.py",
        "area = height * width * _uniform(state, 4 * attempt, scale[0], scale[1])",
        "area = height * width * scale[1]",
        BOXES,
    ),
    Mutant(
        "crops are all square",
        "data/loading/crops.py",
        "np.exp(_uniform(state, 4 * attempt + 1, low, high))",
        "1.0",
        BOXES,
    ),
    Mutant(
        "the corner is tested in place of the middle",
        "data/loading/crops.py",
        "return (height - side) // 2, (width - side) // 2, side, side",
        "return 0, 0, side, side",
        MIDDLE,
    ),
    Mutant(
        "the order is the same in every epoch",
        "data/loading/order.py",
        "SeedSequence((seed, epoch))",
        "SeedSequence((seed, 0))",
        SEEDS,
    ),
    Mutant(
        "the last, smaller batch is dropped", "data/loading/order.py", "    if not len(tail):", "    if True:", LOADER
    ),
    Mutant(
        "all workers have the first one's part of the last batch",
        "data/loading/order.py",
        "tail[start : start + sizes[rank]]",
        "tail[: sizes[rank]]",
        LOADER,
    ),
    Mutant(
        "all workers have the first one's part of every batch",
        "data/loading/order.py",
        "world_size)[:, rank].reshape(-1)",
        "world_size)[:, 0].reshape(-1)",
        LOADER,
    ),
    Mutant(
        "a filler isn't marked", "data/loading/loader.py", "filler=filler and step == steps - 1", "filler=False", LOADER
    ),
    Mutant(
        "every batch counts as a filler",
        "data/loading/loader.py",
        "filler=filler and step == steps - 1",
        "filler=filler",
        ("train/test_reference.py::test_three_workers_with_a_tail_that_the_last_has_no_image_of",),
    ),
    Mutant(
        "the last batch counts as a full one",
        "data/loading/loader.py",
        "global_size=min(self._batch_size, rest)",
        "global_size=self._batch_size",
        LOADER,
    ),
    Mutant(
        "every worker evaluates the whole split",
        "data/loading/loader.py",
        "np.array_split(np.arange(self.num_samples), self._world_size)[self._rank]",
        "np.arange(self.num_samples)",
        LOADER,
    ),
    Mutant(
        "std is the variance",
        "data/prepare/statistics.py",
        "float(np.sqrt(share @ (levels - mean) ** 2))",
        "float(share @ (levels - mean) ** 2)",
        CHAIN,
    ),
)
