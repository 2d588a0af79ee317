"""Starting a server, looking at its whole process tree, and stopping it by process id (Linux: reads /proc)."""

import os
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 15


def free_port():
    """A port that is free together with the two above it, which some peers take for gRPC and metrics."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port < 65_000 and all(is_free(port + above) for above in (1, 2)):
                return port


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Process:
    """A started server. What it starts in turn belongs to it, also after its parent has gone."""

    def __init__(self, command, environment, folder, log):
        self.log = log
        with open(log, "wb") as output:
            self.started = time.monotonic()
            self.child = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # Every process of the tree that was ever seen, with its time of start: a number alone may be given
        # to a stranger once its process has ended.
        self.seen = {self.child.pid: started_at(self.child.pid)}

    def ended(self):
        return self.child.poll() is not None

    def tree(self):
        """All process ids of the server that are alive."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (fields := stat_of(int(entry))):
                children.setdefault(int(fields[1]), []).append(int(entry))
        waiting = [pid for pid, started in self.seen.items() if started_at(pid) == started]
        while waiting:
            for child in children.get(waiting.pop(), []):
                if child not in self.seen:
                    self.seen[child] = started_at(child)
                    waiting.append(child)
        return [pid for pid, started in self.seen.items() if is_alive(pid) and started_at(pid) == started]

    def memory_mb(self):
        """Resident memory of the tree, in MB of a million bytes: (pages counted in every process that maps
        them, pages shared among processes counted once)."""
        resident = proportional = 0
        for pid in self.tree():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as lines:
                    for line in lines:
                        if line.startswith("Rss:"):
                            resident += int(line.split()[1])
                        elif line.startswith("Pss:"):
                            proportional += int(line.split()[1])
            except OSError:
                continue  # it ended meanwhile
        return round(resident * 1024 / 1e6, 1), round(proportional * 1024 / 1e6, 1)

    def cpu_seconds(self):
        """Processor time of the tree's living processes."""
        spent = 0
        for pid in self.tree():
            if fields := stat_of(pid):
                spent += int(fields[11]) + int(fields[12])
        return spent / TICKS

    def stop(self):
        """Asks the server to end, as an operator would; what is left after a while is killed."""
        signal_all([pid for pid in self.tree() if pid == self.child.pid], signal.SIGTERM)
        if not self.gone_within(STOP_SECONDS):
            signal_all(self.tree(), signal.SIGTERM)
            if not self.gone_within(3):
                signal_all(self.tree(), signal.SIGKILL)
                self.gone_within(5)

    def gone_within(self, seconds):
        deadline = time.monotonic() + seconds
        while self.tree():
            if time.monotonic() > deadline:
                return False
            self.child.poll()  # reaps it
            time.sleep(0.02)
        self.child.wait()
        return True


def stat_of(pid):
    """The fields of /proc/PID/stat behind the command's name: state, parent, …; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def is_alive(pid):
    fields = stat_of(pid)
    return fields is not None and fields[0] not in "ZX"


def started_at(pid):
    """When the process began, in ticks since the machine did; None when it is gone."""
    fields = stat_of(pid)
    return fields[19] if fields else None


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def machine_cpu_seconds():
    """Processor time that all processes of the machine have used, waiting not counted."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _waiting, irq, soft_irq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + soft_irq) / TICKS
