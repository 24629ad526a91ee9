"""The one error that bad input raises."""


class InputError(ValueError):
    """Input from outside (a file, an option, a value) cannot be used.

    The message says what was found, what was expected and what to do. Commands print it as it is, without a traceback,
    and exit with code 2.
    """


class OutputError(InputError):
    """Something cannot be written: the disk is full, read-only, or not ours. Existing files stay as they were."""
