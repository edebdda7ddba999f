"""Calls the command line of the suite: `python run_ablation.py --help`."""

import signal
import sys

if __name__ == "__main__":
    try:
        from ablations.cli import main

        code = main()
    except KeyboardInterrupt:  # before there was anything to stop, or once more on the way out
        code = 130
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what libraries do at the end is not to be interrupted
    sys.exit(code)
