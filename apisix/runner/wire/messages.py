"""Messages: the schema's values, and the codec that reads and writes them.

What each name does stands where it is written: values in `schema`, the codec in `pure`, and its hot part once more,
compiled, in `_speedups`. Both say the same of every frame; which one runs is settled in `apisix.runner.compiled`.
"""

from typing import TYPE_CHECKING

from apisix.runner.compiled import CODEC
from apisix.runner.wire.pure import (
    HTTPReqCallReq,
    HTTPRespCallReq,
    decode_error,
    decode_extra_info_req,
    decode_extra_info_resp,
    decode_http_req_call_req,
    decode_http_req_call_resp,
    decode_http_resp_call_req,
    decode_http_resp_call_resp,
    decode_prepare_conf_req,
    decode_prepare_conf_resp,
    encode_error,
    encode_extra_info_req,
    encode_extra_info_resp,
    encode_http_req_call_req,
    encode_http_req_call_resp,
    encode_http_resp_call_req,
    encode_http_resp_call_resp,
    encode_prepare_conf_req,
    encode_prepare_conf_resp,
)
from apisix.runner.wire.schema import (
    METHODS,
    ErrorCode,
    ExtraInfoReq,
    HTTPReqCallResp,
    HTTPRespCallResp,
    InfoKind,
    PrepareConfReq,
    Rewrite,
    Stop,
)

if CODEC == "compiled" and not TYPE_CHECKING:
    from apisix.runner.wire._speedups import (
        HTTPReqCallReq,
        HTTPRespCallReq,
        decode_extra_info_resp,
        decode_http_req_call_req,
        decode_http_resp_call_req,
        decode_prepare_conf_req,
        encode_extra_info_req,
        encode_http_req_call_resp,
        encode_http_resp_call_resp,
    )

__all__ = [
    "CODEC",
    "METHODS",
    "ErrorCode",
    "ExtraInfoReq",
    "HTTPReqCallReq",
    "HTTPReqCallResp",
    "HTTPRespCallReq",
    "HTTPRespCallResp",
    "InfoKind",
    "PrepareConfReq",
    "Rewrite",
    "Stop",
    "decode_error",
    "decode_extra_info_req",
    "decode_extra_info_resp",
    "decode_http_req_call_req",
    "decode_http_req_call_resp",
    "decode_http_resp_call_req",
    "decode_http_resp_call_resp",
    "decode_prepare_conf_req",
    "decode_prepare_conf_resp",
    "encode_error",
    "encode_extra_info_req",
    "encode_extra_info_resp",
    "encode_http_req_call_req",
    "encode_http_req_call_resp",
    "encode_http_resp_call_req",
    "encode_http_resp_call_resp",
    "encode_prepare_conf_req",
    "encode_prepare_conf_resp",
]
