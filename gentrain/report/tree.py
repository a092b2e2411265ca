"""Lay out the lineage as trees: patriarchs at the left, students to the right, one row for each line of descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gentrain.report.records import ChainRecord, GenerationRecord, Group, StudyReport

STEP, ROW, GAP, LEFT, TOP, RIGHT = 96, 50, 24, 34, 66, 210
"""Pixels: between generations, between rows, before a patriarch's row, and the margins."""
MOST_NODES = 1200


@dataclass(frozen=True)
class Node:
    """Hold one distinct generation and its position."""

    record: GenerationRecord
    x: int
    y: int
    parent: tuple[int, int] | None
    chains: tuple[ChainRecord, ...]
    """Chains that contain it."""
    series: tuple[str, ...]
    """Series of the processes that contain it."""

    @property
    def text(self) -> str:
        """Return the text below the node: the top-1 error in per cent, or the state."""
        error = self.record.values.get("top1_error")
        return self.record.state if error is None else f"{100 * error:.2f}"


@dataclass(frozen=True)
class Label:
    """Hold a text and its position: a patriarch's origin above it, or a process behind its last student."""

    text: str
    x: int
    y: int
    series: tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """Hold all lineages of one network."""

    network: str
    width: int
    height: int
    heads: tuple[tuple[str, int], ...]
    """Headings of the columns with their x positions."""
    nodes: tuple[Node, ...]
    labels: tuple[Label, ...]


@dataclass
class _Layout:
    """Place nodes; children keep the order of the chains."""

    chains_of: Mapping[str, tuple[ChainRecord, ...]]
    group_of: Mapping[str, Group]
    """By chain name."""
    children: Mapping[str, list[GenerationRecord]]
    nodes: list[Node] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    y: int = TOP

    def place(self, record: GenerationRecord, parent: tuple[int, int] | None) -> None:
        """Place a generation and all its descendants; the first student is in its teacher's row."""
        x, y = LEFT + STEP * record.generation, self.y
        chains = self.chains_of[record.key]
        series = tuple(dict.fromkeys(self.group_of[chain.name].series for chain in chains))
        self.nodes.append(Node(record, x, y, parent, chains, series))
        ending = [chain for chain in chains if chain.generations[-1].key == record.key]
        names = ", ".join(self.group_of[chain.name].name for chain in ending)
        if parent is None:
            patriarch = f"M(0) of {chains[0].origin}, seed {chains[0].study.seed}"
            text = f"{patriarch}; alone: {names}" if ending else patriarch
            self.labels.append(Label(text, x - 12, y - 22, series))
        elif ending:
            self.labels.append(Label(names, x + 20, y + 4, series))
        for index, student in enumerate(self.children.get(record.key, [])):
            self.y += ROW * bool(index)
            self.place(student, (x, y))


def build_trees(report: StudyReport) -> tuple[Tree, ...]:
    """Return a tree for each network, up to `MOST_NODES` nodes together; networks beyond are left out."""
    trees, left = [], MOST_NODES
    for network, groups in report.networks.items():
        if (tree := _tree(network, groups, left)) is not None:
            trees.append(tree)
            left -= len(tree.nodes)
    return tuple(trees)


def _tree(network: str, groups: tuple[Group, ...], most: int) -> Tree | None:
    group_of = {chain.name: group for group in groups for chain in group.chains}
    chains_of: dict[str, tuple[ChainRecord, ...]] = {}
    children: dict[str, list[GenerationRecord]] = {}
    roots: dict[str, GenerationRecord] = {}
    chains = sorted((chain for group in groups for chain in group.chains), key=lambda chain: chain.study.seed)
    for chain in chains:
        teacher = None
        for record in chain.generations:
            if record.key not in chains_of:
                if teacher is None:
                    roots[record.key] = record
                else:
                    children.setdefault(teacher, []).append(record)
            chains_of[record.key] = (*chains_of.get(record.key, ()), chain)
            teacher = record.key
    if not roots or len(chains_of) > most:
        return None
    layout = _Layout(chains_of, group_of, children)
    for root in roots.values():
        layout.place(root, None)
        layout.y += ROW + GAP
    last = max(node.x for node in layout.nodes)
    heads = tuple((f"Gen #{g}", LEFT + STEP * g) for g in range((last - LEFT) // STEP + 1))
    return Tree(network, last + RIGHT, layout.y - ROW + 8, heads, tuple(layout.nodes), tuple(layout.labels))
