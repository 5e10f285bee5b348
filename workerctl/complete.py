"""What `--json` shows: every field there is, null where nothing is set.

On the wire unset fields are left out; a program is better served by a shape that
never changes. Needs msgspec, so it is imported for --json alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from workerd.job import Job


def filled(value: object) -> Any:
    """Plain JSON values from structs, with every field."""
    if isinstance(value, msgspec.Struct):
        return {name: filled(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, (tuple, list)):
        return [filled(member) for member in value]
    if isinstance(value, dict):
        return {key: filled(member) for key, member in value.items()}
    return str(value) if isinstance(value, str) else value


def complete_job(job: dict[str, Any]) -> Any:
    return filled(msgspec.convert(job, Job))


def complete_info(info: dict[str, Any]) -> Any:
    # Not above: all methods' decoders come with it, and no list of jobs needs them.
    from workerd.protocol import InfoResult

    return filled(msgspec.convert(info, InfoResult))
