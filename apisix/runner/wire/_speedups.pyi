"""The compiled codec has the types of the pure one."""

from apisix.runner.wire.pure import HTTPReqCallReq as HTTPReqCallReq
from apisix.runner.wire.pure import HTTPRespCallReq as HTTPRespCallReq
from apisix.runner.wire.pure import decode_extra_info_resp as decode_extra_info_resp
from apisix.runner.wire.pure import decode_http_req_call_req as decode_http_req_call_req
from apisix.runner.wire.pure import decode_http_resp_call_req as decode_http_resp_call_req
from apisix.runner.wire.pure import decode_prepare_conf_req as decode_prepare_conf_req
from apisix.runner.wire.pure import encode_extra_info_req as encode_extra_info_req
from apisix.runner.wire.pure import encode_http_req_call_resp as encode_http_req_call_resp
from apisix.runner.wire.pure import encode_http_resp_call_resp as encode_http_resp_call_resp

SOURCE_CRC: int
