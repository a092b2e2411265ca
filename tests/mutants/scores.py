"""Faults of networks, metrics and ensembles."""

from tests.mutants.mutant import Mutant

CHAIN = ("train/test_reference.py::test_a_chain_of_one_worker",)
NETWORKS = ("models/test_models.py",)
METRICS = ("scores/test_metrics.py",)
ENSEMBLES = ("scores/test_ensembles.py", "scores/test_metrics.py")
EVALUATE = ("results/test_evaluate.py::test_by_hand",)
REPORT = ("report/test_report.py",)

MUTANTS = (
    Mutant(
        "stages halve by the largest of four",
        "models/cifar_resnet.py",
        "F.avg_pool2d(x, 2)",
        "F.max_pool2d(x, 2)",
        NETWORKS,
    ),
    Mutant("shortcuts are left out", "models/cifar_resnet.py", "        out += shortcut\n", "", NETWORKS),
    Mutant(
        "transitions take the largest of four", "models/densenet.py", "nn.AvgPool2d(2)", "nn.MaxPool2d(2)", NETWORKS
    ),
    Mutant(
        "ResNet-18 halves by means", "models/imagenet_resnet.py", "F.max_pool2d(x, 2)", "F.avg_pool2d(x, 2)", NETWORKS
    ),
    Mutant("initial weights are by channels in", "models/cifar_resnet.py", 'mode="fan_out"', 'mode="fan_in"', NETWORKS),
    Mutant(
        "top-5 is top-4",
        "scores/metrics.py",
        "top_k_error(probabilities, labels, k=5)",
        "top_k_error(probabilities, labels, k=4)",
        METRICS,
    ),
    Mutant("equal scores all rank first", "scores/metrics.py", " | ((probabilities == own) & earlier)", "", METRICS),
    Mutant(
        "errors are hits",
        "scores/metrics.py",
        "(ahead.sum(axis=1) >= k).mean()",
        "(ahead.sum(axis=1) < k).mean()",
        METRICS,
    ),
    Mutant(
        "NLL is that of the largest score",
        "scores/metrics.py",
        "own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)",
        "own = probabilities.max(axis=1).astype(np.float64)",
        METRICS,
    ),
    Mutant(
        "ECE has ten bins",
        "scores/metrics.py",
        "def calibration_error(probabilities: Probabilities, labels: Labels, *, bins: int = 15)",
        "def calibration_error(probabilities: Probabilities, labels: Labels, *, bins: int = 10)",
        METRICS,
    ),
    Mutant("ECE lets bins cancel out", "scores/metrics.py", "np.abs(gaps).sum()", "abs(gaps.sum())", METRICS),
    Mutant(
        "ECE averages over bins",
        "scores/metrics.py",
        "np.abs(gaps).sum() / len(labels)",
        "np.abs(gaps).mean()",
        METRICS,
    ),
    Mutant(
        "a confidence of 1 has a bin that isn't there",
        "scores/metrics.py",
        "np.minimum((confidence * bins).astype(np.int64), bins - 1)",
        "(confidence * bins).astype(np.int64)",
        METRICS,
    ),
    Mutant(
        "the primary score is the least",
        "scores/metrics.py",
        "probabilities.max(axis=1).astype(np.float64).mean()",
        "probabilities.min(axis=1).astype(np.float64).mean()",
        METRICS,
    ),
    Mutant(
        "the confusion matrix is transposed",
        "scores/confusion.py",
        "labels * classes + probabilities.argmax(axis=1)",
        "probabilities.argmax(axis=1) * classes + labels",
        EVALUATE,
    ),
    Mutant(
        "class errors are hits",
        "scores/confusion.py",
        "1 - np.diag(confusion) / totals",
        "np.diag(confusion) / totals",
        EVALUATE,
    ),
    Mutant(
        "the second class is the first", "scores/confusion.py", 'kind="stable")[:, 1]', 'kind="stable")[:, 0]', REPORT
    ),
    Mutant(
        "ranks rise",
        "scores/confusion.py",
        "-np.sort(-probabilities, axis=1)",
        "np.sort(probabilities, axis=1)",
        REPORT,
    ),
    Mutant(
        "the ensemble is a sum",
        "scores/ensembles.py",
        "np.cumsum(stacked, axis=0) / members",
        "np.cumsum(stacked, axis=0)",
        ENSEMBLES,
    ),
    Mutant(
        "the ensemble leaves the patriarch out",
        "scores/ensembles.py",
        "np.cumsum(stacked, axis=0) / members",
        "(np.cumsum(stacked, axis=0) - stacked[:1] * (members > 1)) / np.maximum(members - 1, 1)",
        ENSEMBLES,
    ),
    Mutant("EM ends after a step", "scores/ensembles.py", "range(MOST_ITERATIONS)", "range(1)", ENSEMBLES),
    Mutant(
        "selection takes the worst",
        "scores/ensembles.py",
        "member = min(left, key=losses.__getitem__)",
        "member = max(left, key=losses.__getitem__)",
        ENSEMBLES,
    ),
    Mutant(
        "selection takes equals too",
        "scores/ensembles.py",
        "losses[member] >= best",
        "losses[member] > best",
        ENSEMBLES,
    ),
    Mutant(
        "the row's ensemble is its first member",
        "results/chain.py",
        "running_ensemble(np.stack(members))[-1]",
        "running_ensemble(np.stack(members))[0]",
        CHAIN,
    ),
    Mutant(
        "a row's scores are the training's",
        "results/chain.py",
        '"primary_test": scores["primary"]',
        '"primary_test": done.train_primary',
        CHAIN,
    ),
)
