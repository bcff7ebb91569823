"""GET /slow/SECONDS is a download that takes so long, a piece every half second."""
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        pieces = max(1, int(float(self.path.split("/")[2]) * 2))
        self.send_response(200)
        self.send_header("Content-Length", str(1000 * pieces))
        self.end_headers()
        for _ in range(pieces):
            self.wfile.write(b"x" * 1000)
            time.sleep(0.5)


ThreadingHTTPServer.request_queue_size = 128  # all downloads begin at once
ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
