"""libnftables through ctypes: the one door to nft's language.

Rule 1: a context's netlink socket belongs to the namespace that the calling thread is in when the context is made.
Rule 2: a text is loaded whole or not at all; the library's own words are in the error.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from types import TracebackType
from typing import Self

from testbed.errors import BrokenError, MachineError

_NAME = "libnftables.so.1"
_MEND = "sudo apt-get install nftables"


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_NAME, use_errno=True)
    except OSError as error:
        raise MachineError(f"{_NAME} is missing: NATs are made of its rules", mend=_MEND) from error
    try:
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.restype, library.nft_ctx_free.argtypes = None, [ctypes.c_void_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    except AttributeError as error:
        raise MachineError(f"{_NAME} is too old: {error}", mend=_MEND) from error
    return library


class Nftables:
    """A context of libnftables in the namespace that the thread is in now."""

    def __init__(self) -> None:
        self._library = _library()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise BrokenError("libnftables gave no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    @staticmethod
    def version() -> str:
        """Which file the library is, with its version. Raises MachineError where there is none."""
        _library()
        with open("/proc/self/maps") as maps:
            paths = (line.split(maxsplit=5)[-1].strip() for line in maps if "libnftables" in line)
            return os.path.basename(os.path.realpath(next(paths, _NAME)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, text: str) -> str:
        """Carry out commands or load rules; what the library prints. Raises BrokenError, MachineError."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        printed = self._library.nft_ctx_get_output_buffer(self._context) or b""
        said = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise _refusal(said.decode(errors="replace").strip())
        return str(printed.decode(errors="replace"))

    def close(self) -> None:
        """Give the context back; twice does nothing."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _refusal(said: str) -> BrokenError | MachineError:
    first = said.partition("\n")[0]
    if "Operation not permitted" in said:
        return MachineError(f"the kernel forbids rules here: {first}", mend="run it with sudo")
    if "Operation not supported" in said or "Protocol not supported" in said or "No such file or directory" in said:
        return MachineError(
            f"the kernel lacks a part that NATs need: {first}", mend="sudo modprobe -a nf_tables nft_nat"
        )
    if "syntax error" in said:
        return MachineError(f"libnftables is too old for these rules: {first}", mend=_MEND)
    return BrokenError(f"libnftables refuses the rules:\n{said}")
