"""Files: written whole or not at all, locked against other processes, named safely, hashed.

Every package writes through this module. A process killed while writing leaves only hidden temporary files behind:
the next writer of the same file, or the next run in the same folder, removes them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lidcam_rt.errors import LidcamError, OutputError

__all__ = [
    "LOCK_NAME",
    "file_sha256",
    "former",
    "locked",
    "make_folder",
    "open_file",
    "output_folder",
    "read_file",
    "replacing",
    "safe_name",
    "write_atomically",
    "write_new",
]

#: The lock in a folder that one process writes into; it stays there and marks the folder as an output.
LOCK_NAME = ".lidcam.lock"


def write_atomically(path: Path, data: bytes | memoryview, *, sync: bool = False, new: bool = False) -> None:
    """Write a file under a temporary name beside it, then give it its name.

    Args:
        path: the file; its folder must exist.
        data: the content.
        sync: wait until the content is on the disk, so that even a power failure leaves the old file or the new one.
        new: do not replace a file of that name.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
        FileExistsError: with `new`, if there is a file of that name.
    """
    temporary = path.with_name(f".lidcam-{secrets.token_hex(6)}.part")
    try:
        _refuse_device(path)
        with temporary.open("xb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if new:
            _claim(temporary, path)
        temporary.replace(path)  # without effect where both are one file, which then keeps both names
        if new:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if new and isinstance(error, FileExistsError):
            raise
        raise _unwritable(path, error) from None
    except BaseException:  # Ctrl-C
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _claim(temporary: Path, path: Path) -> None:
    """Reserve `path` for this writer: as a hard link to its file, or as an empty file where links are unsupported."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        path.open("xb").close()


def write_new(
    folder: Path, stem: str, files: Mapping[str, tuple[str, bytes]], about: Callable[[dict[str, str]], bytes]
) -> dict[str, Path]:
    """Write the files of one result under names that no file in the folder has; all or nothing.

    A stem that is taken gets a number: `photo`, `photo-2`, `photo-3`. Other threads and processes may do the same.

    Args:
        folder: created if it is missing.
        stem: what the names begin with.
        files: for each kind, what follows the stem in the name, and the content.
        about: makes the content of `STEM.json`, whose kind is `json`, from the names of the others.

    Returns:
        The files by kind.

    Raises:
        OutputError: a file cannot be written; those of this call that were written are removed.
    """
    make_folder(folder)
    stem, ends = safe_name(stem), [*(end for end, _ in files.values()), ".json"]

    def named(number: int) -> str:
        return stem if number == 1 else f"{stem}-{number}"

    def taken(number: int) -> bool:
        return any(os.path.lexists(folder / (named(number) + end)) for end in ends)

    while True:
        high = 1
        while taken(high):
            high *= 2
        low = high // 2  # taken, or 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if taken(middle) else (low, middle)
        names = {kind: named(high) + end for kind, (end, _) in files.items()}
        contents = {kind: (names[kind], data) for kind, (_, data) in files.items()}
        contents["json"] = (f"{named(high)}.json", about(names))
        written: dict[str, Path] = {}
        try:
            for kind, (name, data) in contents.items():
                write_atomically(folder / name, data, new=True)
                written[kind] = folder / name
            return written
        except BaseException as error:
            for path in written.values():
                with contextlib.suppress(OSError):
                    path.unlink()
            if not isinstance(error, FileExistsError):  # else another writer was faster
                raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a large file or a folder under a temporary name; it gets its own when the block ends without an error.

    The lock of `path` is held meanwhile. Whatever a killed writer of the same path left is removed first.

    Args:
        path: the file or folder; it is replaced if it exists, and its parent folder is made.

    Yields:
        The temporary path; nothing is there yet.

    Raises:
        OutputError: it cannot be written, or another process is writing it; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.part")
    make_folder(path.parent)
    taken = f"{path}: another process is writing it. Wait for it, or choose another name"
    with _lock(path.with_name(f".{path.name}.lock"), taken, keep=False):
        try:
            _refuse_device(path)
            _settle(path)
            _remove(temporary)
            yield temporary
            _sync(temporary)
            if temporary.is_dir() and path.exists():
                path.rename(former(path))
            temporary.replace(path)
            _remove(former(path))
        except OSError as error:
            if isinstance(error, LidcamError):
                raise
            raise _unwritable(path, error) from None
        finally:
            with contextlib.suppress(OSError):
                _remove(temporary)


