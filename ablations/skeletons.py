"""What `new-toggle SLOT` prints: a file with a toggle that runs at once. Needs no torch."""

from ablations.errors import pick

ALIASES = {
    "attention": "attn",
    "feed_forward": "mlp",
    "normalisation": "norm",
    "position_embedding": "pos_embed",
    "patch_embedding": "patch_embed",
    "pooling": "pool",
}
"""Other words for slots, as a reader may write them."""

_HEAD = '''"""Slot `{slot}`: {what}.

    python run_ablation.py cost --toggles {beside} THIS_FILE.py:mine --variants pico --resolutions 32
    python run_ablation.py accuracy --toggles {beside} THIS_FILE.py:mine --variants pico --epochs 3 --seeds 0 1 2 3 4 5
    python run_ablation.py run quick --toggles {beside} THIS_FILE.py:mine
"""

from torch import Tensor, nn

from ablations.config import PVTConfig
{imports}from ablations.toggle_files import NewToggle

# B images; H x W the map of a stage, N = H·W its tokens in row order; C channels. In base v1 a class token stands
# before the tokens of the last stage, so there are num_prefix_tokens + N. Name no device where you make a tensor.
# Linear layers and convolutions are drawn anew by the suite, from the seed and the parameter's name.

'''

_FOOT = """

mine = NewToggle(
    name="mine",  # in arms: v1+mine
    title="My {title}",  # in tables
    slot="{slot}",
    build=build,
    excludes=(),  # short names of toggles that no arm has beside it; those of its own slot need not be named
    cost=None,  # or a function as `ablations.cost.{cost}`; without one the traced count stands alone
)
"""

_TOKENS = '''
class Mine(nn.Module):
    """{sentence}"""

    def __init__(self, dim: int, num_prefix_tokens: int{parameter}) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
{layers}

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        # x: (B, num_prefix_tokens + N, C); size: (H, W). Returns the same shape{residual}.
{forward}


def build(config: PVTConfig, stage: int) -> nn.Module:
    """Returns the module of a stage, from 0 to 3; the config has dims, heads and ratios of each."""
    {body}
'''

_MAP_IMPORTS = "from ablations.model.tokens import as_map, as_tokens, with_prefix_of\n"
_MAP_LAYER = "        self.conv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)"
_MAP_FORWARD = """        feature_map = self.conv(as_map(x, size, self.num_prefix_tokens))  # (B, C, H, W)
        return self.proj(with_prefix_of(as_tokens(feature_map), x, self.num_prefix_tokens))"""
_ADDED_FORWARD = """        feature_map = self.conv(as_map(x, size, self.num_prefix_tokens))  # (B, C, H, W)
        placed = x[:, self.num_prefix_tokens :] + as_tokens(feature_map)
        return with_prefix_of(placed, x, self.num_prefix_tokens)"""
_TWO_LAYERS = """        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)"""
_DIM = {"parameter": "", "body": "return Mine(config.embed_dims[stage], config.num_prefix_tokens(stage))"}
_DIM_AND_HIDDEN = {
    "parameter": ", hidden_dim: int",
    "body": """dim = config.embed_dims[stage]
    return Mine(dim, config.num_prefix_tokens(stage), dim * config.mlp_ratios[stage])""",
}
_IN_BRANCH = "; the block adds it to x"

