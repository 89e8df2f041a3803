"""Exact search over nested codes at any code length. help(pydpq.Index) documents every argument."""

import os

# dpq::run explains the variable, which candle reads when it starts.
os.environ.setdefault("CANDLE_NUM_THREADS", "1")

from pydpq._pydpq import Codebooks, Filter, Index, LiveIndex, Model, __version__, mean_average_precision
from pydpq._train import train

__all__ = ["Codebooks", "Filter", "Index", "LiveIndex", "Model", "mean_average_precision", "train"]
