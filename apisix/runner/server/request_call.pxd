cimport cython
from apisix.runner.http.request cimport Request
from apisix.runner.http.response cimport Response
from apisix.runner.http.answer cimport stop_action, rewrite_action
from apisix.runner.server.call cimport Call

cdef class RequestCall(Call):
    cdef public object version
