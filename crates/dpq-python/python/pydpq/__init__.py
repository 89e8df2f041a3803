"""Exact search over nested codes at any code length. help(pydpq.Index) documents every argument."""

from pydpq._pydpq import Codebooks, Filter, Index, LiveIndex, Model, __version__, mean_average_precision
from pydpq._train import train

__all__ = ["Codebooks", "Filter", "Index", "LiveIndex", "Model", "mean_average_precision", "train"]
