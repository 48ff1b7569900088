cimport cython
from apisix.runner.server.call cimport Call
from apisix.runner.server.confs cimport PhaseChain
from apisix.runner.server.connection cimport Connection, Held
from apisix.runner.server.dispatch cimport Dispatcher
from apisix.runner.server.lanes cimport Lane

cdef class Poller:
    cdef public Dispatcher _dispatcher
    cdef public object _before_wait, _row, _epoll, _lead_lock, _early, _sentinel_call, _hand_over, _commands, _wake, _entrance, _away, drained, confs, housekeeping, _ready
    cdef public long _served, _lead_thread
    cdef public dict _connections
    cdef public list _slot
    cdef public Held _held
    cdef public bint _active, _sentinel_rests, _forked, _draining, _closing

    @cython.locals(early=object, data=bytes)
    cpdef bint _serve(self, Connection connection, list slot) except -1
    @cython.locals(call=Call, now=double)
    cpdef bint _handle(self, Connection connection, bytes frame, list slot) except -1
    @cython.locals(lane=Lane, answer=bytes)
    cpdef bint _run(self, Connection connection, Call call, list slot, double now) except -1
    cpdef object _send(self, Connection connection, bytes answer)
    cpdef object _attach(self, Connection connection)
    cpdef object _detach(self, Connection connection)
