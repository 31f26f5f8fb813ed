"""The exception for invalid input: command line and app show its message instead of a traceback."""


class UserError(ValueError):
    """Invalid input. The message names the value, where it was found, what was expected, and the remedy."""
