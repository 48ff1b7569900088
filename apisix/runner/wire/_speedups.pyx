# cython: language_level=3, wraparound=False
"""The hot part of the codec, compiled: what a call reads, and what answers it.

Rules that live here:
- Nothing is judged here. Whatever does not go smoothly (a malformed frame, a value that cannot be written, a rare type)
  is a LeftToPure inside, and the pure codec does it once more: it has the words for what is wrong. Results and errors
  are the pure codec's, then, as long as nothing passes here that it refuses.
- A frame is read by `number_at`, `bytes_at` and `text_at` alone, and written by `put` and `put_bytes` alone. Each checks
  its bounds first. Positions are 64-bit numbers, at most a few 32-bit numbers away from the frame, and bounds are
  compared without adding to a position, so that nothing overflows.
- The interpreter's lock is held throughout.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from cpython.unicode cimport PyUnicode_AsEncodedString, PyUnicode_CheckExact, PyUnicode_DecodeUTF8, PyUnicode_GET_LENGTH
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, strlen

from apisix.runner.wire import pure
from apisix.runner.wire.frame import MAX_BODY, FrameType, WireError
from apisix.runner.wire.schema import METHODS, InfoKind, PrepareConfReq, Rewrite, Stop

cdef extern from *:
    """
    #ifndef SOURCE_CRC_AT_BUILD
    #error "build with setup.py: it says what this is built from"
    #endif
    """
    const unsigned int SOURCE_CRC_AT_BUILD

cdef extern from "Python.h":
    bint PyLong_Check(object value)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const void *PyUnicode_DATA(object text)
    bint PyBytes_CheckExact(object value)
    Py_ssize_t PyBytes_GET_SIZE(PyObject *raw)
    char *PyBytes_AS_STRING(PyObject *raw)
    PyObject *PyBytes_New "PyBytes_FromStringAndSize" (const char *from_, Py_ssize_t size) except NULL
    bytes PyBytes_FromStringAndSize(const char *from_, Py_ssize_t size)
    int _PyBytes_Resize(PyObject **raw, Py_ssize_t size) except -1

SOURCE_CRC = SOURCE_CRC_AT_BUILD
"""CRC-32 of the source that this was built from."""

__all__ = [
    "HTTPReqCallReq",
    "HTTPRespCallReq",
    "decode_extra_info_resp",
    "decode_http_req_call_req",
    "decode_http_resp_call_req",
    "decode_prepare_conf_req",
    "encode_extra_info_req",
    "encode_http_req_call_resp",
    "encode_http_resp_call_resp",
]


class LeftToPure(Exception):
    """The pure codec does this, or says what is wrong with it."""


# Reading.

cdef struct View:
    const uint8_t *data
    int64_t size


cdef struct Table:
    int64_t position
    int64_t slots  # where its slots begin in the frame
    int64_t count  # how many it has


cdef int64_t _METHODS = len(METHODS)
cdef int64_t _ENTRY_BYTES = 16  # these two as in flatbuf.py
cdef int64_t _SHARED_BYTES = 65536


cdef inline View view(bytes frame) noexcept:
    return View(<const uint8_t *>PyBytes_AS_STRING(<PyObject *>frame), PyBytes_GET_SIZE(<PyObject *>frame))


cdef inline int64_t number_at(View frame, int64_t at, int width) except -1:
    """An unsigned number of so many bytes."""
    if at < 0 or at > frame.size - width:
        raise LeftToPure
    cdef const uint8_t *here = frame.data + at
    cdef int64_t number = 0
    cdef int i
    for i in range(width):
        number |= <int64_t>here[i] << 8 * i
    return number


cdef inline int64_t sized(View frame, int64_t at) except -1:
    """The length that stands at `at`, of bytes behind it that are all in the frame."""
    cdef int64_t length = number_at(frame, at, 4)
    if length > frame.size - 4 - at:
        raise LeftToPure
    return length


cdef inline bytes bytes_at(View frame, int64_t at):
    cdef int64_t length = sized(frame, at)
    return PyBytes_FromStringAndSize(<const char *>frame.data + at + 4, length)


cdef inline str text_at(View frame, int64_t at):
    cdef int64_t length = sized(frame, at)
    return PyUnicode_DecodeUTF8(<const char *>frame.data + at + 4, length, "surrogateescape")


cdef int read_table(View frame, int64_t position, Table *table) except -1:
    cdef int64_t vtable = position - <int64_t><int32_t>number_at(frame, position, 4)
    if vtable < 4:
        raise LeftToPure
    cdef int64_t size = number_at(frame, vtable, 2)
    if size < 4 or size & 1 or size > frame.size - vtable:
        raise LeftToPure
    table.position = position
    table.slots = vtable + 4
    table.count = (size - 4) // 2
    return 0


cdef int read_root(View frame, Table *table) except -1:
    return read_table(frame, 4 + number_at(frame, 4, 4), table)


cdef int64_t field(View frame, const Table *table, int slot) except -1:
    """Position of a slot's value, or 0 where the field is absent."""
    if slot >= table.count:
        return 0
    cdef int64_t offset = number_at(frame, table.slots + 2 * slot, 2)
    if offset == 0:
        return 0
    if offset < 4:
        raise LeftToPure
    return table.position + offset


