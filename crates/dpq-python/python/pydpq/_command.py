"""The `dpq` command."""

import signal
import sys

from pydpq._pydpq import run_command


def main() -> int:
    # Python's handler would wait until the command returns.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_command(["dpq", *sys.argv[1:]])
