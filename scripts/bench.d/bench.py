"""Measures all programs in turn, and holds ours against its goals. `scripts/bench` starts it."""
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import programs
from measure import MIB, Failed, Run, Source, level

SIZE = int(os.environ.get("SIZE_MIB", "1024")) * MIB
RUNS = int(os.environ.get("RUNS", "5"))
WORK = Path(os.environ["WORK"])
ONLY_SMALL = bool(os.environ.get("ONLY_SMALL"))
DISK_FACTOR = 7  # times the size: the source, both sides' copies where a program makes them, and the space filled between runs
NOISE = 0.15  # of one processor taken by other programs, above which a run is told of

AVX512 = " avx512f " in Path("/proc/cpuinfo").read_text()
PLAIN_GOAL = 0.95 if AVX512 else 0.75  # of the faster of rqbit and libtorrent
IROH_GOAL = 2.2  # times iroh-blobs
CPU_GOAL = 1.5  # times rqbit's
DISK_SHARE, DISK_FIXED = 0.01, 2 * MIB  # of the content, and besides
# A file's size; seconds from nothing until another has it, and of its `subscribe`.
SMALL = (("1 KiB", 1 << 10, 1.2, 0.2), ("8 MiB", 8 * MIB, 1.4, 0.3))


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def median(values):
    return statistics.median(list(values))


def most_mib(values):
    return max(values) / MIB


def in_turn(table, source, work):
    """Every program once, then every program again."""
    results = {name: [] for name in table}
    for n in range(1, RUNS + 1):
        for name, send in table.items():
            level(source, work)
            with Run(work / "run", source) as run:
                try:
                    send(run)
                except Failed as failure:
                    raise Failed(f"{name}: {failure}") from failure
                result = run.result()
            results[name].append(result)
            disturbed = result["disturbed"] > NOISE
            say(f"{n}/{RUNS} {name:18} {result['seconds']:7.2f} s {source.size / 1e6 / result['seconds']:7.0f} MB/s"
                + disturbed * f"   other programs took {result['disturbed']:.0%} of a processor")
    return results


def from_nothing(work):
    """What each step took, for each size."""
    results = {}
    for label, size, *_ in SMALL:
        source = Source(work / "source" / "small", size)
        results[label] = []
        for n in range(1, RUNS + 1):
            level(source, work)
            with Run(work / "run", source) as run:
                times = programs.ours_from_nothing(run)
            results[label].append(times)
            say(f"{n}/{RUNS} from nothing, {label}: {sum(times.values()):.2f} s, of which subscribe {times['subscribe']:.2f} s")
    return results


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def sides(results, what, of_runs, form):
    """What the sender and the reader took."""
    return " + ".join(form.format(of_runs([r[what][side] for r in results])) for side in ("seed", "read"))


def print_transfers(results):
    row("program", "s", "MB/s", "slowest–fastest", "processor s, sender + reader", "peak memory MiB",
        "disk beyond the content MiB")
    row("---", *["---:"] * 6)
    for name, runs in results.items():
        seconds = [r["seconds"] for r in runs]
        middle, slowest, fastest = (SIZE / 1e6 / s for s in (median(seconds), max(seconds), min(seconds)))
        row(name, f"{median(seconds):.2f}", f"{middle:.0f}", f"{slowest:.0f}–{fastest:.0f}", sides(runs, "cpu", median, "{:.2f}"),
            sides(runs, "rss", most_mib, "{:.0f}"), sides(runs, "disk", most_mib, "{:.2f}"))


def print_small(results):
    row("from nothing to a file that another has, s", *programs.STEPS, "in all")
    row("---", *["---:"] * (len(programs.STEPS) + 1))
    for label, runs in results.items():
        row(label, *(spread([r[step] for r in runs]) for step in programs.STEPS), spread([sum(r.values()) for r in runs]))


def spread(seconds):
    """The median, and the least and the greatest."""
    return f"{median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"


class Goals:
    """Lines of the last table; counts those that are missed."""

    def __init__(self):
        self.missed = 0
        row("figure", "value", "goal", "")
        row("---", "---:", "---:", "---")

    def line(self, figure, value, goal, unit="", least=False):
        reached = value >= goal if least else value <= goal
        self.missed += not reached
        row(figure, f"{value:.2f}{unit}", f"{'≥' if least else '≤'} {goal:.2f}{unit}", "reached" if reached else "**missed**")


def print_goals(results, small):
    """Returns how many goals are missed."""
    seconds = {name: median(r["seconds"] for r in runs) for name, runs in results.items()}
    cpu = {name: median(sum(r["cpu"].values()) for r in runs) for name, runs in results.items()}
    ours = "megatorrent"
    rqbit = next(name for name in results if name.startswith("rqbit"))
    plain = min((name for name in results if name.startswith(("rqbit", "libtorrent"))), key=seconds.get)
    goals = Goals()
    avx512 = "with" if AVX512 else "without"
    goals.line(f"rate, of {plain}'s, {avx512} AVX-512", seconds[plain] / seconds[ours], PLAIN_GOAL, least=True)
    goals.line("rate, of iroh-blobs'", seconds["iroh-blobs"] / seconds[ours], IROH_GOAL, least=True)
    goals.line("processor time of both sides, of rqbit's", cpu[ours] / cpu[rqbit], CPU_GOAL)
    limit = (SIZE * DISK_SHARE + DISK_FIXED) / MIB
    for side, who in (("seed", "author"), ("read", "subscriber")):
        goals.line(f"disk beyond the content, {who}", max(r["disk"][side] for r in results[ours]) / MIB, limit, " MiB")
    hold_small(goals, small)
    return goals.missed


def hold_small(goals, small):
    for label, _, whole, subscribe in SMALL:
        goals.line(f"{label} from nothing, in all", median(sum(r.values()) for r in small[label]), whole, " s")
        goals.line(f"{label}, `subscribe` alone", median(r["subscribe"] for r in small[label]), subscribe, " s")


def machine():
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), os.uname().machine)
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return (f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} processors, Linux {os.uname().release}, TCP {control}; "
            f"{SIZE // MIB} MiB, {RUNS} runs each, medians; of memory and disk the most.")


def measure_small():
    with tempfile.TemporaryDirectory(prefix="bench-", dir=WORK) as folder:
        (Path(folder) / "source").mkdir()
        small = from_nothing(Path(folder))
    print_small(small)
    print()
    goals = Goals()
    hold_small(goals, small)
    return 1 if goals.missed else 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    WORK.mkdir(parents=True, exist_ok=True)
    if ONLY_SMALL:
        return measure_small()
    free = shutil.disk_usage(WORK).free
    if free < DISK_FACTOR * SIZE:
        raise Failed(f"{WORK} has {free // MIB} MiB free, and {DISK_FACTOR * SIZE // MIB} are needed: set WORK, or SIZE_MIB")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=WORK) as folder:
        work = Path(folder)
        (work / "source").mkdir()
        source = Source(work / "source" / "content", SIZE)
        programs.make_torrent(source)
        results = in_turn(programs.programs(), source, work)
        source.file.unlink()
        small = from_nothing(work)
    print(f"{machine()}\n")
    print_transfers(results)
    print()
    print_small(small)
    print()
    return 1 if print_goals(results, small) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, OSError) as failure:
        say(f"scripts/bench: {failure}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
