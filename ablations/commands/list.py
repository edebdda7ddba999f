"""The command `list`: the names that flags take, and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.commands.shared_flags import Command
from ablations.config import ARMS, BASES, PUBLISHED_MODELS, VARIANT_ALIASES, VARIANTS, build_config
from ablations.cost import count_params
from ablations.data.dense_registry import list_dense_sets
from ablations.data.registry import list_data_sets
from ablations.dense_recipes import DETECTION_RECIPES, SEGMENTATION_RECIPES
from ablations.recipes import RECIPES
from ablations.studies import find_study, list_studies
from ablations.units import count_cells


@dataclass(frozen=True, kw_only=True)
class List(Command):
    """List the arms, published models, variants, bases, data sets, recipes and studies."""

    def run(self, *_: Any) -> int:
        confounders = ("v1's confounders for arm v1, v2's for the others", "v1's confounders", "v2's confounders")
        studies = {name: find_study(name) for name in list_studies()}
        sections: dict[str, dict[str, str]] = {
            "arms": dict.fromkeys(ARMS, ""),
            "published models": {
                name: f"variant {model[0]}, arm {model[1]}, base published" for name, model in PUBLISHED_MODELS.items()
            },
            "variants": {name: _describe_variant(name) for name in VARIANTS},
            "names of PVT v1": {old: f"the shape {new}" for old, new in VARIANT_ALIASES.items()},
            "bases": dict(zip(BASES, confounders, strict=True)),
            "data sets": list_data_sets(),
            "data sets of detection and segmentation": list_dense_sets(),
            **{
                title: {name: (recipe.__doc__ or "").partition("\n")[0] for name, recipe in recipes.items()}
                for title, recipes in RECIPES_OF.items()
            },
            "studies": {
                name: f"{study.question} {count_cells(len(study.cells()))}, {study.time}"
                for name, study in studies.items()
            },
        }
        for title, entries in sections.items():
            print(title)
            for name, words in entries.items():
                print(f"  {name:22}{words}".rstrip())
        return 0


RECIPES_OF: dict[str, Mapping[str, type]] = {
    "recipes": RECIPES,
    "recipes of detection": DETECTION_RECIPES,
    "recipes of segmentation": SEGMENTATION_RECIPES,
}


def _describe_variant(name: str) -> str:
    config = build_config(name)
    fields = {"dims": config.embed_dims, "depths": config.depths, "heads": config.num_heads, "mlp": config.mlp_ratios}
    shape = [f"{word} {'-'.join(map(str, values))}" for word, values in fields.items()]
    count = f"{count_params(config) / 1e6:.2f} M parameters as PVT v2 with 1000 classes"
    return f"{', '.join(shape)}, stem stride {config.stem_stride}, P {config.pool_size}; {count}"
