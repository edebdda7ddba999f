"""The command line: does what a command asks for, and prints it."""

# No torch is imported before something is measured, so that help and lists answer at once.
import io
import os
import shlex
import shutil
import signal
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

from ablations import commands
from ablations.cells import Cell
from ablations.commands import parse, parse_duration
from ablations.config import ARMS, BASES, CUMULATIVE, PUBLISHED_MODELS, VARIANT_ALIASES, VARIANTS, build_config
from ablations.cost import count_macs, count_params
from ablations.data.dense_registry import list_dense_sets
from ablations.data.registry import list_data_sets
from ablations.dense_recipes import DETECTION_RECIPES, SEGMENTATION_RECIPES
from ablations.errors import InputError, as_text, pick, refuse, warn_in_one_line
from ablations.launch import Worker, cancel_workers, check_launch, describe_status, launch_local, launch_slurm
from ablations.measure import Memory
from ablations.recipes import RECIPES
from ablations.skeletons import render_skeleton
from ablations.studies import find_study, list_studies, parse_size
from ablations.toggle_files import take_toggles
from ablations.units import format_bytes, parse_bytes

SILENCE_S = 30.0
"""How long the other processes of a training wait for the first one to complain."""


def main(arguments: list[str] | None = None, worker: Worker | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for failed cells or stale files, 2 for bad input.

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
        command = parse(arguments)
        match command:
            case commands.List():
                return _list()
            case commands.BuildReport():
                return _report(command)
            case commands.Compare():
                return _compare(command)
            case commands.ClosedForm():
                return _print_closed_form(command)
            case commands.Records():
                return _records(command)
            case commands.Power():
                return _power(command)
            case commands.NewToggleFile():
                print(render_skeleton(command.slot), end="")
                return 0
            case commands.Plan():
                return _plan(command)
            case commands.Status():
                print("\n".join(describe_status(command.cells(), command.results)))
                return 0
            case commands.Cancel():
                print("\n".join(f"stopped {each}" for each in cancel_workers(command.results)) or "no worker runs")
                return 0
            case commands.BenchmarkCount():
                from ablations.benchmarks import benchmark_count

                return benchmark_count(command)
            case commands.BenchmarkEpoch():
                from ablations.benchmarks import benchmark_epoch_of

                return benchmark_epoch_of(command)
            case commands.MeasureMemory(budget=str()):
                return _answer_budget(command)
            case commands.MeasureMemory(verify=True):
                raise refuse("verify", True, "False without --budget")
            case _:
                return _measure(command, arguments, worker)
    except InputError as error:
        if not _is_first_process():
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
        if _is_first_process():
            print(f"\n{str(stop) or 'stopped; rerun the same command to resume'}", file=sys.stderr)
        return 130
    except Exception as error:
        if _stopped:  # what it interrupted failed otherwise
            return 130
        if getattr(error, "is_told", False):  # by the process of a training that failed
            return 1
        if "--debug" in arguments:
            traceback.print_exc()
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


def _is_first_process() -> bool:
    """Whether this is the process that speaks, among those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def _await_the_first() -> None:
    """Gives the first process time to meet the same error and to say it; `torchrun` then ends this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(SILENCE_S)


def _measure(command: Any, arguments: list[str], worker: Worker | None) -> int:
    """Measures what a command asks for, rebuilds the report, and prints the tables and where the files are."""
    cells = command.cells()
    if isinstance(command, commands.Run):
        check_launch(command)
    budget_s = parse_duration(command.time_budget) if command.time_budget else float("inf")
    if command.dry_run:
        return _print_plan(cells, command.results)
    launcher = getattr(command, "launcher", None)
    if launcher == "slurm":
        for number in launch_slurm(command, arguments):
            print(f"submitted job {number}")
        same = ["--toggles", *command.toggles] if command.toggles else []
        status = shlex.join(["status", command.study, "--results", str(command.results), *same])
        print(f"run_ablation.py {status} says how far they are")
        return 0
    is_worker = worker is not None
    if worker:
        cells = [cell for cell in cells if worker.takes(cell)]
    elif launcher == "local":
        worker = launch_local(command, arguments, cells)  # what they leave is for this process

    from ablations.runner import Keep, default_jobs, run_cells

    training = command if isinstance(command, commands.TrainingRuns) else commands.TrainingRuns()
    if training.tensorboard:
        from ablations.training.logs import check_tensorboard

        check_tensorboard()
    named = command.named_study() if isinstance(command, commands.Run) else None
    summary = run_cells(
        cells,
        study=named.name if named else cells[0].measurement,
        declared_seeds=named.seeds() if named else None,
        results=command.results,
        data_dir=getattr(command, "data_dir", None),
        weights=getattr(command, "checkpoint", None) or getattr(command, "weights_file", None),
        time_budget_s=budget_s,
        jobs=default_jobs() if training.jobs is None else training.jobs,
        keep=Keep(tensorboard=training.tensorboard, weights=training.save_weights),
        force=getattr(command, "force", False),
        debug=command.debug,
        since=worker.since if worker else None,
        patience_s=worker.patience_s if worker else float("inf"),
        begin=lambda: _print_recipe(cells) if type(command) in commands.TRAININGS else None,
    )

    if not _is_first_process():
        return 1 if summary.failed else 0
    for label, reason in summary.failed:
        print(f"failed: {label}: {reason}", file=sys.stderr)
    if training.save_weights and summary.kept:
        print(f"{summary.kept} cells have records already: no weights of these were written", file=sys.stderr)
    if summary.left:
        print(
            f"the time budget is spent; resume with: run_ablation.py {shlex.join(arguments)}".strip(), file=sys.stderr
        )

    if is_worker:
        return 1 if summary.failed else 0

    from ablations.report.build import build_report

    report = build_report(command.results, with_page=True)
    _say_not_rebuilt(report.not_rebuilt)
    if isinstance(command, commands.Run) and not command.verbose:
        _print_answer(cells, report.table)
    else:
        _print_tables(cells, command, report.table)
    print(
        f"{summary.measured} cells measured in {summary.seconds:.1f} s, {summary.kept} were there, "
        f"{summary.left} left for a next run"
    )
    print(f"All tables and figures: {command.results / 'report.html'}, {command.results / 'README.md'}")
    return 1 if summary.failed or report.not_rebuilt else 0


def _say_not_rebuilt(reasons: dict[str, str]) -> None:
    for name, why in reasons.items():
        print(f"left as it was: {name}: {why}", file=sys.stderr)


def _print_recipe(cells: list[Cell]) -> None:
    """Prints what is trained by, once for each way that it was resolved."""
    if not _is_first_process():
        return
    recipes = {replace(cast(Any, cell.conditions), seed=0): cell for cell in reversed(cells)}
    for conditions in reversed(recipes):
        fields = " ".join(f"{name}={value}" for name, value in vars(conditions).items() if name != "seed")
        print(f"recipe: {fields}")
        print(f"total batch {conditions.batch_size}, peak learning rate {conditions.peak_lr:.3g}", flush=True)


MAIN_TABLES: dict[Any, tuple[str, ...]] = {
    commands.MeasureCost: ("cost",),
    commands.MeasureCounters: ("counters",),
    commands.MeasureMemory: ("memory", "memory_models"),
    commands.MeasureSpeed: ("speed", "speed_libraries"),
    commands.MeasureAccuracy: ("accuracy",),
    commands.MeasureDetection: ("detection",),
    commands.MeasureSegmentation: ("segmentation",),
    commands.Evaluate: ("evaluation",),
}
"""The tables that answer a command; those beside them are named with their folder."""

NAMED_MODELS_TABLES = ("models",)
"""What answers for models that were named one by one, arms among them."""

NOT_PRINTED_OF_PAPER = ("models", "operators", "parts", "cost", "cumulative")
"""Long tables that the count of the whole paper leaves in their files."""


OF_TABLE_6 = ("Row", "Parameters", "GFLOPs", "reported")
"""How the headings of the columns begin that the end of a run shows of the paper's Table 6."""


def _print_answer(cells: list[Cell], records: Any) -> None:
    """Prints what a study says: its largest comparison, a sentence a toggle, and the paper's Table 6 beside ours."""
    from ablations.analysis.comparison import comparison_values
    from ablations.report.comparison import shorten
    from ablations.report.paper import TABLES as PAPER_TABLES
    from ablations.report.summary import show_comparisons
    from ablations.report.tables import list_sections, render_terminal

    keys = {cell.key for cell in cells}
    width = shutil.get_terminal_size().columns
    comparisons = show_comparisons(comparison_values(records, keys))
    trained_on = {cell.conditions.data for cell in cells if cell.conditions.trains}
    first = min(comparisons, key=lambda each: each.group.conditions.get("data") not in trained_on, default=None)
    if first:
        section, texts = shorten(first.section, [each.text for each in first.statements])
        said = [replace(each, text=text) for each, text in zip(first.statements, texts, strict=True)]
        _print_comparison(replace(first, section=section, statements=said), width)
    own = records[records["key"].isin(keys)] if "key" in records else records
    (table6,) = (table for table in PAPER_TABLES if table.name == "table6_ablation")
    if not (values := table6.values(own)).empty:
        print(f"{table6.title}\n")
        for section in list_sections(table6, values[values["arm"].isin(CUMULATIVE)]):
            columns = [column for column in section.only(OF_TABLE_6).columns if "step" not in column.heading]
            print(f"{render_terminal(replace(section, columns=columns), width)}\n")


def _print_comparison(shown: Any, width: int) -> None:
    from ablations.report.tables import render_terminal

    print(f"\n{shown.section.title}\n\n{render_terminal(shown.section, width)}\n")
    for each in shown.statements:
        print(textwrap.fill(f"{each.topic}: {each.text}", width))
    print()


def _print_tables(cells: list[Cell], command: Any, records: Any) -> None:
    """Prints the tables of these cells' records that answer the command, and names the others."""
    from ablations.analysis.cost import model_values
    from ablations.report.build import TABLES
    from ablations.report.cost import render_breakdown
    from ablations.report.tables import render_markdown

    named = isinstance(command, commands.MeasureCost) and bool(command.model)
    whole_paper = {cell.key for cell in find_study("paper").cells()} <= {cell.key for cell in cells}
    main = NAMED_MODELS_TABLES if named else MAIN_TABLES.get(type(command), ())
    if whole_paper or not main:
        main = tuple(table.name for table in TABLES if not (whole_paper and table.name in NOT_PRINTED_OF_PAPER))
    records = records[records["key"].isin([cell.key for cell in cells])] if "key" in records else records
    others = []
    for table in TABLES:
        values = model_values(records, arms=True) if named and table.name == "models" else table.values(records)
        if values.empty:
            continue
        if table.name in main:
            print(f"\n{render_markdown(table, values)}")
        else:
            others.append(f"{table.name}.md")
    if isinstance(command, commands.MeasureCost) and command.breakdown:
        print(render_breakdown(records))
    if others:
        print(f"more by `report --all`, in {command.results / 'tables'}: {', '.join(others)}\n")


def _print_closed_form(command: commands.ClosedForm) -> int:
    sizes = [(text, parse_size(text)) for text in command.resolutions]
    variants = [name for name, fields in VARIANTS.items() if "stem_stride" not in fields]
    start = time.perf_counter()
    lines = ["variant,base,arm,resolution,params,macs"]
    for variant, base, arm in product(variants, BASES, ARMS):
        config = build_config(variant, arm, base)
        params = count_params(config)
        lines += [f"{variant},{base},{arm},{text},{params},{count_macs(config, size)}" for text, size in sizes]
    seconds = time.perf_counter() - start
    print("\n".join(lines))
    print(f"{len(lines) - 1:,} counts in {seconds:.2f} s, without torch", file=sys.stderr)
    return 0


def _answer_budget(command: Any) -> int:
    """Prints what fits into a budget; with `verify` returns 1 unless all of it was measured to fit."""
    for name in ("predict", "dry_run", "time_budget", "force"):
        if getattr(command, name):
            raise refuse(name, getattr(command, name), "no such flag beside --budget, which writes no records")
    budget_bytes = parse_bytes(command.budget)
    sizes = command.sizes((224, 512, 1024))
    # One cell for all sizes: the first of them stands for the others.
    cells = list({_without_size(cell): cell for cell in reversed(command.cells())}.values())[::-1]

    from tqdm import tqdm

    from ablations.measure.budget import answer_budgets, budget_values, verify_answer
    from ablations.measure.environment import available_cores, check_device
    from ablations.report.memory import render_budget

    if command.verify:
        check_device(command.device)
    # Without a terminal a mistake is to be the only line.
    asked = answer_budgets(cells, budget_bytes, sizes, available_cores())
    answers = list(tqdm(asked, total=len(cells), unit="cell", disable=None))
    print(f"\n{render_budget(budget_values(answers))}")
    fits = True
    for cell, answer in zip(cells, answers, strict=True) if command.verify else ():
        for check in verify_answer(answer, cell):
            fits = fits and check.fits is True
            came = f"; not verified: {check.note}"
            if check.measured_bytes is not None:
                came = f", measured {format_bytes(check.measured_bytes)}: {'fits' if check.fits else 'does not fit'}"
            where = f"{cell.name} {cell.conditions.mode} at {check.resolution} px, batch {check.batch_size}"
            print(f"{where}: predicted {format_bytes(check.predicted_bytes)}{came}")
    return 0 if fits else 1


def _without_size(cell: Cell) -> Cell:
    return replace(cell, conditions=replace(cast(Any, cell.conditions), resolution=Memory.resolution))


def _plan(command: commands.Plan) -> int:
    """Prints what the trainings of a study will take, and by which records."""
    cells = command.cells()
    _check_has_records(command.results)

    from ablations.runner.plan import estimate

    found = estimate(cells, command.results, command.device)
    print(f"{found.cells} cells, {found.done} done; {found.trainings} trainings to do. Estimates for these:")
    print(f"{found.hours:,.1f} hours of one device, by {found.source}")
    if found.memory_bytes is None:
        print("no prediction of GPU memory, which there is for classifiers alone")
    else:
        print(f"{format_bytes(found.memory_bytes)} of GPU memory a training, predicted for {found.memory_of}")
    print(f"{format_bytes(found.checkpoint_bytes)} of disk for the checkpoint of each training in progress,")
    print(f"and {format_bytes(found.weights_bytes)} for all weights with --save-weights")
    return 0


def _print_plan(cells: list[Cell], results: Path) -> int:
    from ablations.records.folder import find_record

    records = [None if cell.is_from_file else find_record(results, cell) for cell in cells]
    states = [record["status"] if record else "missing" for record in records]
    for cell, state in zip(cells, states, strict=True):
        print(f"{state:8} {cell.label}")
    print(f"{len(cells)} cells, {states.count('done')} done")
    return 0


def _report(command: commands.BuildReport) -> int:
    for name in ("html", "readme"):
        if command.check and getattr(command, name):
            raise refuse(name, getattr(command, name), "none with --check, which writes nothing")
    for name, unset in (("rename", ()), ("title", True)):
        if command.article is None and getattr(command, name) != unset:
            raise refuse(name, getattr(command, name), "no such flag without --article")
    _check_has_records(command.results)
    take_toggles(command.toggles)
    if command.article is not None:
        return _write_article(command, command.article)

    from ablations.report.build import build_report, check_report

    if not command.check:
        report = build_report(
            command.results, everything=command.all, with_figures=command.figures, with_page=command.html
        )
        for name, why in report.damaged.items():
            print(f"damaged, and left out: {name}: {why}", file=sys.stderr)
        print(f"{len(report.files)} files written or kept; {command.results / 'README.md'} lists them")
        if command.html:
            print(command.results / "report.html")
        _say_not_rebuilt(report.not_rebuilt)
        if command.readme:
            from ablations.files import write_text
            from ablations.report.readme import rewrite_numbers

            write_text(command.readme, rewrite_numbers(_read(command.readme), report.table))
            print(command.readme)
        return 1 if report.not_rebuilt else 0
    stale = check_report(command.results)
    for name in stale:
        print(f"stale: {name}", file=sys.stderr)
    return 1 if stale else 0


def _write_article(command: commands.BuildReport, folder: Path) -> int:
    for name, unset in (("check", False), ("html", False), ("figures", True), ("readme", None)):
        if getattr(command, name) != unset:
            raise refuse(name, getattr(command, name), "no such flag beside --article")

    from ablations.report.article import parse_names, write_article

    names = parse_names(command.rename)
    files = write_article(command.results, folder, names, titles=command.title, everything=command.all)
    print(f"{len(files)} files written: {folder / 'tables'}, {folder / 'figures'}")
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"readme={str(path)!r} cannot be read: {error}") from None


