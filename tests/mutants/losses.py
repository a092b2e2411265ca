"""Faults of the losses and of the tasks that choose them."""

from tests.mutants.mutant import Mutant

CHAIN = ("train/test_reference.py::test_a_chain_of_one_worker",)
TASKS = ("train/test_tasks.py",)
LOSSES = ("train/test_losses.py",)
ADAPTIVE = ("train/test_adaptive_loss.py",)

PATRIARCHS = ("train/test_patriarchs.py",)
STUDENTS = ("train/test_students.py",)
NAMED = ("study/test_losses.py",)
OPTIONS = ("train/test_recipe_options.py",)

OWN_TEACHER = ("train/test_own_teacher.py",)

MUTANTS = (
    Mutant(
        "smoothed labels are 1-ε times uniform",
        "train/tasks/label_smoothing.py",
        "(1 - self.epsilon) * hard + self.epsilon * soft",
        "self.epsilon * hard + (1 - self.epsilon) * soft",
        PATRIARCHS,
    ),
    Mutant(
        "the entropy is rewarded, not its lack penalised",
        "train/tasks/confidence_penalty.py",
        "hard + self.beta * soft",
        "hard - self.beta * soft",
        PATRIARCHS,
    ),
    Mutant(
        "the squared error is a mean over classes",
        "train/tasks/mse.py",
        "square().sum(dim=1)",
        "square().mean(dim=1)",
        PATRIARCHS,
    ),
    Mutant("β forgets its p", "study/losses.py", "1 / (f_a1 * math.log(", "1 / (math.log(", PATRIARCHS),
    Mutant("ε forgets C", "study/losses.py", "(1 - f_a1) * num_classes / (num_classes - 1)", "1 - f_a1", PATRIARCHS),
    Mutant(
        "z-scores keep their spread",
        "train/tasks/logit_standardised.py",
        " / (1e-7 + logits.std(dim=1, keepdim=True))",
        "",
        STUDENTS,
    ),
    Mutant(
        "the others include the label", "train/tasks/other_classes.py", "places >= labels", "places > labels", STUDENTS
    ),
    Mutant("DKD leaves T² out", "train/tasks/dkd.py", " * self.temperature**2", "", STUDENTS),
    Mutant("DIST compares samples alone", "train/tasks/dist.py", "student.T, teacher.T", "student, teacher", STUDENTS),
    Mutant("NKD ignores the teacher's confidence", "train/tasks/nkd.py", "(weights * F.cross", "(F.cross", STUDENTS),
    Mutant(
        "PS-KD's α is the same in every epoch",
        "train/tasks/own_teacher.py",
        "self.alpha * (epoch + 1) / self.epochs",
        "self.alpha",
        OWN_TEACHER,
    ),
    Mutant(
        "a snapshot teaches before there is one",
        "train/tasks/own_teacher.py",
        "self.weight if epoch >= self.period else 0.0",
        "self.weight",
        OWN_TEACHER,
    ),
    Mutant(
        "a network stays its own first teacher",
        "train/companions.py",
        "self.teacher.load_state_dict(self._model.state_dict())",
        "pass",
        OWN_TEACHER,
    ),
    Mutant(
        "a teacher has its worker's own statistics",
        "train/companions.py",
        "workers.share_buffers(self._model)",
        "pass",
        OWN_TEACHER,
    ),
    Mutant("only the first cycle is a cosine", "train/schedule.py", "step // length * length", "0", OWN_TEACHER),
    Mutant(
        "a student's loss is not in its key",
        "study/tasks.py",
        "loss=None if isinstance(student, KL) else",
        "loss=None if True else",
        NAMED,
    ),
    Mutant(
        "other losses have the paper's prediction",
        "study/lineage.py",
        "isinstance(process.student, KL) and not",
        "not",
        NAMED,
    ),
    Mutant("smoothed labels reach patriarchs", "study/tasks.py", '{"label_smoothing": 0.0}', "{}", OPTIONS),
    Mutant("K is 2", "train/tasks/build.py", "k=task.k or 2", "k=2", CHAIN),
    Mutant("η is left out", "train/tasks/build.py", "eta=task.eta or 0.0", "eta=0.0", CHAIN),
    Mutant(
        "the study's temperature is ignored",
        "train/tasks/build.py",
        "temperature=task.temperature",
        "temperature=1.0",
        CHAIN,
    ),
    Mutant(
        "the task's temperature is ignored",
        "train/tasks/kl.py",
        ", temperature=self.temperature)",
        ", temperature=1.0)",
        CHAIN,
    ),
    Mutant(
        "an ensemble teaches by its last member", "train/tasks/build.py", "task.teachers,", "(task.teacher,),", CHAIN
    ),
    Mutant(
        "the teacher may be in training mode", "train/tasks/task.py", "if self.teacher.training:", "if False:", TASKS
    ),
    Mutant(
        "the patriarch's η and 1-η are swapped",
        "train/losses.py",
        "(1 - eta) * hard + eta * soft\n    return",
        "eta * hard + (1 - eta) * soft\n    return",
        LOSSES,
    ),
    Mutant(
        "the secondaries include the primary",
        "train/losses.py",
        "top[:, 1:].mean(dim=1)).mean()",
        "top.mean(dim=1)).mean()",
        LOSSES,
    ),
    Mutant("K is one more", "train/losses.py", ".topk(k, dim=1)", ".topk(min(k + 1, logits.shape[1]), dim=1)", LOSSES),
    Mutant(
        "the patriarch's choice lets no gradient through",
        "train/losses.py",
        "softmax(dim=1).topk(k, dim=1).values",
        "softmax(dim=1).topk(k, dim=1).values.detach()",
        LOSSES,
    ),
    Mutant("the KL divergence is a mean over classes too", "train/losses.py", '"batchmean"', '"mean"', LOSSES),
    Mutant(
        "the KL divergence is the other way round",
        "train/losses.py",
        "kl_div(student_log, teacher_log",
        "kl_div(teacher_log, student_log",
        LOSSES,
    ),
    Mutant("T² is left out", "train/losses.py", " * temperature**2", "", LOSSES),
    Mutant("the teacher isn't softened", "train/losses.py", "(teacher_logits / temperature)", "teacher_logits", LOSSES),
    Mutant(
        "λ and 1-λ are swapped",
        "train/losses.py",
        "(1 - lam) * hard + lam * taught",
        "lam * hard + (1 - lam) * taught",
        LOSSES,
    ),
    Mutant(
        "gradients reach the teacher",
        "train/losses.py",
        "teacher_logits.detach().float()",
        "teacher_logits.float()",
        ("train/test_losses.py::test_no_gradient_reaches_the_teacher",),
    ),
    Mutant(
        "adaptive K is one less",
        "train/losses.py",
        "sum(dim=1) + 1).clamp(2, k_max)",
        "sum(dim=1)).clamp(2, k_max)",
        ADAPTIVE,
    ),
    Mutant("adaptive K is always by sample", "train/losses.py", 'if by == "class":', "if False:", ADAPTIVE),
    Mutant(
        "adaptive η is that of one more class",
        "train/losses.py",
        "others / (k * f_a1 + others)",
        "k / (k * f_a1 + k)",
        ADAPTIVE,
    ),
    Mutant(
        "the mean of networks is that of their logits",
        "models/mean.py",
        "member.float().log_softmax(dim=1)",
        "member.float()",
        TASKS,
    ),
)
