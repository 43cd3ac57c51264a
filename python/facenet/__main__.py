"""python -m facenet: the command, which the package carries."""

from __future__ import annotations

import os
import sys


def main() -> None:
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "facenet")
    if not os.access(program, os.X_OK):
        print("facenet: this build of the package has no command; install a wheel that has it.", file=sys.stderr)
        sys.exit(2)
    sys.stdout.flush()
    os.execv(program, ["facenet", *sys.argv[1:]])


if __name__ == "__main__":
    main()
