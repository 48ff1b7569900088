cimport cython

cdef class Habits:
    cdef public tuple asks, _declared
    cdef public bint awake
    cdef public dict _rows, _debts, _to_learn
    cdef public object _lock
