"""One BitTorrent peer, for comparison: `make FILE TORRENT`, `seed TORRENT DIRECTORY ADDRESS`,
`leech TORRENT DIRECTORY ADDRESS PEER…`. Addresses are IP:PORT.

It talks to the peers it is given and to nobody else: no DHT, no local discovery, no port mapping, no trackers. Seeds and
leeches print one JSON value when they are ready or done, and end when their standard input does.
"""

import json
import os
import sys
import time

import libtorrent as lt

SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True,
    # Bytes move in the clear, over TCP, as fast as the link takes them: nothing here holds libtorrent back.
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": int(lt.enc_policy.disabled),
    "out_enc_policy": int(lt.enc_policy.disabled),
    "mixed_mode_algorithm": int(lt.bandwidth_mixed_algo_t.prefer_tcp),
    "download_rate_limit": 0,
    "upload_rate_limit": 0,
    "connections_limit": 500,
    "unchoke_slots_limit": -1,
    "aio_threads": 8,
    "hashing_threads": 2,
    "max_out_request_queue": 2000,
    "max_allowed_in_request_queue": 4000,
    "send_buffer_watermark": 8 << 20,
    "send_buffer_watermark_factor": 150,
    "send_buffer_low_watermark": 1 << 20,
    "max_queued_disk_bytes": 64 << 20,
    "alert_mask": int(lt.alert.category_t.status_notification | lt.alert.category_t.error_notification),
    "alert_queue_size": 10000,
}


def make(file, torrent):
    made = lt.create_torrent(lt.list_files(file), flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(file))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))


def join(torrent, directory, address, is_seed):
    session = lt.session({**SETTINGS, "listen_interfaces": address})
    adding = lt.add_torrent_params()
    adding.ti = lt.torrent_info(torrent)
    adding.save_path = directory
    adding.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if is_seed:
        adding.flags |= lt.torrent_flags.seed_mode
    return session, session.add_torrent(adding)


def wait_for(session, what, is_so, within=600):
    end = time.monotonic() + within
    while time.monotonic() < end:
        session.wait_for_alert(50)
        for alert in session.pop_alerts():
            if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.listen_failed_alert)):
                sys.exit(f"libtorrent: {alert.message()}")
            if is_so(alert):
                return
    sys.exit(f"libtorrent: waited {within} s in vain for {what}")


def say(**value):
    print(json.dumps(value), flush=True)


def seed(torrent, directory, address):
    session, handle = join(torrent, directory, address, is_seed=True)
    wait_for(session, "its port", lambda alert: isinstance(alert, lt.listen_succeeded_alert))
    say(port=session.listen_port())
    sys.stdin.read()
    say(uploaded=handle.status().total_payload_upload)


def leech(torrent, directory, address, *peers):
    # A line starts the clock, so that leeches which begin together have all been loaded.
    say(is_ready=True)
    sys.stdin.readline()
    started = time.monotonic()
    session, handle = join(torrent, directory, address, is_seed=False)
    for peer in peers:
        ip, port = peer.rsplit(":", 1)
        handle.connect_peer((ip, int(port)))
    wait_for(session, "the end of the download", lambda alert: isinstance(alert, lt.torrent_finished_alert))
    seconds = time.monotonic() - started
    status = handle.status()
    say(seconds=seconds, downloaded=status.total_payload_download, uploaded=status.total_payload_upload)
    sys.stdin.read()


if __name__ == "__main__":
    {"make": make, "seed": seed, "leech": leech}[sys.argv[1]](*sys.argv[2:])
