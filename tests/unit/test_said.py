"""Sentences whose figures stand apart."""

from flashsale.said import said


def test_a_sentence_is_said_with_its_values_in_any_language() -> None:
    """Its parts, too, each in that language; braces in a value are no placeholders."""
    parts = [said("no {what}", what="title"), said("no {what}", what="{n}")]
    told = said("{n} lacks: {parts}.", n=2, parts=parts)
    assert told.words() == "2 lacks: no title, no {n}."
    other = {"{n} lacks: {parts}.": "缺 {n} 项：{parts}。", "no {what}": "缺 {what}"}
    assert told.words(other.__getitem__) == "缺 2 项：缺 title, 缺 {n}。"
