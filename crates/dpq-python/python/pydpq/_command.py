"""The `dpq` command."""

import os
import signal
import sys


def main() -> int:
    # dpq::run explains the variable, which candle reads when it starts.
    os.environ.setdefault("CANDLE_NUM_THREADS", "1")
    from pydpq._pydpq import run_command

    # Python's handler would wait until the command returns.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_command(["dpq", *sys.argv[1:]])
