"""Imported by the fork server alone: has it end at once when its parent does.

To take apart what it has imported takes a second of processor time, in which an interrupted run still seems to go on.
The processes that it forks end by themselves, and run no such handlers.
"""

import atexit
import os

atexit.register(os._exit, 0)
