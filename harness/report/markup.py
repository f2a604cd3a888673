"""HTML and SVG elements whose text is always escaped: no name of a method can become markup."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup already."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One element. Children that are no Markup are escaped, and so is every attribute; None children vanish.

    Attributes are spelled with _ for -, and with a trailing _ where Python has the word: class_="note".
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after another, escaped where they are no Markup."""
    return Markup("".join(one if isinstance(one, Markup) else escape(str(one)) for one in children if one is not None))
