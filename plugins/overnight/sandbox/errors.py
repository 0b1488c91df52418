"""What can go wrong in the sandbox, none of which can happen to a job."""

from __future__ import annotations

from overnight.errors import OvernightError


class SandboxError(OvernightError):
    """The sandbox cannot do what was asked; the text says what would help."""


class MissingExtraError(SandboxError):
    """
    Packages of the ``sandbox`` extra are not installed.

    :param missing: The import names that were looked for in vain.
    """

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(
            f"The sandbox needs packages that are not installed ({', '.join(missing)}): "
            "run  pip install 'airflow-provider-overnight[sandbox]'"
        )
        self.missing = missing


class DownloadError(SandboxError):
    """A file could not be downloaded."""


class ChecksumError(DownloadError):
    """What a server sent, twice, is not what the lock names."""


class ServiceStartError(SandboxError):
    """A service ended, or stayed silent, instead of becoming ready."""
