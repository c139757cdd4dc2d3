import unicodedata

import pytest
from pydantic import TypeAdapter, ValidationError

from servicekit.identity.passwords import NewPassword, Password, prepared, spellings

NEW, ANY = TypeAdapter(NewPassword), TypeAdapter(Password)


@pytest.mark.parametrize("text", ["mañana-pässwörd", "Ångström", "한글 암호입니다", "ệ́ệ́", "ﬁve", "①②③"])
def test_all_spellings_of_the_same_characters_are_the_same(text):
    assert prepared(unicodedata.normalize("NFD", text)) == prepared(unicodedata.normalize("NFC", text))
    assert prepared(prepared(text)) == prepared(text)


@pytest.mark.parametrize(
    ("one", "other"), [("ﬁve", "five"), ("①", "1"), ("Password", "password"), ("a b", "ab"), ("ñ", "n"), ("a ", "a")]
)
def test_what_merely_looks_alike_is_not(one, other):
    assert prepared(one) != prepared(other)


@pytest.mark.parametrize("space", ["\xa0", "\u2003", "\u3000", "\u202f"])
def test_every_space_is_an_ordinary_one(space):
    assert prepared(f"correct{space}horse") == "correct horse"


def test_one_in_ascii_has_one_spelling_and_no_other_has_more_than_three():
    assert spellings("correct horse") == ["correct horse"]
    assert len(spellings("ñ")) == 2
    assert len(spellings("n\u0303\xa0ñ")) == 3


@pytest.mark.parametrize(
    ("adapter", "text", "taken"),
    [
        (NEW, "a" * 7, False),
        (NEW, "a" * 8, True),
        (NEW, "a\u0308" * 7, False),  # 14 code points, 7 characters
        (NEW, "a\u0308" * 8, True),
        (NEW, "a\u0308" * 128, True),
        (NEW, "a\u0308" * 129, False),
        (NEW, "a" * 128, True),
        (NEW, "a" * 129, False),
        (NEW, "\u0344" * 64, True),  # one that NFC makes longer: 128 afterwards
        (NEW, "\u0344" * 65, False),
        (NEW, "🐎" * 128, True),
        (ANY, "", False),
        (ANY, "a", True),
        (ANY, "a" * 129, False),
        (ANY, "a\x00b", False),
        (ANY, "\ud800", False),
    ],
)
def test_its_length_is_that_of_the_form_that_counts(adapter, text, taken):
    if taken:
        assert adapter.validate_python(text) == text
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)
