"""What a registered model carries: this folder ships inside it as it is, so it imports nothing of
the rest, the base of its errors included.
"""


class ScoringError(ValueError):
    """A frame, a model or a setting that cannot be used; the message says what is wanted."""