cdef int64_t target(View frame, const Table *table, int slot) except -1:
    """Position that a slot's offset points to, or 0 where the field is absent."""
    cdef int64_t position = field(frame, table, slot)
    return position + number_at(frame, position, 4) if position else 0


cdef int64_t read_number(View frame, const Table *table, int slot, int width) except -1:
    cdef int64_t position = field(frame, table, slot)
    return number_at(frame, position, width) if position else 0


cdef bytes read_bytes(View frame, const Table *table, int slot):
    cdef int64_t at = target(frame, table, slot)
    return bytes_at(frame, at) if at else None


cdef str read_text(View frame, const Table *table, int slot):
    cdef int64_t at = target(frame, table, slot)
    return text_at(frame, at) if at else None


cdef bint is_lower(View frame, int64_t at) except -1:
    """Whether text has ASCII alone and no capital letter."""
    cdef int64_t i
    cdef uint8_t byte
    for i in range(sized(frame, at)):
        byte = frame.data[at + 4 + i]
        if byte >= 0x80 or 0x41 <= byte <= 0x5A:
            return False
    return True


cdef list read_pairs(View frame, const Table *table, int slot):
    cdef list pairs = []
    return pairs if read_entries(frame, table, slot, pairs, None, False) else None


cdef dict read_by_name(View frame, const Table *table, int slot, bint lower):
    cdef dict found = {}
    return found if read_entries(frame, table, slot, None, found, lower) and found else None


cdef bint read_entries(View frame, const Table *table, int slot, list pairs, dict found, bint lower) except -1:
    """Read entries into one of the two.

    Whether they are there; of a dict, whether it holds all that they say: each name once, with a value, and if `lower`
    is wanted, as its own key.
    """
    cdef int64_t at = target(frame, table, slot)
    if not at:
        return False
    cdef bint is_all = True
    cdef int64_t count = number_at(frame, at, 4)
    cdef int64_t budget = frame.size + _SHARED_BYTES - _ENTRY_BYTES * count
    if budget < 0:
        raise LeftToPure
    cdef Table entry
    cdef int64_t index, position, vtable, name
    cdef int64_t last_vtable = 0, name_slot = 0, value_slot = 0, value = 0
    for index in range(count):
        at += 4
        position = at + number_at(frame, at, 4)
        vtable = position - <int64_t><int32_t>number_at(frame, position, 4)
        if vtable != last_vtable or not vtable:  # writers share one vtable between entries of one shape
            read_table(frame, position, &entry)
            name_slot = number_at(frame, entry.slots, 2) if entry.count > 0 else 0
            value_slot = number_at(frame, entry.slots + 2, 2) if entry.count > 1 else 0
            if not name_slot or (name_slot | value_slot) & 3:
                raise LeftToPure
            last_vtable = vtable
        if position > frame.size - 12:
            raise LeftToPure
        name = position + name_slot
        name += number_at(frame, name, 4)
        budget -= sized(frame, name)
        if value_slot:
            value = position + value_slot
            value += number_at(frame, value, 4)
            budget -= sized(frame, value)
        if budget < 0:
            raise LeftToPure
        if pairs is not None:
            pairs.append((text_at(frame, name), text_at(frame, value) if value_slot else None))
        elif value_slot and (not lower or is_lower(frame, name)):
            found[text_at(frame, name)] = text_at(frame, value)
        else:
            is_all = False
    return is_all and (found is None or len(found) == count)


