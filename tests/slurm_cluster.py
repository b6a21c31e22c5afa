"""A cluster of one node, of Debian's own Slurm: munged, slurmctld and slurmd on free ports, everything they keep in a folder of the
test's, no systemd and no control groups. Needs root, as slurmd does."""
import os
import pathlib
import shutil
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")

CONFIGURATION = """ClusterName=paritybit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=100000,requeue_setup_env_fail
MinJobAge=20
InactiveLimit=0
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8192 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Programs that are not installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    return [name for name in PROGRAMS if not shutil.which(name, path=path)]


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.daemons = []
        self.host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        self.configuration = self.folder / "slurm.conf"
        self.configuration.write_text(CONFIGURATION.format(host=self.host, folder=self.folder, ports=free_ports(2)))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.environment = dict(os.environ, SLURM_CONF=str(self.configuration), PATH=os.environ["PATH"] + ":/usr/sbin")

    def start(self):
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
                    f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                    f"--seed-file={self.folder}/munged.seed")
        self.until(lambda: (self.folder / "munge.socket").exists(), "munged has no socket")
        self.daemon("slurmctld", "-D", "-i")
        self.daemon("slurmd", "-D", "-N", self.host)
        self.until(lambda: self.call("sinfo", "-h", "-o", "%t").stdout.strip() == "idle", "the node is not idle")

    def daemon(self, name, *args):
        log = (self.folder / f"{name}.out").open("w")
        self.daemons.append(subprocess.Popen([name, *map(str, args)], env=self.environment, stdout=log, stderr=log,
                                             executable=shutil.which(name, path=self.environment["PATH"]),
                                             stdin=subprocess.DEVNULL, start_new_session=True))

    def until(self, ready, what, seconds=60):
        end = time.monotonic() + seconds
        while not ready():
            died = [d.args[0] for d in self.daemons if d.poll() is not None]
            if died or time.monotonic() > end:
                logs = "".join(f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in
                               [*self.folder.glob("*.log"), *self.folder.glob("*.out")])
                raise AssertionError(f"{what}; ended: {died}\n{logs}")
            time.sleep(0.1)

    def call(self, *words):
        return subprocess.run(list(map(str, words)), env=self.environment, capture_output=True, text=True, timeout=60)

    def stop(self):
        self.call("scancel", "--quiet", "--user=root")
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
