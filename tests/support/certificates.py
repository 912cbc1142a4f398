"""Certificates for a test's own broker and its clients, made with openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SERVER_NAME = "broker.test"
KEY_PASSWORD = "pass-of-the-key"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2")


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files below one folder: `NAME.pem`, `NAME.key`."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Certificates:
        """Make a CA with a server (`broker.test` and `localhost`) and a client, and another CA nobody knows."""
        made = cls(folder)
        for ca in ("ca", "stranger"):
            made._make(ca, "-x509", "-nodes", "-addext", "basicConstraints=critical,CA:TRUE")
        made._make("server", *made._signed, "-nodes", "-addext", f"subjectAltName=DNS:{SERVER_NAME},DNS:localhost")
        made._make("client", *made._signed, "-passout", f"pass:{KEY_PASSWORD}")
        return made

    def file(self, name: str) -> Path:
        """One of the files."""
        return self.folder / name

    @property
    def _signed(self) -> tuple[str, ...]:
        return ("-x509", "-CA", str(self.file("ca.pem")), "-CAkey", str(self.file("ca.key")))

    def _make(self, name: str, *options: str) -> None:
        files = ("-keyout", str(self.file(f"{name}.key")), "-out", str(self.file(f"{name}.pem")))
        command = ["openssl", "req", *_KEY, "-subj", f"/CN={name}", *files, *options]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
