"""A user's file as a guest: what it finds, what it leaves behind, and what its model may answer."""

import os
import random
import signal
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ablations.baselines.build import build_baseline
from ablations.baselines.guest import _product_precisions, logits_of, unwrapped
from ablations.cells import build_cell
from ablations.errors import InputError, first_line
from ablations.measure import Accuracy, Cost, Memory
from ablations.measure.network import build_network, check_builds

LAYER = """from torch import nn
def build(): return nn.Sequential(nn.Conv2d(3, 10, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return f"{folder / name}:build"


def state() -> list[Any]:
    """What of the process a file can change."""
    return [
        torch.get_default_dtype(),
        torch.empty(0).device,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        _product_precisions(),
        torch.is_anomaly_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.get_rng_state().sum().item(),
        np.random.get_state()[1].sum(),  # noqa: NPY002
        random.getstate(),
        sys.argv,
        os.environ.get("SEED_OF_THE_FILE"),
        Path.cwd(),
        list(sys.path),
        signal.getsignal(signal.SIGINT),
    ]


CHANGES = {
    "dtype": "torch.set_default_dtype(torch.float64)",
    "device": "torch.set_default_device('meta')",
    "gradients": "torch.set_grad_enabled(False)",
    "threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "determinism": "torch.use_deterministic_algorithms(True, warn_only=True)",
    "cudnn": "torch.backends.cudnn.benchmark = True; torch.backends.cudnn.deterministic = True",
    "precision": "torch.set_float32_matmul_precision('medium')",
    "precision of one kind": "torch.backends.cuda.matmul.allow_tf32 = True",
    "precision of convolutions": "torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32",
    "anomaly": "torch.autograd.set_detect_anomaly(True)",
    "kernels": "torch.backends.cuda.enable_flash_sdp(False)",
    "generators": "import random, numpy; torch.manual_seed(1); random.seed(1); numpy.random.seed(1)",
    "process": "import os, sys; os.environ['SEED_OF_THE_FILE'] = '1'; os.chdir('/'); sys.argv.append('x')",
    "signals": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("where", ["at import", "in the function", "before it fails"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_process_is_as_it_was_after_a_file(tmp_path: Path, change: str, where: str) -> None:
    before = state()
    text = {
        "at import": f"import torch\n{CHANGES[change]}\n{LAYER}",
        "in the function": f"import torch\n{LAYER}old = build\ndef build():\n    {CHANGES[change]}\n    return old()\n",
        "before it fails": f"import torch\n{CHANGES[change]}\n1 / 0\n{LAYER}",
    }[where]
    name = write(tmp_path, text)
    if where == "before it fails":
        with pytest.raises(InputError, match="ZeroDivisionError"):
            build_baseline(name)
    else:
        build_baseline(name)
    assert state() == before


PACKAGES = {
    "beside it": ("zoo/net.py", {"zoo/__init__.py": "", "zoo/layers.py": LAYER}, "from .layers import build\n"),
    "no package": ("zoo/net.py", {"zoo/layers.py": LAYER}, "from .layers import build\n"),
    "above it": (
        "zoo/deep/net.py",
        {"zoo/__init__.py": "", "zoo/deep/__init__.py": "", "zoo/layers.py": LAYER},
        "from ..layers import build\n",
    ),
    "what the package itself has": ("zoo/net.py", {"zoo/__init__.py": LAYER}, "from . import build\n"),
    "by its own name": (
        "zoo/net.py",
        {"zoo/__init__.py": "", "zoo/layers.py": LAYER},
        "from zoo.layers import build\n",
    ),
    "named as a library": ("timm/net.py", {"timm/__init__.py": "", "timm/mine.py": LAYER}, "from .mine import build\n"),
    "plain": ("a b/net.py", {"a b/layers.py": LAYER}, "from layers import build\n"),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_a_file_finds_its_neighbours(tmp_path: Path, case: str) -> None:
    place, others, text = PACKAGES[case]
    for other, content in others.items():
        write(tmp_path, content, other)
    known = set(sys.modules)
    assert build_baseline(write(tmp_path, text, place))(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
    assert {
        name for name in set(sys.modules) - known if name.partition(".")[0] in ("zoo", "layers", "model_files")
    } == set()


def test_a_relative_import_that_leads_nowhere_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"relative imports reach the folders around the file that have an __init__\.py$"
    ):
        build_baseline(write(tmp_path, "from ...layers import build\n"))


def test_a_file_has_no_command_line(tmp_path: Path) -> None:
    text = "import argparse\nargparse.ArgumentParser().parse_args()\n" + LAYER
    assert isinstance(build_baseline(write(tmp_path, text)), nn.Module)


LOGITS = torch.zeros(2, 10)

ANSWERS: list[tuple[Any, bool]] = [
    (LOGITS, True),
    (SimpleNamespace(logits=LOGITS, loss=None), True),
    ({"logits": LOGITS, "features": torch.ones(2, 3)}, True),
    (OrderedDict(out=LOGITS, aux=torch.ones(2, 3)), True),
    ({"y": LOGITS}, True),
    ((LOGITS, torch.ones(2, 10)), True),
    ([{"logits": LOGITS}, None], True),
    ({"boxes": torch.ones(2, 4), "scores": torch.ones(2)}, False),
    ((), False),
    (None, False),
    (7, False),
]


@pytest.mark.parametrize(("answer", "has_logits"), ANSWERS)
def test_logits_are_found_in_what_models_answer(answer: Any, has_logits: bool) -> None:
    found = logits_of(answer)
    assert found is (LOGITS if has_logits else None)


AUXILIARY = (
    LAYER.replace("def build", "def plain")
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = plain()
    def forward(self, x):
        y = self.body(x)
        return {answer}
def build(): return Net()
"""
)


