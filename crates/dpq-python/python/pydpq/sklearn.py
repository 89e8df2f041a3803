"""A transformer for scikit-learn, which must be installed: pip install scikit-learn."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from pydpq._pydpq import Codebooks

__all__ = ["VectorQuantizer"]


class VectorQuantizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """Quantizes vectors to codes of one byte per level, by residual k-means, or k-means on parts.

    transform gives codes, uint8 [n, levels]. The first l columns are the code at 8 l bits, unless form is "product".
    inverse_transform gives vectors. codebooks_ are the pydpq.Codebooks, for pydpq.Index.from_codes. Parameters are
    those of pydpq.Codebooks.train, and transform encodes with the same beam and length_weights.
    """

    codebooks_: Codebooks

    def __init__(
        self,
        levels: int = 4,
        *,
        codewords: int = 256,
        iterations: int = 25,
        refine: int = 0,
        beam: int = 1,
        length_weights: Sequence[float] | None = None,
        init_size: int | None = 16384,
        form: Literal["progressive", "product"] = "progressive",
    ) -> None:
        self.levels = levels
        self.codewords = codewords
        self.iterations = iterations
        self.refine = refine
        self.beam = beam
        self.length_weights = length_weights
        self.init_size = init_size
        self.form: Literal["progressive", "product"] = form

    def fit(self, X: ArrayLike, y: object = None) -> "VectorQuantizer":
        """Fits codebooks to X, [n, D], with at least as many rows as codewords. y is ignored."""
        x = self._validated(X, ensure_min_samples=self.codewords)
        self.codebooks_ = Codebooks.train(
            x,
            self.levels,
            codewords=self.codewords,
            iterations=self.iterations,
            refine=self.refine,
            beam=self.beam,
            length_weights=self.length_weights,
            init_size=self.init_size,
            form=self.form,
        )
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.uint8]:
        """Returns the codes of X, uint8 [n, levels]."""
        check_is_fitted(self)
        # Codebooks that were refined for weights may encode greedily, without a beam.
        weights = self.length_weights if self.beam > 1 else None
        return self.codebooks_.encode(self._validated(X, reset=False), beam=self.beam, length_weights=weights)

    def inverse_transform(self, X: ArrayLike, *, bits: int | None = None) -> NDArray[np.float32]:
        """Returns the vectors, float32 [n, D], that codes X stand for at a length of bits (None: the longest)."""
        check_is_fitted(self)
        return self.codebooks_.decode(X, bits)

    def _validated(self, X: Any, **options: Any) -> Any:
        return validate_data(self, X, dtype=np.float32, **options)

    @property
    def _n_features_out(self) -> int:
        return self.codebooks_.n_levels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Codes are bytes, whatever X is.
        tags.transformer_tags.preserves_dtype = []
        return tags
