"""The exception for bad input."""

import re


class UserError(ValueError):
    """Bad input: the value, the place and the valid choices, in one line.

    The command line prints it as one line with exit status 2. It is the only exception treated so:
    any other one is a bug and shows its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"\s*[\r\n]+\s*", " ", message.strip()))
