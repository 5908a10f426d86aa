"""TLS and HTTP/2 for the stand-in Hub: nginx in front of it, with a certificate of a test CA.

Needs openssl and nginx, as an ordinary user. The CA and the certificate (of localhost and 127.0.0.1) are made once, in
build/hub/tls. nginx passes everything on as it comes: it buffers nothing, asks nothing again, and where the stand-in closes
a connection it does so too.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "build" / "hub" / "tls"
CA = FOLDER / "ca.pem"
DAYS = 3650
PR_SET_PDEATHSIG = 1

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    ssl_certificate {tls}/server.pem;
    ssl_certificate_key {tls}/server.key;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_next_upstream off;
    proxy_redirect off;
    proxy_read_timeout 1h;
    proxy_send_timeout 1h;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header X-Forwarded-Protocol $server_protocol;
    proxy_set_header X-Forwarded-Connection $connection;
    proxy_set_header X-Stand-In-Hub {addresses[hub]};
    proxy_set_header X-Stand-In-Cdn {addresses[cdn]};
{servers}
}}
"""
# 444 closes the connection without an answer; a 502 that the stand-in itself sends is passed on.
SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl http2;
        error_page 502 504 @closed;
        location / {{ proxy_pass http://127.0.0.1:{behind}; }}
        location @closed {{ return 444; }}
    }}
"""


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")


def make_certificates() -> None:
    """Once, and anew when they are about to expire. For several at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        good = ["openssl", "x509", "-in", "server.pem", "-noout", "-checkend", "86400"]
        if subprocess.run(good, cwd=FOLDER, capture_output=True, check=False).returncode == 0:
            return
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", str(DAYS),
                "-subj", "/CN=qstream test CA", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
        openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        (FOLDER / "server.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", str(DAYS - 1), "-extfile", "server.ext", "-out", "server.pem")  # fmt: skip


def program() -> str | None:
    """Where nginx is; not every PATH has /usr/sbin."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Nginx:
    """In front of servers on loopback: `behind` has their ports by name ("hub", "cdn"), `hosts` the names in addresses."""

    def __init__(self, folder: Path, behind: dict[str, int], hosts: dict[str, str]) -> None:
        nginx = program()
        if not nginx:
            raise RuntimeError("nginx is missing: run ./setup test")
        make_certificates()
        # nginx takes over sockets that listen already, as it does when it replaces itself: no port is lost meanwhile
        sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in behind}
        ports = {name: listening.getsockname()[1] for name, listening in sockets.items()}
        self.addresses = {name: f"https://{hosts[name]}:{port}" for name, port in ports.items()}
        servers = "".join(SERVER.format(port=ports[name], behind=behind[name]) for name in behind)
        folder.mkdir()
        configuration = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # whose folders these are
        configuration.write_text(CONFIGURATION.format(user=user, folder=folder, tls=FOLDER, addresses=self.addresses,
                                                      servers=servers))  # fmt: skip
        numbers = [listening.fileno() for listening in sockets.values()]
        self.process = subprocess.Popen(
            [nginx, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "nginx.log")], pass_fds=numbers,
            stdin=subprocess.DEVNULL, env={"NGINX": "".join(f"{number};" for number in numbers)}, preexec_fn=end_with_parent,
        )  # fmt: skip
        for listening in sockets.values():
            listening.close()
        self.log = folder / "nginx.log"
        self.wait_until_ready(folder / "nginx.pid")

    def wait_until_ready(self, mark: Path) -> None:
        while not mark.exists():
            if self.process.poll() is not None:
                raise RuntimeError(f"nginx ends: {self.log.read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
