"""Private servers for tests that kill what they talk to.

Each runs from the machine's installed binaries over a temporary directory of its own, on free loopback ports that
it keeps over restarts:

    with PrivateRabbit() as rabbit:
        ...                 # rabbit.url
        rabbit.kill()       # SIGKILL of every process it started
        rabbit.restart()    # same data, same ports, same URL

Nothing outlives the test run, however that ends. All calls block.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypedDict

from tests.support.probes import NotAnswering, probe_amqp, probe_postgres, probe_redis
from tests.support.processes import clean_up_done, kill_tree, leave_nothing_behind, signal_tree

_SYSTEM_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")


class NotInstalled(Exception):
    """A server's program is not on this machine."""

    def __init__(self, program: str) -> None:
        super().__init__(f"no {program} is installed here")
        self.program = program


class ServerDidNotStart(Exception):
    """A private server ended at once or did not answer in time; the text has the end of its log."""


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


class PrivateServer(ABC):
    """A server of our own: `start`, `kill`, `restart`, `pause`, `resume`, `stop`.

    As root, which PostgreSQL refuses to be, the server runs as an unprivileged user.
    """

    name: ClassVar[str]
    users: ClassVar[tuple[str, ...]]  # whom to run as instead of root, the first that exists

    def __init__(self, *, startup_timeout_seconds: float = 60) -> None:
        self.startup_timeout_seconds = startup_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @classmethod
    @abstractmethod
    def program(cls) -> Path:
        """The server's program.

        Raises:
            NotInstalled: it is not on this machine.
        """

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it answers; the same before and after a restart."""

    @abstractmethod
    def _prepare(self) -> None:
        """Choose ports and write what the first start needs into `directory`."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The command of the server, which must stay in the foreground."""

    @abstractmethod
    def _probe(self) -> Callable[[str], None]:
        """The function that raises `NotAnswering` until the server is ready."""

    def _environment(self) -> Mapping[str, str]:
        """What the server's environment holds beside PATH, HOME and the locale."""
        return {}

    @property
    def directory(self) -> Path:
        """Its data, configuration and log; exists between `start` and `stop`."""
        if self._directory is None:
            raise RuntimeError(f"the private {self.name} has not been started")
        return self._directory

    @property
    def pid(self) -> int | None:
        """The id of its first process; None while it does not run."""
        return self._process.pid if self._process is not None else None

    def start(self) -> Self:
        """Start it over an empty directory and wait until it answers.

        Raises:
            NotInstalled: its program is not on this machine.
            ServerDidNotStart: it ended, or did not answer within the start-up timeout.
        """
        self.program()
        self._directory = Path(tempfile.mkdtemp(prefix=f"sagasmith-{self.name}-"))
        try:
            self._prepare()
            self._hand_over()
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL every process it started and wait until they are gone; the data stay."""
        if self._process is None:
            return
        # A stopped process dies of SIGKILL all the same, but its parent may not notice until it runs.
        signal_tree(self._process.pid, signal.SIGCONT)
        kill_tree(self._process.pid)
        self._process.wait()
        clean_up_done(pid=self._process.pid)
        self._process = None

    def restart(self) -> None:
        """Start it again over the same data and ports, killing it first where it still runs.

        Raises:
            ServerDidNotStart: it ended, or did not answer within the start-up timeout.
        """
        self.kill()
        self._launch()

    def pause(self) -> None:
        """Stop all its processes where they stand: connections stay open and nothing answers."""
        if self._process is not None:
            signal_tree(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `pause`."""
        if self._process is not None:
            signal_tree(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its data; harmless when it does not run."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def log_tail(self, lines: int = 30) -> str:
        """The last lines it has written."""
        try:
            text = (self.directory / "server.log").read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, *command: str, timeout_seconds: float = 60) -> str:
        """Run a program as the server's user and in its environment, and return what it printed.

        Raises:
            subprocess.CalledProcessError: it failed; the output is in the error and in its notes.
        """
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._whole_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_seconds,
            check=False,
            **self._identity(),
        )
        if done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, command, done.stdout)
            error.add_note(done.stdout[-4000:])
            raise error
        return done.stdout

    def _launch(self) -> None:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                env=self._whole_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for the tests, not for the servers under them.
                start_new_session=True,
                **self._identity(),
            )
        leave_nothing_behind(pid=self._process.pid, directory=self.directory)
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.startup_timeout_seconds
        reason = "it was not asked yet"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerDidNotStart(self._did_not_start(f"it ended with status {process.returncode}"))
            try:
                self._probe()(self.url)
            except NotAnswering as error:
                reason = str(error)
                time.sleep(0.05)
            else:
                return
        raise ServerDidNotStart(
            self._did_not_start(f"it did not answer within {self.startup_timeout_seconds:g} s ({reason})")
        )

    def _did_not_start(self, why: str) -> str:
        return f"the private {self.name} did not start: {why}. The end of its log:\n{self.log_tail()}"

    def _whole_environment(self) -> dict[str, str]:
        path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_FOLDERS])
        return {"PATH": path, "HOME": str(self.directory), "LC_ALL": "C.UTF-8", **self._environment()}

    def _identity(self) -> _Identity:
        account = self._account()
        if account is None:
            return {}
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _account(self) -> pwd.struct_passwd | None:
        """Whom to run as; None for whoever runs the tests."""
        if os.geteuid() != 0:
            return None
        known = {account.pw_name: account for account in pwd.getpwall()}
        return next((known[user] for user in self.users if user in known), None)

    def _hand_over(self) -> None:
        """Give the directory and what is in it to the user the server runs as."""
        account = self._account()
        if account is not None:
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)


