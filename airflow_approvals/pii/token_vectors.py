"""spaCy's convolutional token encoder computed by numpy: the same weights, many documents at a time.

spaCy multiplies through BLIS, and where BLIS does not know the processor that is several times slower than
the BLAS inside numpy. Only the one architecture that is checked here is taken over (MultiHashEmbed and
MaxoutWindowEncoder, both v2, window 1, without static vectors); for any other `TokenVectors.of` returns
None, and spaCy computes.

Source: spacy/ml/models/tok2vec.py, thinc/layers/{hashembed,maxout,layernorm,with_array}.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

REMEMBERED_TOKENS = 30_000
ROWS_AT_A_TIME = 2_000  # so that what a layer works on stays in the processor's cache
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FINISH = np.uint64(0xD6E8FEB86659FD93)
HALF = np.uint64(32)


@dataclass(frozen=True, kw_only=True)
class Maxout:
    """A maxout layer with layer normalisation; pieces lie side by side, the maximum is taken by column."""

    weights: Floats  # (inputs, pieces * width)
    bias: Floats  # (pieces * width,)
    gain: Floats
    shift: Floats
    pieces: int

    def __call__(self, rows: Floats) -> Floats:
        """Return one normalised row for each row."""
        width = len(self.gain)
        every: Floats = rows @ self.weights
        every += self.bias
        best: Floats = np.maximum(every[:, :width], every[:, width : 2 * width])
        for piece in range(2, self.pieces):
            np.maximum(best, every[:, piece * width : (piece + 1) * width], out=best)
        best -= best.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", best, best)
        variance /= width
        variance += 1e-8
        best *= (1.0 / np.sqrt(variance))[:, None]
        best *= self.gain
        best += self.shift
        return best


class TokenVectors:
    """The vectors of tokens in context, as `model.predict(docs)` gives them, to within float rounding."""

    def __init__(
        self,
        *,
        columns: list[str],
        tables: list[tuple[Any, Floats, int]],
        mix: Maxout,
        layers: list[Maxout],
        ops: Any,
    ) -> None:
        self.columns = columns
        self.width = len(mix.gain)
        self._tables = tables
        self._mix = mix
        self._layers = layers
        self._ops = ops
        self._row_of: dict[int, int] = {}
        self._embedded = np.empty((REMEMBERED_TOKENS, self.width), np.float32)

    @classmethod
    def of(cls, model: Any) -> TokenVectors | None:
        """Return the encoder of a thinc model, None where it is not the architecture that is known here."""
        embed, encode = _split(model)
        if embed is None or not _is_known(embed, encode):
            return None
        tables = [
            (part.layers[1], part.layers[1].get_param("E"), part.layers[1].attrs["seed"])
            for part in embed.layers[2].layers[0].layers
        ]
        return cls(
            columns=list(embed.layers[0].attrs["columns"]),
            tables=tables,
            mix=_maxout(embed.layers[3].layers[0]),
            layers=[_maxout(residual.layers[0].layers[1]) for residual in encode.layers[0].layers],
            ops=model.ops,
        )

    @property
    def padding(self) -> int:
        """Rows of zeros that stand between documents: as many as layers, so that nothing reaches across."""
        return len(self._layers)

    def encode(self, features: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]) -> Floats:
        """Return (tokens, width) for documents of `lengths` tokens; `features` has their `columns` by row."""
        vectors, which = self.encode_distinct(features, lengths)
        return vectors[which]

    def encode_distinct(
        self, features: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return the vectors of tokens without repetition, and which of them is that of each token.

        A layer sees a row and its two neighbours, so equal windows have equal outcomes: each layer computes
        distinct windows only, told apart by 64-bit keys. Padding rows are left out once they cannot reach a
        token.
        """
        pad = self.padding
        starts = np.cumsum(lengths) - lengths
        places = np.arange(len(features)) + np.repeat(pad * np.arange(1, len(lengths) + 1), lengths)
        gaps = np.append(starts, len(features)) + pad * np.arange(len(lengths) + 1)
        total = len(features) + pad * len(gaps)
        distance = np.zeros(total, np.int64)  # rows to the nearest token
        distance[gaps[:, None] + np.arange(pad)] = np.minimum(np.arange(1, pad + 1), np.arange(pad, 0, -1))
        padded = np.zeros((total + 2, self.width), np.float32)
        rows = padded[1:-1]
        # Row i of this view is rows i - 1, i and i + 1 side by side.
        shape = (total, 3 * self.width)
        windows = np.lib.stride_tricks.as_strided(padded, shape, padded.strides, writeable=False)
        keys = np.zeros(total + 2, np.uint64)
        keys[1:-1][places] = _mixed(features)
        rows[places] = self._embed(features, keys[1:-1][places])
        for number, layer in enumerate(self._layers, start=1):
            keys[1:-1] = _mixed(np.stack((keys[:-2], keys[1:-1], keys[2:]), axis=1))
            needed = np.flatnonzero(distance <= pad - number)
            _, first, inverse = np.unique(keys[1:-1][needed], return_index=True, return_inverse=True)
            distinct = needed[first]
            changed = np.empty((len(distinct), self.width), np.float32)
            for block in range(0, len(distinct), ROWS_AT_A_TIME):
                part = slice(block, block + ROWS_AT_A_TIME)
                changed[part] = layer(windows[distinct[part]])
            rows[needed] += changed[inverse]
        return rows[distinct], inverse  # of the last layer, which is needed for tokens alone

    def _embed(self, features: npt.NDArray[np.uint64], mixed: npt.NDArray[np.uint64]) -> Floats:
        """Return the context-free vectors; a token that was seen before is looked up."""
        keys, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
        if len(keys) > REMEMBERED_TOKENS:
            return self._fresh(features[first])[inverse]
        known = self._row_of
        places = np.fromiter((known.get(key, -1) for key in keys.tolist()), np.int64, len(keys))
        missing = np.flatnonzero(places < 0)
        if len(missing) and len(known) + len(missing) > REMEMBERED_TOKENS:
            known.clear()
            missing = np.arange(len(keys))
        if len(missing):
            new = np.arange(len(known), len(known) + len(missing))
            self._embedded[new] = self._fresh(features[first[missing]])
            known.update(zip(keys[missing].tolist(), new.tolist(), strict=True))
            places[missing] = new
        return self._embedded[places[inverse]]

    def _fresh(self, features: npt.NDArray[np.uint64]) -> Floats:
        parts = []
        for column, (_, table, seed) in enumerate(self._tables):
            keys = self._ops.hash(np.ascontiguousarray(features[:, column]), seed) % table.shape[0]
            parts.append(self._ops.gather_add(table, keys))
        return self._mix(np.concatenate(parts, axis=1))


