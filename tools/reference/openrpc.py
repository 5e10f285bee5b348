"""The RPC as an OpenRPC document (https://spec.open-rpc.org, 1.3.2)."""

from __future__ import annotations

from typing import Any

from tools.reference.schema import components
from tools.reference.structs import doc_of
from workerd import __version__, errors, protocol

SCHEMAS = "#/components/schemas/{name}"
FDS = "File descriptors (SCM_RIGHTS) that ride on this message, in order: so many are its own."


def document() -> dict[str, Any]:
    schemas = components(SCHEMAS)
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "worker",
            "version": __version__,
            "description": "What workerd answers on its Unix socket: one JSON-RPC 2.0 object, or a batch, a line.",
            "license": {"name": "MIT"},
        },
        "servers": [
            {
                "name": "workerd",
                "url": f"unix://{protocol.DEFAULT_SOCKET}",
                "summary": "a stream socket; who calls is whom the kernel says",
            }
        ],
        "methods": [_method(name, method, schemas) for name, method in protocol.METHODS.items()],
        "components": {"schemas": schemas, "errors": {kind: _error(kind) for kind in answered()}},
    }


def answered() -> list[str]:
    """The kinds of errors that the daemon answers with; the others are a client's own."""
    client = {error.kind for error in (errors.ConnectionFailed, errors.NotRunning, errors.SocketForbidden)}
    return [
        kind
        for kind in sorted(errors.BY_KIND, key=lambda kind: (errors.BY_KIND[kind].code, kind))
        if kind not in {*client, "error", "job-error", "config-error"}
    ]


def _method(name: str, method: protocol.Method, schemas: dict[str, Any]) -> dict[str, Any]:
    params = schemas[method.params.__name__]
    required = set(params.get("required", ()))
    described = doc_of(method.params)
    return {
        "name": name,
        "summary": method.doc,
        **({"description": described} if described else {}),
        "paramStructure": "by-name",
        # OpenRPC wants those that must be there first.
        "params": sorted(
            (_param(field, schema, field in required) for field, schema in params["properties"].items()),
            key=lambda one: not one["required"],
        ),
        "result": {
            "name": method.result.__name__,
            "schema": {"$ref": SCHEMAS.format(name=method.result.__name__)},
        },
        "errors": [{"$ref": f"#/components/errors/{kind}"} for kind in answered() if kind != "parse-error"],
    }


def _param(field: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    described = FDS if field == "fds" else schema.get("description", "")
    return {
        "name": field,
        **({"description": described} if described else {}),
        "required": required,
        "schema": {key: value for key, value in schema.items() if key != "description"},
    }


def _error(kind: str) -> dict[str, Any]:
    found = errors.BY_KIND[kind]
    return {"code": found.code, "message": error_meaning(found), "data": {"kind": kind}}


def error_meaning(found: type[errors.WorkerError]) -> str:
    """What the tree of errors.py says of it; its name in words where that says nothing."""
    for line in (errors.__doc__ or "").splitlines():
        name, _, meaning = line.lstrip(" │├└─").partition(" ")
        if name == found.__name__ and meaning.strip():
            return meaning.rsplit("  -", 1)[0].rsplit(" -32", 1)[0].strip()
    return found.kind.replace("-", " ")
