"""The programs that are measured: how each is started, told to go and known to be done."""
import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

from measure import IP, Failed, free_port, poll

HERE = Path(__file__).resolve().parent
MEGATORRENT, RQBIT, IROH_PEER = (os.environ[name] for name in ("MEGATORRENT", "RQBIT", "IROH_PEER"))
LIBTORRENT_DEBIAN, LIBTORRENT_PIP = (os.environ[name] for name in ("LIBTORRENT_DEBIAN", "LIBTORRENT_PIP"))
SETTLE_S = float(os.environ.get("SETTLE", "0"))
LIBTORRENT_PEER = HERE / "libtorrent_peer.py"


def torrent_of(source):
    return source.file.with_suffix(".torrent")


# rqbit, over its HTTP interface

def http(url, data=None, timeout=10):
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=timeout) as answer:
        return answer.read()


def rqbit_node(run, role, folder):
    api, port = free_port(), free_port()
    proc = run.spawn(role, [
        RQBIT, "--single-thread-runtime", "-v", "error", "--http-api-listen-addr", f"{IP}:{api}", "--disable-dht",
        "--disable-dht-persistence", "--disable-upnp-port-forward", "--disable-lsd", "--disable-trackers", "--ipv4-only",
        "--listen-ip", IP, "--listen-port", port, "server", "start", "--disable-persistence", folder], lines=False)
    url = f"http://{IP}:{api}/torrents"
    poll(lambda: http(url), 0.05, proc)

    def add(**options):
        query = urllib.parse.urlencode({"overwrite": "true", "output_folder": folder, **options})
        http(f"{url}?{query}", torrent_of(run.source).read_bytes(), timeout=120)

    def done(every):
        poll(lambda: json.loads(http(f"{url}/0/stats/v1"))["finished"], every, proc)
    return add, done, f"{IP}:{port}"


def rqbit(run):
    add, done, address = rqbit_node(run, "seed", run.source.file.parent)
    add()
    done(0.1)
    add, done, _ = rqbit_node(run, "read", run.read)
    with run.timed():
        add(initial_peers=address)
        done(0.02)
    run.check(run.read / run.source.file.name)


# libtorrent, through its Python bindings

def libtorrent(run, python):
    torrent, address = torrent_of(run.source), f"{IP}:{free_port()}"
    run.spawn("seed", [python, LIBTORRENT_PEER, "seed", torrent, run.source.file.parent, address]).expect("READY")
    reader = run.spawn("read", [python, LIBTORRENT_PEER, "read", torrent, run.read, f"{IP}:{free_port()}"])
    reader.expect("READY")
    with run.timed():
        reader.send(f"GO {address}")
        reader.expect("DONE")
    run.check(run.read / run.source.file.name)


# iroh-blobs, by the peer in `iroh-peer`

def iroh_blobs(run):
    out = run.read / "file"
    ticket = run.spawn("seed", [IROH_PEER, "seed", run.source.file, run.seed / "store", f"{IP}:{free_port()}"]).expect("READY")
    reader = run.spawn("read", [IROH_PEER, "read", out, run.read / "store", f"{IP}:{free_port()}"])
    reader.expect("READY")
    with run.timed():
        reader.send(f"GO {ticket}")
        reader.expect("DONE")
    run.check(out)


# Ours

class Channel:
    """A network of one DHT node, an author, and a subscriber that knows the channel's URI and that DHT node."""

    def __init__(self, run):
        self.run = run
        self.dht = self.serve("dht", "--dht", "server")

    def serve(self, folder, *options):
        node = self.run.spawn("seed", [MEGATORRENT, "serve", "--json", "-q", "-d", self.run.seed / folder, "-H", IP, "-T", 0,
                                       *options])
        while True:
            event = json.loads(node.expect(""))
            if event["event"] == "ready":
                return event["p2p"]

    def author(self, *command):
        return self.run.call("seed", [MEGATORRENT, *command, "-q", "-k", "key.json"])

    def gen_key(self):
        self.author("gen-key")

    def ingest(self):
        self.author("ingest", "-d", "author", "-i", self.run.source.file, "-o", "entry.json")

    def publish(self):
        self.uri = self.author("publish", "-d", "author", "-i", "entry.json", "-b", self.dht).strip()

    def start(self):
        self.serve("author", "-b", self.dht)

    def subscribe(self):
        self.run.spawn("read", [MEGATORRENT, "subscribe", self.uri, "--once", "-q", "-d", "data", "-o", "files", "-H", IP,
                                "-b", self.dht], lines=False).succeed()

    def check(self):
        self.run.check(self.run.read / "files" / self.run.source.file.name)


def ours(run):
    channel = Channel(run)
    channel.gen_key()
    channel.ingest()
    channel.publish()
    channel.start()
    # An author's address stands in the DHT long before most readers come.
    time.sleep(2)
    with run.timed():
        channel.subscribe()
    channel.check()


STEPS = ("gen-key", "ingest", "publish", "serve", "subscribe")


def ours_from_nothing(run):
    """Seconds that each step took, one right after the other."""
    channel = Channel(run)
    steps = (channel.gen_key, channel.ingest, channel.publish, channel.start, channel.subscribe)
    times = {}
    for name, step in zip(STEPS, steps, strict=True):
        if name == "subscribe":
            time.sleep(SETTLE_S)
        start = time.monotonic()
        step()
        times[name] = time.monotonic() - start
    channel.check()
    return times


def make_torrent(source):
    made = output(LIBTORRENT_DEBIAN, LIBTORRENT_PEER, "make", source.file, torrent_of(source))
    if made.returncode:
        raise Failed(f"libtorrent makes no torrent: {made.stderr[-400:]}")


def output(*argv):
    return subprocess.run(argv, capture_output=True, text=True)


def programs():
    """Each program's name, and how it sends a file."""
    table = {output(RQBIT, "--version").stdout.strip(): rqbit}
    for python in filter(None, (LIBTORRENT_DEBIAN, LIBTORRENT_PIP)):
        version = output(python, "-c", "import libtorrent; print(libtorrent.__version__)").stdout.strip()
        table[f"libtorrent {version}"] = partial(libtorrent, python=python)
    return {**table, "iroh-blobs": iroh_blobs, "megatorrent": ours}