def _compare(command: commands.Compare) -> int:
    """Prints the comparisons of a study, or the largest of each kind that the records have."""
    _check_has_records(command.results)
    toggles = take_toggles(command.toggles)
    keys = None if command.study is None else {cell.key for cell in find_study(command.study, toggles).cells()}

    from ablations.analysis.comparison import comparison_values
    from ablations.records import load_records
    from ablations.report.article import parse_names, rename_comparison, renaming
    from ablations.report.page import comparison_html
    from ablations.report.summary import (
        ShownComparison,
        comparison_csv,
        comparison_latex,
        comparison_markdown,
        largest_of_each_kind,
        show_comparisons,
    )
    from ablations.report.tables import escape_latex

    names = parse_names(command.rename)
    values = comparison_values(load_records(command.results), keys)
    if values.empty:
        raise refuse("study", command.study, f"one of which {command.results} has records of two arms or more")
    every = show_comparisons(values)
    chosen = [rename_comparison(each, names) for each in (every if command.study else largest_of_each_kind(every))]
    renderers: dict[str, Callable[[list[ShownComparison]], str]] = {
        "csv": comparison_csv,
        "html": comparison_html,
        "markdown": comparison_markdown,
        "latex": comparison_latex,
    }
    if command.format in renderers:
        text = renderers[command.format](chosen)
        in_latex = {arm: escape_latex(name) for arm, name in names.items()}  # what stands beneath every table too
        print(renaming(in_latex)(text) if command.format == "latex" else text, end="")
        return 0
    width = shutil.get_terminal_size().columns
    for shown in chosen:
        _print_comparison(shown, width)
        print(textwrap.fill(shown.section.caption, width) + "\n")
    return 0


