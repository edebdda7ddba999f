"""What a PVT can be: toggles, confounders, sizes, and the names of their combinations. Needs no torch.

The paper is Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer" (2022); v1 is Wang et al.,
"Pyramid Vision Transformer" (2021).
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import accumulate, combinations
from operator import mul
from typing import Any, Literal, get_args

from ablations.errors import InputError, pick, refuse

Size = int | tuple[int, int]
"""A side in pixels, or (height, width)."""

Base = Literal["published", "v1", "v2"]
AttentionKernel = Literal["fused", "explicit"]

BY_NAME = "by_name"
"""How `ablations.model.initial_weights` draws the weights of arms, in records and their keys: another way would need
another name."""

NUM_STAGES = 4
SMALLEST_INPUT = 32  # pixels a side, in every arm, so that all arms take the same inputs
LARGEST_INPUT = 2**16  # pixels a side; beyond it sizes in bytes overflow


def as_pair(size: Size) -> tuple[int, int]:
    """Returns (height, width); one number stands for a square."""
    return (size, size) if isinstance(size, int) else size


def size_text(size: Size) -> str:
    """Returns a size as records and tables have it: `224`, or `800x1280` (height x width)."""
    height, width = as_pair(size)
    return str(height) if height == width else f"{height}x{width}"


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One way to fill a slot of the model. Functions are named by string, `module:function`, so nothing is imported."""

    builder: str
    """A function of (PVTConfig, stage from 0) that returns the module."""
    cost: str | None = None
    """A function of (PVTConfig, stage, map size in tokens) that yields `ablations.cost.ModuleCost` rows, the closed
    form of one such module; without one there is only the traced count."""
    rounds_up: bool = False
    """Of a patch embedding: whether a map that its stride does not divide gives one token more, or drops the rest."""


@dataclass(frozen=True, kw_only=True)
class Toggle(Alternative):
    """One change to v1, which an arm has or has not."""

    title: str
    """What a reader calls it: `Overlapping patch embedding`."""
    slot: str
    """The slot, of SLOTS, whose alternative of v1 it replaces. An arm has at most one toggle of a slot."""
    excludes: tuple[str, ...] = ()
    """Other toggles that no arm has beside it."""
    file: str | None = None
    """Of a toggle from a reader's file (`ablations.toggle_files`): the file's name."""
    path: str | None = None
    """Its whole path; None of a toggle that is known from records alone."""
    digests: tuple[tuple[str, str], ...] = ()
    """The SHA-256 of the file and of what it imports from its folder, by name."""

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots that are its own: a whole block's are those of its parts too."""
        return (self.slot, *dict.fromkeys(BLOCK_SLOTS.values())) if self.slot == "block" else (self.slot,)

    @property
    def description(self) -> dict[str, Any]:
        """What a record says of a toggle from a file."""
        names = {"title": self.title, "slot": self.slot, "excludes": list(self.excludes), "file": self.file}
        return names | {"sha256": dict(self.digests)}


SLOTS: dict[str, Alternative] = {
    "patch_embed": Alternative(
        builder="ablations.model.patch_embed:build_patch_embed", cost="ablations.cost:patch_embed_cost"
    ),
    "norm": Alternative(builder="ablations.model.pvt:build_norm", cost="ablations.cost:norm_cost"),
    "attn": Alternative(builder="ablations.model.attention:build_sra", cost="ablations.cost:sra_cost"),
    "mlp": Alternative(builder="ablations.model.feed_forward:build_feed_forward", cost="ablations.cost:mlp_cost"),
    "pos_embed": Alternative(
        builder="ablations.model.pvt:build_position_embedding", cost="ablations.cost:position_embedding_cost"
    ),
    "block": Alternative(builder="ablations.model.pvt:build_block", cost="ablations.cost:block_cost"),
    "pool": Alternative(builder="ablations.model.pvt:build_pool", cost="ablations.cost:pool_cost"),
}
"""The parts that toggles can replace, each with PVT v1's own; those of `pos_embed` and `pool` are the base's choice.

A stage has one of each, but `pool`, which the head reads the last stage by.
"""

