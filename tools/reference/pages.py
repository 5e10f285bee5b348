"""The pages by their paths, each with what makes it."""

from __future__ import annotations

from collections.abc import Callable

from tools.reference import openrpc, policypage, rpcpage, schema, workerctlpage, workerdpage

PAGES: dict[str, Callable[[], str]] = {
    "docs/rpc.md": rpcpage.page,
    "docs/openrpc.json": lambda: schema.as_text(openrpc.document()),
    "docs/rpc.schema.json": lambda: schema.as_text(schema.document()),
    "man/workerctl.1": workerctlpage.page,
    "man/workerd.8": workerdpage.page,
    "man/workerd.toml.5": policypage.page,
}
