"""Calls the command line of the suite: `python run_ablation.py --help`."""

import sys

if __name__ == "__main__":
    try:
        from ablations.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before there was anything to stop
        sys.exit(130)
