"""The composition of the pages: templates in every language, assets, headers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aiohttp import web
from babel.dates import format_date, format_skeleton, format_time
from babel.numbers import format_currency, get_currency_precision
from jinja2 import Environment, PackageLoader, StrictUndefined

from flashsale.domain import Money
from flashsale.errors import SetupError
from flashsale.settings import Settings
from flashsale.web.pages import headers, words
from flashsale.web.pages.assets import Assets
from flashsale.web.pages.serving import Body, body_of
from flashsale.web.pages.words import Language

KEPT_MAX: Final = 512
HTML: Final = "text/html; charset=utf-8"


class Site:
    """Renders pages. What is rendered once is kept: pages are the same for everybody."""

    def __init__(self, settings: Settings) -> None:
        try:
            self.zone = ZoneInfo(settings.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise SetupError(f"FLASHSALE_ZONE is no time zone: {settings.zone!r}. Asia/Shanghai is one.") from None
        self.settings = settings
        self.assets = Assets()
        https = settings.public_url is not None and settings.public_url.startswith("https:")
        self.headers: dict[str, str] = {**headers.COMMON, **(headers.HSTS if https else {})}
        self._environments = {language: self._environment(language) for language in words.LANGUAGES}
        self._kept: dict[tuple[object, ...], Body] = {}

    def _environment(self, language: Language) -> Environment:
        made = Environment(
            loader=PackageLoader("flashsale.web.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
        )
        made.install_gettext_translations(words.translations(language), newstyle=True)  # type: ignore[attr-defined]
        made.globals.update(
            lang=language,
            tag=words.TAGS[language],
            languages=[(each, words.TAGS[each], words.NAMES[each]) for each in words.LANGUAGES],
            zone=self.settings.zone,
            asset=self.assets.path,
            modules=self.assets.modules,
        )
        made.filters.update(
            money=lambda m: money(m, language),
            day=lambda at: day(at.astimezone(self.zone), language),
            clock=lambda at: format_time(at.astimezone(self.zone), "HH:mm", locale=language),
        )
        return made

    def render(self, template: str, language: Language, **values: object) -> Body:
        """A page."""
        text = self._environments[language].get_template(template).render(**values)
        return body_of(text.encode(), HTML)

    def kept(self, template: str, language: Language, key: object, values: Mapping[str, object]) -> Body:
        """A page that is rendered once for each `key`."""
        place = (template, language, key)
        body = self._kept.get(place)
        if body is None:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            body = self._kept[place] = self.render(template, language, **values)
        return body


def money(m: Money, language: Language) -> str:
    """An amount as one writes it: whole ones without decimals."""
    precision = get_currency_precision(m.currency)
    amount = m.amount / 10**precision
    whole = m.amount % 10**precision == 0
    return format_currency(amount, m.currency, "¤#,##0" if whole else None, locale=language, currency_digits=not whole)


def day(at: datetime, language: Language) -> str:
    """A day without its year, as one reads it in a list of dates."""
    return format_skeleton("MMMEd", at, tzinfo=None, locale=language) or format_date(at, locale=language)


SITE: Final = web.AppKey("site", Site)
