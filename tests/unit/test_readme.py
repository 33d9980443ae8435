"""What the README says is what the code does."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec

from flashsale.settings import PREFIX, Settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def settings_table() -> str:
    """The README's table of settings, as the struct has them."""
    hints = get_type_hints(Settings, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(Settings):
        meaning = next(m.description for m in get_args(hints[field.name])[::-1] if getattr(m, "description", None))
        default = (
            "unset"
            if field.default is None
            else f"`{str(field.default).lower() if field.default is False else field.default}`"
        )
        rows.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows)


def test_the_settings_table_is_the_settings_struct() -> None:
    assert settings_table() in README


def test_every_room_of_the_map_exists() -> None:
    rooms = re.findall(
        r"`([a-z_]+/(?:[a-z_]+\.py)?|[a-z_]+\.py)`", README.split("## The map")[1].split("## Decisions")[0]
    )
    top = Path(__file__).parents[2]
    assert len(rooms) > 10
    for room in rooms:
        assert (top / room).exists() or list((top / "flashsale").rglob(room)), room