def _check_has_records(results: Path) -> None:
    if not (results / "records").is_dir():
        raise refuse("results", str(results), "a folder that holds records")


def _records(command: commands.Records) -> int:
    from ablations.records.rearrange import drop_records, merge_records, pack_records, unpack_records

    for name, action in (("folders", "merge"), ("where", "drop")):
        given = getattr(command, name)
        if bool(given) != (command.action == action):
            allowed = "one or more" if command.action == action else f"none with {command.action}"
            raise refuse(name, tuple(map(str, given)), allowed)
    if command.action == "merge":
        print(f"{merge_records(command.results, command.folders)} records copied to {command.results}")
        return 0
    _check_has_records(command.results)
    if command.action == "drop":
        aside = drop_records(command.results, _condition_of(command.where))
        print(f"moved to {aside}" if aside else "no such record")
        return 0
    counts = (pack_records if command.action == "pack" else unpack_records)(command.results)
    for measurement, count in counts.items():
        print(f"{measurement:12}{count:6} records")
    return 0


def _power(command: commands.Power) -> int:
    """Prints how many seeds resolve a difference, by the spread of the accuracies that there are."""
    for name, value, most in (("difference", command.difference, 100), ("power", command.power, 1)):
        if not 0 < value < most:
            raise refuse(name, value, f"more than 0 and less than {most}")
    _check_has_records(command.results)

    from ablations.analysis.effects import power_values
    from ablations.records import load_records
    from ablations.report.effects import render_power

    values = power_values(load_records(command.results, "accuracy"), command.difference / 100, command.power)
    if values.empty:
        raise refuse("results", str(command.results), "records of accuracy with three seeds or more of each arm")
    print(render_power(values, command.difference, command.power))
    return 0


