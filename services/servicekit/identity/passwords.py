"""Normalises passwords, because keyboards and systems encode the same typed characters differently in Unicode.

The form is PRECIS' OpaqueString (RFC 8265, section 4.2), as NIST SP 800-63B recommends: all spaces become ordinary
spaces, and characters are composed (NFC). Lengths are measured in this form.
"""

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from servicekit.web.openapi import Text

MAX_LENGTH = 128
_MOST_SPELT = 4 * MAX_LENGTH  # no spelling of a character is longer than four; long texts take long to normalise


def prepared(password: str) -> str:
    """Return the normalised form of a password, which is hashed and compared."""
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in password)
    return unicodedata.normalize("NFC", spaced)


def spellings(password: str) -> list[str]:
    """Return the forms in which older versions may have hashed a password, the normalised form first."""
    return list(dict.fromkeys([prepared(password), password, unicodedata.normalize("NFD", password)]))


def _of_length(least: int) -> AfterValidator:
    def checked(password: str) -> str:
        length = len(prepared(password))
        if length < least:
            raise ValueError(f"String should have at least {least} character{'s' * (least > 1)}")
        if length > MAX_LENGTH:
            raise ValueError(f"String should have at most {MAX_LENGTH} characters")
        return password

    return AfterValidator(checked)


_Spelt = Annotated[Text, Field(max_length=_MOST_SPELT)]


def _described(least: int) -> Any:
    return Field(json_schema_extra={"minLength": least, "maxLength": MAX_LENGTH, "description": _DESCRIPTION})


_DESCRIPTION = "Its length counts after Unicode's NFC; all spellings of the same characters are the same."

NewPassword = Annotated[_Spelt, _of_length(8), _described(8)]
"""A new password."""

Password = Annotated[_Spelt, _of_length(1), _described(1)]
"""A password to be checked."""
