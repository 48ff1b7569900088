cimport cython
from apisix.runner.http.request cimport Request
from apisix.runner.http.response cimport Response
from apisix.runner.plugin.chain cimport Chain
from apisix.runner.server.confs cimport PhaseChain, PreparedConf
from apisix.runner.server.connection cimport Connection

cdef class Call:
    cdef public tuple asked_early, asked_late
    cdef public object asking, before_wait, contexts, id, meter, task, thread
    cdef public list ticket
    cdef public PreparedConf conf
    cdef public PhaseChain phase_chain
    cdef public Connection connection
    cdef public double deadline, told_seconds
    cdef public bint ended, has_failed, waited
    cdef public Request request
    cdef public Response response

    cdef object _begin(
        self, Connection connection, object id, PreparedConf conf, PhaseChain phase_chain, double deadline, object contexts
    )
    cpdef bytes answer(self)
    cpdef bytes failed_answer(self)
    @cython.locals(chain=Chain, answer=bytes, names=tuple)
    cpdef bytes run(self)
    cpdef str outcome(self, bytes answer)
    cpdef bint has_changes(self) except -1
    cpdef tuple early_asks(self)
    cpdef tuple variables_before(self)
    cpdef tuple variables_after(self)
    cpdef bytes failed(self, object error)
