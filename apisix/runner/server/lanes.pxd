cdef class Lane:
    cdef public bint burns, inline
    cdef public object _blocking
    cdef public long runs, _last_slow, _quick, _to_promote

    cpdef object was_slow_inline(self)
    cpdef object demote(self)
