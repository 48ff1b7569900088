# cython: language_level=3
"""The two calls into the kernel that every call of the gateway takes, compiled: receive what is there, send what fits.

Rules that live here:
- They do not block, so they keep the interpreter's lock, which costs more to give up and take back than they take.
- That lock is also what makes a number safe to use: `close` forgets it before anybody can give it to another file.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EBADF, EINTR, errno

cdef extern from "<sys/socket.h>":
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)

cdef char _room[262144]  # one for all: nobody else runs between its use and the copy


@cython.final
cdef class Channel:
    """As much of a non-blocking socket as the poller uses.

    Args:
        fd: the socket's number; it stays the socket's to close.
    """

    cdef int _fd

    def __cinit__(self, int fd):
        self._fd = fd

    def recv(self, Py_ssize_t most):
        """As `socket.recv`."""
        cdef ssize_t got
        if most < 0 or most > <Py_ssize_t>sizeof(_room):
            most = sizeof(_room)
        while True:
            errno = EBADF
            got = c_recv(self._fd, _room, most, MSG_DONTWAIT) if self._fd >= 0 else -1
            if got >= 0:
                return PyBytes_FromStringAndSize(_room, got)
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()

    def send(self, bytes data not None):
        """As `socket.send`."""
        cdef ssize_t sent
        while True:
            errno = EBADF
            sent = -1
            if self._fd >= 0:
                sent = c_send(
                    self._fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL
                )
            if sent >= 0:
                return sent
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()

    def close(self):
        """Use the number no more."""
        self._fd = -1
