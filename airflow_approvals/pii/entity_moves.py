"""spaCy's greedy entity recogniser for many documents at once, with spaCy's weights and rules.

The transition system moves token by token, but outside an entity the scores do not depend on what came
before: they are computed for all tokens in one go. Inside an entity they depend on its first token and the
previous one only: all open entities are followed in lockstep. What spaCy's rules allow (`ner.pyx`,
`is_valid`) is allowed here, except that no sentence starts are known yet: the caller asks the parser where
that can matter.

Wherever two moves are closer than float rounding could decide, the document is reported as doubtful, and
spaCy decides.

Source: spacy/pipeline/_parser_internals/{ner.pyx,_state.pxd},
spacy/ml/{parser_model.pyx,_precomputable_affine.py}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from airflow_approvals.pii.token_vectors import Floats, TokenVectors

Ints = npt.NDArray[np.int64]

DOUBT = 1e-3  # vectors agree to 4e-6 (measured); scores are of the order of 10
ROWS_AT_A_TIME = 12_000  # tokens and padding; more find more that is alike, and take more memory


class TokenSpan(NamedTuple):
    """An entity by its tokens: first, one past the last, and the model's label."""

    first: int
    end: int
    label: str


@dataclass(frozen=True, kw_only=True)
class Features:
    """What documents look like to the model, one row for each token."""

    columns: npt.NDArray[np.uint64]  # the attributes that `EntityMoves.columns` names
    is_space: npt.NDArray[np.bool_]
    lengths: Ints


@dataclass(frozen=True, kw_only=True)
class _Moves:
    begin: Ints
    inside: Ints  # by label, as `begin`
    last: Ints
    unit: Ints
    out: int
    labels: list[str]


