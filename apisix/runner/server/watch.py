"""What is watched of a worker's calls: nothing, unless a setting asks for it.

Rules that live here: the classes and functions that calls are made of are chosen once, when the worker starts. What is
not asked for costs nothing: there is no test for it on a call's way, but for a meter, which is most often asked for.
"""

from collections.abc import Callable

from apisix.runner.plugin.chain import Step
from apisix.runner.server.confs import MakeStep
from apisix.runner.server.meter import Meter
from apisix.runner.server.request_call import RequestCall
from apisix.runner.server.response_call import ResponseCall


class Watch:
    """The choice, which begins with nothing being watched.

    Attributes:
        make_step: makes the steps of chains.
        request_call: the class of calls in the request phase.
        response_call: the class of calls in the response phase.
        request_meter: counts calls in the request phase.
        response_meter: counts calls in the response phase.
        refused: told of each frame that is refused: why it is malformed, or None where its token is not known.
        prepared: told of each PrepareConf: the seconds it took, and whether it was answered with a token.
        at_end: called when the worker ends.
    """

    def __init__(self) -> None:
        self.make_step: MakeStep = Step
        self.request_call: type[RequestCall] = RequestCall
        self.response_call: type[ResponseCall] = ResponseCall
        self.request_meter: Meter | None = None
        self.response_meter: Meter | None = None
        self.refused: Callable[[str | None], None] = lambda reason: None
        self.prepared: Callable[[float, bool], None] = lambda seconds, done: None
        self.at_end: list[Callable[[], None]] = []
