"""Numbers in the console's paths."""

from starlette.convertors import IntegerConvertor, register_url_convertor

NUMBER = "number"
"""The name of the convertor, as in `/jobs/{id:number}`."""
LARGEST_NUMBER = 10**18 - 1
"""PostgreSQL's bigint holds it, and no row has a larger id."""


class NumberConvertor(IntegerConvertor):
    """A number that an id can be. Python refuses to read one of more than 4,300 digits."""

    regex = "[0-9]{1,18}"


def register() -> None:
    """Let paths of routes use the convertor."""
    register_url_convertor(NUMBER, NumberConvertor())
