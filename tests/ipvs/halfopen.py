"""Checks a port as commercial switches do: a SYN, its SYN-ACK or RST, and nothing
more. There is no socket behind the SYN, so this host's own kernel answers the
SYN-ACK with a RST. Full connects go on beside it, ten a second.

usage: halfopen.py FROM ADDRESS:PORT RATE SECONDS

Prints "sent SYN-ACK RST silent slowest-in-ms full-open full-refused".
"""
import socket
import struct
import sys
import time

source, target, rate, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
host, port = target.split(":")
port = int(port)
addresses = socket.inet_aton(source) + socket.inet_aton(host)


def syn(from_port):
    head = struct.pack("!HHIIBBHHH", from_port, port, from_port, 0, 5 << 4, 2, 1024, 0, 0)
    total = sum(struct.unpack("!16H", addresses + struct.pack("!BBH", 0, 6, 20) + head))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:16] + struct.pack("!H", total) + head[18:]


raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
raw.bind((source, 0))
raw.settimeout(0.002)
waiting, results, slowest = {}, {"open": 0, "refused": 0, "silent": 0}, 0
full = {"open": 0, "refused": 0}
start = time.monotonic()
sent, next_full = 0, start
while True:
    now = time.monotonic()
    if now - start > seconds + 1:
        break
    while now - start < seconds and sent < (now - start) * rate:
        from_port = 10000 + sent % 20000
        if from_port in waiting:
            results["silent"] += 1
        waiting[from_port] = time.monotonic()
        raw.sendto(syn(from_port), (host, 0))
        sent += 1
    if now - start < seconds and next_full <= now:
        next_full += 0.1
        try:
            socket.create_connection((host, port), 5).close()
            full["open"] += 1
        except ConnectionRefusedError:
            full["refused"] += 1
    try:
        packet = raw.recv(100)
    except TimeoutError:
        continue
    tcp = packet[(packet[0] & 15) * 4:]
    from_port, to_port = struct.unpack("!HH", tcp[:4])
    if packet[12:16] != socket.inet_aton(host) or from_port != port or to_port not in waiting:
        continue
    flags = tcp[13]
    if flags & 0x12 == 0x12:
        results["open"] += 1
    elif flags & 4:
        results["refused"] += 1
    else:
        continue
    slowest = max(slowest, time.monotonic() - waiting.pop(to_port))
results["silent"] += len(waiting)
print(sent, *results.values(), f"{slowest * 1000:.0f}", *full.values())
