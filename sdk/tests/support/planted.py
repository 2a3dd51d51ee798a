"""What may lie under a file's name instead of a file."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # an absolute one may be longer than a socket's address can be


def a_device(path: Path) -> None:
    """What /dev/zero is, where the user may make such a thing."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError as error:
        pytest.skip(f"no device can be made here: {error}")


def a_link(path: Path) -> None:
    path.with_name("precious").write_text("untouched")
    path.symlink_to("precious")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("gone")


def a_folder(path: Path) -> None:
    path.mkdir()


PLANTED: list[Callable[[Path], None]] = [a_fifo, a_socket, a_device, a_link, a_link_to_nothing, a_folder]


def mode_of(path: Path) -> int:
    """The permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)