@cython.final
@cython.freelist(64)
cdef class HTTPReqCallReq:
    """As `pure.HTTPReqCallReq`."""

    cdef bytes _frame
    cdef Table _table
    cdef readonly uint32_t id
    cdef readonly uint32_t conf_token

    def __cinit__(self, bytes frame not None):
        cdef View seen = view(frame)
        self._frame = frame
        try:
            read_root(seen, &self._table)
            self.id = <uint32_t>read_number(seen, &self._table, 0, 4)
            self.conf_token = <uint32_t>read_number(seen, &self._table, 6, 4)
            return
        except LeftToPure:
            pass
        pure.HTTPReqCallReq(frame)
        raise WireError("HTTPReqCall.Req", 0, "refused by the compiled codec alone")

    @property
    def src_ip(self):
        try:
            return read_bytes(view(self._frame), &self._table, 1) or b""
        except LeftToPure:
            pass
        return pure.HTTPReqCallReq(self._frame).src_ip

    @property
    def method(self):
        cdef int64_t method
        try:
            method = read_number(view(self._frame), &self._table, 2, 1)
            if method < _METHODS:
                return method
        except LeftToPure:
            pass
        return pure.HTTPReqCallReq(self._frame).method

    @property
    def path(self):
        try:
            return read_text(view(self._frame), &self._table, 3)
        except LeftToPure:
            pass
        return pure.HTTPReqCallReq(self._frame).path

    @property
    def args(self):
        try:
            return read_pairs(view(self._frame), &self._table, 4)
        except LeftToPure:
            pass
        return pure.HTTPReqCallReq(self._frame).args

    @property
    def headers(self):
        try:
            return read_pairs(view(self._frame), &self._table, 5)
        except LeftToPure:
            pass
        return pure.HTTPReqCallReq(self._frame).headers

    @property
    def args_by_name(self):
        try:
            return read_by_name(view(self._frame), &self._table, 4, False)
        except LeftToPure:
            pass
        return pure.HTTPReqCallReq(self._frame).args_by_name

    @property
    def headers_by_name(self):
        try:
            return read_by_name(view(self._frame), &self._table, 5, True)
        except LeftToPure:
            pass
        return pure.HTTPReqCallReq(self._frame).headers_by_name


@cython.final
@cython.freelist(64)
cdef class HTTPRespCallReq:
    """As `pure.HTTPRespCallReq`."""

    cdef bytes _frame
    cdef Table _table
    cdef readonly uint32_t id
    cdef readonly uint32_t status
    cdef readonly uint32_t conf_token

    def __cinit__(self, bytes frame not None):
        cdef View seen = view(frame)
        self._frame = frame
        try:
            read_root(seen, &self._table)
            self.id = <uint32_t>read_number(seen, &self._table, 0, 4)
            self.status = <uint32_t>read_number(seen, &self._table, 1, 2)
            self.conf_token = <uint32_t>read_number(seen, &self._table, 3, 4)
            return
        except LeftToPure:
            pass
        pure.HTTPRespCallReq(frame)
        raise WireError("HTTPRespCall.Req", 0, "refused by the compiled codec alone")

    @property
    def headers(self):
        try:
            return read_pairs(view(self._frame), &self._table, 2)
        except LeftToPure:
            pass
        return pure.HTTPRespCallReq(self._frame).headers


decode_http_req_call_req = HTTPReqCallReq
decode_http_resp_call_req = HTTPRespCallReq


def decode_prepare_conf_req(bytes frame not None):
    """As `pure.decode_prepare_conf_req`."""
    cdef View seen = view(frame)
    cdef Table table
    try:
        read_root(seen, &table)
        return PrepareConfReq(read_pairs(seen, &table, 0), read_text(seen, &table, 1))
    except LeftToPure:
        pass
    return pure.decode_prepare_conf_req(frame)


def decode_extra_info_resp(bytes frame not None):
    """As `pure.decode_extra_info_resp`."""
    cdef View seen = view(frame)
    cdef Table table
    try:
        read_root(seen, &table)
        return read_bytes(seen, &table, 0)
    except LeftToPure:
        pass
    return pure.decode_extra_info_resp(frame)


# Writing. How messages are laid out is said in flatbuf_writer.py; here it is done to one piece of bytes that grows.

cdef enum:
    FIRST_ROOM = 1000

cdef int64_t _LARGEST = 4 + MAX_BODY
cdef object _Stop = Stop
cdef object _Rewrite = Rewrite
cdef object _VAR = InfoKind.VAR
cdef object _REQ_BODY = InfoKind.REQ_BODY
cdef object _RESP_BODY = InfoKind.RESP_BODY
cdef uint32_t _HTTP_REQ_CALL = FrameType.HTTP_REQ_CALL
cdef uint32_t _EXTRA_INFO = FrameType.EXTRA_INFO
cdef uint32_t _HTTP_RESP_CALL = FrameType.HTTP_RESP_CALL


