cimport cython
from apisix.runner.server.call cimport Call
from apisix.runner.server.confs cimport PreparedConf
from apisix.runner.server.connection cimport Connection

cdef class Dispatcher:
    cdef public object watch, _request_call, _response_call, _request_meter, _response_meter, _confs, _find_conf, _contexts, _version, _gateway
    cdef public double timeout

    @cython.locals(call=Call, conf=PreparedConf, kind=int)
    cpdef object open_call(self, Connection connection, bytes frame, double now)
