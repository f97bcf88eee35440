"""Text from outside, such as names of files and classes, fit to be printed: on any terminal, in any message."""

import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories: controls, formats, surrogates, ends of lines
JOINERS = "\u200c\u200d"  # Persian and many an emoji are spelled with them


def visible(text: object) -> str:
    """A text with every character spelled out that would move the cursor, set a colour, break the line or turn round
    the words, such as \\x1b or \\u202e, and stray bytes of names that are no UTF-8; letters of any script stay."""
    words = str(text)
    if words.isprintable():
        return words
    return "".join(
        letter
        if letter in JOINERS or unicodedata.category(letter) not in HIDDEN
        else letter.encode("unicode_escape").decode()
        for letter in words
    )


def plural(number: float, noun: str) -> str:
    """ "1 clip", "1.5 epochs", "0 classes": how many of what."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "tch", "sh")) else "s"
    return f"{number if isinstance(number, int) else format(number, 'g')} {noun}{ending}"


def visible_lines(text: object) -> str:
    """The same for our messages, whose further lines begin with two spaces: these line breaks stay."""
    return "\n  ".join(map(visible, str(text).split("\n  ")))
