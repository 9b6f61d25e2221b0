"""One sender or reader of libtorrent 2.0 or later, over plain TCP, with DHT, uTP and everything else off.

  libtorrent_peer.py make FILE TORRENT
  libtorrent_peer.py seed TORRENT FOLDER IP:PORT    prints "READY", sends until it is killed
  libtorrent_peer.py read TORRENT FOLDER IP:PORT    prints "READY", reads "GO IP:PORT", prints "DONE" when the file is whole
"""
import os
import sys
import time

import libtorrent as lt

LIMIT_S = 600
PIECE = 1 << 20


def make(path, torrent):
    files = lt.file_storage()
    lt.add_files(files, path)
    maker = lt.create_torrent(files, PIECE, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(maker, os.path.dirname(path))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(maker.generate()))


def session(bind):
    kinds = lt.alert.category_t
    wanted = {
        "listen_interfaces": bind,
        "outgoing_interfaces": "",
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_incoming_utp": False, "enable_outgoing_utp": False,
        "in_enc_policy": int(lt.enc_policy.pe_disabled), "out_enc_policy": int(lt.enc_policy.pe_disabled),
        "allow_multiple_connections_per_ip": True,
        "alert_mask": kinds.status_notification | kinds.error_notification | kinds.storage_notification,
        # Measured to be the fastest between two peers; deeper queues and larger buffers are slower.
        "tick_interval": 100,  # the default of 500 ms is half a second before the first byte
        "mixed_mode_algorithm": 0,
        "rate_limit_ip_overhead": False,
        "unchoke_slots_limit": -1,
        "request_queue_time": 3,
        "max_out_request_queue": 500,
        "max_allowed_in_request_queue": 1000,
        "send_buffer_watermark": 1 << 20,
        "send_buffer_low_watermark": 512 << 10,
        "send_buffer_watermark_factor": 150,
        "max_queued_disk_bytes": 64 << 20,
        "aio_threads": 4, "hashing_threads": 2,
        "no_atime_storage": True,
    }
    known = lt.default_settings()
    return lt.session({key: value for key, value in wanted.items() if key in known})


def await_alert(ses, kind):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        ses.wait_for_alert(200)
        for alert in ses.pop_alerts():
            if alert.category() & lt.alert.category_t.error_notification:
                print(alert, file=sys.stderr, flush=True)
            if isinstance(alert, kind):
                return
    sys.exit(f"libtorrent: no {kind.__name__} within {LIMIT_S} s")


def main():
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
        return
    role, torrent, folder, bind = sys.argv[1:]
    ses = session(bind)
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = folder
    flags = lt.torrent_flags
    params.flags = (params.flags | flags.disable_dht | flags.disable_lsd | flags.disable_pex) & ~(flags.auto_managed | flags.paused)
    await_alert(ses, lt.listen_succeeded_alert)
    if role == "seed":
        params.flags |= flags.seed_mode | flags.upload_mode
        ses.add_torrent(params)
        print("READY", flush=True)
        time.sleep(LIMIT_S)
        return
    print("READY", flush=True)
    ip, port = sys.stdin.readline().split()[1].rsplit(":", 1)
    handle = ses.add_torrent(params)
    handle.connect_peer((ip, int(port)))
    await_alert(ses, lt.torrent_finished_alert)
    # It is finished while its last blocks are in a buffer of its own.
    handle.flush_cache()
    await_alert(ses, lt.cache_flushed_alert)
    print("DONE", flush=True)
    sys.stdin.readline()


main()
