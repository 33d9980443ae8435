"""Sentences for operators, with their figures apart: said in English by the API, and in other languages where asked.

The English text is the source, as in gettext: `locales/` has it in other languages, and a test demands each of them.
"""

from collections.abc import Callable

import msgspec


class Said(msgspec.Struct, frozen=True):
    """A sentence; `{name}` in its text stands for a value. Several of them as a value make a list with commas."""

    text: str
    values: "dict[str, str | int | list[Said]]"

    def words(self, translate: Callable[[str], str] = str) -> str:
        """The sentence; `translate` gives its text in another language."""
        shown: dict[str, object] = {}
        for name, value in self.values.items():
            shown[name] = ", ".join(each.words(translate) for each in value) if isinstance(value, list) else value
        return translate(self.text).format_map(shown)


def said(text: str, /, **values: "str | int | list[Said]") -> Said:
    """A sentence. Its text is a literal: that is how it is found for translating."""
    return Said(text, values)
