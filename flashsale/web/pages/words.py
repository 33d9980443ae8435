"""The languages of the pages. English is the source; `locales/` has the others, compiled at the start.

A language has two catalogues: what shoppers read, and what operators read besides: their pages, and the sentences of
the API (`flashsale/said.py`) that these show.
"""

import gettext
import io
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, Literal

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("zh", "en")
TAGS: Final[Mapping[Language, str]] = {"zh": "zh-Hans", "en": "en"}
"""What `lang` says."""
CATALOGUES: Final = ("pages.po", "console.po")
NAMES: Final[Mapping[Language, str]] = {"zh": "中文", "en": "English"}

_RANGE: Final = re.compile(r"\s*([A-Za-z]{1,8}|\*)[-A-Za-z0-9]*\s*(?:;\s*q=([01](?:\.[0-9]{1,3})?))?\s*")


def translations(language: Language) -> gettext.NullTranslations:
    """The words of a language."""
    if language == "en":
        return gettext.NullTranslations()
    all_words = Catalog(locale=language)
    for name in CATALOGUES:
        source = files(__package__) / "locales" / language / name
        for message in read_po(io.BytesIO(source.read_bytes()), locale=language):
            if message.id:
                all_words[message.id] = message
    compiled = io.BytesIO()
    write_mo(compiled, all_words)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def preferred(accept_language: str) -> Language:
    """The language that a browser asks for (RFC 9110, 12.5.4); English when it asks for none of ours."""
    best: tuple[float, Language] = (0.0, "en")
    for part in accept_language.split(",")[:32]:
        found = _RANGE.fullmatch(part)
        if found is None:
            continue
        language, quality = found[1].lower(), float(found[2] or 1)
        if language in LANGUAGES and quality > best[0]:
            best = quality, "zh" if language == "zh" else "en"
    return best[1]