def former(path: Path) -> Path:
    """Where `replacing` puts the old folder while the new one takes its name."""
    return path.with_name(f".{path.name}.old")


def _settle(path: Path) -> None:
    """Finish a replacement of a folder that a kill interrupted: restore the former one, or remove it."""
    if former(path).exists() and not path.exists():
        former(path).rename(path)
    _remove(former(path))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _refuse_device(path: Path) -> None:
    """A rename would put a file in the place of a device such as /dev/null."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OutputError(f"{path}: is a device or a pipe, a file is needed. Choose another name")


def _unwritable(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}). Free space, or choose another folder"
    )


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """A folder for results: made where it is missing, and locked against other processes until the block ends.

    Temporary files of killed writers are removed from it, before and after.

    Raises:
        OutputError: it cannot be made or written, or another process is writing into it.
    """
    make_folder(folder)
    taken = f"{folder}: another process is writing into it. Wait for it, or choose another folder"
    with _lock(folder / LOCK_NAME, taken):
        try:
            _remove_leftovers(folder)
        except OSError as error:
            raise _unwritable(folder, error) from None
        try:
            yield folder
        finally:  # Ctrl-C may come after a temporary file was made and before its name is known
            with contextlib.suppress(OSError):
                _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    inside = [path for path in folder.iterdir() if path.is_dir() and not (path / LOCK_NAME).exists()]
    for place in (folder, *inside):
        for leftover in place.glob(".lidcam-*.part"):
            leftover.unlink(missing_ok=True)
    for lock in folder.glob(".*.lock"):
        path = folder / lock.name.removeprefix(".").removesuffix(".lock")
        left = path.with_name(f".{path.name}.part"), former(path)
        if any(os.path.lexists(entry) for entry in left):  # else it may be a lock of another program
            with contextlib.suppress(OutputError), _lock(lock, "in use", keep=False):
                _settle(path)
                _remove(left[0])


@contextlib.contextmanager
def locked(file: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock against other processes and threads until the block ends; it is removed then.

    Args:
        file: the lock, which must not be a file of contents; its folder must exist.
        waiting: if another holds the lock, called once before waiting for it; None: do not wait.

    Raises:
        OutputError: it cannot be made, or another holds it and `waiting` is None.
    """
    taken = f"{file.parent}: another process is working on {file.name}. Wait for it"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_lock(file, taken, keep=False))
        except OutputError as error:
            if waiting is None or str(error) != taken:
                raise
            waiting()
            held.enter_context(_lock(file, taken, keep=False, timeout=-1))
        yield


@contextlib.contextmanager
def _lock(file: Path, taken: str, *, keep: bool = True, timeout: float = 0) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process ends, even after kill -9.

    Args:
        file: the lock; it must not be the file that is written.
        taken: message if another process holds it.
        keep: leave the file there at the end.
        timeout: seconds to wait for another process; -1: no limit.
    """
    from filelock import FileLock, Timeout

    try:
        holder = FileLock(file, timeout=timeout, thread_local=False)
        holder.acquire()
    except Timeout:
        raise OutputError(taken) from None
    except OSError as error:
        raise _unwritable(file.parent, error) from None
    try:
        yield
    finally:
        if not keep:  # removed while held: a process that had opened it gets a lock without a name, and tries again
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        holder.release()


def make_folder(folder: Path) -> None:
    """Make a folder for results.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"{folder}: is a file, a folder is needed. Choose another name") from None
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made ({error.strerror or error}). Choose a folder that you may write to"
        ) from None


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file to read bytes from it.

    Raises:
        OSError: it is missing, a folder, or not a regular file but a pipe or a device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
    return os.fdopen(descriptor, "rb")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path) as file:
        return file.read()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(text: str) -> str:
    """A text as part of a file name: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "unnamed"
