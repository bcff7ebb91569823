"""The load of tests/lab/ipvs.sh: connects at a fixed rate, never retries, and counts
what became of every single connection.

usage: load.py RATE LIMIT < LINES

A line is "NAME SUBNET TARGET PORTS [DOWNLOADS SECONDS]". Thirty addresses of
SUBNET (10.101.0) take turns as the client. With PORTS 0 the kernel chooses the
source port; otherwise all addresses together have so many, which come round again.
RATE is connections per second of each line. One that waits for LIMIT seconds has
timed out.

SIGUSR2 begins DOWNLOADS downloads of SECONDS each. SIGUSR1 marks the time from which
failures are told. SIGTERM ends it, and it prints for each line, tab-separated: NAME,
how many were lost, the same as a table has it, the seconds from the mark to the first
and to the last failure, and how many downloads came whole.
"""
import errno
import itertools
import re
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

RATE, LIMIT = float(sys.argv[1]), float(sys.argv[2])
ADDRESSES, FIRST_PORT = 30, 20000
TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class Line:
    def __init__(self, text):
        self.name, self.subnet, target, ports, *downloads = text.split()
        host, port = target.split(":")
        self.target, self.ports = (host, int(port)), int(ports)
        self.downloads, self.seconds = downloads or (0, 0)
        self.numbers = itertools.count()
        self.results, self.whole = [], []

    def connect(self, limit):
        """A connection from the next source address and port."""
        for number in itertools.islice(self.numbers, max(1, self.ports)):
            s = socket.socket()
            s.settimeout(limit)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = FIRST_PORT + number % self.ports // ADDRESSES if self.ports else 0
            if not self.ports:
                s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            try:
                s.bind((f"{self.subnet}.{1 + number % (self.ports or ADDRESSES) % ADDRESSES}", port))
                s.connect(self.target)
                return s
            except OSError as error:
                s.close()
                # A connection that hangs still has its port: the next one.
                if error.errno not in TAKEN:
                    raise
        raise OSError(errno.EADDRINUSE, "no source port is free")

    def get(self, path, limit):
        """Asks once, and says in a word what became of it."""
        answer = b""
        try:
            with self.connect(limit) as s:
                s.sendall(b"GET %b HTTP/1.1\r\nHost: hello.lab\r\nConnection: close\r\n\r\n" % path.encode())
                while data := s.recv(65536):
                    answer += data
        except TimeoutError:
            return "timed-out"
        except OSError as error:
            return "refused" if error.errno in REFUSED else "no-port" if error.errno in TAKEN else "reset"
        if answer[9:12] not in (b"", b"200"):
            return "wrong"
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
        return "answered" if length and len(body) == int(length[1]) > 0 else "reset"

    def count(self):
        self.results.append((self.get("/", LIMIT), time.monotonic()))

    def download(self):
        self.whole.append(self.get(f"/slow/{self.seconds}", 3 * LIMIT) == "answered")

    def told(self, mark):
        words = [word for word, _ in self.results]
        failed = [f"{at - mark:.1f}" for word, at in self.results if word != "answered"]
        how = [f"{words.count(word)} {word}" for word in ("wrong", "refused", "reset", "timed-out", "no-port")]
        how = ", ".join(word for word in how if not word.startswith("0 "))
        cell = f"**{len(failed)}** of {len(words)} ({how})" if failed else f"0 of {len(words)}"
        return self.name, len(failed), cell, *(failed[:1] + failed[-1:] or "--"), sum(self.whole)


# A thread for each open connection, and signals that are waited for: a read that finds its
# answer returns it, however late a loader that stalled comes to it.
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
lines = [Line(text) for text in sys.stdin]
turns = itertools.cycle(lines)
at = mark = time.monotonic()
number = None
print("started", flush=True)
with ThreadPoolExecutor(2000) as pool:
    while number != signal.SIGTERM:
        got = signal.sigtimedwait(SIGNALS, max(0, at - time.monotonic()))
        number = got and got.si_signo
        if number == signal.SIGUSR1:
            mark = time.monotonic()
        elif number == signal.SIGUSR2:
            for line in lines:
                for _ in range(int(line.downloads)):
                    pool.submit(line.download)
        elif not number:
            at += 1 / RATE / len(lines)
            pool.submit(next(turns).count)
for line in lines:
    print(*line.told(mark), sep="\t")
