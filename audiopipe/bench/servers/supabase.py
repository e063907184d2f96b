"""Start PostgreSQL and a Supabase-compatible server on free ports of this machine, without root.

PostgreSQL comes from the wheel `pgserver` and listens on TCP. The server is npm's `@supabase/lite`, installed under the
environment (`.venv/share`), or in the user's cache if that is not writable. Keys and the token secret are generated for
each start and are known only to this process and its children.

`python -m audiopipe.bench.servers.supabase COMMAND…` runs a command with both servers and the migration applied.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from audiopipe.bench.servers.start import free_port, wait_for_server
from audiopipe.errors import ConfigError
from audiopipe.extras import missing_extra

__all__ = [
    "LITE",
    "MIGRATIONS",
    "Postgres",
    "Supabase",
    "apply_migrations",
    "bring_back",
    "install_lite",
    "main",
    "postgres_server",
    "supabase_server",
]

LITE = "@supabase/lite@0.10.0"
MIGRATIONS = Path(__file__).parents[3] / "cluster" / "supabase" / "migrations"  # of the checkout
# PostgreSQL refuses to run as root, so root starts it as the unprivileged user 65534, which every system has.
UNPRIVILEGED_ID = 65534
OTHER_USER: dict[str, Any] = {"user": UNPRIVILEGED_ID, "group": UNPRIVILEGED_ID} if os.geteuid() == 0 else {}

CONFIG = """
[api]
port = {port}
schemas = {schemas}
max_rows = 1000

[db]
driver = "postgres"
url = "postgres://postgres@127.0.0.1:{postgres_port}/postgres"

[auth]
enabled = true
jwt_secret = "{jwt_secret}"
publishable_key = "env(SUPABASE_PUBLISHABLE_KEY)"
secret_key = "env(SUPABASE_SECRET_KEY)"
"""


def _program(name: str) -> str:
    """Return the path of a program of PostgreSQL.

    It is located without an import of pgserver, which creates folders for root and warns without XDG_RUNTIME_DIR.
    """
    spec = find_spec("pgserver")
    if spec is None or spec.origin is None:
        raise missing_extra("PostgreSQL", ImportError(name="pgserver"), "servers")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


class Postgres:
    """An empty PostgreSQL server that trusts connections from 127.0.0.1 only."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.data = folder / "data"
        folder.chmod(0o755)
        self.data.mkdir()
        if OTHER_USER:
            shutil.chown(self.data, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        self._command("initdb", "--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "-U", "postgres", "-N")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        command = [_program("postgres"), "-D", str(self.data), "-p", str(self.port)]
        command += [f"-c{name}={value}" for name, value in options.items()]
        with (self.folder / "postgres.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **OTHER_USER)
        wait_for_server(self._answers, "PostgreSQL", self.process)

    def stop(self) -> None:
        """Stop immediately, without waiting for open transactions, like an outage."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)
            self.process = None

    def sql(self, text: str, database: str = "postgres") -> list[list[str]]:
        """Run SQL and return the rows of its last statement as text.

        Raises:
            RuntimeError: psql failed; the message is its error output.
        """
        command = [_program("psql"), "-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        command += ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", database]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return [line.split("\x1f") for line in done.stdout.splitlines() if line]

    def _answers(self) -> bool:
        command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _command(self, program: str, *arguments: str) -> None:
        command = [_program(program), "-D", str(self.data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **OTHER_USER)


class Supabase:
    """A server `lite start` in front of a PostgreSQL that has the migration."""

    def __init__(self, folder: Path, postgres: Postgres, schemas: tuple[str, ...] = ("public",)) -> None:
        self.postgres, self.folder, self.port = postgres, folder, free_port()
        self.publishable_key = f"sb_publishable_{secrets.token_urlsafe(22)[:22]}_{secrets.token_hex(4)}"
        self.secret_key = f"sb_secret_{secrets.token_urlsafe(22)[:22]}_{secrets.token_hex(4)}"
        self.jwt_secret = secrets.token_hex(32)
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "supabase").mkdir()
        config = CONFIG.format(
            port=self.port, postgres_port=postgres.port, jwt_secret=self.jwt_secret, schemas=json.dumps(schemas)
        )
        (folder / "supabase" / "config.toml").write_text(config)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {**os.environ, "DO_NOT_TRACK": "1", "SUPABASE_PUBLISHABLE_KEY": self.publishable_key}
        environment["SUPABASE_SECRET_KEY"] = self.secret_key
        command = ["node", str(install_lite() / "node_modules" / "@supabase" / "lite" / "dist" / "cli" / "index.js")]
        with (self.folder / "lite.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "start", "--no-admin"], cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        wait_for_server(self._answers, "the Supabase server", self.process)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def token(self, role: str = "authenticated", is_reader: bool = True) -> str:
        """Return the token of a signed-in user, who may read the ledger or not."""
        head = {"alg": "HS256", "typ": "JWT"}
        body: dict[str, object] = {"role": role, "sub": "00000000-0000-4000-8000-000000000001"}
        body |= {"exp": int(time.time()) + 3600, "app_metadata": {"audiopipe": "reader"} if is_reader else {}}
        text = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(body | {'aud': role}).encode())}"
        signature = hmac.new(self.jwt_secret.encode(), text.encode(), hashlib.sha256).digest()
        return f"{text}.{_base64(signature)}"

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.url}/rest/v1/", headers={"apikey": self.secret_key})
        try:
            with urllib.request.urlopen(request, timeout=2):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False


def install_lite() -> Path:
    """Return the folder of the npm package; install it on first use."""
    share = Path(sys.prefix) / "share"
    base = share if os.access(share if share.is_dir() else sys.prefix, os.W_OK) else user_cache_path("audiopipe")
    folder = base / f"audiopipe-tests-{LITE.replace('/', '-').replace('@', '')}"
    if folder.is_dir():
        return folder
    if not shutil.which("npm"):
        raise ConfigError("the Supabase server needs node and npm: install them")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        package = Path(temporary) / "package"
        package.mkdir()
        (package / "package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", LITE, "postgres"]
        subprocess.run(command, cwd=package, check=True, timeout=300)
        # Another session may have installed it in the meantime.
        if not folder.is_dir():
            package.rename(folder)
    return folder


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="audiopipe-postgres-"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@contextmanager
def supabase_server(postgres: Postgres, schemas: tuple[str, ...] = ("public",)) -> Iterator[Supabase]:
    with tempfile.TemporaryDirectory(prefix="audiopipe-supabase-") as folder:
        server = Supabase(Path(folder), postgres, schemas)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def bring_back(server: Supabase) -> None:
    """Start the stopped servers; the API server stops with its database, so it is restarted too."""
    if server.postgres.process is None:
        server.stop()
        server.postgres.start()
    if server.process is None:
        server.start()


def apply_migrations(postgres: Postgres) -> None:
    """Apply the migrations by name, each in one transaction, as `supabase db push` does."""
    for path in sorted(MIGRATIONS.glob("*.sql")):
        postgres.sql(f"SET client_min_messages = warning;\nBEGIN;\n{path.read_text()}\nCOMMIT;")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main(command: list[str]) -> int:
    """Run a command with an empty Supabase in its environment; return its exit code."""
    with postgres_server() as postgres:
        apply_migrations(postgres)
        with supabase_server(postgres) as server:
            variables = {"SUPABASE_URL": server.url, "SUPABASE_SERVICE_KEY": server.secret_key}
            return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
