"""Exact search over nested codes at any code length. help(pydpq.Index) documents every argument."""

from collections.abc import Callable, Sequence
from os import PathLike
from types import TracebackType
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "__version__",
    "Codebooks",
    "run_command",
    "run_training",
    "Filter",
    "Index",
    "LiveIndex",
    "Model",
    "mean_average_precision",
]
__version__: str

_Path = str | PathLike[str]

@final
class Codebooks:
    """L codebooks of K codewords of D values. A code has one byte per level; unless the form is product, its first bytes are a shorter code."""

    def __new__(
        cls,
        values: ArrayLike,
        assignment: Literal["euclidean", "cosine"] = "euclidean",
        form: Literal["progressive", "product"] = "progressive",
    ) -> Codebooks:
        """Makes codebooks of values, float32 [L, K, D], or [L, K, D / L] in product form."""
    @staticmethod
    def train(
        x: ArrayLike,
        levels: int,
        *,
        codewords: int = 256,
        iterations: int = 25,
        refine: int = 0,
        beam: int = 1,
        length_weights: Sequence[float] | None = None,
        init_size: int | None = 16384,
        form: Literal["progressive", "product"] = "progressive",
    ) -> Codebooks:
        """Fits codebooks to x, float32 [n, D], by residual k-means for codes of a beam search, and refines them.

        In product form, fits each level to its part of the dimensions.
        """
    @staticmethod
    def load(path: _Path) -> Codebooks:
        """Opens a codebook or a model file."""
    def save(self, path: _Path) -> None:
        """Writes a codebook file atomically."""
    def encode(
        self, x: ArrayLike, *, beam: int = 1, length_weights: Sequence[float] | None = None
    ) -> NDArray[np.uint8]:
        """Encodes x, float32 [n, D], into codes, uint8 [n, L], greedily or by beam search."""
    def decode(self, codes: ArrayLike, bits: int | None = None) -> NDArray[np.float32]:
        """Decodes codes, uint8 [n, L], at a length of bits (None: the longest) into float32 [n, D]."""
    def as_array(self) -> NDArray[np.float32]:
        """Returns all codewords, float32 [L, K, D], or [L, K, D / L] in product form, as a copy."""
    @property
    def n_levels(self) -> int:
        """The number of levels, L."""
    @property
    def n_codewords(self) -> int:
        """The number of codewords per level, K."""
    @property
    def dim(self) -> int:
        """Dimensions of a feature, D."""
    @property
    def assignment(self) -> Literal["euclidean", "cosine"]:
        """How a level chooses its codeword."""
    @property
    def form(self) -> Literal["progressive", "product"]:
        """Whether a level covers all dimensions, or its part of them."""
    @property
    def fingerprint(self) -> str:
        """Eight hex digits that identify these codebooks."""

