"""`python -m facedistill`, and the command `facedistill`."""

import os
import sys


def main() -> None:
    """Run the command line. Threads wait without work, so that a busy machine keeps its speed."""
    for name, value in {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}.items():
        os.environ.setdefault(name, value)  # read when torch is imported
    try:
        from facedistill.cli import main as run
    except KeyboardInterrupt:
        print("facedistill: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
