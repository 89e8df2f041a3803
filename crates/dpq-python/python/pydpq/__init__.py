"""Exact search over nested codes at any code length. help(pydpq.Index) documents every argument."""

from pydpq._pydpq import Codebooks, Filter, Index, Model, __version__, mean_average_precision

__all__ = ["Codebooks", "Filter", "Index", "Model", "mean_average_precision"]
