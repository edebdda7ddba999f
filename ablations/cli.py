"""The command line: reads a command, runs it, and says what went wrong."""

import io
import os
import signal
import sys
import time
import traceback
from typing import Any

from ablations.commands import COMMANDS
from ablations.commands.help import PROG, describe_command, describe_commands
from ablations.commands.shared_flags import with_data_by_name
from ablations.errors import InputError, as_text, pick, warn_in_one_line
from ablations.flags import HELP, HELP_ALL, parse_flags
from ablations.launch import Worker, is_first_process
from ablations.studies import list_studies

SILENCE_S = 30.0
"""How long the other processes of a training wait for the first one to complain."""


def main(arguments: list[str] | None = None, worker: Worker | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for failed cells or stale files, 2 for bad input or a package
    that is not installed.

    A `worker` of a launch measures, and leaves tables and figures to others.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop_once)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names and signs that the terminal's encoding has not
    warn_in_one_line()
    try:
        return parse(arguments).run(arguments, worker)
    except InputError as error:
        if not is_first_process():
            _await_the_first()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, UnicodeEncodeError) as error:  # a full disk, a folder that may not be read, a terminal's letters
        place = f"{as_text(str(error.filename))}: " if isinstance(error, OSError) and error.filename else ""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        print(f"error: {place}cannot be read or written: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        if is_first_process():
            print(f"\n{str(stop) or 'stopped; rerun the same command to resume'}", file=sys.stderr)
        return 130
    except Exception as error:
        if _stopped:  # what it interrupted failed otherwise
            return 130
        if getattr(error, "is_told", False):  # by the process of a training that failed
            return 1
        if "--debug" in arguments:
            traceback.print_exc()
        elif isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("ablations"):
            print(f"error: {error.name!r} is not installed here: `make install` makes .venv", file=sys.stderr)
            return 2
        elif hasattr(error, "is_told"):
            print(f"error: {error}", file=sys.stderr)
        else:
            print(f"internal error: {error!r}; --debug prints the traceback", file=sys.stderr)
        return 1


_stopped: list[int] = []
"""The signal that stopped the process, if one did."""


def _stop_once(number: int, frame: Any) -> None:
    """Raises KeyboardInterrupt for the first signal: another would cut off the way out."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    _stopped.append(number)
    raise KeyboardInterrupt


def _await_the_first() -> None:
    """Gives the first process time to meet the same error and to say it; `torchrun` then ends this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(SILENCE_S)


def parse(arguments: list[str]) -> Any:
    """Returns the command that arguments ask for; raises InputError with what is wrong, and what may be meant.

    Where they ask for help, prints it and raises SystemExit.
    """
    if arguments and arguments[0] in (*HELP, HELP_ALL):
        print(describe_commands())
        raise SystemExit(0)
    words = arguments if arguments and not arguments[0].startswith("-") else ["run", *arguments]
    name, words = words[0], words[1:]
    if name not in COMMANDS and (name in list_studies() or name.endswith(".toml")):
        raise InputError(f"command={name!r} is not possible: it is a study (did you mean 'run {name}'?)")
    command = COMMANDS[pick("command", name, COMMANDS)]
    defaults = command.defaults(words)
    if {*HELP, HELP_ALL} & {*words}:
        print(describe_command(name, defaults, everything=HELP_ALL in words), end="")
        raise SystemExit(0)
    return with_data_by_name(parse_flags(command, f"{PROG} {name}", words, defaults))
