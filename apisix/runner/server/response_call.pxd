cimport cython
from apisix.runner.http.response cimport Response
from apisix.runner.server.call cimport Call

cdef class ResponseCall(Call):
    cdef public object gateway

cdef class GatewayMemory:
    cdef public object version
    cdef public bint has_answered
    cdef public double _ask_again

    cpdef bint may_be_asked(self) except -1
