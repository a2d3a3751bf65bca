"""``python -m simulation.vectors DIR`` writes the vectors anew."""

import sys
from pathlib import Path

from simulation.vectors.recording import write


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        sys.stderr.write("usage: python -m simulation.vectors DIR\n")
        return 1
    write(Path(argv[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
