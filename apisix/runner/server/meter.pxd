cimport cython
from apisix.runner.http.response cimport Response

# What stands for functions of Python: on Linux the same clock, and a search among floats for one that is most often
# near the first. They make no objects.
cdef extern from *:
    """
    #include <time.h>
    static CYTHON_INLINE double a6_monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + now.tv_nsec * 1e-9;
    }
    static CYTHON_INLINE Py_ssize_t a6_bisect_left(PyObject *bounds, double value) {
        Py_ssize_t at = 0;
        while (at < PyTuple_GET_SIZE(bounds) && PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(bounds, at)) < value)
            at++;
        return at;
    }
    """
    cpdef double monotonic "a6_monotonic"()
    cpdef Py_ssize_t bisect_left "a6_bisect_left"(tuple bounds, double value)

@cython.final
cdef class Durations:
    cdef double[::1] cells
    cdef Py_ssize_t at, sum_at

    cpdef object count(self, double seconds)

@cython.final
cdef class Meter:
    cdef double[::1] _cells
    cdef dict _errors, _outcomes
    cdef Durations _gateway, _queue
    cdef double _timeout

    cpdef object queued(self, double deadline, double asked)
    cpdef object waited(self, double seconds)
    @cython.locals(at=Py_ssize_t)
    cpdef object failed(self, object error)
    @cython.locals(at=Py_ssize_t)
    cpdef object given_up(self, double deadline)
    @cython.locals(seconds=double, durations=Durations)
    cpdef object ended(self, str outcome, double deadline)

@cython.final
cdef class PluginMeter:
    cdef object _run
    cdef public Durations failed, passed, stopped

    @cython.locals(started=double, seconds=double, durations=Durations)
    cpdef object run(self, object request, Response response)
