"""Write the table of a finished run:  python -m hrnet_search.benchmark runs/benchmark_pose"""

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from . import FOLDER, PREFIX, pack


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hrnet_search.benchmark",
        description="Write the table of a study whose networks were all trained.",
    )
    parser.add_argument("run", type=Path, help="the study's folder, such as runs/benchmark_pose")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the table's files")
    options = parser.parse_args()
    try:
        place = options.out / options.run.resolve().name.removeprefix(PREFIX)
        table = pack(options.run, place)
    except (InputError, OSError) as error:
        print(f"hrnet_search.benchmark: {error}", file=sys.stderr)
        return 2
    trained = f"{len(table.results)} trainings of {len(table.networks)} networks"
    print(f"{trained}: {place}.yaml, .json, .jsonl.gz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