_BODIES = {
    "attn": (
        "which tokens a block's tokens look at",
        "cffn",
        "sra_cost",
        _MAP_IMPORTS,
        _TOKENS.format(
            sentence="Mixes neighbours by a depth-wise convolution, as a start.",
            layers=_MAP_LAYER + "\n        self.proj = nn.Linear(dim, dim)",
            forward=_MAP_FORWARD,
            residual=_IN_BRANCH,
            **_DIM,
        ),
    ),
    "mlp": (
        "what a block does to its tokens after attention",
        "ope lsra",
        "mlp_cost",
        "",
        _TOKENS.format(
            sentence="Two linear layers, as a start.",
            layers=_TWO_LAYERS,
            forward="        return self.fc2(self.act(self.fc1(x)))",
            residual=_IN_BRANCH,
            **_DIM_AND_HIDDEN,
        ),
    ),
    "pos_embed": (
        "what tells tokens their place; it replaces the base's choice",
        "ope",
        "position_embedding_cost",
        _MAP_IMPORTS,
        _TOKENS.format(
            sentence="Adds a depth-wise convolution of the map, whose zero padding tells the border.",
            layers=_MAP_LAYER,
            forward=_ADDED_FORWARD,
            residual="",
            **_DIM,
        ),
    ),
    "block": (
        "a whole block, residual connections included",
        "ope",
        "block_cost",
        "",
        _TOKENS.format(
            sentence="A norm and two linear layers on a residual stream, as a start.",
            layers=f"        self.norm = nn.LayerNorm(dim)\n{_TWO_LAYERS}",
            forward="        return x + self.fc2(self.act(self.fc1(self.norm(x))))",
            residual="",
            **_DIM_AND_HIDDEN,
        ),
    ),
    "norm": (
        "the norm before attention and before the feed-forward",
        "ope",
        "norm_cost",
        "",
        '''
class Mine(nn.Module):
    """The root mean square of the channels, as a start."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        # x: (B, num_prefix_tokens + N, C). Returns the same shape.
        return self.norm(x)


def build(config: PVTConfig, stage: int) -> nn.Module:
    """Returns the module of a stage, from 0 to 3; the config has dims, heads and ratios of each."""
    return Mine(config.embed_dims[stage])
''',
    ),
    "patch_embed": (
        "how a stage turns the map before it into tokens",
        "cffn",
        "patch_embed_cost",
        "from ablations.model.tokens import as_tokens\n",
        '''
class Mine(nn.Module):
    """A convolution of 3 x 3 and then one of the stride's size, as a start."""

    def __init__(self, in_chans: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, in_chans, kernel_size=3, padding=1)
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=stride, stride=stride)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        # x: (B, in_chans, H * stride, W * stride). Returns tokens (B, N, C) without a class token, and (H, W).
        x = self.proj(self.conv(x))
        return self.norm(as_tokens(x)), (x.shape[2], x.shape[3])


def build(config: PVTConfig, stage: int) -> nn.Module:
    """Returns the module of a stage, from 0 to 3; the first sees the image."""
    in_chans = (config.in_chans, *config.embed_dims)[stage]
    return Mine(in_chans, config.embed_dims[stage], config.strides[stage])
''',
    ),
    "pool": (
        "what the head reads of the last map; it replaces the base's choice, and with it the class token",
        "ope",
        "pool_cost",
        "",
        '''
class Mine(nn.Module):
    """A mean over the map, weighted by a score of each place, as a start."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(dim, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        # x: the last stage's map (B, C, H, W), without a class token. Returns (B, C).
        weights = self.score(x).flatten(2).softmax(dim=2)  # (B, 1, N)
        return (x.flatten(2) * weights).sum(dim=2)


def build(config: PVTConfig, stage: int) -> nn.Module:
    """Returns the module; it is built once, and the stage is the last, 3."""
    return Mine(config.embed_dims[stage])
''',
    ),
}

_TITLES = {
    "attn": "attention",
    "mlp": "feed-forward",
    "patch_embed": "patch embedding",
    "pos_embed": "position embedding",
    "pool": "pooling",
}


def render_skeleton(slot: str) -> str:
    """Returns the text of a file with a toggle for a slot; raises InputError for an unknown one."""
    slot = ALIASES.get(slot.replace("-", "_"), slot)
    what, beside, cost, imports, body = _BODIES[pick("slot", slot, (*_BODIES, *ALIASES))]
    title = _TITLES.get(slot, slot)
    head = _HEAD.format(slot=slot, what=what, beside=beside, imports=imports)
    return head + body + _FOOT.format(slot=slot, title=title, cost=cost)