CONFOUNDER_SLOTS = {"pos_embed": "position_embedding", "pool": "pooling"}
"""The slots whose own alternative a confounder chooses: a toggle there replaces the base's choice."""

BLOCK_SLOTS = {"norm1": "norm", "attn": "attn", "norm2": "norm", "mlp": "mlp"}
"""The parts of a block in order, and the slot that each is built by."""

TOGGLES: dict[str, Toggle] = {
    "ope": Toggle(
        title="Overlapping patch embedding",
        slot="patch_embed",
        builder="ablations.model.patch_embed:build_overlapping_patch_embed",
        cost="ablations.cost:overlapping_patch_embed_cost",
        rounds_up=True,
    ),
    "cffn": Toggle(
        title="Convolutional feed-forward",
        slot="mlp",
        builder="ablations.model.feed_forward:build_conv_feed_forward",
        cost="ablations.cost:conv_mlp_cost",
    ),
    "lsra": Toggle(
        title="Linear spatial-reduction attention",
        slot="attn",
        builder="ablations.model.attention:build_linear_sra",
        cost="ablations.cost:linear_sra_cost",
    ),
}
"""Every toggle by its short name in an arm. A study names those that it varies; a new one is an entry at the end."""

PAPER_TOGGLES = ("ope", "cffn", "lsra")
"""The three that the paper advertises, in the order of its Table 6 (PVT v2, section 3)."""


