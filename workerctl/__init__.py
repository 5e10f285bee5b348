"""workerctl: the command line of workerd, and its Python API (`Client`).

Nothing is imported before it is asked for: the command line starts through here.
"""

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    if name == "Client":
        from workerctl.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
