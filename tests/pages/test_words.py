"""The words: every one in both languages, none idle, none with a sign that the templates would stumble over."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

PAGES = Path(str(files("flashsale.web.pages")))
FLASHSALE = Path(str(files("flashsale")))
MODULES = [p.read_text(encoding="utf-8") for p in (PAGES / "static").glob("*.js")]
TEMPLATES = {p.name: p.read_text(encoding="utf-8") for p in (PAGES / "templates").rglob("*.html")}
CATALOGUES = ("pages.po", "console.po")


def messages() -> dict[str, set[str]]:
    """Every message of the templates, and every sentence that the code says, in English, by its catalogue."""
    found: dict[str, set[str]] = {name: set() for name in CATALOGUES}
    for file, _, message, *_ in extract_from_dir(str(PAGES / "templates"), [("**.html", "jinja2")], {"**.html": {}}):
        name = "console.po" if file.startswith("console/") else "pages.po"
        found[name].add(message if isinstance(message, str) else message[0])
    code = extract_from_dir(str(FLASHSALE), [("**.py", "python")], keywords={"said": None})
    found["console.po"] |= {message if isinstance(message, str) else message[0] for _, _, message, *_ in code}
    found["console.po"] -= found["pages.po"]
    return found


def catalogue(name: str) -> dict[str, str]:
    """A catalogue's messages, and what they are in Chinese."""
    with (PAGES / "locales/zh" / name).open("rb") as source:
        return {str(each.id): str(each.string) for each in read_po(source, locale="zh") if each.id}


@pytest.mark.parametrize(("name", "least"), [("pages.po", 80), ("console.po", 200)])
def test_every_message_is_in_chinese_and_none_is_idle(name: str, least: int) -> None:
    chinese = catalogue(name)
    assert messages()[name] == set(chinese)
    assert len(chinese) > least
    assert [each for each, said in chinese.items() if not said] == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_placeholders_are_the_same_in_both_languages_and_no_percent_sign_is_there(name: str) -> None:
    """Jinja2 would take a percent sign for a placeholder of its own."""
    for english, chinese in catalogue(name).items():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), english
        if english:
            assert "%" not in english + chinese


def test_every_word_that_a_module_asks_for_is_in_a_template() -> None:
    """And every one that a template keeps for the modules is asked for by one of them."""
    kept = {key for text in TEMPLATES.values() for key in re.findall(r'\bw\("([\w.]+)"', text)}
    sources = "\n".join(MODULES)
    asked = set(re.findall(r'(?:say|has)\("([\w.]+)"', sources)) | set(re.findall(r'text: "([\w.]+)"', sources))
    assert {each for each in asked if each not in kept} == set()
    states = set(re.findall(r'state: "(\w+)"', sources))
    assert {f"{state}.title" for state in states} <= kept | {"loading.title"}
