"""The command `records`: packs, unpacks, merges or moves aside records."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablations.commands.shared_flags import Command, check_has_records
from ablations.errors import pick, refuse
from ablations.flags import POSITIONAL


@dataclass(frozen=True, kw_only=True)
class Records(Command):
    """Pack, unpack, merge or move aside records; none is changed or lost."""

    action: Literal["pack", "unpack", "merge", "drop"] = field(metadata=POSITIONAL)
    """pack: one file a measurement. unpack: one file a record. merge: copy those of other results folders. drop: move
    those that --where names to RESULTS/dropped."""
    folders: tuple[Path, ...] = field(default=(), metadata=POSITIONAL)
    """With merge: the other results folders."""
    results: Path = Path("runs")
    """Results folder."""
    where: tuple[str, ...] = ()
    """With drop: columns and their values, such as arm=v1+ope measurement=speed; all must hold."""

    def run(self, *_: Any) -> int:
        from ablations.records.rearrange import drop_records, merge_records, pack_records, unpack_records

        for name, action in (("folders", "merge"), ("where", "drop")):
            given = getattr(self, name)
            if bool(given) != (self.action == action):
                allowed = "one or more" if self.action == action else f"none with {self.action}"
                raise refuse(name, tuple(map(str, given)), allowed)
        if self.action == "merge":
            print(f"{merge_records(self.results, self.folders)} records copied to {self.results}")
            return 0
        check_has_records(self.results)
        if self.action == "drop":
            aside = drop_records(self.results, _condition_of(self.where))
            print(f"moved to {aside}" if aside else "no such record")
            return 0
        counts = (pack_records if self.action == "pack" else unpack_records)(self.results)
        for measurement, count in counts.items():
            print(f"{measurement:12}{count:6} records")
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
