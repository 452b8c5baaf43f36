"""`lidcam serve` against `Localizer.stream` on the same machine, and at twice its capacity.

    python benchmarks/suites/bench_serve.py [--model LITE0.onnx] [--rounds 7] [--write NAME]

Throughput: rounds of the same JPEG files through the stream, in this process, and through a server, in a process of its
own, which clients in this process keep busy over loopback; interleaved, each on all cores. Besides wall-clock time,
which other work on the machine stretches, the processor time of both processes is counted: on busy cores it is what a
picture costs. The clients' work is part of the server's time. Overload: requests come at twice the capacity just
measured, on a schedule that does not wait for answers, each on a new connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import lite0
import results

import lidcam_rt

WHAT = (
    "lidcam serve against Localizer.stream, Lite0 at 320, JPEG to class and box, in turns on all cores; "
    "then at twice its capacity"
)
PICTURES, CLIENTS, OVERLOAD_SECONDS, DEADLINE = 48, 8, 20.0, 10.0
#: A round of 48 would be half a second, of which beginning and end, when not all clients are busy, are a tenth.
REPEATS = 8


@contextmanager
def server(model: Path) -> Iterator[tuple[int, int]]:
    """A running server: its port and process."""
    code = "from lidcam_cli.main import main; import sys; main(['serve', *sys.argv[1:]])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(model), "--port", "0", "--deadline", str(DEADLINE)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"ready"' in line:
            break
    else:
        raise SystemExit("the server did not start")
    Thread(target=process.stderr.read, daemon=True).start()
    yield int(json.loads(line)["port"]), process.pid
    process.send_signal(signal.SIGTERM)
    process.wait()


def busy(port: int, files: list[bytes]) -> None:
    """All files through the server, from clients that each wait for their answers."""
    work: SimpleQueue[bytes] = SimpleQueue()
    for data in files:
        work.put(data)

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            try:
                data = work.get_nowait()
            except Empty:
                return
            connection.request("POST", "/v1/localize", data)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert json.loads(answer.read())["box"]

    threads = [Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def overload(port: int, files: list[bytes], rate: float) -> list[tuple[int, float]]:
    """Status and seconds of each request of a schedule."""

    async def one(data: bytes, at: float) -> tuple[int, float]:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/localize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        answer = await reader.read()
        writer.close()
        return int(answer.split(maxsplit=2)[1]), time.perf_counter() - at  # from when it was due

    start = time.perf_counter() + 0.1
    count = int(rate * OVERLOAD_SECONDS)
    return await asyncio.gather(*(one(files[i % len(files)], start + i / rate) for i in range(count)))


def processor_time(pid: int) -> float:
    """Seconds that this process and another one have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Resident memory of a process, MB."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="artifact of EfficientNet-Lite0; by default it is exported")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", metavar="NAME")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or lite0.artifact(Path(folder) / "lite0.onnx")
        files = [path.read_bytes() for path in lite0.photos(Path(folder), PICTURES)] * REPEATS
        times: dict[str, list[float]] = {"stream": [], "server": []}
        processor: dict[str, list[float]] = {"stream": [], "server": []}
        with lidcam_rt.load(model, device="cpu") as localizer, server(model) as (port, pid):
            peers = {"stream": lambda: list(localizer.stream(files)), "server": lambda: busy(port, files)}
            for peer in peers.values():
                peer()
            for _ in range(options.rounds):
                for name, peer in peers.items():
                    start, used = time.perf_counter(), processor_time(pid)
                    peer()
                    processor[name].append((processor_time(pid) - used) / len(files))
                    times[name].append((time.perf_counter() - start) / len(files))
            capacity = 1 / statistics.median(times["server"])
            before = resident(pid)
            outcomes = asyncio.run(overload(port, files, 2 * capacity))
            after = resident(pid)
    share, spread = results.ratio(times["stream"], times["server"])
    processor_share, processor_spread = results.ratio(processor["stream"], processor["server"])
    statuses = Counter(status for status, _ in outcomes)
    accepted = sorted(seconds for status, seconds in outcomes if status == 200)
    rows: dict[str, Any] = {
        "ms_per_picture": {name: round(1e3 * statistics.median(values), 2) for name, values in times.items()},
        "processor_ms_per_picture": {k: round(1e3 * statistics.median(v), 2) for k, v in processor.items()},
        "server_over_stream": {
            "throughput": share,
            "throughput_p10_p90": spread,
            "by_processor_time": processor_share,
            "by_processor_time_p10_p90": processor_spread,
        },
        "overload": {
            "requests_per_second": round(2 * capacity, 1),
            "seconds": OVERLOAD_SECONDS,
            "statuses": {str(status): count for status, count in sorted(statuses.items())},
            "share_429": round(statuses[429] / len(outcomes), 3),
            "accepted_seconds": {
                "p50": round(accepted[len(accepted) // 2], 3),
                "p99": round(accepted[int(len(accepted) * 0.99)], 3),
                "deadline": DEADLINE,
            },
            "resident_mb": [before, after],
        },
    }
    print(json.dumps(rows, indent=1))
    results.write(options.write, WHAT, load, rows, command="python benchmarks/suites/bench_serve.py")


if __name__ == "__main__":
    main()
