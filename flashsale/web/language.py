"""In which language a call answers: English, unless its `Accept-Language` asks for another that the pages have."""

from collections.abc import Callable
from functools import cache

from aiohttp import web

from flashsale.said import Said
from flashsale.web.pages import words
from flashsale.web.pages.words import Language


class Words:
    """Sentences in one language, and the headers of an answer that has some."""

    def __init__(self, language: Language) -> None:
        self._translate: Callable[[str], str] = words.translations(language).gettext
        self.headers = {"Content-Language": words.TAGS[language], "Vary": "Accept-Language"}

    def __call__(self, told: Said) -> str:
        """The sentence."""
        return told.words(self._translate)


_words = cache(Words)


def of(request: web.Request) -> Words:
    """What the request asks for."""
    return _words(words.preferred(request.headers.get("Accept-Language", "")))
