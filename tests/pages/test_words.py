"""The words: every one in both languages, none idle, none with a sign that the templates would stumble over."""

import re
from importlib.resources import files

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

PAGES = files("flashsale.web.pages")
MODULES = [p.read_text(encoding="utf-8") for p in (PAGES / "static").iterdir() if p.name.endswith(".js")]
TEMPLATES = {p.name: p.read_text(encoding="utf-8") for p in (PAGES / "templates").iterdir()}


def messages() -> set[str]:
    """Every message of the templates, in English."""
    found = extract_from_dir(str(PAGES / "templates"), [("**.html", "jinja2")], {"**.html": {}})
    return {each[2] if isinstance(each[2], str) else each[2][0] for each in found}


def test_every_message_is_in_chinese_and_none_is_idle() -> None:
    with (PAGES / "locales/zh/pages.po").open("rb") as source:  # type: ignore[call-overload]
        catalogue = read_po(source, locale="zh")
    chinese = {str(each.id): str(each.string) for each in catalogue if each.id}
    assert messages() == set(chinese)
    assert len(chinese) > 80
    assert [each for each, said in chinese.items() if not said] == []


def test_placeholders_are_the_same_in_both_languages_and_no_percent_sign_is_there() -> None:
    """Jinja2 would take a percent sign for a placeholder of its own."""
    with (PAGES / "locales/zh/pages.po").open("rb") as source:  # type: ignore[call-overload]
        catalogue = read_po(source, locale="zh")
    for each in catalogue:
        english, chinese = str(each.id), str(each.string)
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
