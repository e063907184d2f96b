"""Run hosts as network namespaces: each has an address, an sshd, and a cable that can be pulled. Needs root.

The machine that runs the tests has a cable to the same switch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from waiting import wait_until

SSHD = """
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
{environment}
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _pids(space: str) -> list[int]:
    listing = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in listing.split()]


@dataclass
class Hosts:
    """A switch and `count` hosts on it; number 0 is where the driver runs."""

    folder: Path
    count: int
    environment: dict[str, str] = field(default_factory=dict)  # of a login by ssh, like the settings of a host
    # Derived from the process id, so that two processes can have networks at the same time.
    name: str = f"ap{os.getpid() % 100_000}"
    network: str = f"10.77.{os.getpid() % 250}"
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def space(self, number: int) -> str:
        return f"{self.name}-{number}"

    def address(self, number: int) -> str:
        return f"{self.network}.{number + 1}"

    def start(self) -> None:
        self._keys()
        ip("netns", "add", f"{self.name}-switch")
        ip("-n", f"{self.name}-switch", "link", "add", "bridge", "type", "bridge")
        ip("-n", f"{self.name}-switch", "link", "set", "bridge", "up")
        self._plug_in_test_machine()
        for number in range(self.count):
            self._plug_in(number)
        for number in range(1, self.count):
            self._serve_ssh(number)

    def stop(self) -> None:
        """Delete the namespaces and kill what still runs there: a failed start of an SSHCluster leaves schedulers."""
        for space in [*map(self.space, range(self.count)), f"{self.name}-switch"]:
            for pid in _pids(space):
                subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        for process in self.started:
            process.wait(timeout=60)

    def commands(self, number: int) -> dict[int, str]:
        """Return the command line of each process on a host by its id."""
        commands = {}
        for pid in _pids(self.space(number)):
            with suppress(OSError):  # it has ended meanwhile
                commands[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return commands

    def kill(self, number: int, text: str) -> None:
        """Kill the processes of a host whose command line contains a text."""
        for pid in [pid for pid, command in self.commands(number).items() if text in command]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pull_cable(self, number: int) -> None:
        ip("-n", f"{self.name}-switch", "link", "set", f"port{number}", "down")

    def plug_cable(self, number: int) -> None:
        ip("-n", f"{self.name}-switch", "link", "set", f"port{number}", "up")

    def popen(self, number: int, *command: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process on a host, with its output in a file."""
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.space(number), *command],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        self.started.append(process)
        return process

    def supervise(self, number: int, *command: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process again whenever it ends, as systemd does for a unit with Restart=always."""
        loop = 'until false; do "$@"; echo "the process has ended and is restarted"; sleep 1; done'
        return self.popen(number, "bash", "-c", loop, "supervise", *command, log=log, **environment)

    def _keys(self) -> None:
        for key in ("host_key", "client_key"):
            path = str(self.folder / key)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        host_key = (self.folder / "host_key.pub").read_text()
        known = [f"{self.address(number)} {host_key}" for number in range(self.count)]
        (self.folder / "known_hosts").write_text("".join(known))

    def _plug_in(self, number: int) -> None:
        space, switch = self.space(number), f"{self.name}-switch"
        ip("netns", "add", space)
        ip("-n", switch, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("-n", switch, "link", "set", f"port{number}", "master", "bridge", "up")
        ip("-n", space, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", space, "link", "set", link, "up")

    def _plug_in_test_machine(self) -> None:
        """Connect this machine to the switch; the cable is deleted with the switch."""
        switch = f"{self.name}-switch"
        ip("link", "add", self.name, "type", "veth", "peer", "name", "uplink", "netns", switch)
        ip("-n", switch, "link", "set", "uplink", "master", "bridge", "up")
        ip("address", "add", f"{self.network}.250/24", "dev", self.name)
        ip("link", "set", self.name, "up")

    def _serve_ssh(self, number: int) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd needs it, and only a service manager creates it
        config = self.folder / f"sshd{number}"
        variables = " ".join(f"{name}={value}" for name, value in self.environment.items())
        environment = f"SetEnv {variables}" if variables else ""
        config.write_text(SSHD.format(address=self.address(number), folder=self.folder, environment=environment))
        config.chmod(0o600)
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
        assert sshd, "the test needs Debian's openssh-server"
        log = self.folder / f"sshd{number}.log"
        self.popen(number, sshd, "-D", "-e", "-f", str(config), log=log)
        wait_until(lambda: "listening" in log.read_text(), log.read_text)