class EntityMoves:
    """Entities of documents that have no sentence starts and no entities yet."""

    def __init__(self, encoder: TokenVectors, moves: _Moves, weights: dict[str, Floats]) -> None:
        self._encoder = encoder
        self._moves = moves
        self._weights = weights
        self.columns = encoder.columns

    @classmethod
    def of(cls, ner: Any) -> EntityMoves | None:
        """Return the recogniser of a spaCy `ner` pipe, None where it is of a kind that is unknown here."""
        model = ner.model
        if model.name != "parser_model" or not model.attrs["has_upper"] or model.attrs["unseen_classes"]:
            return None
        if ner.cfg.get("beam_width") != 1 or ner.cfg.get("incorrect_spans_key"):
            return None
        chain, lower, upper = model.layers
        if len(chain.layers) != 3 or [layer.name for layer in chain.layers[1:]] != ["list2array", "linear"]:
            return None
        if lower.name != "precomputable_affine" or upper.name != "linear":
            return None
        if lower.get_dim("nF") != 3 or lower.get_dim("nP") != 2:
            return None
        encoder = TokenVectors.of(chain.layers[0])
        moves = _moves_of(ner)
        if encoder is None or moves is None or len(moves.labels) < 2:
            return None
        return cls(encoder, moves, _weights(chain.layers[2], lower, upper, moves))

    def entities(self, features: Features) -> tuple[list[list[TokenSpan]], list[int]]:
        """Return the entities of each document, and the numbers of the doubtful documents."""
        found: list[list[TokenSpan]] = []
        doubtful: list[int] = []
        ends = np.cumsum(features.lengths)
        rows = np.cumsum(features.lengths + self._encoder.padding)
        first = 0
        while first < len(features.lengths):
            done = rows[first - 1] if first else 0
            after = max(first + 1, int(np.searchsorted(rows, done + ROWS_AT_A_TIME, side="right")))
            tokens = slice(int(ends[first - 1]) if first else 0, int(ends[after - 1]))
            part = Features(
                columns=features.columns[tokens],
                is_space=features.is_space[tokens],
                lengths=features.lengths[first:after],
            )
            entities, doubts = self._part(part)
            found.extend(entities)
            doubtful.extend(first + number for number in doubts)
            first = after
        return found, doubtful

    def _part(self, part: Features) -> tuple[list[list[TokenSpan]], list[int]]:
        if not len(part.columns):
            return [[] for _ in part.lengths], []
        ends = np.cumsum(part.lengths)
        is_last = np.zeros(len(part.columns), bool)
        is_last[ends[part.lengths > 0] - 1] = True
        vectors = self._encoder.encode(part.columns, part.lengths)
        vectors = vectors @ self._weights["narrow"]
        vectors += self._weights["narrow_bias"]
        starts, labels, closed, doubt = self._outside(vectors, part.is_space, is_last)
        stops, unsure = self._inside(vectors, starts, labels, closed, is_last)
        doubt[starts[unsure]] = True
        entities = _in_documents(starts, stops, [self._moves.labels[label] for label in labels], ends)
        doubtful = np.unique(np.searchsorted(ends, np.flatnonzero(doubt), side="right"))
        return entities, doubtful.tolist()

    def _outside(
        self, vectors: Floats, is_space: npt.NDArray[np.bool_], is_last: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Ints, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Choose each token's move outside an entity: where one starts, its label, whether it ends there."""
        weights, moves = self._weights, self._moves
        hidden = vectors @ weights["lower0"]
        hidden += weights["closed_bias"]
        scores = _maxed(hidden) @ weights["outside"]
        scores += weights["outside_bias"]
        count = len(moves.labels)
        scores[is_space, 1:] = -np.inf  # no entity starts on white space
        scores[is_last, 1 : 1 + count] = -np.inf  # nor goes on after the end
        best = scores.argmax(axis=1)
        rows = np.arange(len(scores))
        top = scores[rows, best]
        scores[rows, best] = -np.inf
        doubt = top - scores.max(axis=1) < DOUBT
        starts = np.flatnonzero(best > 0)
        chosen = best[starts] - 1
        return starts, chosen % count, chosen >= count, doubt

    def _inside(
        self,
        vectors: Floats,
        starts: Ints,
        labels: Ints,
        closed: npt.NDArray[np.bool_],
        is_last: npt.NDArray[np.bool_],
    ) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Follow every entity that was begun to its end."""
        weights, moves = self._weights, self._moves
        stops = starts + 1
        unsure = np.zeros(len(starts), bool)
        open_ = np.flatnonzero(~closed)
        first_part = vectors[starts[open_]] @ weights["lower1"]
        while len(open_):
            token = stops[open_]
            hidden = vectors[token] @ weights["lower0"]
            hidden += first_part
            hidden += vectors[token - 1] @ weights["lower2"]
            hidden += weights["open_bias"]
            hidden = _maxed(hidden)
            going = moves.inside[labels[open_]]
            ending = moves.last[labels[open_]]
            difference = np.einsum("ij,ij->i", hidden, weights["upper"][going] - weights["upper"][ending])
            difference += weights["upper_bias"][going] - weights["upper_bias"][ending]
            # Which of two equal scores spaCy takes does not matter here: they are too close to tell.
            goes_on = (difference > 0) & ~is_last[token]
            unsure[open_] |= (np.abs(difference) < DOUBT) & ~is_last[token]
            stops[open_] += 1
            first_part = first_part[goes_on]
            open_ = open_[goes_on]
        return stops, unsure


def _maxed(hidden: Floats) -> Floats:
    half = hidden.shape[1] // 2
    return np.maximum(hidden[:, :half], hidden[:, half:])


def _in_documents(starts: Ints, stops: Ints, labels: list[str], ends: Ints) -> list[list[TokenSpan]]:
    """Drop what begins inside an entity that began earlier, and number tokens by document."""
    found: list[list[TokenSpan]] = [[] for _ in ends]
    documents = np.searchsorted(ends, starts, side="right").tolist()
    before = np.concatenate(([0], ends)).tolist()
    free = 0
    for start, stop, label, document in zip(starts.tolist(), stops.tolist(), labels, documents, strict=True):
        if start >= free:
            offset = before[document]
            found[document].append(TokenSpan(start - offset, stop - offset, label))
            free = stop
    return found


def _moves_of(ner: Any) -> _Moves | None:
    """Return the numbers of the moves by kind and label; None where a label lacks one of its four."""
    all_names = [ner.moves.get_class_name(number) for number in range(ner.moves.n_moves)]
    by_name = {name: number for number, name in enumerate(all_names)}
    labels = sorted({name[2:] for name in all_names if name[:2] == "B-"})
    if not all(f"{kind}-{label}" in by_name for label in labels for kind in "BILU"):
        return None
    others = set(by_name) - {f"{kind}-{label}" for label in labels for kind in "BILU"}
    # "U-" is valid only on tokens that were blocked beforehand, and there are none.
    if "O" not in others or others - {"O", "U-"}:
        return None

    def numbers(kind: str) -> Ints:
        return np.array([by_name[f"{kind}-{label}"] for label in labels], np.int64)

    return _Moves(
        begin=numbers("B"),
        inside=numbers("I"),
        last=numbers("L"),
        unit=numbers("U"),
        out=by_name["O"],
        labels=labels,
    )


def _weights(linear: Any, lower: Any, upper: Any, moves: _Moves) -> dict[str, Floats]:
    """Lay the weights out for batches: pieces side by side, features apart, moves outside together."""
    stacked = lower.get_param("W")  # (features, hidden, pieces, inputs)
    pads = lower.get_param("pad")[0]  # (features, hidden, pieces)
    bias = _pieces_apart(lower.get_param("b"))
    parts = {
        f"lower{feature}": np.ascontiguousarray(
            stacked[feature].transpose(2, 1, 0).reshape(stacked.shape[3], -1)
        )
        for feature in range(3)
    }
    outside = np.concatenate(([moves.out], moves.begin, moves.unit))
    return {
        "outside": np.ascontiguousarray(upper.get_param("W")[outside].T),
        "outside_bias": upper.get_param("b")[outside],
        "narrow": np.ascontiguousarray(linear.get_param("W").T),
        "narrow_bias": linear.get_param("b"),
        **parts,
        "open_bias": bias,
        # Outside an entity there is neither a first nor a previous token of it: their padding counts instead.
        "closed_bias": bias + _pieces_apart(pads[1]) + _pieces_apart(pads[2]),
        "upper": upper.get_param("W"),
        "upper_bias": upper.get_param("b"),
    }


def _pieces_apart(values: Floats) -> Floats:
    return np.ascontiguousarray(values.T.reshape(-1))
