"""What is compiled of fields.py with types: see docs/architecture."""

cimport cython
from apisix.runner.http.mapping cimport TextMapping

cdef dict _known_names
cpdef str check_header_name(object name)


cdef class Fields(TextMapping):
    cdef public dict _before, _names, _values, _written
    cdef public object _load
    cdef public bint _several

    cpdef object _key(self, object name)
    cpdef object _check(self, object name, object value)
    @cython.locals(values=dict)
    cpdef object _fill(self, object pairs)
    cpdef object _read(self)
    cpdef object _write(self, object key, object name, object value)
    cpdef list getall(self, object name)
    cpdef list pairs(self)
    cpdef list _first_pairs(self)
    @cython.locals(values=dict, names=dict)
    cpdef list pairs_without(self, frozenset keys)
    @cython.locals(values=dict)
    cpdef list changes(self)


cdef class Headers(Fields):
    pass


cdef class Args(Fields):
    pass
