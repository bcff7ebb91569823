"""The load of tests/ipvs.sh: connects at a fixed rate, never retries, and counts
what became of every single connection.

usage: load.py RATE LIMIT < LINES

A line is "NAME SUBNET TARGET PORTS [DOWNLOADS SECONDS]". Thirty addresses of
SUBNET (10.101.0) take turns as the client. With PORTS 0 the kernel chooses the
source port; otherwise all addresses together have so many, which come round again.
RATE is connections per second of each line. One without an answer after
LIMIT seconds has timed out.

SIGUSR2 begins DOWNLOADS downloads of SECONDS each. SIGUSR1 marks the time from which
failures are told. SIGTERM ends it, and it prints
for each line "NAME connections opened answered wrong refused reset timed-out first
last downloads whole", tab-separated; first and last are the seconds from the mark
to the first and the last failure.
"""
import collections
import errno
import select
import signal
import socket
import sys
import time

RATE, LIMIT = float(sys.argv[1]), float(sys.argv[2])
ADDRESSES, FIRST_PORT = 30, 20000
REQUEST = b"GET %b HTTP/1.1\r\nHost: hello.lab\r\nConnection: close\r\n\r\n"


class Line:
    def __init__(self, text):
        self.name, self.subnet, target, ports, *downloads = text.split()
        self.ports = int(ports)
        host, port = target.split(":")
        self.target = (host, int(port))
        self.next = 0.0
        self.number = 0
        self.counts = collections.Counter()
        self.failed = []
        self.downloads, self.seconds = downloads or (0, 0)

    def socket(self):
        """A socket with the next source address and port."""
        for _ in range(max(1, self.ports)):
            number = self.number
            self.number += 1
            address = f"{self.subnet}.{1 + number % (self.ports or ADDRESSES) % ADDRESSES}"
            s = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                if self.ports:
                    s.bind((address, FIRST_PORT + number % self.ports // ADDRESSES))
                else:
                    s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                    s.bind((address, 0))
                error = s.connect_ex(self.target)
            except OSError as failure:
                error = failure.errno
            # A connection that hangs still has its port: the next one.
            if error not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                return s, error
            s.close()
        sys.exit(f"load.py: {self.name}: no source port is free")


class Connection:
    def __init__(self, line, path, limit, now):
        self.line, self.path, self.limit = line, path, limit
        self.deadline = now + limit
        self.head = b""
        self.got = 0
        self.opened = False
        self.download = path != "/"
        self.socket, error = line.socket()
        if not self.download:
            line.counts["connections"] += 1
        if error in (0, errno.EINPROGRESS):
            open_now[self.socket.fileno()] = self
            poll.register(self.socket, select.EPOLLOUT | select.EPOLLIN)
        else:
            self.end(error)

    def ready(self, now):
        try:
            if not self.opened:
                error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    return self.end(error)
                self.opened = True
                if not self.download:
                    self.line.counts["opened"] += 1
                self.socket.send(REQUEST % self.path.encode())
                poll.modify(self.socket, select.EPOLLIN)
                return None
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError as failure:
            return self.end(failure.errno)
        if not data:
            return self.end(0)
        if self.download:
            self.deadline = now + self.limit
        self.got += len(data)
        if len(self.head) < 1000:
            self.head += data
        return None

    def end(self, error):
        fd = self.socket.fileno()
        if open_now.pop(fd, None):
            poll.unregister(fd)
        self.socket.close()
        length = 0
        for word in self.head.split(b"\r\n"):
            if word.lower().startswith(b"content-length:"):
                length = int(word.split(b":")[1])
        whole = self.got - self.head.find(b"\r\n\r\n") - 4 == length > 0
        status = self.head[9:12]
        if error == errno.ETIMEDOUT:
            result = "timed-out"
        elif error in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
            result = "refused"
        elif error or not whole and not (status and status != b"200"):
            result = "reset"
        else:
            result = "answered" if status == b"200" else "wrong"
        counts = self.line.counts
        if self.download:
            counts["whole"] += result == "answered"
            return
        counts[result] += 1
        if result != "answered":
            self.line.failed.append(time.monotonic())


poll = select.epoll()
open_now = {}
mark = time.monotonic()
stop = begin = False


def on_signal(number, _):
    global mark, stop, begin
    if number == signal.SIGUSR1:
        mark = time.monotonic()
    elif number == signal.SIGUSR2:
        begin = True
    else:
        stop = True


for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, on_signal)
lines = [Line(text) for text in sys.stdin]
now = time.monotonic()
for position, line in enumerate(lines):
    line.next = now + position / RATE / len(lines)
print("started", flush=True)
while not stop or open_now:
    now = time.monotonic()
    if begin:
        begin = False
        for line in lines:
            for _ in range(int(line.downloads)):
                Connection(line, f"/slow/{line.seconds}", 3 * LIMIT, now)
    if not stop:
        for line in lines:
            if line.next <= now:
                line.next += 1 / RATE
                Connection(line, "/", LIMIT, now)
    events = poll.poll(0.05 if stop else max(0.001, min(line.next for line in lines) - now))
    ready = {fd for fd, _ in events}
    for fd in ready & open_now.keys():
        open_now[fd].ready(now)
    # Only if there was nothing to read: a loader that stalls is no answer that is late.
    for fd in [fd for fd, c in open_now.items() if c.deadline <= now and fd not in ready]:
        open_now[fd].end(errno.ETIMEDOUT)
for line in lines:
    words = ("connections", "opened", "answered", "wrong", "refused", "reset", "timed-out")
    times = [f"{t - mark:.1f}" for t in (line.failed[:1] + line.failed[-1:])] or ["-", "-"]
    print(line.name, *(line.counts[word] for word in words), *times,
          line.downloads, line.counts["whole"], sep="\t")
