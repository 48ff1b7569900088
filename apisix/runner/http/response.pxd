cimport cython
from apisix.runner.http.fields cimport Headers

@cython.freelist(8)
cdef class Response:
    cdef public object _call, link, _body, raw_body, _upstream_body, _asking, unread, plugin, coroutine, after, running
    cdef public Headers touched_headers
    cdef public int new_status
    cdef public bint in_coroutine, stopped
    cpdef object set_status(self, object status)
    cpdef object set_body(self, object body)