def _condition_of(where: tuple[str, ...]) -> Any:
    """Returns whether a record has all the values that `--where` names, as text."""
    from ablations.records.columns import list_columns
    from ablations.records.rows import record_values

    wanted = [text.partition("=") for text in where]
    for (name, equals, _), text in zip(wanted, where, strict=True):
        pick("where", name, ["status", *list_columns()])
        if not equals:
            raise refuse("where", text, "NAME=VALUE")

    def fits(record: dict[str, Any]) -> bool:
        values = record_values(record) | {"status": record["status"]}
        return all(str(values.get(name)) == value for name, _, value in wanted)

    return fits


RECIPES_OF: dict[str, Mapping[str, type]] = {
    "recipes": RECIPES,
    "recipes of detection": DETECTION_RECIPES,
    "recipes of segmentation": SEGMENTATION_RECIPES,
}


def _describe_recipes(recipes: Mapping[str, type]) -> dict[str, str]:
    return {name: (recipe.__doc__ or "").partition("\n")[0] for name, recipe in recipes.items()}


def _list() -> int:
    confounders = ("v1's confounders for arm v1, v2's for the others", "v1's confounders", "v2's confounders")
    studies = {name: find_study(name) for name in list_studies()}
    sections: dict[str, dict[str, str]] = {
        "arms": dict.fromkeys(ARMS, ""),
        "published models": {
            name: f"variant {variant}, arm {arm}, base published" for name, (variant, arm) in PUBLISHED_MODELS.items()
        },
        "variants": {name: _describe_variant(name) for name in VARIANTS},
        "names of PVT v1": {old: f"the shape {new}" for old, new in VARIANT_ALIASES.items()},
        "bases": dict(zip(BASES, confounders, strict=True)),
        "data sets": list_data_sets(),
        "data sets of detection and segmentation": list_dense_sets(),
        **{title: _describe_recipes(recipes) for title, recipes in RECIPES_OF.items()},
        "studies": {
            name: f"{study.question} {len(study.cells())} cells, {study.time}" for name, study in studies.items()
        },
    }
    for title, entries in sections.items():
        print(title)
        for name, words in entries.items():
            print(f"  {name:22}{words}".rstrip())
    return 0


def _describe_variant(name: str) -> str:
    config = build_config(name)
    fields = {"dims": config.embed_dims, "depths": config.depths, "heads": config.num_heads, "mlp": config.mlp_ratios}
    shape = [f"{word} {'-'.join(map(str, values))}" for word, values in fields.items()]
    count = f"{count_params(config) / 1e6:.2f} M parameters as PVT v2 with 1000 classes"
    return f"{', '.join(shape)}, stem stride {config.stem_stride}, P {config.pool_size}; {count}"
