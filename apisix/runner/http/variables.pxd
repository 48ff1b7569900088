from apisix.runner.http.fields cimport Args, Headers
from apisix.runner.http.request cimport Request

cdef class ResponsePhaseRequest(Request):
    cdef public object _conf_token, _id

cdef class _FixedArgs(Args):
    pass

cdef class _VariableHeaders(Headers):
    cdef public object _request
