"""The virtual machine that the system tests and people use.

errors, notice      what can go wrong; progress on stderr
frames              the wire between host and guest agent (both ends import it)
tools, sources      the host's programs; the machine's own apt sources
cache               entries named by a hash of what made them, built once
initrd, image       the base image: a Debian root, a kernel, a tiny initial RAM disk
accel, qemu, serial KVM or TCG; one qemu process; its console
channel, machine    commands in the guest; a machine that can be rebooted and cut off
product, layer      the checkout's package, and an image with it installed
console, cli        the serial console for people; the command line

Imports point upwards in this list. Standard library only.
"""
