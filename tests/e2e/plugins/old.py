"""Plugins as they were written for the older runner 0.2."""

from typing import Any

from apisix.runner.plugin.core import PluginBase


class OldStop(PluginBase):
    def name(self) -> str:
        return "old_stop"

    def config(self, conf: Any) -> Any:
        return conf

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        response.set_header("X-Host", request.get_var("host"))
        response.set_header("X-Body", request.get_body() or "none")
        response.set_body(f"conf is {conf}")
        response.set_status_code(201)


class OldRewrite(PluginBase):
    def name(self) -> str:
        return "old_rewrite"

    def config(self, conf: Any) -> Any:
        return conf

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        request.set_header("X-Resp-A6-Runner", "Python")
        request.set_arg("a6_runner", "Python")
        request.set_uri("/a6/python/runner")


class OldGuard(PluginBase):
    def name(self) -> str:
        return "old_guard"

    def filter(self, conf: Any, request: Any, response: Any) -> None:
        if request.get_header("X-Token") is None:
            response.set_status_code(401)
