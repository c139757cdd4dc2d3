"""Marked secrets: texts that occur nowhere else, so that finding one anywhere says where it was let out."""

import re
import secrets
import string


def random_letters(count):
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(count))


class Marks:
    """Makes marked texts, and finds them again.

    A mark is of lower-case letters only, so that it may be a user name, a header's value, a path or a method; all of a
    run begin alike.
    """

    def __init__(self):
        self._prefix = f"cnry{random_letters(10)}"
        self._places = {}
        self._others = {}

    def __call__(self, place):
        """Make a mark for one place."""
        mark = f"{self._prefix}{random_letters(6)}"
        self._places[mark] = place
        return mark

    def also(self, text, place):
        """Look for this text too: what a mark became, or a secret that we do not make ourselves."""
        self._others[text] = place
        return text

    def found_in(self, text):
        """Say which places' marks are in a text, and with what around them."""
        lowered = text.lower()
        found = set()
        for match in re.finditer(rf"{self._prefix}[a-z]*", lowered):
            place = self._places.get(match[0][: len(self._prefix) + 6], "a piece of a mark")
            found.add((place, lowered[max(0, match.start() - 60) : match.end() + 20]))
        for other, place in self._others.items():
            at = text.find(other)
            if at >= 0:
                found.add((place, text[max(0, at - 60) : at + 20]))
        return found

    @property
    def places(self):
        return [*self._places.values(), *self._others.values()]
