"""Calls the command line of the suite: `python run_ablation.py --help`."""

import sys

from ablations.cli import main

if __name__ == "__main__":
    sys.exit(main())
