cimport cython
from apisix.runner.http.response cimport Response

cdef class Step:
    cdef public object definition, instance, method, name, run, timeout
    cdef public bint coroutine, may_continue

cdef class Chain:
    cdef public object blocking
    cdef public tuple steps, variables
    cdef public bint coroutine, timed, needs_body

    @cython.locals(step=Step, timed=bint)
    cpdef object run(self, object request, Response response)
