"""What the scripts share that measure dpq beside another library, for `cargo xtask bench --against`.

They run from the repository's root and print what they measured as one JSON object.
"""

import gzip
import json
import os
import platform
import subprocess
import sys
import time

import numpy as np


class Peer:
    """Our side: a process that answers a line with a line of JSON, and ends when its input does."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"dpq's side ended at `{' '.join(map(str, words))}`, its message is above")
        return json.loads(answer)


def dpq(path, *words):
    """What the command `dpq` says in JSON."""
    return json.loads(subprocess.check_output([path, *map(str, words), "--json"]))


def fashion_mnist(name):
    """A file of the data set in the repository: images uint8 [N, 28, 28] or labels uint8 [N]."""
    with gzip.open(f"datasets/fashion-mnist/{name}-ubyte.gz") as file:
        data = file.read()
    n_axes = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(np.frombuffer(data, ">i4", n_axes, 4))


def one_core():
    """Leaves this process and its children one core, and returns its number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def progress(what):
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def print_report(versions, results):
    report = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "versions": {"Python": platform.python_version(), "NumPy": np.__version__} | versions,
        "results": results,
    }
    json.dump(report, sys.stdout)


def machine():
    info = dict(line.split(":", 1) for line in open("/proc/cpuinfo") if ":" in line)
    info = {name.strip(): value.strip() for name, value in info.items()}
    wanted = ("avx2", "fma", "avx512f", "avx512bw", "avx512vbmi", "asimd", "sve")
    flags = (info.get("flags") or info.get("Features", "")).split()
    return {
        "cpu": info.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "instructions": [flag for flag in wanted if flag in flags],
        "kernel": f"{platform.system()} {platform.release()}",
    }
