"""How a call to the runner can fail, as APISIX tells the cases apart."""


class RunnerFailure(Exception):
    """The runner did not answer, or answered with an error: 503, or a pass where the route allows degradation."""


class UnknownToken(RunnerFailure):
    """The runner answered that it does not know the conf token: prepare again and retry."""


class BrokenAnswer(Exception):
    """The runner's answer cannot be read, which is an error in APISIX's Lua code: 500, whatever the route allows."""
