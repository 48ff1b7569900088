cdef class TextMapping:
    cpdef object _find(self, object name)
