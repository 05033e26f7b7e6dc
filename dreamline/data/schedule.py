"""Which component and which aspect bucket stand at a position of a mixture: pure functions of the position.

Component c of weight w_c has n_cb samples in bucket b, N_c in all; its share of all samples is s_c = w_c / sum(w). Two
wishes settle the rest: shares are exact, and within a component every sample comes equally often, whatever its bucket.
So the cell (c, b) has the share p_cb = s_c n_cb / N_c, and bucket b the share q_b = sum_c p_cb. A batch of G samples
has one bucket, so q_b is a share of batches, and inside them c has the share r_cb = p_cb / q_b:

1. batch m = position // G is of bucket b, and k batches before it were too (`Split` over the q_b);
2. the position is number o = k G + position % G in the endless stream of b, which is of component c, and j of the
   stream's numbers below o were too (`Split` over the p_cb);
3. it holds draw j from cell (c, b), whose every n_cb draws hold each of its samples once (`order.shuffled`).

Every draw of a cell is used once and in turn, so passes are exact for any G, world size and place of resuming. Nothing
is stored but n_cb. With one bucket there is no choice of batches: step 2 is `Interleave` over the weights.

How far shares can be from exact does not grow with time: `Schedule.error` is the bound for a component (below one batch
for every pair of components that was tried), `Split.error` for a bucket (about two batches). Buckets that are made of
the components alike are close in the tree, so a batch too many of one is one too few of a similar one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dreamline.data.order import Indices, Interleave, whole_ratio


@dataclass(frozen=True)
class _Node:
    """Classes that are split off together; a leaf has one class and no children."""

    weight: int
    number: int = -1
    children: tuple[_Node, ...] = ()


class Split:
    """An endless sequence over classes in exact proportion to whole weights of any size, any position at once.

    A binary tree: a node of weight W passes round(n A / W) of its first n draws on to its first child, of weight A, and
    the rest to the second. Rounding down the tree is all there is: a draw costs as many divisions as its class is deep,
    and there is no table of a period, which for counts of samples would be as long as their least common multiple.

    Args:
        weights: positive whole numbers.
        traits: [classes, any] what classes are like. The most alike are joined first, among them the lightest
            (without traits: Huffman's tree), so that draws that are rounded away go to a class that is like theirs.

    Raises:
        ValueError: no class, or a weight that is not positive.
    """

    def __init__(self, weights: Sequence[int], traits: npt.NDArray[np.float64] | None = None) -> None:
        if not weights or min(weights) <= 0:
            raise ValueError(f"weights must be positive whole numbers, got {list(weights)}")
        divisor = math.gcd(*weights)
        leaves = [_Node(weight // divisor, number) for number, weight in enumerate(weights)]
        self._root = _join(leaves, np.zeros((len(leaves), 1)) if traits is None else traits)

    def __call__(self, positions: Indices) -> tuple[Indices, Indices]:
        """Class of each position, and how many positions before it had the same class."""
        classes, ordinals = np.empty_like(positions), np.empty_like(positions)
        small = 2 * (int(positions.max(initial=0)) + 2) * self._root.weight < 2**63
        stack = [(self._root, np.arange(len(positions)), positions if small else positions.astype(object))]
        while stack:
            node, where, draws = stack.pop()
            if not node.children:
                classes[where], ordinals[where] = node.number, draws
            elif len(where):
                first, second = node.children
                before, after = (
                    (2 * number * first.weight + node.weight) // (2 * node.weight) for number in (draws, draws + 1)
                )
                chosen = (after > before).astype(bool)
                stack.append((first, where[chosen], before[chosen]))
                stack.append((second, where[~chosen], (draws - before)[~chosen]))
        return classes, ordinals

    def error(self, values: Sequence[Fraction | int]) -> Fraction:
        """How far the sum of a value per draw can be from the number of draws times its mean, at any time.

        With the values 0, .., 1, .., 0 that is how far a class can be from its share. A node is wrong by half a draw at
        most, which counts as much as the means of its children differ.
        """
        return _mean_and_error(self._root, values)[1]


def _join(nodes: Sequence[_Node], traits: npt.NDArray[np.float64]) -> _Node:
    total = sum(node.weight for node in nodes)  # can be too large for a float
    nodes, traits, shares = list(nodes), traits.copy(), np.array([node.weight / total for node in nodes])
    while len(nodes) > 1:
        distance = np.abs(traits[:, None] - traits[None]).max(axis=2).round(9)
        distance[np.tril_indices(len(nodes))] = np.inf
        together = np.where(distance == distance.min(), shares[:, None] + shares[None], np.inf)
        i, j = (int(number) for number in np.unravel_index(together.argmin(), together.shape))
        nodes[i] = _Node(nodes[i].weight + nodes[j].weight, children=(nodes[i], nodes[j]))
        traits[i] = (traits[i] * shares[i] + traits[j] * shares[j]) / (shares[i] + shares[j])
        shares[i] += shares[j]
        nodes.pop(j)
        traits, shares = np.delete(traits, j, axis=0), np.delete(shares, j)
    return nodes[0]


def _mean_and_error(node: _Node, values: Sequence[Fraction | int]) -> tuple[Fraction, Fraction]:
    if not node.children:
        return Fraction(values[node.number]), Fraction(0)
    (first, first_error), (second, second_error) = (_mean_and_error(child, values) for child in node.children)
    weights = [child.weight for child in node.children]
    mean = (first * weights[0] + second * weights[1]) / node.weight
    return mean, first_error + second_error + abs(first - second) / 2


class Schedule:
    """Bucket, component and draw at each position.

    Args:
        counts: samples of each component by bucket, all positive; buckets are numbers.
        weights: of the components, positive.
        global_batch_size: samples of a batch, which has one bucket. It does not matter if there is one bucket only.

    Raises:
        ValueError: a weight is not positive, or with one bucket their ratio is not simple.
    """

    def __init__(self, counts: Sequence[Mapping[int, int]], weights: Sequence[float], global_batch_size: int) -> None:
        self.counts, self.global_batch_size = counts, global_batch_size
        wholes, totals = whole_ratio(weights), [sum(count.values()) for count in counts]
        scale = math.lcm(*totals)
        cells = {
            bucket: {
                c: wholes[c] * count[bucket] * (scale // totals[c]) for c, count in enumerate(counts) if bucket in count
            }
            for bucket in sorted({bucket for count in counts for bucket in count})
        }  # p_cb, times a whole number
        shares = {bucket: sum(cell.values()) for bucket, cell in cells.items()}  # q_b, likewise
        self.total = sum(shares.values())
        self.mix = {
            bucket: [Fraction(cell.get(c, 0), shares[bucket]) for c in range(len(counts))]
            for bucket, cell in cells.items()
        }  # r_cb
        self.buckets = list(cells)
        self.shares = shares
        traits = np.array([[float(share) for share in mix] for mix in self.mix.values()])
        self.between = Split(list(shares.values()), traits)
        self.members = {bucket: np.array(list(cell)) for bucket, cell in cells.items()}
        self.within: dict[int, Interleave | Split] = {
            bucket: Interleave(weights) if len(cells) == 1 else Split(list(cell.values()))
            for bucket, cell in cells.items()
        }

    def __call__(self, positions: Indices) -> tuple[Indices, Indices, Indices]:
        """Bucket and component of each position, and number of the draw from this cell."""
        batches, places = np.divmod(positions, self.global_batch_size)
        ranks, numbers = self.between(batches)
        streams = numbers * self.global_batch_size + places
        buckets = np.array(self.buckets)[ranks]
        components, draws = np.empty_like(positions), np.empty_like(positions)
        for bucket in np.unique(buckets).tolist():
            where = buckets == bucket
            order, draws[where] = self.within[bucket](streams[where])
            components[where] = self.members[bucket][order]
        return buckets, components, draws

    def share(self, bucket: int) -> Fraction:
        """Share q_b of a bucket among the batches."""
        return Fraction(self.shares[bucket], self.total)

    def error(self, component: int) -> Fraction:
        """How many samples a component can be away from its share after any number of whole batches."""
        mixed = self.between.error([self.mix[bucket][component] for bucket in self.buckets])
        inside = Fraction(0)
        for bucket, within in self.within.items():
            if isinstance(within, Interleave):
                inside += 1
            elif component in self.members[bucket]:
                inside += within.error([int(member == component) for member in self.members[bucket]])
        return mixed * self.global_batch_size + inside
