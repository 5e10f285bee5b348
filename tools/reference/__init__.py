"""Makes the reference pages from the sources: docs/rpc.md, docs/openrpc.json,
docs/rpc.schema.json, and the manual pages in man/. No part of what is installed.

`python -m tools.reference` writes them, `--check` says which are stale; a test does the same.
"""
