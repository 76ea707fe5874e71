"""What a user can mend: an error whose message is all that he needs to see."""


class UserError(ValueError):
    """Something that the user can mend: the message says what is wrong, where, and what to do."""


class ServerError(UserError):
    """The MLflow store cannot be used: no such place, a server that does not answer, or one that
    does not let us in.
    """


def of_mlflow(error: BaseException) -> bool:
    """Whether an error is MLflow's own, which says what a server refused, or that it has gone."""
    return type(error).__module__ == "mlflow.exceptions"


class MissingInput(UserError):
    """A file of an earlier stage is not there, or holds nothing for the partitions asked for."""
