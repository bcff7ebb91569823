"""GET /slow/SECONDS is a download that takes so long, a piece every half second."""
import http.server
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seconds = float(self.path.split("/")[2])
        pieces = max(1, int(seconds * 2))
        self.send_response(200)
        self.send_header("Content-Length", str(1000 * pieces))
        self.end_headers()
        for _ in range(pieces):
            self.wfile.write(b"x" * 1000)
            time.sleep(0.5)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args):
        pass


host, port = sys.argv[1:]
Server((host, int(port)), Handler).serve_forever()
