"""What can go wrong, as a tree.

VMError
├── MissingTool      a program of the host is absent and could not be installed
├── BuildFailed      an image, a wheel or the installation did not come about
├── BootFailed       the guest did not answer in time; carries the console's end
├── MachineGone      qemu ended, or the agent fell silent, under a command
└── CommandFailed    a command that was to succeed did not
"""

from __future__ import annotations


class VMError(Exception):
    """Base of all; its text is meant for a person."""


class MissingTool(VMError):
    """A host program is absent; the text says what to install."""


class BuildFailed(VMError):
    """A build step failed; the text ends with what it printed last."""


class BootFailed(VMError):
    """The guest did not come up; the text ends with its console's last lines."""


class MachineGone(VMError):
    """The machine ended while something was asked of it."""


class CommandFailed(VMError):
    """A checked command returned another code than 0; the text has its output."""
