"""Calls every method of a node once at least, with the client that `generate.py` made, and prints the name of each.

every_method.py URL FOLDER CHANNEL: FOLDER has the generated client, a file `film`, `identity.json` and the node's folder `node`;
CHANNEL is an address that nobody publishes, with its read key. The client checks each answer.
"""

import base64
import sys
import time

URL, FOLDER, CHANNEL = sys.argv[1:]
sys.path.insert(0, FOLDER)
import megatorrent_api  # noqa: E402


def token():
    with open(f"{FOLDER}/node/api-token", encoding="utf-8") as file:
        return file.read().strip()


class Told:
    """The client, which says what is called."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        print(name)
        return getattr(self.client, name)


def refused(code, call, **params):
    """A call that must fail with an exit code."""
    try:
        call(**params)
    except megatorrent_api.ApiError as error:
        assert error.exit_code == code, error
        return str(error)
    raise AssertionError("it was not refused")


def over(api, job):
    """Waits for a job's end."""
    deadline = time.monotonic() + 60
    after = api.getStatus()["last_event"]
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
        job = api.getJob(job=job["id"])
    assert api.getEvents(after=0)["last"] >= after
    return job


def node(api):
    status = api.getStatus()
    assert status["home"] == f"{FOLDER}/node" and status["mode"] == "direct"
    assert {check["name"] for check in api.getDoctor()["checks"]} >= {"mode", "ports", "dht", "clock", "disk"}
    assert api.getPeers()["peers"] == [] and api.getBans()["bans"] == []
    api.addPeer(address="127.0.0.1:1")
    refused(3, api.removeBan, address="127.0.0.1:1")
    assert api.getLimits() == {"upload_bytes_per_sec": None, "download_bytes_per_sec": None}
    assert (api.getOptions()["host"], api.getOptions()["dht"]) == ("127.0.0.1", "off")
    limits = api.setLimits(upload_bytes_per_sec=1 << 20)
    assert limits == api.getLimits() == {"upload_bytes_per_sec": 1 << 20, "download_bytes_per_sec": None}
    assert api.setLimits(upload_bytes_per_sec=None)["upload_bytes_per_sec"] is None
    settings = api.getSettings()
    changed = api.setSettings(gateway=not settings["gateway"])
    assert changed == {**settings, "gateway": not settings["gateway"]} == api.getSettings()
    assert api.getRates()["step_secs"] < api.getRates(day=True)["step_secs"]
    assert api.createLoginLink()["path"].startswith("login?code=")


def subscriptions(api):
    followed = api.addSubscription(uri=CHANNEL, in_order=True)
    channel = followed["channel"]
    assert followed["state"] == "looking" and CHANNEL.startswith(followed["uri"])
    assert api.getSubscription(channel=channel)["channel"] == channel
    for given, total in [({}, 1), ({"search": channel[:9].upper()}, 1), ({"search": "x"}, 0), ({"search": channel[:9]}, 1), ({"states": ["paused", "new"]}, 0), ({"states": ["looking"], "sort": "changed"}, 1)]:
        assert api.getSubscriptions(**given)["total"] == total, given
    undo = api.pauseSubscription(channel=channel)["undo"]
    assert api.getSubscription(channel=channel)["state"] == "paused"
    api.undo(undo=undo)
    assert api.getSubscription(channel=channel)["state"] == "looking"
    refused(3, api.undo, undo=undo)
    api.pauseSubscription()
    api.resumeSubscription(channel=channel)
    api.checkSubscription(channel=channel)
    api.markRead(channel=channel)
    assert api.getFiles(channel=channel) == {"sequence": 0, "files": [], "total": 0}
    assert api.getBlobs(channel=channel, cells=9) == {"blobs": [], "here": [], "under_way": [], "unseen": []}
    refused(3, api.createFileLink, channel=channel, path="film")
    assert api.revokeFileLinks(channel=channel) == {"links": 0}
    undo = api.removeSubscription(channel=channel)["undo"]
    refused(3, api.getSubscription, channel=channel)
    refused(3, api.checkSubscription, channel=channel)
    api.undo(undo=undo)
    again = api.getSubscription(channel=channel)
    assert (again["output"], again["added_unix_ms"]) == (followed["output"], followed["added_unix_ms"])
    return channel


def identities(api):
    made = api.createIdentity()
    assert api.getIdentities()["identities"] == [made]
    backup = f"{FOLDER}/backup"
    api.exportIdentity(channel=made["channel"], file=backup, passphrase="correct horse")
    refused(1, api.exportIdentity, channel=made["channel"], file=backup, passphrase="correct horse")
    refused(6, api.importIdentity, file=backup, passphrase="incorrect horse")
    imported = api.importIdentity(file=f"{FOLDER}/identity.json")
    assert len(api.getIdentities()["identities"]) == 2
    return imported


def work(api, channel, identity):
    job = over(api, api.ingest(file=f"{FOLDER}/film", identity=identity["file"]))
    assert job["state"] == "done" and job["result"]["size"] == 3 << 20, job
    published = over(api, api.publish(entries=[job["result"]["entry"]], identity=identity["file"], title="Films"))
    # Without a DHT nobody hears of it.
    assert published["state"] == "failed" and published["error"]["data"]["exit_code"] == 8, published
    assert over(api, api.verify())["state"] == "done"
    fetch = api.fetch(channel=channel)
    assert api.getJobs(active=True)["jobs"][0]["id"] == fetch["id"]
    api.cancelJob(job=fetch["id"])
    assert over(api, fetch)["state"] == "cancelled"
    assert len(api.getJobs()["jobs"]) == 4


def folders(api, identity):
    assert {"name": "film", "folder": False, "size_bytes": 3 << 20} in api.getFolder(path=FOLDER)["entries"]
    assert api.getFolder(limit=0)["entries"] == []
    made = api.createUpload()
    upload, text = made["upload"], base64.b64encode(b"words").decode()
    assert api.writeUpload(upload=upload, path="a/b.txt", offset=0, data=text) == {"size_bytes": 5}
    refused(2, api.writeUpload, upload=upload, path="a/b.txt", offset=6, data=text)
    refused(2, api.writeUpload, upload=upload, path="../b.txt", offset=0, data=text)
    refused(3, api.writeUpload, upload="../identities", path="b.txt", offset=0, data=text)
    plan = api.planPublication(source=made["folder"], channel=identity["channel"])
    assert (plan["files"], plan["size_bytes"], plan["added"], plan["listed"][0]["path"]) == (1, 5, 1, "a/b.txt")
    job = over(api, api.publishFolder(source=made["folder"], channel=identity["channel"], title="Words"))
    assert (job["state"], job["done_bytes"], job["error"]["data"]["exit_code"]) == ("failed", 5, 8), job
    api.removeUpload(upload=upload)
    refused(3, api.removeUpload, upload=upload)


def main():
    api = Told(megatorrent_api.Client(URL, token()))
    node(api)
    channel = subscriptions(api)
    identity = identities(api)
    work(api, channel, identity)
    folders(api, identity)
    api.rotateToken()
    try:
        api.getStatus()
    except megatorrent_api.ApiError as error:
        assert error.exit_code == 6
    else:
        raise AssertionError("the old token still holds")
    Told(megatorrent_api.Client(URL, token())).shutdown()


main()
