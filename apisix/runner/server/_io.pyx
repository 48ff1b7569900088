# cython: language_level=3
"""The calls into the kernel that every call of the gateway takes, compiled: wait, receive what is there, send what fits.

Rules that live here:
- What does not block keeps the interpreter's lock, which costs more to give up and take back than that takes.
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

cdef extern from "<sys/epoll.h>":
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data
    enum: EPOLLIN
    enum: EPOLL_CLOEXEC
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout) nogil

cdef extern from "<unistd.h>":
    int c_close "close"(int fd)

cdef enum:
    MOST_EVENTS = 256

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
        self._check_open()
        while True:
            got = c_recv(self._fd, _room, most, MSG_DONTWAIT)
            if got >= 0:
                return PyBytes_FromStringAndSize(_room, got)
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()

    def send(self, bytes data not None):
        """As `socket.send`."""
        cdef ssize_t sent
        self._check_open()
        while True:
            sent = c_send(self._fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent >= 0:
                return sent
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()

    cdef inline int _check_open(self) except -1:
        if self._fd < 0:
            raise OSError(EBADF, "Bad file descriptor")
        return 0

    def close(self):
        """Use the number no more."""
        self._fd = -1


@cython.final
cdef class Epoll:
    """As much of `select.epoll` as is used. No event is lost where more are ready than fit: the next poll has them."""

    cdef int _fd

    def __cinit__(self):
        self._fd = epoll_create1(EPOLL_CLOEXEC)
        if self._fd < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        self.close()

    def register(self, int fd, unsigned int eventmask=EPOLLIN):
        """As `select.epoll.register`."""
        cdef epoll_event event
        event.events = eventmask
        event.data.fd = fd
        if epoll_ctl(self._fd, EPOLL_CTL_ADD, fd, &event) < 0:
            PyErr_SetFromErrno(OSError)

    def unregister(self, int fd):
        """As `select.epoll.unregister`."""
        cdef epoll_event event
        if epoll_ctl(self._fd, EPOLL_CTL_DEL, fd, &event) < 0:
            PyErr_SetFromErrno(OSError)

    def poll(self, double timeout=-1, int maxevents=MOST_EVENTS):
        """As `select.epoll.poll`; a signal ends it early."""
        cdef epoll_event events[MOST_EVENTS]
        cdef int milliseconds = -1 if timeout < 0 else <int>(timeout * 1000 + 0.999)
        cdef int epfd = self._fd
        cdef int found, i
        with nogil:
            found = epoll_wait(epfd, events, MOST_EVENTS if maxevents < 1 else min(maxevents, MOST_EVENTS), milliseconds)
        if found < 0:
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
            return []
        return [(events[i].data.fd, events[i].events) for i in range(found)]

    def close(self):
        """Let go of it."""
        if self._fd >= 0:
            c_close(self._fd)
            self._fd = -1
