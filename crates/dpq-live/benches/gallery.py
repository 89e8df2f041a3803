"""Measures a live index that grows, and eight segments beside one index; prints what it measured as JSON.

Usage: gallery.py BENCH FOLDER    `cargo xtask bench --against live` calls this.

BENCH is the program of gallery.rs. The live index lies in FOLDER, whose disk decides the time of commits.
"""

import json
import subprocess
import sys

from sides import print_report, progress

UPSERTS, ITEMS = 1_000_000, 10_000_000

if __name__ == "__main__":
    path, folder = sys.argv[1:]
    progress(f"{UPSERTS} and {ITEMS} upserts, then searches")
    results = json.loads(subprocess.check_output([path, folder, str(UPSERTS), str(ITEMS)]))
    print_report({}, results)
