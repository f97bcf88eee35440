"""A number and the noun it counts."""


def counted(number: int, noun: str) -> str:
    """(1, "clip") -> "1 clip", (3, "clip") -> "3 clips", (2, "class") -> "2 classes"."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
