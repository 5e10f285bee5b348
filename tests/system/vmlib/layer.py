"""From a release and a source tree to a machine: the base image, the product on it.

The product's layer is a qcow2 over the base image, made by booting the base
once and installing as a user would. Its key is the base's and that of what is
shipped, so a second run of the same tree starts at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmlib import cache, image, product
from vmlib.machine import Machine
from vmlib.notice import step
from vmlib.qemu import Hardware


@dataclass(frozen=True)
class Layer:
    """What a machine is started from: a base image and the disk that is its newest layer."""

    base: image.Image
    disk: Path


@contextmanager
def disk(release: str, tree: Path | None, more: tuple[str, ...] = ()) -> Iterator[Layer]:
    """The disk of `release`, and `more` packages, with the product of `tree` installed; bare where it is None."""
    with image.base(release, more) as base:
        if tree is None:
            yield Layer(base, base.disk)
            return
        cargo = product.survey(tree)
        name = cache.key(base.key, cargo.key)
        with cache.entry("product", name, lambda where: build(where, base, cargo)) as path:
            yield Layer(base, path / "root.qcow2")


def build(where: Path, base: image.Image, cargo: product.Cargo) -> None:
    """Boot the base image, install, shut down in order, keep its disk."""
    shipped = product.prepare(cargo, base.python, where / "cargo")
    machine = Machine(where, kernel=base.kernel, initrd=base.initrd, disk=base.disk)
    try:
        with step("booting the base image"):
            machine.start()
        with step("installing the product in the guest"):
            product.install(machine, shipped, cargo.name)
            machine.shut_down()
    finally:
        machine.stop()
    for leftover in (machine.disks.scratch, machine.disks.complaints):
        leftover.unlink()
    shutil.rmtree(shipped)


@contextmanager
def machine(
    release: str,
    tree: Path | None,
    hardware: Hardware | None = None,
    append: str = "",
    console: Callable[[bytes], object] | None = None,
    more: tuple[str, ...] = (),
) -> Iterator[Machine]:
    """A machine, not yet started, and ended with the context. `more` are packages beyond the usual."""
    with disk(release, tree, more) as layer, cache.run_directory() as directory:
        made = Machine(
            directory,
            kernel=layer.base.kernel,
            initrd=layer.base.initrd,
            disk=layer.disk,
            hardware=hardware,
            append=append,
            console=console,
        )
        try:
            yield made
        finally:
            made.stop()
