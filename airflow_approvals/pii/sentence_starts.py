"""spaCy's greedy dependency parser for many documents at once, as far as it says where sentences start.

All documents take their next move together. Which label an arc gets does not matter to sentences, only which
of the five kinds of moves is made; a sentence is a tree of the parse. What spaCy's rules allow
(`arc_eager.pyx`, `is_valid`) is allowed here, for documents that had no sentence starts before.

Wherever two kinds of moves are closer than float rounding could decide, the document is reported as doubtful,
and spaCy parses it.

Source: spacy/pipeline/_parser_internals/{arc_eager.pyx,_state.pxd}, spacy/pipeline/transition_parser.pyx,
spacy/ml/{parser_model.pyx,_precomputable_affine.py}, spacy/tokens/doc.pyx (`set_children_from_heads`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from airflow_approvals.pii.token_vectors import Floats

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DOUBT = 2e-4  # scores agree to 1e-5 (measured), and are of the order of 10
TOKENS_AT_A_TIME = 16_000  # four kilobytes for each distinct one; more together are faster
FEATURES = 8  # tokens that the model looks at; `_Parses.looked_at` says which
SHIFT, REDUCE, BREAK, LEFT, RIGHT = range(5)
LETTERS = "SDBLR"  # spaCy's, in this order
LEARNT_TOKENS = "subtok"


class _Weights(NamedTuple):
    narrow: Floats  # (inputs, width)
    narrow_bias: Floats
    lower: Floats  # (features, width, pieces * hidden)
    padding: Floats  # (features, pieces * hidden)
    bias: Floats
    upper: Floats  # (moves, hidden), by kind
    upper_bias: Floats
    kinds: list[slice]  # of moves


class SentenceStarts:
    """The first tokens of sentences, of documents that have none yet."""

    def __init__(self, weights: _Weights) -> None:
        self._weights = weights
        self._kept = np.empty(
            0, np.float32
        )  # the last table's memory: to get it anew takes half as long again

    @classmethod
    def of(cls, parser: Any) -> SentenceStarts | None:
        """Return what a spaCy `parser` pipe knows of sentences, None where it is of a kind unknown here."""
        model = parser.model
        if model.name != "parser_model" or not model.attrs["has_upper"] or model.attrs["unseen_classes"]:
            return None
        if parser.cfg.get("beam_width") != 1 or parser.cfg.get("learn_tokens"):
            return None
        chain, lower, upper = model.layers
        if [layer.name for layer in chain.layers] != ["tok2vec-listener", "list2array", "linear"]:
            return None
        if lower.name != "precomputable_affine" or upper.name != "linear":
            return None
        if lower.get_dim("nF") != FEATURES or lower.get_dim("nP") != 2:
            return None
        names = [parser.moves.get_class_name(number) for number in range(parser.moves.n_moves)]
        by_kind = [[number for number, name in enumerate(names) if name[0] == kind] for kind in LETTERS]
        if not all(by_kind) or any(name.endswith(f"-{LEARNT_TOKENS}") for name in names):
            return None
        return cls(_weights(chain.layers[2], lower, upper, by_kind))

    def find(self, vectors: Floats, which: Ints, lengths: Ints) -> tuple[Flags, list[int]]:
        """Return for each token whether a sentence starts with it, and the numbers of doubtful documents.

        `vectors` are those of the pipeline's shared `tok2vec`, and `which` says which of them is that of each
        token. Documents may not be empty.
        """
        starts = np.zeros(len(which), bool)
        doubtful: list[int] = []
        offsets = np.cumsum(lengths) - lengths
        # Documents of one length are done at the same time.
        order = np.argsort(lengths, kind="stable")[::-1]
        totals = np.cumsum(lengths[order])
        first = 0
        while first < len(order):
            done = totals[first - 1] if first else 0
            after = max(first + 1, int(np.searchsorted(totals, done + TOKENS_AT_A_TIME, side="right")))
            some = order[first:after]
            rows = _rows(offsets[some], lengths[some])
            found, doubts = self._some(vectors, which[rows], lengths[some])
            starts[rows] = found
            doubtful.extend(some[doubts].tolist())
            first = after
        return starts, sorted(doubtful)

    def _some(self, vectors: Floats, which: Ints, lengths: Ints) -> tuple[Flags, Ints]:
        distinct, row = np.unique(which, return_inverse=True)
        row = np.append(row, len(distinct))  # the padding stands for no token
        table = self._table(vectors[distinct])
        parses = _Parses(lengths)
        doubt = np.zeros(len(lengths), bool)
        while len(parses.open):
            tokens = parses.looked_at()
            scores = self._scores(table, row[tokens])
            scores[~parses.valid(tokens)] = -np.inf
            best = scores.argmax(axis=0)
            top = np.partition(scores, -2, axis=0)[-2:]
            doubt[parses.open[top[1] - top[0] < DOUBT]] = True
            parses.move(best, tokens)
        return _first_of_trees(parses.heads), np.flatnonzero(doubt)

    def _table(self, vectors: Floats) -> Floats:
        """Return (features, tokens + 1, pieces * hidden): what each token adds where; the last is none."""
        weights = self._weights
        narrow = vectors @ weights.narrow
        narrow += weights.narrow_bias
        shape = FEATURES, len(narrow) + 1, weights.lower.shape[2]
        if self._kept.size < math.prod(shape):
            self._kept = np.empty(shape, np.float32).reshape(-1)
        table = self._kept[: math.prod(shape)].reshape(shape)
        for feature in range(FEATURES):
            np.matmul(narrow, weights.lower[feature], out=table[feature, :-1])
        table[:, -1] = weights.padding
        return table

    def _scores(self, table: Floats, rows: Ints) -> Floats:
        """Return (kinds, documents): the best score of each kind of move."""
        weights = self._weights
        hidden = table[0].take(rows[0], axis=0)
        part = np.empty_like(hidden)
        for feature in range(1, FEATURES):
            table[feature].take(rows[feature], axis=0, out=part, mode="clip")
            hidden += part
        hidden += weights.bias
        half = hidden.shape[1] // 2
        scores = weights.upper @ np.maximum(hidden[:, :half], hidden[:, half:]).T
        scores += weights.upper_bias
        return np.stack([scores[kind].max(axis=0) for kind in weights.kinds])


class _Parses:
    """The states of many parses. Tokens are numbered through all documents; one past the last is none.

    Every document has a part of each array, as long as itself: its stack, what was put back before its
    buffer, and for every token its head and its outermost children so far.
    """

    def __init__(self, lengths: Ints) -> None:
        total = int(lengths.sum())
        self._none = total
        self._offset = np.cumsum(lengths) - lengths  # these four: of the documents in `open`
        self._end = self._offset + lengths
        self._next = self._offset.copy()  # the first token that was never taken from the buffer
        self._depth = np.zeros(len(lengths), np.int64)
        self._back = np.zeros(len(lengths), np.int64)  # how many were put back
        self.open = np.arange(len(lengths))
        self._stack = np.full(total + 1, total)
        self._put_back = np.full(total + 1, total)
        self.heads = np.full(total + 1, -1)
        self._left = np.full(total + 1, total)
        self._right = np.full(total + 1, total)
        self._right_before = np.full(total + 1, total)  # of a right child: its head's right child before it
        self._is_start = np.zeros(total + 2, bool)
        self._is_unshiftable = np.zeros(total + 1, bool)

    def looked_at(self) -> Ints:
        """Return (features, documents): B0, B1, S0, S1, S2, the last left child of B0, and both of S0."""
        none, depth, back = self._none, self._depth, self._back
        tokens = np.full((FEATURES, len(depth)), none)
        for place in (0, 1):
            fresh = self._next + np.maximum(place - back, 0)
            taken = self._put_back[np.maximum(self._offset + back - 1 - place, 0)]
            fresh[fresh >= self._end] = none
            tokens[place] = np.where(back > place, taken, fresh)
        top = self._offset + depth
        for place in (0, 1, 2):
            on_stack = self._stack[np.maximum(top - 1 - place, 0)]
            tokens[2 + place] = np.where(depth > place, on_stack, none)
        tokens[5] = self._left[tokens[0]]
        tokens[6] = self._left[tokens[2]]
        tokens[7] = self._right[tokens[2]]
        return tokens

    def valid(self, tokens: Ints) -> Flags:
        """Return (kinds, documents): which kinds of moves spaCy allows."""
        first, second = tokens[0], tokens[1]
        none = self._none
        allowed = np.empty((len(LETTERS), len(first)), bool)
        has_stack = self._depth > 0
        has_two = second < none
        goes_on = ~self._is_start[first]
        allowed[SHIFT] = ~has_stack | (has_two & goes_on & ~self._is_unshiftable[first])
        allowed[REDUCE] = has_stack
        allowed[BREAK] = has_two & (second == first + 1) & ~self._is_start[second]
        allowed[LEFT] = has_stack & (first < none) & goes_on
        allowed[RIGHT] = allowed[LEFT]
        return allowed

    def move(self, kinds: Ints, tokens: Ints) -> None:
        """Make one move in every open document, and close those that are done."""
        first, top = tokens[0], tokens[2]
        some = np.flatnonzero(kinds == BREAK)
        self._is_start[tokens[1][some]] = True
        some = np.flatnonzero(kinds == LEFT)
        self._attach_left(first[some], top[some])
        self._depth[some] -= 1
        some = np.flatnonzero(kinds == RIGHT)
        self._attach_right(top[some], first[some])
        self._push(some, first[some])
        some = np.flatnonzero(kinds == SHIFT)
        self._push(some, first[some])
        some = np.flatnonzero(kinds == REDUCE)
        back = some[(self.heads[top[some]] < 0) & (self._depth[some] > 1)]
        self._is_unshiftable[top[back]] = True
        self._put_back[self._offset[back] + self._back[back]] = top[back]
        self._back[back] += 1
        self._depth[some] -= 1
        self._close()

    def _attach_left(self, heads: Ints, children: Ints) -> None:
        old = self.heads[children]
        again = old >= 0
        # The child is on top of the stack, so it is the last right child of the head that it had.
        self._right[old[again]] = self._right_before[children[again]]
        self.heads[children] = heads
        self._left[heads] = children
        self._is_unshiftable[heads] = False

    def _attach_right(self, heads: Ints, children: Ints) -> None:
        self.heads[children] = heads
        self._right_before[children] = self._right[heads]
        self._right[heads] = children

    def _push(self, some: Ints, tokens: Ints) -> None:
        self._stack[self._offset[some] + self._depth[some]] = tokens
        self._depth[some] += 1
        is_back = self._back[some] > 0
        self._back[some] -= is_back
        self._next[some] += ~is_back

    def _close(self) -> None:
        going = (self._depth > 0) | (self._back > 0) | (self._next < self._end)
        if going.all():
            return
        for name in ("_offset", "_end", "_next", "_depth", "_back", "open"):
            setattr(self, name, getattr(self, name)[going])


def _first_of_trees(heads: Ints) -> Flags:
    """Return whether each token is in another tree than the token before it; trees are without gaps."""
    roots = np.where(heads[:-1] < 0, np.arange(len(heads) - 1), heads[:-1])
    while True:
        further = roots[roots]
        if np.array_equal(further, roots):
            break
        roots = further
    starts = np.ones(len(roots), bool)
    starts[1:] = roots[1:] != roots[:-1]
    return starts


def _rows(offsets: Ints, lengths: Ints) -> Ints:
    before = np.cumsum(lengths) - lengths
    rows: Ints = np.arange(int(lengths.sum())) + np.repeat(offsets - before, lengths)
    return rows


def _weights(linear: Any, lower: Any, upper: Any, by_kind: list[list[int]]) -> _Weights:
    """Lay the weights out for batches: pieces side by side, features apart, moves by kind."""
    stacked = lower.get_param("W")  # (features, hidden, pieces, inputs)
    features, hidden, pieces, inputs = stacked.shape
    ends = np.cumsum([len(numbers) for numbers in by_kind]).tolist()
    order = [number for numbers in by_kind for number in numbers]
    padding = lower.get_param("pad")[0]  # (features, hidden, pieces)
    return _Weights(
        narrow=np.ascontiguousarray(linear.get_param("W").T),
        narrow_bias=linear.get_param("b"),
        lower=np.ascontiguousarray(stacked.transpose(0, 3, 2, 1).reshape(features, inputs, pieces * hidden)),
        padding=np.ascontiguousarray(padding.transpose(0, 2, 1).reshape(features, pieces * hidden)),
        bias=np.ascontiguousarray(lower.get_param("b").T.reshape(-1)),
        upper=np.ascontiguousarray(upper.get_param("W")[order]),
        upper_bias=upper.get_param("b")[order][:, None],
        kinds=[slice(end - len(numbers), end) for numbers, end in zip(by_kind, ends, strict=True)],
    )
