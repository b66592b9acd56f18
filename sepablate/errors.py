"""The exception for bad input."""


class UserError(ValueError):
    """Bad input: the value, the place and the valid choices, in one line.

    The command line prints it as one line with exit status 2. It is the only exception treated so:
    any other one is a bug and shows its traceback.
    """
