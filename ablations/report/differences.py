"""The name of an effect, for people."""

from ablations.analysis.effects import EFFECTS


def effect_name(effect: str) -> str:
    """Returns an effect as it is written for people: `ope x cffn`."""
    return " x ".join(EFFECTS[effect])
