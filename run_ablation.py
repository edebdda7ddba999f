"""Calls the command line of the suite: `python run_ablation.py --help`."""

import signal
import sys

if __name__ == "__main__":
    try:
        from ablations.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before there was anything to stop
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(130)