@dataclass(frozen=True, kw_only=True)
class PVTConfig:
    """One model, completely: nothing about it is decided anywhere else.

    Fields with four entries have one a stage. Raises InputError where a value is impossible or two contradict.
    """

    toggles: tuple[str, ...]
    """The short names of those that are on, in the order of TOGGLES."""

    # The confounders: what came with v2 and is not in the paper's list.
    position_embedding: Literal["learned", "none"]
    """`learned`: one per stage, resized bilinearly to the map."""
    pooling: Literal["class_token", "average"]
    """What the head reads. The class token joins in the last stage only."""
    stage_norm: Literal["last", "every"]
    """After which stages a LayerNorm stands."""
    conv_init: Literal["default", "fan_out"]
    """Initial convolution weights: the framework's, or normal with std sqrt(2 / fan_out) and zero bias."""
    ffn_relu: bool
    """A ReLU before the depth-wise convolution, as in the released linear models."""

    # The sizes (the paper's Table 1).
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    """Width of the feed-forward's inner layer over the stage's width."""
    sr_ratios: tuple[int, ...]
    """R, the side of the spatial reduction in tokens; 1 is none. Without effect where toggle `lsra` is on."""

    # The task and how it is run.
    img_size: Size = 224
    """Pixels; the size that learned position embeddings are made for. Other sizes run too."""
    num_classes: int = 1000
    """0 leaves the head out."""
    in_chans: int = 3
    stem_stride: int = 4
    """S of the first stage in pixels; the later stages' is 2."""
    pool_size: int = 7
    """P, the side in tokens of linear SRA's pooled map. Without effect where toggle `lsra` is off."""
    qkv_bias: bool = True
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; earlier blocks have proportionally less."""
    attention: AttentionKernel = "fused"
    """`fused`: one kernel that never stores the N x M score matrix. `explicit`: product, softmax, product."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(getattr(self, field.name), list):  # as JSON has them
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        _check_toggles(self.toggles)
        for name in ("embed_dims", "depths", "num_heads", "mlp_ratios", "sr_ratios"):
            values = getattr(self, name)
            if not _are_ints(values, NUM_STAGES, least=1):
                raise refuse(name, values, f"{NUM_STAGES} whole numbers of 1 or more, one a stage")
        for name, least in (("num_classes", 0), ("in_chans", 1), ("stem_stride", 2), ("pool_size", 1)):
            value = getattr(self, name)
            if not is_int(value) or value < least:
                raise refuse(name, value, f"a whole number of {least} or more")
        for field in fields(self):
            choices = get_args(field.type)
            if choices and all(isinstance(choice, str) for choice in choices):
                pick(field.name, getattr(self, field.name), choices)
            elif field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise refuse(field.name, getattr(self, field.name), "True or False")
        for stage, (dim, heads) in enumerate(zip(self.embed_dims, self.num_heads, strict=True), start=1):
            if dim % heads:
                raise refuse("num_heads", self.num_heads, f"in stage {stage} a divisor of its embed_dims, {dim}")
        if not isinstance(self.drop_path_rate, int | float) or not 0 <= self.drop_path_rate < 1:
            raise refuse("drop_path_rate", self.drop_path_rate, "0 or more and less than 1")
        if self.ffn_relu and "cffn" not in self.toggles:
            raise refuse("ffn_relu", True, "False without toggle cffn: it stands before that one's convolution")
        self.check_size("img_size", self.img_size)

    def alternative(self, slot: str) -> Alternative:
        """Returns what fills a slot: the toggle that is on, or PVT v1's own."""
        on = (TOGGLES[name] for name in self.toggles)
        return next((toggle for toggle in on if toggle.slot == slot), SLOTS[slot])

    @property
    def filled_slots(self) -> tuple[str, ...]:
        """The slots that something fills: a toggle that is a whole block leaves those of its parts out."""
        whole = self.alternative("block") is not SLOTS["block"]
        return tuple(slot for slot in SLOTS if not (whole and slot in BLOCK_SLOTS.values()))

    @property
    def strides(self) -> tuple[int, ...]:
        """Each stage's own stride: pixels in the first, tokens of the stage before in the others."""
        return (self.stem_stride, 2, 2, 2)

    @property
    def smallest_side(self) -> int:
        """The smallest input side in pixels: no stage's map or reduced map is empty, in any arm."""
        return max(SMALLEST_INPUT, *map(mul, accumulate(self.strides, mul), self.sr_ratios))

    def check_size(self, field: str, size: Size) -> tuple[int, int]:
        """Returns `size` as (height, width); raises InputError under its name `field` if no such input can run."""
        pair = as_pair(size)
        least = self.smallest_side
        if not _are_ints(pair, 2, least) or max(pair) > LARGEST_INPUT:
            allowed = f"{least} to {LARGEST_INPUT} pixels a side, as one whole number or (height, width)"
            raise refuse(field, size, allowed)
        return pair

    def stage_sizes(self, resolution: Size) -> list[tuple[int, int]]:
        """Returns each stage's map as (height, width) in tokens, for an input of `resolution` pixels."""
        height, width = self.check_size("resolution", resolution)
        rounds_up = self.alternative("patch_embed").rounds_up
        sizes = []
        for stride in self.strides:
            rest = stride - 1 if rounds_up else 0
            height, width = (height + rest) // stride, (width + rest) // stride
            sizes.append((height, width))
        return sizes

    def num_prefix_tokens(self, stage: int) -> int:
        """How many tokens stand before the map's in a stage (0 to 3): the class token, in the last.

        A toggle that pools otherwise leaves it out.
        """
        has_class_token = self.pooling == "class_token" and self.alternative("pool") is SLOTS["pool"]
        return int(has_class_token and stage == NUM_STAGES - 1)

    def has_stage_norm(self, stage: int) -> bool:
        """Whether a LayerNorm stands after a stage (0 to 3)."""
        return self.stage_norm == "every" or stage == NUM_STAGES - 1

    def drop_path_rates(self) -> list[list[float]]:
        """Returns the drop rate of each block of each stage, rising linearly from 0 over all blocks."""
        last = max(sum(self.depths) - 1, 1)
        rates = iter([self.drop_path_rate * block / last for block in range(sum(self.depths))])
        return [[next(rates) for _ in range(depth)] for depth in self.depths]


def is_int(value: object) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ints(values: object, count: int, least: int) -> bool:
    return isinstance(values, tuple | list) and len(values) == count and all(is_int(v) and v >= least for v in values)


