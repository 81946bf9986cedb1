"""The shared library and its declarations, made by cffi from the C header."""

from typing import Any

ffi: Any
lib: Any
