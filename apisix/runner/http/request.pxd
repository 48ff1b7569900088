cimport cython
from apisix.runner.http.fields cimport Args, Headers

cdef class RequestHeaders(Headers):
    pass

@cython.freelist(8)
cdef class Request:
    cdef public object _call, link, _path, _path_was, _body, new_body, _vars, _state, touched_context, _asking, unread
    cdef public RequestHeaders touched_headers
    cdef public Args touched_args
    cdef public bint _post_req, in_coroutine
cpdef bytes to_bytes(object body, object what)