@cython.final
@cython.freelist(8)
cdef class Frame:
    """A frame that grows at its end: in itself first, where most frames end."""

    cdef uint8_t first[FIRST_ROOM]
    cdef PyObject *raw  # bytes that nobody else has, once it has outgrown that
    cdef uint8_t *data  # where it is
    cdef int64_t room
    cdef int64_t used

    def __cinit__(self):
        self.data = self.first
        self.room = FIRST_ROOM
        self.add(8)  # the header, and where the root table is: right behind
        self.put(4, 4, 4)

    def __dealloc__(self):
        Py_XDECREF(self.raw)

    cdef inline int64_t add(self, int64_t size) except -1:
        """So many bytes more, whatever is in them. Returns where they begin."""
        cdef int64_t at = self.used
        if size < 0 or size > _LARGEST - at:
            raise LeftToPure
        if size > self.room - at:
            self.grow(size)
        self.used = at + size
        return at

    cdef int grow(self, int64_t size) except -1:
        cdef int64_t room = 2 * self.room + size
        self.room = 0
        if self.raw:
            _PyBytes_Resize(&self.raw, room)
        else:
            self.raw = PyBytes_New(NULL, room)
            memcpy(PyBytes_AS_STRING(self.raw), self.first, self.used)
        self.data = <uint8_t *>PyBytes_AS_STRING(self.raw)
        self.room = room
        return 0

    cdef inline int put(self, int64_t at, int64_t value, int width) except -1:
        if at < 0 or at > self.used - width:
            raise LeftToPure
        cdef uint8_t *here = self.data + at
        cdef int i
        for i in range(width):
            here[i] = value >> 8 * i & 0xFF
        return 0

    cdef inline int put_bytes(self, int64_t at, const char *value, int64_t size) except -1:
        if at < 0 or size < 0 or size > self.used - at:
            raise LeftToPure
        memcpy(self.data + at, value, size)
        return 0

    cdef bytes finish(self, int64_t type):
        """The frame, with its header. Nothing can be written then."""
        cdef int64_t length = self.used - 4
        self.put(0, type | (length >> 16 & 0xFF) << 8 | (length >> 8 & 0xFF) << 16 | (length & 0xFF) << 24, 4)
        self.used = self.room = 0
        if not self.raw:
            return PyBytes_FromStringAndSize(<const char *>self.first, 4 + length)
        _PyBytes_Resize(&self.raw, 4 + length)
        return <bytes>self.raw


cdef int add_string(Frame out, const char *value, int64_t size) except -1:
    """Length, bytes, and one to four NULs."""
    cdef int64_t at = out.add(8 + size - (size & 3))
    out.put(out.used - 4, 0, 4)
    out.put(at, size, 4)
    return out.put_bytes(at + 4, value, size)


cdef int add_text(Frame out, object text) except -1:
    cdef bytes raw
    if not PyUnicode_CheckExact(text):
        raise LeftToPure
    if PyUnicode_IS_COMPACT_ASCII(text):
        return add_string(out, <const char *>PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text))
    raw = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape")
    return add_string(out, PyBytes_AS_STRING(<PyObject *>raw), PyBytes_GET_SIZE(<PyObject *>raw))


cdef int add_bytes(Frame out, object value) except -1:
    if not PyBytes_CheckExact(value):
        raise LeftToPure
    cdef int64_t size = PyBytes_GET_SIZE(<PyObject *>value)
    cdef int64_t at = out.add(4 + size + (-size & 3))
    out.put(out.used - 4, 0, 4)
    out.put(at, size, 4)
    return out.put_bytes(at + 4, PyBytes_AS_STRING(<PyObject *>value), size)


