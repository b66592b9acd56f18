"""The exception for mistakes that a user can correct."""


class UserError(ValueError):
    """Bad input: the value, the place and the valid choices, in one line.

    The only exception that the command line prints as one line; any other shows its traceback.
    """
