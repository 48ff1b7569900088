cimport cython
from apisix.runner.http.fields cimport Args, Headers
from apisix.runner.http.request cimport Request
from apisix.runner.http.response cimport Response

@cython.locals(headers=Headers)
cpdef object stop_action(Response response)
@cython.locals(added=Headers)
cpdef object rewrite_action(Request request, Response response, object version)
@cython.locals(changed=list)
cdef list _changed_headers(Headers headers)
@cython.locals(changed=list)
cdef list _changed_args(Args args)