cdef int add_pairs(Frame out, object value) except -1:
    if type(value) is not tuple and type(value) is not list:
        raise LeftToPure
    cdef tuple pairs = tuple(value)  # of a list, which might be changed meanwhile
    cdef int64_t count = len(pairs)
    cdef int64_t at = out.add(4 + 4 * count)
    cdef int64_t vtables = out.add(16)
    cdef int64_t entry
    cdef tuple pair
    out.put(at, count, 4)
    out.put(vtables, 8 | 12 << 16, 4)  # of an entry with a value: 8 bytes, the table 12, the name at 4, the value at 8
    out.put(vtables + 4, 4 | 8 << 16, 4)
    out.put(vtables + 8, 6 | 8 << 16, 4)  # of one without
    out.put(vtables + 12, 4, 4)
    for item in pairs:
        if type(item) is not tuple:
            raise LeftToPure
        pair = <tuple>item
        if len(pair) != 2:
            raise LeftToPure
        at += 4
        if pair[1] is None:
            entry = out.add(8)
            out.put(entry, entry - (vtables + 8), 4)
        else:
            entry = out.add(12)
            out.put(entry, entry - vtables, 4)
            out.put(entry + 8, 4, 4)
            add_text(out, pair[1])
        out.put(at, entry - at, 4)
        out.put(entry + 4, out.used - (entry + 4), 4)
        add_text(out, pair[0])
    return 0


cdef int64_t below(int64_t limit, object value) except -1:
    if not PyLong_Check(value):
        raise LeftToPure
    cdef int overflow = 0
    cdef int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < 0 or number >= limit:
        raise LeftToPure
    return number


cdef int add_table(Frame out, const char *kinds, tuple values) except -1:
    """A table, its vtable and its children.

    `kinds` has one letter a slot: ``1``, ``2`` or ``4`` is a number of so many bytes, ``t`` text, ``b`` bytes, ``p``
    pairs, and ``>`` the table that is added next. A value of None leaves the field out.
    """
    cdef int64_t slots = len(values)
    cdef int64_t size = 4
    if slots != <int64_t>strlen(kinds):
        raise LeftToPure
    for value in values:
        if value is not None:
            size += 4
    cdef int64_t table = out.add(size)
    cdef int64_t vtable = out.add(4 + 2 * slots + (2 * slots & 2))
    cdef int64_t word = table
    cdef int64_t slot = 0
    cdef char kind
    out.put(table, table - vtable, 4)
    out.put(out.used - 4, 0, 4)
    out.put(vtable, 4 + 2 * slots, 2)
    out.put(vtable + 2, size, 2)
    for value in values:
        kind = kinds[slot]
        slot += 1
        if value is None:
            out.put(vtable + 2 + 2 * slot, 0, 2)
            continue
        word += 4
        out.put(vtable + 2 + 2 * slot, word - table, 2)
        if kind == b"1":
            out.put(word, below(1 << 8, value), 4)
        elif kind == b"2":
            out.put(word, below(1 << 16, value), 4)
        elif kind == b"4":
            out.put(word, below(<int64_t>1 << 32, value), 4)
        else:
            out.put(word, out.used - word, 4)
            if kind == b"t":
                add_text(out, value)
            elif kind == b"b":
                add_bytes(out, value)
            elif kind == b"p":
                add_pairs(out, value)
    return 0


def encode_http_req_call_resp(id, action=None):
    """As `pure.encode_http_req_call_resp`."""
    cdef Frame out = Frame.__new__(Frame)
    try:
        if id is None:
            raise LeftToPure
        if action is None:
            add_table(out, "41>", (id, None, None))
        elif type(action) is _Stop:
            add_table(out, "41>", (id, 1, action))
            add_table(out, "2pb", <tuple>action)
        elif type(action) is _Rewrite:
            add_table(out, "41>", (id, 2, action))
            add_table(out, "tpppb", <tuple>action)
        else:
            raise LeftToPure
        return out.finish(_HTTP_REQ_CALL)
    except (LeftToPure, UnicodeEncodeError):
        pass
    return pure.encode_http_req_call_resp(id, action)


def encode_http_resp_call_resp(id, status=0, headers=None, body=None):
    """As `pure.encode_http_resp_call_resp`."""
    cdef Frame out = Frame.__new__(Frame)
    try:
        add_table(out, "42pb", (id, status, headers, body))
        return out.finish(_HTTP_RESP_CALL)
    except (LeftToPure, UnicodeEncodeError):
        pass
    return pure.encode_http_resp_call_resp(id, status, headers, body)


def encode_extra_info_req(kind, name=None):
    """As `pure.encode_extra_info_req`."""
    cdef Frame out = Frame.__new__(Frame)
    try:
        if kind is _VAR and name is not None:
            add_table(out, "1>", (kind, kind))
            add_table(out, "t", (name,))
        elif kind is _REQ_BODY or kind is _RESP_BODY:
            add_table(out, "1>", (kind, kind))
            add_table(out, "", ())
        else:
            raise LeftToPure
        return out.finish(_EXTRA_INFO)
    except (LeftToPure, UnicodeEncodeError):
        pass
    return pure.encode_extra_info_req(kind, name)
