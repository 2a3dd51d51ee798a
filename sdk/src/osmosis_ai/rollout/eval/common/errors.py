"""What can go wrong in a local run, in one tree.

::

    LocalExecutionError
    |- DatasetParseError          the file cannot be read as its format
    |- DatasetValidationError     a row is not what an agent needs
    |- ToolValidationError        the agent offers a tool that a model cannot be given
    `- ProviderError              the model gave no answer
       `- SystemicProviderError   ... and will give none to any other row either

Spec: test-and-eval.md, section 2.
"""


class LocalExecutionError(Exception):
    """Base of every error of a local run."""


class DatasetParseError(LocalExecutionError):
    """The file cannot be read as the format its suffix promises."""


class DatasetValidationError(LocalExecutionError):
    """A row cannot be used; the message starts with ``Row <n>: ``, counted from 0 in the file."""


class ToolValidationError(LocalExecutionError):
    """A tool definition that no model provider accepts."""


class ProviderError(LocalExecutionError):
    """The model gave no usable answer to one call."""


class SystemicProviderError(ProviderError):
    """Every row will fail the same way: authentication, budget, connectivity, unknown model.

    ``duration_ms`` and ``tokens`` say what the failed row had cost, where known; both are ``None`` at first.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.duration_ms: float | None = None
        self.tokens: int | None = None
