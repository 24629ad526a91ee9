"""The one error that bad input raises."""


class InputError(ValueError):
    """Something that came from outside (a file, an option, a value) cannot be used.

    The message says what came, what was expected and what to do. Command lines print it as it is, without a
    traceback, and exit with code 2.
    """


class OutputError(InputError):
    """Something cannot be written: the disk is full, read-only, or not ours. What was there before stays."""
