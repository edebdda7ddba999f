"""The tables of the PVT v2 paper (Wang et al., 2022) as printed, misprints included; units are in the column names."""

from importlib import resources

import pandas as pd

from ablations.errors import pick


def load_paper_table(name: str) -> pd.DataFrame:
    """Returns a table of the paper, such as `table6_ablation`; raises InputError for an unknown one."""
    folder = resources.files(__name__)
    names = sorted(file.name.removesuffix(".csv") for file in folder.iterdir() if file.name.endswith(".csv"))
    with folder.joinpath(f"{pick('paper table', name, names)}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