def _mixed(columns: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a 64-bit key for each row, as good as distinct for distinct rows (as spaCy has for words)."""
    mixed = np.zeros(len(columns), np.uint64)
    for column in range(columns.shape[1]):
        mixed *= MULTIPLIER
        mixed += columns[:, column]
        mixed ^= mixed >> HALF
        mixed *= FINISH
        mixed ^= mixed >> HALF
    return mixed


def _split(model: Any) -> tuple[Any, Any]:
    """Return the embedding and the encoding layer of a `Tok2Vec` model."""
    try:
        return model.get_ref("embed"), model.get_ref("encode")
    except (KeyError, ValueError):
        return None, None


def _is_known(embed: Any, encode: Any) -> bool:
    """Compare the names that thinc gives to chained layers: they spell the whole architecture out."""
    try:
        count = len(embed.layers[0].attrs["columns"])
        depth = len(encode.layers[0].layers)
    except (AttributeError, IndexError, KeyError, TypeError):
        return False
    hashes = "|".join(["ints-getitem>>hashembed"] * count)
    layer = "residual(expand_window>>maxout>>layernorm>>dropout)"
    named = (
        embed.name
        == f"extract_features>>list2ragged>>with_array({hashes})"
        ">>with_array(maxout>>layernorm>>dropout)>>ragged2list"
        and encode.name == f"with_array({'>>'.join([layer] * depth)})"
    )
    return (
        named
        and count >= 2
        and depth >= 2
        and encode.attrs["pad"] == depth
        and all(
            residual.layers[0].layers[0].attrs["window_size"] == 1 for residual in encode.layers[0].layers
        )
        and all(part.attrs["column"] == index for index, part in enumerate(embed.layers[2].layers[0].layers))
        and type(embed.ops).__name__ == "NumpyOps"
    )


def _maxout(chain: Any) -> Maxout:
    """Rearrange the weights of `maxout>>layernorm>>dropout` from (width, pieces, inputs)."""
    maxout, norm = chain.layers[0].layers
    weights = maxout.get_param("W")
    width, pieces, inputs = weights.shape
    return Maxout(
        weights=np.ascontiguousarray(weights.transpose(2, 1, 0).reshape(inputs, pieces * width)),
        bias=np.ascontiguousarray(maxout.get_param("b").T.reshape(pieces * width)),
        gain=norm.get_param("G"),
        shift=norm.get_param("b"),
        pieces=pieces,
    )
