"""What can go wrong, as one exception tree.

Every message is one sentence that names the file (or the value) and the remedy,
because the command line prints it as it stands.
"""


class PMAVAEError(Exception):
    """Base of all errors that this library raises on purpose."""


class ImageError(PMAVAEError):
    """A picture that cannot be used: unreadable, too small, of an unsupported kind."""


class LatentFileError(PMAVAEError):
    """A latent file that is damaged, foreign, or of another format version."""


class WeightsError(PMAVAEError):
    """Weights that are missing, damaged, or do not fit the model."""


class WeightsMismatchError(LatentFileError):
    """A latent file that was made with other weights than the ones loaded."""


class ExportError(PMAVAEError):
    """A model that cannot be exported, or whose export does not compute what it computes."""
