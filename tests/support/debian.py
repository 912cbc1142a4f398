"""Installing Debian packages without having their services started."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_POLICY = Path("/usr/sbin/policy-rc.d")
_SET_ASIDE = Path("/usr/sbin/policy-rc.d.before-sagasmith")
_DENY_ALL = "#!/bin/sh\n# Put here by sagasmith's tests while packages are installed; removed right after.\nexit 101\n"


class InstallFailed(Exception):
    """apt-get failed; the text has the end of what it said."""


def can_install() -> bool:
    """Whether this is Debian or made from it, and we are root."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and Path("/usr/bin/apt-get").exists()


def install(packages: Sequence[str]) -> None:
    """Install packages with `apt-get`, without starting their services.

    Raises:
        InstallFailed: the package lists or the packages could not be fetched or installed.
    """
    with _no_service_starts():
        _apt_get("update", "-qq")
        _apt_get("install", "-y", "-qq", "--no-install-recommends", *packages)


def extract(package: str, member: str, folder: Path) -> None:
    """Take one file out of a package into a folder, and install nothing else of it.

    Args:
        package: its name.
        member: the file's path in the package, `./usr/bin/...`.
        folder: where to.

    Raises:
        InstallFailed: the package could not be fetched, or has no such file.
    """
    with tempfile.TemporaryDirectory(prefix="sagasmith-") as name:
        _apt_get("update", "-qq")
        _apt_get("download", "-qq", "-o", "APT::Sandbox::User=root", package, folder=Path(name))
        (fetched,) = Path(name).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", fetched, f"{name}/all"], check=True)
        found = Path(name, "all", member)
        if not found.is_file():
            raise InstallFailed(f"package {package} has no {member}")
        # Others may look for it meanwhile: it appears whole.
        whole = folder / f".{found.name}.{os.getpid()}"
        shutil.copy2(found, whole)
        whole.rename(folder / found.name)


def _apt_get(*arguments: str, folder: Path | None = None) -> None:
    done = subprocess.run(
        ["apt-get", *arguments],
        cwd=folder,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InstallFailed(f"apt-get {arguments[0]} failed: {done.stdout[-1500:].strip()}")


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Deny every service start through Debian's policy file, then leave it as it was found.

    A policy that is there already is set aside meanwhile. Should we be killed in between, the next call finds the
    one set aside and puts it back at its end.
    """
    if _POLICY.exists() and not _is_ours(_POLICY):
        _POLICY.rename(_SET_ASIDE)
    _POLICY.write_text(_DENY_ALL)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
        if _SET_ASIDE.exists():
            _SET_ASIDE.rename(_POLICY)


def _is_ours(policy: Path) -> bool:
    return policy.read_text(errors="replace") == _DENY_ALL
