"""Faults of the engine: seeds, steps, workers, evaluation, and the schedule of the learning rate."""

from tests.mutants.mutant import Mutant

CHAIN = ("train/test_reference.py::test_a_chain_of_one_worker",)
TOGETHER = ("train/test_reference.py::test_three_workers_with_a_tail_that_the_last_has_no_image_of",)
HALF = ("train/test_reference.py::test_predictions_of_bf16_are_those_of_torch_s_autocast",)
EPOCH = ("train/test_workers.py::test_an_epoch_needs_no_store",)
WORKERS = ("train/test_workers.py",)
SCHEDULE = ("train/test_schedule.py",)
SEEDS = ("train/test_seeds.py",)
ROLLBACK = ("train/test_divergence.py",)
BAD_WEIGHTS = (
    "running/test_runners.py::TestExplodedWeights::test_weights_that_explode_in_the_very_last_step_are_not_kept",
)
BAD_LOSS = ("running/test_runners.py::TestLocalRunner::test_a_non_finite_loss_stops_and_keeps_the_last_checkpoint",)

MUTANTS = (
    Mutant("momentum is 0.8", "train/optimizer.py", "momentum=recipe.momentum", "momentum=0.8", CHAIN),
    Mutant("Nesterov is off", "train/optimizer.py", "nesterov=recipe.nesterov", "nesterov=False", CHAIN),
    Mutant("Nesterov is always on", "train/optimizer.py", "nesterov=recipe.nesterov", "nesterov=True", CHAIN),
    Mutant(
        "weight decay is 0",
        "train/optimizer.py",
        "weight_decay=recipe.weight_decay,\n",
        "weight_decay=0.0,\n",
        CHAIN,
    ),
    Mutant(
        "every generation has the same initial weights",
        "train/state.py",
        "seed_generators(generation_seed(spec.seed, spec.generation))",
        "seed_generators(generation_seed(spec.seed, 0))",
        CHAIN,
    ),
    Mutant(
        "the last epoch isn't evaluated where evaluate_every passes it over",
        "train/generation.py",
        "if last or (epoch + 1) % job.evaluate_every == 0:",
        "if (epoch + 1) % job.evaluate_every == 0:",
        CHAIN,
    ),
    Mutant(
        "weights that aren't finite are kept",
        "train/generation.py",
        "    check_weights(evaluator.model, spec, epoch, workers=workers)\n",
        "",
        BAD_WEIGHTS,
    ),
    Mutant("the learning rate is never set", "train/epoch.py", 'group["lr"] = rate', "pass", CHAIN),
    Mutant("the order is always epoch 0's", "train/epoch.py", "loader.epoch(epoch)", "loader.epoch(0)", CHAIN),
    Mutant("augmentation is always epoch 0's", "train/epoch.py", "pixels(batch, epoch)", "pixels(batch, 0)", CHAIN),
    Mutant("the network trains in eval mode", "train/epoch.py", "network.train()", "network.eval()", CHAIN),
    Mutant("gradients add up over steps", "train/epoch.py", "workers.clear_gradients(optimizer)", "pass", CHAIN),
    Mutant(
        "training is without autocast",
        "train/epoch.py",
        "with autocast(workers.device, spec.precision):",
        'with autocast(workers.device, "fp32"):',
        EPOCH,
    ),
    Mutant(
        "the teacher computes without autocast",
        "train/epoch.py",
        "            terms = task(logits, images, batch.labels)\n",
        "        terms = task(logits, images, batch.labels)\n",
        EPOCH,
    ),
    Mutant(
        "an epoch's draws aren't seeded",
        "train/epoch.py",
        "    seed_generators(epoch_seed(spec.seed, spec.generation, epoch=epoch, rank=workers.rank))\n",
        "",
        EPOCH,
    ),
    Mutant(
        "the workers' losses aren't weighted",
        "train/epoch.py",
        "workers.weigh(terms.loss, batch).backward()",
        "terms.loss.backward()",
        TOGETHER,
    ),
    Mutant("the epoch's sums are one worker's", "train/epoch.py", "    meter.reduce()\n", "", TOGETHER),
    Mutant(
        "a loss that isn't finite is seen no more at the end of an epoch",
        "train/epoch.py",
        "    meter.reduce()\n    _check_finite(meter, spec, epoch)\n",
        "    meter.reduce()\n",
        BAD_LOSS,
    ),
    Mutant(
        "gradients aren't clipped",
        "train/epoch.py",
        "if spec.recipe.clip_gradients is not None:",
        "if False:",
        CHAIN,
    ),
    Mutant(
        "gradients are clipped to 1 whatever the study says",
        "train/epoch.py",
        "network.parameters(), spec.recipe.clip_gradients)",
        "network.parameters(), 1.0)",
        CHAIN,
    ),
    Mutant("a rollback keeps the rate", "train/epoch.py", "rate = rate_factor * _", "rate = _", ROLLBACK),
    Mutant(
        "a rollback keeps its momentum",
        "train/state.py",
        "    optimizer.state.clear()\n",
        "",
        ROLLBACK,
    ),
    Mutant("the warm-up is left out", "train/epoch.py", "warmup_epochs=recipe.warmup_epochs", "warmup_epochs=0", CHAIN),
    Mutant("the rate falls to a tenth", "train/epoch.py", "decay=recipe.decay", "decay=0.1", CHAIN),
    Mutant(
        "a worker's part of the last batch weighs as much as another's",
        "train/workers.py",
        "len(batch.labels) * self.world_size / batch.global_size",
        "1.0",
        WORKERS,
    ),
    Mutant(
        "the blank step of DDP stays in the statistics",
        "train/workers.py",
        "    plain.load_state_dict(before)\n",
        "",
        TOGETHER,
    ),
    Mutant("buffers are the last worker's", "train/workers.py", "buffer, src=0", "buffer, src=1", WORKERS),
    Mutant(
        "each worker evaluates by its own statistics",
        "train/evaluation.py",
        "        self.workers.share_buffers(self.model)\n        loader =",
        "        loader =",
        TOGETHER,
    ),
    Mutant(
        "the last batch of test_error is dropped",
        "train/evaluation.py",
        "for batch, probabilities in self._predict(loader):\n",
        "for batch, probabilities in list(self._predict(loader))[:-1]:\n",
        CHAIN,
    ),
    Mutant(
        "test_error is one worker's",
        "train/evaluation.py",
        "self.workers.sum(counts).tolist()",
        "counts.tolist()",
        TOGETHER,
    ),
    Mutant(
        "predictions aren't put into the split's order",
        "train/evaluation.py",
        "return probabilities[order], labels[order]",
        "return probabilities, labels",
        TOGETHER,
        survives="equivalent: workers read contiguous parts and are gathered by rank, so the order is right already",
    ),
    Mutant("evaluation is in training mode", "train/inference.py", "    model.eval()\n", "    model.train()\n", CHAIN),
    Mutant(
        "evaluation is without autocast",
        "train/inference.py",
        "with torch.no_grad(), autocast(device, precision):",
        "with torch.no_grad():",
        HALF,
    ),
    Mutant("padding is off by one", "train/splits.py", "padding=recipe.padding", "padding=recipe.padding + 1", CHAIN),
    Mutant("images are always mirrored", "train/splits.py", "flip=recipe.flip", "flip=True", CHAIN),
    Mutant(
        "augmentation has the same draws in every generation",
        "train/splits.py",
        "batch.indices, seed=self._seed",
        "batch.indices, seed=0",
        CHAIN,
    ),
    Mutant(
        "pixels are normalised by another mean",
        "train/splits.py",
        "normalise(images, mean=self.manifest.mean",
        "normalise(images, mean=(0.5, 0.5, 0.5)",
        CHAIN,
    ),
    Mutant(
        "losses are summed as batches", "train/meter.py", "terms.loss.double() * count", "terms.loss.double()", CHAIN
    ),
    Mutant("a filler is trained on", "train/epoch.py", "if batch.filler:", "if False:", TOGETHER),
    Mutant(
        "the primary score is the first epoch's",
        "train/finish.py",
        'rows[-1]["primary_score"]',
        'rows[0]["primary_score"]',
        CHAIN,
    ),
    Mutant(
        "the generation has no part in the seed",
        "train/seeds.py",
        "SeedSequence((seed, generation)))",
        "SeedSequence((seed, 0)))",
        SEEDS,
    ),
    Mutant("workers draw the same dropout", "train/seeds.py", "spawn_key=(epoch, rank)", "spawn_key=(epoch,)", SEEDS),
    Mutant("the rate falls an epoch late", "train/schedule.py", "epoch >= milestone", "epoch > milestone", SCHEDULE),
    Mutant("the rate falls once only", "train/schedule.py", "decay ** sum(", "decay ** any(", SCHEDULE),
    Mutant("a cosine's warm-up is left out", "train/schedule.py", "max(begin, warmup_steps)", "begin", SCHEDULE),
    Mutant(
        "warm-up begins at 0",
        "train/schedule.py",
        "rate * (step + 1) / warmup_steps",
        "rate * step / warmup_steps",
        SCHEDULE,
    ),
    Mutant("warm-up is by epochs", "train/schedule.py", "warmup_epochs * steps_per_epoch", "warmup_epochs", SCHEDULE),
)
