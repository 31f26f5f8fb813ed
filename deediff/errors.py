"""The one exception that means: the user can fix this; show the sentence, not a traceback."""


class UserError(ValueError):
    """Bad input. The message is one sentence: what, where, what was expected, what to do."""
