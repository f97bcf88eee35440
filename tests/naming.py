"""What a message must name. Its values are tested and not its sentences, so that it can be reworded."""

import re


def naming(*values: object) -> str:
    """A pattern for a message in which all these values stand, in any order and among any words.

    Each value stands alone: 5 is not found in 15, 0.5, 5.5 or step-5.
    """
    return r"(?s)\A" + "".join(rf"(?=.*(?<![\w.-]){re.escape(str(value))}(?!\w|\.\d))" for value in values)