def _check_toggles(toggles: tuple[str, ...]) -> None:
    """Raises InputError for toggles that are unknown, out of order, or of one slot."""
    if not isinstance(toggles, tuple):
        raise refuse("toggles", toggles, f"some of {', '.join(TOGGLES)}")
    for name in toggles:
        pick("toggle", name, TOGGLES)
    if list(toggles) != [name for name in TOGGLES if name in toggles]:
        raise refuse("toggles", toggles, f"each once, in the order {', '.join(TOGGLES)}")
    for one, other in combinations(toggles, 2):
        if why := clash(one, other):
            raise refuse("toggles", toggles, f"{one} or {other}: {why}")


def clash(one: str, other: str) -> str | None:
    """Returns why no arm has both of two toggles; None where arms may."""
    first, second = TOGGLES[one], TOGGLES[other]
    if shared := [slot for slot in first.slots if slot in second.slots]:
        return f"both replace the slot {shared[0]}"
    if other in first.excludes or one in second.excludes:
        return f"{one if other in first.excludes else other} excludes the other"
    return None


def arm_name(toggles: Iterable[str]) -> str:
    """Returns the arm that has these toggles."""
    return "+".join(["v1", *toggles])


def arms_of(toggles: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of all arms that toggles make, fewest first: `v1`, `v1+ope` … `v1+ope+cffn+lsra`.

    Sets with two toggles of one slot, or of which one excludes the other, make no arm. Raises InputError for an unknown
    toggle.
    """
    chosen = {pick("toggle", name, TOGGLES) for name in toggles}
    names = [name for name in TOGGLES if name in chosen]
    apart = {pair for pair in combinations(names, 2) if clash(*pair)}
    sets = [each for count in range(len(names) + 1) for each in combinations(names, count)]
    return tuple(arm_name(each) for each in sets if not apart.intersection(combinations(each, 2)))


ARMS = arms_of(PAPER_TOGGLES)
"""The arms of the paper's toggles: all settings, fewest first."""

PVT_V1, PVT_V2, PVT_V2_LI = "v1", "v1+ope+cffn", "v1+ope+cffn+lsra"
"""The arms that were published as models, in base `published`."""

CUMULATIVE = tuple(arm_name(PAPER_TOGGLES[:count]) for count in range(len(PAPER_TOGGLES) + 1))
"""The cumulative ablation: the paper's path through the arms (Table 6)."""

BASES: tuple[Base, ...] = get_args(Base)

V1_BASE: dict[str, Any] = {
    "position_embedding": "learned",
    "pooling": "class_token",
    "stage_norm": "last",
    "conv_init": "default",
    "ffn_relu": False,
}
V2_BASE: dict[str, Any] = {
    "position_embedding": "none",
    "pooling": "average",
    "stage_norm": "every",
    "conv_init": "fan_out",
    "ffn_relu": False,
}

CONFOUNDERS = tuple(V1_BASE)


def _sizes(embed_dims: tuple, depths: tuple, mlp_ratios: tuple = (8, 8, 4, 4), **others: Any) -> dict[str, Any]:
    sizes = {"embed_dims": embed_dims, "depths": depths, "mlp_ratios": mlp_ratios}
    return sizes | {"num_heads": (1, 2, 5, 8), "sr_ratios": (8, 4, 2, 1)} | others


# 32 pixels make a first map of 16 x 16 tokens, which R = 8 reduces to 2 x 2, as P = 2 does: like 224 pixels with P = 7.
_SMALL_IMAGES: dict[str, Any] = {"num_heads": (1, 2, 4, 8), "stem_stride": 2, "img_size": 32, "pool_size": 2}

VARIANTS: dict[str, dict[str, Any]] = {
    "pico": _sizes((8, 16, 32, 64), (1, 1, 1, 1), (4, 4, 4, 4), **_SMALL_IMAGES),
    "nano": _sizes((16, 32, 64, 128), (2, 2, 2, 2), **_SMALL_IMAGES),
    "b0": _sizes((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": _sizes((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": _sizes((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": _sizes((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": _sizes((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": _sizes((64, 128, 320, 512), (3, 6, 40, 3), (4, 4, 4, 4)),
}
"""The fields of each size. `pico` and `nano` are this project's, for CPUs and images of about 32 pixels."""

VARIANT_ALIASES = {"tiny": "b1", "small": "b2", "medium": "b3", "large": "b4"}
"""PVT v1's names: the same shapes."""

PUBLISHED_MODELS: dict[str, tuple[str, str]] = {
    **{f"PVTv1-{name.capitalize()}": (variant, PVT_V1) for name, variant in VARIANT_ALIASES.items()},
    **{
        f"PVTv2-{variant.upper()}{suffix}": (variant, arm)
        for suffix, arm in (("", PVT_V2), ("-Li", PVT_V2_LI))
        for variant, sizes in VARIANTS.items()
        if "stem_stride" not in sizes
    },
}
"""The variant and the arm, in base `published`, that each published model is."""


def published_model(name: str) -> tuple[str, str] | None:
    """Returns the variant and the arm of a published model; None for another name.

    Capitals, hyphens and underscores do not matter: `PVTv2-B2-Li` is `pvt_v2_b2_li`.
    """
    plain = {_plain_name(known): model for known, model in PUBLISHED_MODELS.items()}
    return plain.get(_plain_name(name))


def _plain_name(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def variant_name(name: str) -> str:
    """Returns the variant that `name` or its PVT v1 name stands for; raises InputError for any other."""
    return VARIANT_ALIASES.get(name) or pick("variant", name, [*VARIANTS, *VARIANT_ALIASES])


def arm_toggles(arm: str) -> tuple[str, ...]:
    """Returns the toggles of an arm such as `v1+ope`; raises InputError for an unknown one."""
    start, *names = str(arm).split("+")
    if start == "v2":
        raise InputError(
            f"arm={arm!r} is not possible: v2 names a base; PVT v2 is arm {PVT_V2}, PVT v2-Li arm {PVT_V2_LI}"
        )
    for one, other in combinations([name for name in names if name in TOGGLES], 2):
        if one != other and (why := clash(one, other)):
            raise refuse("arm", arm, f"{one} or {other}: {why}")
    in_order = arm_name(name for name in TOGGLES if name in names)
    if start == "v1" and {*names} <= {*TOGGLES} and arm != in_order:
        raise refuse("arm", arm, f"{in_order}, each toggle once and in this order")
    if start != "v1" or arm not in arms_of(name for name in names if name in TOGGLES):
        pick("arm", arm, arms_of(TOGGLES))
    return tuple(names)


def base_confounders(base: str, arm: str) -> dict[str, Any]:
    """Returns the confounder fields of an arm in a base; raises InputError for an unknown base or arm.

    `v1` and `v2` give every arm the same confounders. `published` gives them as the paper's rows had them: v1's to arm
    `v1`, v2's to every other, with the ReLU of the released code where both convolution and linear SRA are on.
    """
    toggles = arm_toggles(arm)
    if pick("base", base, BASES) == "v1" or (base == "published" and arm == PVT_V1):
        return dict(V1_BASE)
    return {**V2_BASE, "ffn_relu": base == "published" and {"cffn", "lsra"} <= set(toggles)}


def build_config(variant: str = "b2", arm: str = PVT_V2, base: str = "published", **overrides: Any) -> PVTConfig:
    """Returns the config of a variant, an arm and a base, with single fields replaced by `overrides`.

    Raises InputError for an unknown name or field, for a toggle among the overrides (the arm sets those), and for
    whatever PVTConfig refuses.
    """
    known = [field.name for field in fields(PVTConfig)]
    for field, value in overrides.items():
        pick("field", field, known)
        if field == "toggles":
            raise InputError(f"{field}={value!r} is not possible beside arm={arm!r}, which sets it; choose another arm")
    parts = VARIANTS[variant_name(variant)] | base_confounders(base, arm)
    return PVTConfig(toggles=arm_toggles(arm), **(parts | overrides))