class PrivateRabbit(PrivateServer):
    """A RabbitMQ node of its own: own name, own Erlang port mapper, no plugins, user guest.

    Let a second pass between declaring a quorum queue and `kill`: RabbitMQ 3.10 writes the registry of its Raft
    members half a second late, and a queue that is not in it comes back neither taking nor giving messages.
    """

    name = "rabbitmq"
    users = ("rabbitmq", "nobody")

    @classmethod
    def program(cls) -> Path:
        """The node's start script; not Debian's wrapper in PATH, which insists on its own user."""
        return _find("rabbitmq-server", "/usr/lib/rabbitmq/bin")

    @property
    def url(self) -> str:
        """An AMQP URL with the login of guest, who may do everything."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node and return what it printed, as in `ctl("list_queues", "-q", "name")`."""
        return self.run(str(_find("rabbitmqctl", "/usr/lib/rabbitmq/bin")), *arguments)

    def _prepare(self) -> None:
        self._port, self._dist_port, self._epmd_port = free_ports(3)
        (self.directory / "rabbitmq.conf").write_text("disk_free_limit.absolute = 50MB\n")
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "env.conf").touch()

    def _command(self) -> Sequence[str]:
        # The port mapper belongs to the node's tree; by itself it would be a daemon that outlives the node.
        epmd = f'epmd -address 127.0.0.1 -port {self._epmd_port} & exec "$0"'
        return ["/bin/sh", "-c", epmd, str(self.program())]

    def _environment(self) -> Mapping[str, str]:
        return {
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"sagasmith-{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.directory / "node.pid"),
        }

    def _probe(self) -> Callable[[str], None]:
        return probe_amqp


class PrivatePostgres(PrivateServer):
    """A PostgreSQL cluster of its own, trusting whoever connects on loopback; durable as by default."""

    name = "postgres"
    users = ("postgres", "nobody")

    @classmethod
    def program(cls) -> Path:
        """The server; of the newest version where Debian has several."""
        return _find("postgres", *_debian_postgres_folders())

    @property
    def url(self) -> str:
        """The superuser's URL of the database `postgres`, without a driver's name."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def _prepare(self) -> None:
        (self._port,) = free_ports(1)
        self._hand_over()
        initdb = self.program().with_name("initdb")
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self.run(str(initdb), *options, "-D", str(self._data))

    def _command(self) -> Sequence[str]:
        settings = ["listen_addresses=127.0.0.1", f"port={self._port}", "unix_socket_directories="]
        settings += ["max_connections=200", "log_min_messages=warning"]
        return [str(self.program()), "-D", str(self._data), *(f"--{setting}" for setting in settings)]

    def _probe(self) -> Callable[[str], None]:
        return probe_postgres

    @property
    def _data(self) -> Path:
        return self.directory / "data"


class PrivateRedis(PrivateServer):
    """A Redis of its own that writes each change to its append-only file before it answers."""

    name = "redis"
    users = ("redis", "nobody")

    @classmethod
    def program(cls) -> Path:
        """The server."""
        return _find("redis-server")

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self._port}/0"

    def _prepare(self) -> None:
        (self._port,) = free_ports(1)

    def _command(self) -> Sequence[str]:
        command = [str(self.program()), "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        return [*command, "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.directory)]

    def _probe(self) -> Callable[[str], None]:
        return probe_redis


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on, below those the kernel gives to outgoing connections.

    A port from that range could be taken by a client while its server is down, and the restart would fail.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(20_000, 32_000)
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _find(program: str, *folders: str) -> Path:
    for folder in (*folders, *os.environ.get("PATH", "").split(os.pathsep), *_SYSTEM_FOLDERS):
        candidate = Path(folder or ".") / program
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise NotInstalled(program)


def _debian_postgres_folders() -> list[str]:
    """Where Debian keeps each version's programs, newest first."""
    versions = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    return [str(path) for path in sorted(versions, key=lambda path: int(path.parent.name), reverse=True)]
