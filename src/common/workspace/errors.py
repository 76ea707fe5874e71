"""What a user can mend."""


class UserError(ValueError):
    """Something that the user can mend: the message says what is wrong, where, and what to do."""
