cdef class Held:
    cdef public long most, bytes

cdef class Connection:
    cdef public object _channel, early, pieces, receive, send, sock
    cdef public bint broken, registered
    cdef public int fd