@pytest.mark.parametrize("answer", ["{'logits': y}", "(y, y.mean())", "(y, [y]) if self.training else y"])
def test_such_models_are_measured_and_trained(tmp_path: Path, answer: str) -> None:
    name = write(tmp_path, AUXILIARY.replace("{answer}", answer))
    assert build_network(build_cell(name, Accuracy())).train()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    cell = build_cell(name, Memory(method="predicted", mode="training", resolution=32))
    check_builds([cell])
    assert cell.conditions.run(cell, None)["peak_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("answer", "mode", "found"),
    [
        ("[]", "evaluation", "list"),
        ("x", "evaluation", r"\(2, 3, 32, 32\)"),
        ("(y.sum(), y) if self.training else y", "training", r"\(\)"),
        ("y[:, :3]", "evaluation", r"\(2, 3\)"),
    ],
)
def test_what_has_no_such_logits_is_refused_before_any_work(tmp_path: Path, answer: str, mode: str, found: str) -> None:
    name = write(tmp_path, AUXILIARY.replace("{answer}", answer))
    with pytest.raises(InputError, match=rf"one that returns \(B, 10\) logits in {mode}, not {found}$"):
        build_network(build_cell(name, Accuracy()))
    if answer != "y[:, :3]":
        cell = build_cell(name, Memory(method="predicted", mode="training"))
        with pytest.raises(InputError, match=rf"one that returns \(B, K\) logits in {mode}, not "):
            check_builds([cell])
    check_builds([build_cell(name, Cost())])  # whose MACs need no logits


def test_models_of_other_floats_are_counted_and_not_trained(tmp_path: Path) -> None:
    name = write(tmp_path, LAYER.replace("nn.Flatten())", "nn.Flatten()).half()"))
    cell = build_cell(name, Cost(resolution=32))
    assert cell.conditions.run(cell, None)["macs"] == 8 * 8 * 48 * 10
    predicted = build_cell(name, Memory(method="predicted", resolution=32))
    assert predicted.conditions.run(predicted, None)["input_bytes"] == 2 * 3 * 32 * 32
    with pytest.raises(InputError, match=r"one with weights of float32, not torch\.float16$"):
        build_network(build_cell(name, Accuracy()))


@pytest.mark.slow
def test_wrappers_of_devices_and_compilers_are_taken_off() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Linear(2, 2)))
    wrapped = nn.Sequential(nn.DataParallel(plain[0]), nn.Sequential(torch.compile(plain[1][0])))
    wrapped.compile()
    bare = unwrapped(torch.compile(nn.DataParallel(wrapped)))
    assert [name for name, _ in bare.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert bare._compiled_call_impl is None


TRACE = "Caught OSError in a worker process.\nOriginal Traceback (most recent call last):\n  File\nOSError: no room\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError(TRACE), "OSError: no room"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (
            RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: none"),
            "RuntimeError: InvalidCxxCompiler: none",
        ),
        (KeyError(), "KeyError: no message"),
    ],
)
def test_an_errors_line_is_its_cause(error: Exception, line: str) -> None:
    assert first_line(error) == line


OPERATOR = """import torch
from torch import library
@library.custom_op("ablations_guest::OPERATOR", mutates_args=())
def scaled(x: torch.Tensor) -> torch.Tensor:
    return FACTOR * x
scaled.register_fake(torch.empty_like)
"""

SCALING = """from torch import nn
from operators import scaled
class Scaled(nn.Module):
    def forward(self, x):
        return scaled(x)
def build():
    return Scaled()
"""


def operator(name: str, factor: int) -> str:
    return OPERATOR.replace("OPERATOR", name).replace("FACTOR", str(factor))


def test_an_operator_lives_on_in_models_when_its_file_is_loaded_again(tmp_path: Path) -> None:
    write(tmp_path, operator("shared", 3), "operators.py")
    names = [write(tmp_path, SCALING, name) for name in ("one.py", "two.py")]
    models = [build_baseline(name) for name in [*names, *names]]
    assert [model(torch.ones(1)).item() for model in models] == [3, 3, 3, 3]
    assert "operators" not in sys.modules


def test_a_copy_of_a_folder_keeps_its_own_operator(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder, operator("copied", 3), "operators.py")
        name = write(tmp_path / folder, SCALING)
        models = [build_baseline(name) for _ in range(2)]
        assert [model(torch.ones(1)).item() for model in models] == [3, 3]


def test_an_operator_of_a_changed_file_is_another(tmp_path: Path) -> None:
    name = write(tmp_path, SCALING)
    for factor in (3, 5):
        write(tmp_path, operator("changed", factor), "operators.py")
        assert build_baseline(name)(torch.ones(1)).item() == factor


def test_a_file_that_fails_behind_its_operator_is_run_again(tmp_path: Path) -> None:
    name = write(tmp_path, operator("late", 2) + "1 / 0\n")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        build_baseline(name)
    write(tmp_path, operator("late", 2) + SCALING.replace("from operators import scaled\n", ""))
    assert build_baseline(name)(torch.ones(1)).item() == 2
