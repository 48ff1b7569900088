from apisix.runner.plugin.chain cimport Chain
from apisix.runner.server.early cimport Habits
from apisix.runner.server.lanes cimport Lane

cdef class PhaseChain:
    cdef public Chain chain
    cdef public Habits habits
    cdef public Lane lane

cdef class PreparedConf:
    cdef public object _plugins, failure, key, token, warned
    cdef public bint post_req
    cdef public double used
    cdef public PhaseChain request, response
