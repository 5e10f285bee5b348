"""docs/rpc.md: the RPC for a reader."""

from __future__ import annotations

import json
from typing import Any

from tools.reference.openrpc import FDS, answered, error_meaning
from tools.reference.schema import DEFS, components, types_by_name
from workerd import errors, protocol

HEAD = f"""\
# The RPC

<!-- Made by `make docs` from workerd/protocol.py: change it there. -->

`workerd` listens on the Unix socket `{protocol.DEFAULT_SOCKET}` and speaks
[JSON-RPC 2.0](https://www.jsonrpc.org/specification): one object, or a batch of at most {protocol.MAX_BATCH},
a line; UTF-8; a line is at most {protocol.MAX_REQUEST >> 20} MiB long. Parameters go by name. A notification is
carried out and not answered. Requests on one connection are answered as they are done, not in
their order: the id says which is which.

```
$ printf '{{"jsonrpc":"2.0","id":1,"method":"job.list","params":{{"all":true}}}}\\n' |
    nc -UN {protocol.DEFAULT_SOCKET}
{{"id":1,"jsonrpc":"2.0","result":{{"jobs":[]}}}}
```

- **Who calls** is whom the kernel says (SO_PEERCRED, SO_PEERGROUPS), as they were at connect.
  Somebody else's job does not exist: `no-such-job`, unless the caller is an admin.
- **Strict**: a parameter that is not named here is refused, and so is a value out of its range.
  What is left out has its default; in a result, a field that has its default is left out.
  New fields may come in results within a major version: pass over what you do not know.
- **Sizes** are bytes, **times and durations** microseconds, times since the epoch.
- **File descriptors** ride on a message as SCM_RIGHTS ({protocol.MAX_FDS} at most). `fds` in its params or result
  says how many are its own, in order: one read may bring several messages.
- The same for programs: [openrpc.json](openrpc.json) (OpenRPC) and
  [rpc.schema.json](rpc.schema.json) (JSON Schema). In Python: `from workerctl import Client`,
  whose calls take and give the structs below.
"""


def page() -> str:
    schemas = components(DEFS)
    named = list(dict.fromkeys(method.params.__name__ for method in protocol.METHODS.values()))
    parts = [HEAD, _overview(), "## Methods\n"]
    parts += [_method(name, method, schemas) for name, method in protocol.METHODS.items()]
    parts.append("## Errors\n\n" + ERRORS + _errors())
    others = [name for name in schemas if name not in named]
    parts.append("## Structures\n")
    parts += [_structure(name, schemas[name]) for name in sorted(others)]
    return "\n".join(parts)


def _overview() -> str:
    rows = [f"| [`{name}`](#{_anchor(name)}) | {method.doc} |" for name, method in protocol.METHODS.items()]
    return "\n".join(["| method | what it does |", "|---|---|", *rows, ""])


def _method(name: str, method: protocol.Method, schemas: dict[str, Any]) -> str:
    params = schemas[method.params.__name__]
    lines = [f"### {name}", "", method.doc]
    if (doc := params.get("description")) and doc != "Base of all parameters.":
        lines += ["", doc]
    lines += ["", *(_fields(params) if params["properties"] else ["No parameters."])]
    return "\n".join([*lines, "", f"Result: {_link(method.result.__name__)}", ""])


def _structure(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### {name}", ""]
    if doc := schema.get("description"):
        lines += [doc, ""]
    if "enum" in schema:
        from tools.reference.structs import field_docs

        docs = {str(member): field_docs(types_by_name()[name]).get(key, "") for key, member in _members(name)}
        lines += [
            "One of " + ", ".join(f"`{one}`" + (f" ({docs[one]})" if docs.get(one) else "") for one in schema["enum"])
        ]
    elif schema.get("properties"):
        lines += _fields(schema)
    return "\n".join([*lines, ""])


def _members(name: str) -> list[tuple[str, Any]]:
    return [(key, one.value) for key, one in types_by_name()[name].__members__.items()]  # type: ignore[attr-defined]


def _fields(schema: dict[str, Any]) -> list[str]:
    rows = []
    for field, inner in schema["properties"].items():
        default = (
            "" if field in schema.get("required", ()) or "default" not in inner else f"`{_plain(inner['default'])}`"
        )
        mark = "**required**" if field in schema.get("required", ()) else default
        doc = inner.get("description", "") or (FDS if field == "fds" else "")
        rows.append(f"| `{field}` | {_type(inner)} | {mark} | {_cell(doc)} |")
    return ["| field | type | default | |", "|---|---|---|---|", *rows]


def _plain(value: Any) -> str:
    return _cell(json.dumps(value, ensure_ascii=False))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(schema: dict[str, Any]) -> str:
    """In words."""
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    kind = str(schema.get("type", "any value"))
    if kind == "array":
        length = _range(schema, "minItems", "maxItems")
        return f"array of {_type(schema.get('items') or {})}" + (f", {length}" if length else "")
    if kind == "object":
        return (
            f"object: {_type(schema['additionalProperties'])} by name"
            if schema.get("additionalProperties")
            else "object"
        )
    if schema.get("contentEncoding"):
        return f"string, {schema['contentEncoding']}"
    limits = _range(schema, "minimum", "maximum") or _range(schema, "minLength", "maxLength", " characters")
    if "exclusiveMinimum" in schema:
        limits = f"over {schema['exclusiveMinimum']}, {schema['maximum']} at most"
    return kind + (f", {limits}" if limits else "") + (f", `{_cell(schema['pattern'])}`" if "pattern" in schema else "")


def _range(schema: dict[str, Any], low: str, high: str, unit: str = "") -> str:
    least, most = schema.get(low), schema.get(high)
    if least is None and most is None:
        return ""
    if most is not None and most >= 2**62:
        most = None
    if least is None:
        return f"{most}{unit} at most"
    return f"{least} or more{unit}" if most is None else f"{least} to {most}{unit}"


ERRORS = """\
An answer with `error` has the standard codes of JSON-RPC, or one from -32000 down; `message`
is a sentence for a person, `data.kind` the stable name to decide by, and what else is in
`data` says more (the `step` and `errno` of `start-failed`, say).

"""


def _errors() -> str:
    rows = [
        f"| `{kind}` | {errors.BY_KIND[kind].code} | {error_meaning(errors.BY_KIND[kind])} |" for kind in answered()
    ]
    return "\n".join(["| kind | code | |", "|---|---|---|", *rows, ""])


def _link(name: str) -> str:
    return f"[{name}](#{_anchor(name)})"


def _anchor(title: str) -> str:
    """As GitHub makes it from a heading."""
    return title.lower().replace(".", "")
