"""The command `evaluate`: finished weights on validation images."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablations.cells import Arm, Cell
from ablations.commands.arms import DEFAULT_BASE, Arms, split_arms
from ablations.commands.measuring_command import MeasuringCommand
from ablations.commands.shared_flags import DataFolder, given_conditions, with_flags_of
from ablations.config import PVT_V2, variant_name
from ablations.errors import refuse
from ablations.flags import like
from ablations.measure import Evaluation
from ablations.measure.evaluation import Protocol
from ablations.studies import parse_size, vary
from ablations.toggle_files import take_toggles


@with_flags_of(Evaluation, leave_out=("checkpoint", "data", "resolution", "protocol", "num_classes", "img_size"))
@dataclass(frozen=True, kw_only=True)
class Evaluate(DataFolder, MeasuringCommand):
    """Evaluate finished weights on validation images, at one test resolution or several.

    Weights that `accuracy --save-weights` wrote say themselves which model they are of, and which data.
    """

    checkpoint: Path
    """File of weights, by torch.save or .safetensors: this project's, the released code's, timm's or transformers'."""
    data: str | None = None
    """A data set that `list` shows, or an image folder with images as val/CLASS/* or CLASS/*; that of the training
    where the file of weights says it, else imagenet."""
    variant: str | None = None
    """Size; see `list`. b2 where the file of weights does not say it."""
    arm: str | None = None
    """Toggles that are on, or a published model such as PVTv2-B2-Li; see `list`. PVT v2 where the file does not say."""
    base: str | None = None
    """What the toggles are added to; see `list`. v2 where the file does not say it."""
    toggles: tuple[str, ...] = ()
    """Of the weights' arm, those that are from files of yours, as FILE.py:NAME."""
    resolutions: tuple[str, ...] = ()
    """Sides in pixels of the centre crop that the model sees; that of the training where the file says it, else 224."""
    protocol: Protocol | None = None
    """The crop is 0.875 of the resized image's short side in `paper`, as trainings here have it, 0.9 in `timm`, the
    default for other weights."""
    num_classes: int | None = like(Evaluation, "num_classes", None)
    img_size: int | None = like(Evaluation, "img_size", None)

    FIRST = tuple("checkpoint arm variant base data data_dir resolutions batch_size device results".split())
    TABLES = ("evaluation",)

    def cells(self: Any) -> list[Cell]:
        take_toggles(self.toggles)
        if not self.checkpoint.is_file():
            raise refuse("checkpoint", str(self.checkpoint), "a file of weights")

        from ablations.model.checkpoint import read_description
        from ablations.model.weights_file import read_weights_file

        weights = read_weights_file(self.checkpoint)
        told = read_description(weights)
        if told and "config" not in told:
            raise refuse("checkpoint", self.checkpoint.name, f"weights of an arm; these are of {told['model']}")
        held = told.get("config", {})
        conditions = given_conditions(
            self,
            checkpoint=weights.sha256,
            data=self.data or told.get("data") or Evaluation.data,
            protocol=self.protocol or ("paper" if told else Evaluation.protocol),
            **{name: self._agreed(name, held) or getattr(Evaluation, name) for name in ("num_classes", "img_size")},
        )
        sizes = tuple(map(_parse_side, self.resolutions)) or (conditions.img_size,)
        model = self._arm(told)
        return [Cell(model=model, conditions=each) for each in vary(conditions, resolution=sizes)]

    def _arm(self, told: dict[str, Any]) -> Arm:
        """Returns the arm that the file of weights says it is of, or else the flags."""
        named, _ = split_arms(*(tuple(filter(None, [given])) for given in (self.arm, self.variant, self.base)))
        given: Any = self
        for variant, arm in named.values():
            given = replace(self, variant=variant, arm=arm, base="published")
        if given.variant:
            given = replace(given, variant=variant_name(given.variant))
        held = told.get("model", {})
        names = {name: given._agreed(name, held) for name in ("variant", "arm", "base")}
        defaults = {"variant": Arms.DEFAULT_VARIANT, "arm": PVT_V2, "base": DEFAULT_BASE}
        names = {name: value or defaults[name] for name, value in names.items()}
        overrides = tuple((name, told["config"][name]) for name in Arm.ALLOWED) if told else ()
        return Arm(**names, overrides=overrides)

    def _agreed(self, name: str, held: dict[str, Any]) -> Any:
        """Returns a flag's value, or what the file of weights holds; raises InputError where the two differ."""
        given = getattr(self, name)
        if name in held and given not in (None, held[name]):
            raise refuse(name, given, f"{held[name]}, which the weights in {self.checkpoint.name} have")
        return held.get(name, given)


def _parse_side(text: str) -> int:
    size = parse_size(text)
    if not isinstance(size, int):
        raise refuse("resolution", text, "one side in pixels: images are cropped to a square")
    return size