@final
class Index:
    """An index, searched exactly at any code length."""

    @staticmethod
    def open(path: _Path) -> Index:
        """Opens an index file, or the last commit in the folder of a live index, by memory-mapping."""
    @staticmethod
    def from_codes(
        codes: ArrayLike,
        codebooks: Codebooks,
        ids: ArrayLike | None = None,
        metric: Literal["ip", "l2"] = "ip",
        *,
        norms: Sequence[int] | None = None,
    ) -> Index:
        """Builds an index in memory from codes, uint8 [n, L].

        ids None means row numbers. An "l2" index keeps norms for the lengths of norms, in bits; None means usual ones.
        """
    @staticmethod
    def from_faiss(path: _Path) -> Index:
        """Reads a faiss IndexResidualQuantizer or IndexPQ, alone or in an IndexIDMap."""
    def to_faiss(self, path: _Path) -> None:
        """Writes a faiss IndexResidualQuantizer, or IndexPQ of product codes, in an IndexIDMap unless ids are row numbers."""
    def allow(self, ids: ArrayLike) -> Filter:
        """Returns a filter that these ids pass, or the true rows of a mask, bool [len(index)]."""
    def deny(self, ids: ArrayLike) -> Filter:
        """Returns a filter that all other ids pass."""
    def save(self, path: _Path) -> None:
        """Writes the index to a file atomically."""
    def upgrade(self) -> Index:
        """Returns an index of the same items in the current version of the file format, in memory."""
    def to_bytes(self) -> bytes:
        """Returns the bytes of its file."""
    @staticmethod
    def from_bytes(data: bytes) -> Index:
        """Opens an index from the bytes of its file, in memory."""
    def search(
        self,
        queries: ArrayLike,
        k: int,
        bits: int | None = None,
        *,
        shortlist: tuple[int, int] | None = None,
        exact: bool = False,
        filter: Filter | None = None,
        threads: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Returns (scores, ids) of the best k items for queries, float32 [n, D] or [D]: float32 and int64 [n, k] or [k].

        bits None searches at all levels. Larger scores are nearer. Where fewer than k items match, a row ends in ids of -1
        and the minimum float32. shortlist (n, bits) scores only the best n items at a shorter length; exact continues
        until none is missed.
        """
    def rerank(
        self, queries: ArrayLike, ids: ArrayLike, vectors: ArrayLike, k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Returns (scores, ids) of the best k of the hits ids, int64 [n, m], by vectors, float32 [N, D], row i for id i."""
    def squared_distances(
        self, queries: ArrayLike, scores: ArrayLike
    ) -> NDArray[np.float32]:
        """Returns the squared distances, float32 [n, k], of hits with these scores under the metric "l2"."""
    def verify(self) -> None:
        """Reads and checks every byte."""
    def name_of(self, id: int) -> str | None:
        """Returns the name that a live index has for an id."""
    def __len__(self) -> int: ...
    @property
    def dim(self) -> int:
        """Dimensions of a query, D."""
    @property
    def n_levels(self) -> int:
        """Levels, L."""
    @property
    def metric(self) -> Literal["ip", "l2"]:
        """The metric."""
    @property
    def version(self) -> int:
        """The version of the file format."""
    @property
    def norms(self) -> list[int]:
        """The code lengths in bits, above 16, that an "l2" index keeps norms for."""
    @property
    def fingerprint(self) -> str:
        """The fingerprint of the codebooks."""
    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that made the codes."""

@final
class Filter:
    """The items of one index that a search may return, made by Index.allow or Index.deny."""

    def __and__(self, other: Filter, /) -> Filter: ...
    def __rand__(self, other: Filter, /) -> Filter: ...
    def __or__(self, other: Filter, /) -> Filter: ...
    def __ror__(self, other: Filter, /) -> Filter: ...
    def __invert__(self) -> Filter: ...
    def __len__(self) -> int: ...

@final
class LiveIndex:
    """An index that changes, in a folder, and the only writer of it. Changes are in memory until commit."""

    @staticmethod
    def open(path: _Path) -> LiveIndex:
        """Opens the folder of a live index for changes. A BlockingIOError says that another writer has it."""
    @staticmethod
    def create(path: _Path, codebooks: Codebooks, metric: Literal["ip", "l2"] = "ip") -> LiveIndex:
        """Makes a live index without items, and its folder."""
    def upsert(self, ids: ArrayLike, codes: ArrayLike, names: Sequence[str | None] | None = None) -> None:
        """Adds items, or replaces those with these ids and their names. codes: uint8 [n, L]."""
    def delete(self, ids: ArrayLike) -> None:
        """Deletes the item with an id, or the items with ids. If one is unknown, that is a KeyError, and nothing is changed."""
    def commit(self) -> int:
        """Makes all changes durable at once, and returns the number of the commit."""
    def rollback(self) -> None:
        """Drops all changes since the last commit."""
    def merge(self) -> bool:
        """Runs one merge of segments, if there is one to make, and returns whether it did."""
    def compact(self) -> int:
        """Merges everything into one segment without deleted items, and commits. Other calls wait meanwhile."""
    def snapshot(self) -> Index:
        """Returns the last commit, which never changes."""
    def search(
        self,
        queries: ArrayLike,
        k: int,
        bits: int | None = None,
        *,
        shortlist: tuple[int, int] | None = None,
        exact: bool = False,
        filter: Filter | None = None,
        threads: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Searches the last commit, as Index.search. A filter is one of snapshot()."""
    def close(self) -> None:
        """Ends the lock of the writer. Changes since the last commit are lost."""
    def id_of(self, name: str) -> int | None:
        """Returns the id of the item with this name, changes included, or None."""
    def __enter__(self) -> LiveIndex: ...
    def __exit__(
        self,
        exception: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...
    def __contains__(self, id: int, /) -> bool: ...
    def __len__(self) -> int: ...
    @property
    def codebooks(self) -> Codebooks:
        """The codebooks of all codes."""
    @property
    def metric(self) -> Literal["ip", "l2"]:
        """The metric."""
    @property
    def max_id(self) -> int | None:
        """At least the largest id of all items; None if there never were items."""

@final
class Model:
    """A trained network with its codebooks, run on the CPU."""

    @staticmethod
    def load(path: _Path) -> Model:
        """Opens a model file."""
    def encode(self, items: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Returns (codes, features), uint8 [n, L] and float32 [n, D], of images, uint8 [n, C, H, W], or of features or keys, float32 [n, F]."""
    def encode_queries(self, queries: ArrayLike) -> NDArray[np.float32]:
        """Maps queries, float32 [n, D], of a model of pairs to those that search the codes of keys."""
    @property
    def takes(self) -> Literal["images", "features", "pairs"]:
        """The inputs of encode: "images", "features", or features of "pairs"."""
    @property
    def codebooks(self) -> Codebooks:
        """The codebooks of the codes."""
    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image; (F, 1, 1) of features of F numbers."""

def mean_average_precision(
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    rule: Literal["dpq", "standard"] = "dpq",
    at: int | None = None,
) -> float:
    """Returns the mean average precision under a rule of `dpq eval`; "dpq" averages over ties.

    Labels are multi-hot [n, C] or class numbers [n]. Pass scores for the whole gallery, ids with scores as Index.search returns them, or ids alone.
    """

def run_command(arguments: Sequence[str]) -> int:
    """Runs the `dpq` command with the words of a command line, its name first, and returns its exit code."""

def run_training(arguments: Sequence[str], on_epoch: Callable[[str], object] | None = None) -> None:
    """Trains as `dpq train` does with these options. Calls on_epoch with each epoch, a line of epochs.jsonl."""
